"""What each detector gave before its faults were mended, and what it gives today.

Before: results/fit.json as an older commit has it (--before COMMIT), kept in results/mended.json. After: today's
results/fit.json, for what ``loupe bench fit`` has measured again since. Same view, seed and test pictures. Nothing is
trained. Between the two lie all changes of a method, its preset and what it is fed, so that a row says what an upgrade
brings, and not what one mend earns. Written to benchmarks/results/mended.md.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.common.fitting import FIT
from benchmarks.common.results import RESULTS, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import joined, stacked, within, wrapped
from benchmarks.common.views import named
from components.core.artefacts import write_json

BEFORE = RESULTS / "mended.json"
FAULTS = {  # faults that could move a figure of an undisturbed training, by method; "all" learn by gradients
    "all": ("epochs were chosen by anomalies and normals that came through different chains of sizes",),
    "nln": ("its bank held patches of one column of positions", "what it knew of positions could not be undone"),
    "msfi": ("its frozen network kept moving its statistics", "learned from anomalies told apart by their colour"),
    "pni": (
        "its classifier ran with dropout while it scored",
        "its refinement learned from forgeries of 128 pixels, enlarged",
        "learned from anomalies told apart by their colour",
    ),
    "fastflow": ("a trainable scale lay before the flow, outside the likelihood",),
    "dsr": ("the box of its mask was not scaled to its input",),
    "pmb_ae": ("its cap undid its own estimate of the error", "what it knew of positions could not be undone"),
    "cma_ae": (
        "learned from anomalies told apart by their colour",
        "what it knew of positions could not be undone",
    ),
    "paedid": ("what it knew of positions could not be undone",),
    "fmr_net": ("learned from anomalies told apart by their colour",),
    "adtr": ("learned from anomalies told apart by their colour",),
    "prn": ("no more than 40 prototypes were kept",),
}
MOVED = ("cma_ae", "nln", "pmb_ae", "alps", "prn")  # whose preset `cpu` became another one since
CLOSED = ("patchcore", "padim")  # no gradients
HEAD = ("view", "detector", "before (95 %)", "after (95 %)", "difference", "pixel AP", "misses")


def main(arguments: list[str]) -> None:
    parser = options("mended", __doc__)
    parser.add_argument("--before", metavar="COMMIT", help="keep the figures of this commit as those of before")
    asked = parser.parse_args(arguments)
    if asked.before:
        write_json(BEFORE, kept(asked.before))
    (RESULTS / "mended.md").write_text(page(stored(BEFORE), stored(FIT)))


def kept(commit: str) -> dict[str, Any]:
    """The headline figures of *commit*'s results, each with the commit that it was measured at."""
    path = FIT.relative_to(Path.cwd()).as_posix() if FIT.is_absolute() else FIT.as_posix()
    words = ["git", "show", f"{commit}:{path}"]
    found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return {name: {"overall": headline(entry["overall"]), "commit": entry["commit"]} for name, entry in found.items()}


def headline(overall: dict[str, Any]) -> dict[str, Any]:
    """Image AUROC with its interval, pixel AP and the share of misses."""
    image = overall["image"]
    return {
        "auroc": image["auroc"],
        "interval": image["interval"]["auroc"],
        "pixel_ap": overall.get("pixel", {}).get("ap"),
        "misses": overall["miss_rate"]["rate"],
    }


def page(before: dict[str, Any], after: dict[str, Any]) -> str:
    again = [n for n, e in sorted(after.items()) if n in before and measured_again(before[n], e) and not named(n)[2]]
    commits = ", ".join(sorted({str(after[name]["commit"])[:7] + str(after[name]["commit"])[40:] for name in again}))
    rows = [row(name, before[name]["overall"], headline(after[name]["overall"])) for name in again]
    methods = sorted({named(name)[1] for name in again} - set(CLOSED))
    return joined(
        "# Before and after the mended faults",
        wrapped(" ".join((__doc__ or "").split("\n\n", 1)[1].split())),
        wrapped(f"Image AUROC on the test split, seed 0, preset `cpu`; after: commit {commits}."),
        stacked(HEAD, rows, 2),
        "## What was mended",
        "\n".join(wrapped(f"- {line}", "  ") for line in told(methods)),
        "Faults of a resumed training, of fewer than 33 normals and of tests move no figure here; tests hold them.",
    )


def measured_again(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return bool(old["commit"] != new["commit"])


def row(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    view, detector, _ = named(name)
    return [
        view,
        detector,
        within(old["auroc"], old["interval"]),
        within(new["auroc"], new["interval"]),
        f"{new['auroc'] - old['auroc']:+.3f}",
        both(old["pixel_ap"], new["pixel_ap"]),
        both(old["misses"], new["misses"]),
    ]


def both(old: float | None, new: float | None) -> str:
    return "no masks" if old is None or new is None else f"{old:.3f} → {new:.3f}"


def told(methods: list[str]) -> list[str]:
    """A line for each method, behind one for all."""
    lines = [f"all that learn by gradients: {'; '.join(FAULTS['all'])}"]
    for name in methods:
        said = [*FAULTS.get(name, ()), *(["its preset `cpu` is another one"] if name in MOVED else [])]
        lines += [f"{name}: {'; '.join(said)}"] if said else []
    return lines
