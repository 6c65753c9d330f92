"""What each method's mechanisms earn: switched on and off under one short schedule.

What is switched stands in studies.py beside this file. All variants of a method share one short schedule, the split,
the synthetic anomalies and the features of the store; the last epoch stands, nothing is chosen. Test labels only
report. A training is a process on one thread; what it found is stored at once, and one whose settings are unchanged is
skipped.
Writes results/mechanisms.json and results/mechanisms.md.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.asked import Overrides
from benchmarks.common.images import KEPT, SIDE, View
from benchmarks.common.results import RESULTS, WORK, add, commit, stored
from benchmarks.common.runner import apart, beside, one_thread, options
from benchmarks.common.short import figures, label, paired, trained
from benchmarks.common.tables import spread, stacked, wrapped
from benchmarks.common.views import prepare
from benchmarks.mechanisms.studies import STUDIES, Mechanism, studied
from components.core.artefacts import locked, read_json, values_hash, write_json
from components.core.settings import plain
from components.detectors.catalogue import create, settings_for

SEEDS = (0, 1, 2)
HEAD = (
    "mechanism",
    "view",
    "seeds",
    "with",
    "without",
    "difference (95 %)",
    "",
    "pixel AP with",
    "pixel AP without",
)
CUTS = ("difference (95 %)", "pixel AP with")
ABOUT = f"""Image AUROC on the test split. *With*: everything on; *without*: the same, the mechanism off. Over several
seeds the figure is their mean, with the smallest and the largest; a seed moves weights and batches, not the split. The
interval of the difference is a paired bootstrap over test images, widened to the differences of the single seeds; with
one seed, if both sides were trained, by the range of the full method over its seeds. The interval lies above zero:
*helps*; it does not reach above zero: *does not help here*; else *within the noise*. The last epoch stands. Schedules
are short, so the figures are not those of [fit.md](fit.md). Pixel AP is of every second pixel each way of {SIDE}."""


@dataclass(frozen=True)
class Training:
    """One training of *detector*, and the variants that are scored from it: overrides, and the stage behind which."""

    detector: str
    view: str
    seed: int
    trained: tuple[tuple[str, Any], ...]
    scored: tuple[tuple[Overrides, str | None], ...]

    @property
    def name(self) -> str:
        return key(self.detector, self.view, dict(self.trained), self.seed)

    def settings(self, overrides: Overrides) -> Any:
        return settings_for(self.detector, "cpu", {**STUDIES[self.detector].on(self.view), **overrides})

    def variants(self) -> list[tuple[str, Overrides]]:
        """Key and overrides of what is scored."""
        return [(key(self.detector, self.view, overrides, self.seed), overrides) for overrides, _ in self.scored]


def key(detector: str, view: str, overrides: Overrides, seed: int) -> str:
    return f"{view}/{detector}/{label(STUDIES[detector].beside(overrides))}@{seed}"


def main(arguments: list[str]) -> None:
    parser = options("mechanisms", __doc__, jobs=True, report=True)
    parser.add_argument("--again", action="store_true", help="also what was measured with these very settings")
    parser.add_argument("--train", metavar="NAME", help="one training in this process, by its name")
    parser.add_argument("names", nargs="*", metavar="[VIEW/]DETECTOR")
    asked = parser.parse_args(arguments)
    if asked.train:
        detector = "/".join(asked.train.split("/")[:2])
        run(next(t for t in planned([detector]) if t.name == asked.train))
        return
    if asked.report:
        (RESULTS / "mechanisms.md").write_text(page(stored(RESULTS / "mechanisms.json")["studies"]))
        return
    missing = [t for t in planned(asked.names or studied()) if asked.again or not stands(t)]
    for view in {t.view for t in missing}:
        if not View.of(view).split.exists():
            prepare(view)
    beside(asked.jobs, record, missing)
    write()


def planned(names: Iterable[str]) -> list[Training]:
    """All trainings of DETECTOR or VIEW/DETECTOR; every method's first seed comes before the others."""
    pairs = [
        (d, v) for view, _, d in (n.rpartition("/") for n in names) for v in ((view,) if view else STUDIES[d].views)
    ]
    return sorted((t for detector, view in pairs for t in trainings(detector, view)), key=lambda t: t.seed)


def trainings(name: str, view: str) -> Iterator[Training]:
    """The full method for every seed, with all that can be scored from it; the others, main and blind ones thrice."""
    mechanisms = STUDIES[name].asked(view)
    free: dict[str, tuple[Overrides, str | None]] = {label({}): ({}, None)}
    free |= {label(o): (o, m.behind) for m in mechanisms if m.behind for o in m.sides() if o}
    for seed in SEEDS:
        yield Training(name, view, seed, (), tuple(free.values()))
        asked = [m for m in mechanisms if not m.behind and (m.main or view in m.blind or not seed)]
        own = {label(o): o for m in asked for side in m.sides() for o in (STUDIES[name].beside(side),)}
        for what, overrides in own.items():
            if what not in free:
                yield Training(name, view, seed, tuple(overrides.items()), ((overrides, None),))


def stands(training: Training) -> bool:
    """True where all of it was measured with the settings of today."""
    known = runs()
    return all(
        known.get(k, {}).get("settings") == identity(training, overrides) and file(k, "npy").exists()
        for k, overrides in training.variants()
    )


def identity(training: Training, overrides: Overrides) -> str:
    return values_hash([plain(training.settings(dict(training.trained))), plain(training.settings(overrides))])[:16]


def record(training: Training) -> None:
    if not apart("mechanisms", "--train", training.name, KEPT):
        return
    found = {k: read_json(file(k, "json")) for k, _ in training.variants()}
    add(RESULTS / "mechanisms.json", found, "runs")
    with locked(WORK / ".mechanisms"):
        write()
    for k, entry in found.items():
        sys.stderr.write(f"{k}: image AUROC {entry['auroc']:.3f}, {entry['seconds']:.0f} CPU s\n")


def runs() -> dict[str, Any]:
    return dict(stored(RESULTS / "mechanisms.json").get("runs", {}))


def file(name: str, kind: str) -> Path:
    return KEPT / f"{name.replace('/', '_')}.{kind}"


def run(training: Training) -> None:
    """Train, and score every variant behind its stage; one JSON file and the test scores of each to KEPT."""
    one_thread()
    view = View.of(training.view)
    torch.manual_seed(training.seed)
    settings = training.settings(dict(training.trained))
    detector = create(training.detector, settings)
    started, spent = time.process_time(), 0.0
    fit, test = view.fit(), detector.inputs(view.test())

    def score(stage: str | None) -> None:
        nonlocal spent
        now = time.process_time()
        for (k, overrides), (_, behind) in zip(training.variants(), training.scored, strict=True):
            if behind == stage:
                detector.settings = training.settings(overrides)
                keep(k, figures(detector, test, view), training, overrides, now - started - spent)
        detector.settings = settings
        spent += time.process_time() - now

    trained(detector, fit, training.seed, lambda _: 0.5, score)
    score(None)


def keep(
    name: str, found: tuple[dict[str, Any], np.ndarray], training: Training, overrides: Overrides, seconds: float
) -> None:
    entry, scores = found
    np.save(file(name, "npy"), scores)
    about = {"overrides": overrides, "settings": identity(training, overrides), "trained": training.name}
    write_json(file(name, "json"), {**entry, **about, "seconds": round(seconds, 1), "commit": commit()})


def write() -> None:
    """Compare what there is, and write the JSON and the table; a row whose scores lie elsewhere stays as it was."""
    studies = stored(RESULTS / "mechanisms.json").get("studies", {})
    for name in studied():
        before = {(row["what"], row["view"]): row for row in studies.get(name, {}).get("rows", [])}
        pairs = [(m, view) for view in STUDIES[name].views for m in STUDIES[name].asked(view)]
        found = [row for m, view in pairs if (row := compared(name, view, m) or before.get((m.what, view)))]
        if found:
            studies[name] = {"schedules": {v: STUDIES[name].on(v) for v in STUDIES[name].views}, "rows": found}
    add(RESULTS / "mechanisms.json", {"studies": studies})
    (RESULTS / "mechanisms.md").write_text(page(studies))


def compared(name: str, view: str, mechanism: Mechanism) -> dict[str, Any] | None:
    """One row: both sides over the seeds that both have."""
    known = runs()
    pairs = {s: [key(name, view, side, s) for side in mechanism.sides()] for s in SEEDS}
    seeds = [s for s, pair in pairs.items() if all(k in known and file(k, "npy").exists() for k in pair)]
    if not seeds:
        return None
    on, off = ([pairs[s][i] for s in seeds] for i in (0, 1))
    with_it, without = (np.stack([np.load(file(k, "npy")) for k in side]) for side in (on, off))
    low, high = paired(View.of(view).labels(), with_it, without)
    differences = [known[a]["auroc"] - known[b]["auroc"] for a, b in zip(on, off, strict=True)]
    full = [known[k]["auroc"] for s in SEEDS if (k := key(name, view, {}, s)) in known]
    noise = 0.0 if mechanism.behind or len(seeds) > 1 else max(full) - min(full)
    middle = float(np.mean(differences))
    low, high = min(low, *differences, middle - noise), max(high, *differences, middle + noise)
    return {
        "what": mechanism.what,
        "view": view,
        "seeds": seeds,
        "main": mechanism.main,
        "off": mechanism.off,
        "with": [known[k]["auroc"] for k in on],
        "without": [known[k]["auroc"] for k in off],
        "pixel_with": [known[k]["pixel_ap"] for k in on],
        "pixel_without": [known[k]["pixel_ap"] for k in off],
        "difference": middle,
        "interval": [low, high],
        "verdict": verdict(low, high),
    }


def verdict(low: float, high: float) -> str:
    """What the interval of the difference says."""
    if low > 0:
        return "helps"
    return "does not help here" if high <= 0 else "within the noise"


def page(studies: dict[str, Any]) -> str:
    """results/mechanisms.md."""
    parts = ["# Mechanisms", ABOUT]
    for name, study in sorted(studies.items()):
        parts += [f"## {name}", schedule(study), table(study)]
    return "\n\n".join(parts) + "\n"


def schedule(study: dict[str, Any]) -> str:
    """What all variants of one study share."""
    shared: dict[str, list[str]] = {}
    for view, overrides in study["schedules"].items():
        shared.setdefault(label(overrides).replace(";", "`, `"), []).append(view)
    texts = (f"on {' and '.join(views)} `{text}`" for text, views in shared.items())
    return wrapped(f"All variants: preset `cpu`, {'; '.join(texts)}.")


def table(study: dict[str, Any]) -> str:
    """The rows of one study, in Markdown."""
    return stacked(HEAD, [_cells(row) for row in study["rows"]], 2, *CUTS)


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["interval"]
    return [
        f"{row['what']} (main claim)" if row["main"] else row["what"],
        row["view"],
        str(len(row["seeds"])),
        spread(row["with"]),
        spread(row["without"]),
        f"{row['difference']:+.3f} ({low:+.3f} to {high:+.3f})",
        row["verdict"],
        spread(row["pixel_with"]),
        spread(row["pixel_without"]),
    ]
