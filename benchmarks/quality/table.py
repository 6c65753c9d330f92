"""The figures of ``loupe bench fit`` as tables and training curves.

Writes results/fit.md and results/curves.png from results/fit.json. Keys are VIEW/DETECTOR, and VIEW/DETECTOR@SEED for
seeds other than 0. Entries of an older form, which timed the whole fit command and nothing of the graph, have "-" where
a figure is missing.
"""

from collections import defaultdict
from itertools import pairwise
from typing import Any

from matplotlib import pyplot as plt

from benchmarks.common.evidence import CHOICE, numbers
from benchmarks.common.fitting import FIT
from benchmarks.common.results import RESULTS, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import number, spread, stacked, within
from benchmarks.common.views import named
from components.core.records import NORMAL, phase_of
from components.decision.paired import auroc
from components.detectors.catalogue import CATALOGUE, detector_class

HEAD = (
    "view",
    "detector",
    "marks",
    "AUROC (95 %)",
    "AP",
    "F1-max",
    "pixel AUROC",
    "pixel AP",
    "AUPRO 0.3",
    "false alarms",
    "misses",
    "train s",
    "CPU s",
    "features s",
    "peak MiB",
    "ONNX ms",
    "over bare backbone",
    "learned M",
    "state MB",
)
COST, PIXELS = "train s", "pixel AUROC"  # where a table too wide for the page is cut
SEEDS_HEAD = ("view", "detector", "seeds", "image AUROC", "AP", "misses", "pixel AUROC", "pixel AP", "AUPRO 0.3")
ABOUT = """Seed 0, preset `cpu`, test split. *AUROC* and *AP* are of images. *Train s*: the training process on one
thread, by the clock and, which neighbours on the machine lengthen less, of the processor (*CPU s*);
*features s*: what of that it computed for the feature store.
*ONNX ms*: one image, decoded picture to score, one thread; beside it the ratio to the bare `tf_efficientnet_lite0`.
*Learned M*: millions of weights moved by gradient. *State MB*: the model file.

Marks: **+** measured with uncommitted changes in the tree, so that the commit alone does not reproduce it; **1** pixel
figures of metric version 1, a little lower than today's; **T** not blind: what the method learns from was developed
with a look at the test side of this view ([ADR 0018](../../docs/adr/0018-wide-anomalies.md),
[ADR 0019](../../docs/adr/0019-frozen-guidance.md)); **S** the preset is not the one that synthetic anomalies prefer
([CMA-AE](../../docs/methods/cma_ae.md)); **A** the good test pictures score apart from the calibrate normals: the
AUROC between the two is below 0.25 or above 0.75. The view's test side was taken otherwise (light, place), the detector
sees that too, and its image AUROC tells of both."""
# A fact of how a preset came to be, not of a run: it cannot be told from a result.
LOOKED_AT = {("mtd", "prn"), ("mtd", "sgsf")}
NOT_PREFERRED = {("mtd", "cma_ae")}
ALIKE = (0.25, 0.75)  # AUROC between calibrate normals and good test pictures; 0.5 where they are alike
ABOUT_SEEDS = """Mean, smallest to largest. A seed moves weights, batches and synthetic anomalies; the split goes by
file names and stays. PatchCore draws nothing: its coreset is the same every time."""
Results = dict[str, Any]


def main(arguments: list[str]) -> None:
    options("table", __doc__).parse_args(arguments)
    found = stored(FIT)
    parts = ["# Every detector by view", ABOUT, stacked(HEAD, rows(found, stored(CHOICE)), 2, COST)]
    if several := seed_rows(found):
        parts += ["## Over seeds", ABOUT_SEEDS, stacked(SEEDS_HEAD, several, 2, PIXELS)]
    (RESULTS / "fit.md").write_text("\n\n".join(parts) + "\n")
    curves(found)


def rows(found: Results, checked: Results) -> list[list[str]]:
    """One line per view and detector, seed 0; *checked* holds their scores (results/choice.json)."""
    return [
        cells(view, detector, entry, apart(entry, checked.get(name)))
        for name, entry in sorted(found.items())
        for view, detector, seed in [named(name)]
        if seed == 0
    ]


def apart(entry: dict[str, Any], scores: dict[str, Any] | None) -> bool:
    """Whether good test pictures score apart from calibrate normals; False where the scores are of another run."""
    if scores is None or scores["commit"] != entry["commit"]:
        return False
    found = auroc(numbers(scores["scores"][NORMAL]), numbers(scores["tested"][NORMAL]))
    return not ALIKE[0] <= found <= ALIKE[1]


def cells(view: str, detector: str, entry: dict[str, Any], shifted: bool = False) -> list[str]:
    overall, seconds = entry["overall"], entry["seconds"]
    image, pixel, graph = overall["image"], overall["pixel"], entry.get("onnx", {})
    return [
        view,
        detector,
        marks(view, detector, entry) + "A" * shifted,
        _auroc(image),
        number(image, "ap"),
        number(image, "f1_max"),
        *(number(pixel, k, missing="no masks") for k in ("auroc", "ap", "aupro")),
        *(number(overall[k], "rate") for k in ("false_alarm_rate", "miss_rate")),
        number(seconds, "train", 0),
        number(seconds, "train CPU", 0),
        number(entry.get("features", {}), "seconds_spent", 0),
        str(entry["peak_memory_mb"]),
        number(graph, "ms", 1),
        number(graph, "ratio", 2),
        number(entry.get("parameters", {}), "learned", 2),
        number(entry, "state_mb", 1),
    ]


def marks(view: str, detector: str, entry: dict[str, Any]) -> str:
    """What a reader must know of a row before comparing it, a letter each: see ABOUT."""
    told = {
        "+": entry["commit"].endswith("+"),
        "1": entry.get("metric_version", "1") == "1" and "auroc" in entry["overall"]["pixel"],
        "T": (view, detector) in LOOKED_AT,
        "S": (view, detector) in NOT_PREFERRED,
    }
    return "".join(mark for mark, holds in told.items() if holds)


def _auroc(image: dict[str, Any]) -> str:
    return within(image["auroc"], image["interval"]["auroc"]) if "auroc" in image else "-"


def seed_rows(found: Results) -> list[list[str]]:
    """One line per view and detector that several seeds were measured for."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for name, entry in sorted(found.items()):
        view, detector, _ = named(name)
        groups[view, detector].append(entry["overall"])
    return [seed_cells(*pair, several) for pair, several in sorted(groups.items()) if len(several) > 1]


def seed_cells(view: str, detector: str, several: list[dict[str, Any]]) -> list[str]:
    wanted = (
        ("image", "auroc"),
        ("image", "ap"),
        ("miss_rate", "rate"),
        ("pixel", "auroc"),
        ("pixel", "ap"),
        ("pixel", "aupro"),
    )
    figures = [spread([o[part].get(key) for o in several]) for part, key in wanted]
    return [view, detector, str(len(several)), *figures]


def curves(found: Results) -> None:
    """One panel per method that has epochs, by family: synthetic AUROC solid, loss dotted in its own range."""
    trained: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for name, entry in sorted(found.items()):
        view, detector, seed = named(name)
        if not seed and (steps := [r for r in entry["history"] if "loss" in r]):
            trained[detector][view] = steps
    families = {n: detector_class(n).info.family if n in CATALOGUE else "" for n in trained}
    colours = {v: f"C{i}" for i, v in enumerate(sorted({v for views in trained.values() for v in views}))}
    columns = min(4, max(1, len(trained)))
    lines = max(1, -(-len(trained) // columns))
    figure, axes = plt.subplots(
        lines, columns, figsize=(3.4 * columns, 2.5 * lines + 0.5), layout="constrained", squeeze=False, sharey=True
    )
    for axis, name in zip(axes.flat, sorted(trained, key=lambda n: (families[n], n)), strict=False):
        _panel(axis, name, families[name], trained[name], colours)
    for axis in axes.flat[len(trained) :]:
        axis.set_axis_off()
    shown = [plt.Line2D([], [], color=c, label=v) for v, c in colours.items()]
    shown += [plt.Line2D([], [], color="grey", linestyle="-", label="AUROC")]
    shown += [plt.Line2D([], [], color="grey", linestyle=":", label="loss")]
    figure.legend(handles=shown, loc="outside upper center", ncols=len(shown))
    figure.supxlabel("epochs of all stages", fontsize=9)
    figure.supylabel("image AUROC on synthetic anomalies", fontsize=9)
    figure.savefig(RESULTS / "curves.png", dpi=90, metadata={"Software": None})
    plt.close(figure)


def _panel(axis: Any, name: str, family: str, views: dict[str, list[dict[str, Any]]], colours: dict[str, str]) -> None:
    losses = axis.twinx()
    losses.set_yticks([])
    for view, steps in views.items():
        epochs = range(1, 1 + len(steps))
        checked = [(e, step["synthetic_auroc"]) for e, step in enumerate(steps, 1) if "synthetic_auroc" in step]
        axis.plot(*zip(*checked, strict=True), color=colours[view], marker=".", markersize=3, linewidth=1.2)
        losses.plot(epochs, _by_phase(steps), color=colours[view], linestyle=":", linewidth=0.8)
    longest = max(views.values(), key=len)
    for i, (one, two) in enumerate(pairwise(longest)):
        if phase_of(one) != phase_of(two):
            axis.axvline(i + 1.5, color="lightgrey", linewidth=0.8)
    axis.set_title(f"{name}\n{family.split(';')[0]}", fontsize=8)
    axis.tick_params(labelsize=7)


def _by_phase(steps: list[dict[str, Any]]) -> list[float]:
    """Losses from 0 to 1, each phase in a range of its own."""
    found = []
    for step in steps:
        same = [s["loss"] for s in steps if phase_of(s) == phase_of(step)]
        found.append((step["loss"] - min(same)) / ((max(same) - min(same)) or 1.0))
    return found
