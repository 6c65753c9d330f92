"""Rules that choose a detector without a label, side by side: what each loses against the best detector of a view.

Regret is the image AUROC of the best detector on the test split less that of what a rule takes: a detector, or several
of them as one, the mean of their standardised scores, which may be better than the best detector alone. Rules see
calibrate normals, graded anomalies made on them and nuisances; test labels only say what a choice was worth.
``loupe bench fit`` and ``auto`` store what the rules need (results/choice.json); this trains nothing. Where a view has
the reference as the pipeline trains it, patchcore-auto, that is the reference, its sizes are candidates, and plain
patchcore is none; the best detector is the best of all. A rule with a number to set gets the number that is best on the
other views. Written to benchmarks/results/choice.md.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common.evidence import AUTO, CHOICE, auroc_of, table_of
from benchmarks.common.results import RESULTS, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import joined, markdown, stacked, wrapped
from benchmarks.common.views import named
from components.core.records import NORMAL, NUISANCE
from components.decision.paired import worth
from components.registry.choice import REFERENCE, agreement, by_evidence, grown

OUT = RESULTS / "choice.md"
CERTAINTIES = (0.5, 0.8, 0.9, 0.95, 0.99)
Checks = Mapping[str, pd.DataFrame]  # by detector
Rule = Callable[[Checks], tuple[str, ...]]  # to the detector that is taken, or to the members of an ensemble


def highest(measure: Callable[[pd.DataFrame], float]) -> Rule:
    """The detector with the highest measure."""
    return lambda checks: (max(sorted(checks), key=lambda name: measure(checks[name])),)


def reference(checks: Checks) -> str:
    """The one that another must be better than: as the pipeline trains it, where a view has that."""
    return AUTO if AUTO in checks else REFERENCE


def once(checks: Checks) -> Checks:
    """Each detector once: without the sizes of the one that is there as a whole."""
    return {name: table for name, table in checks.items() if name == AUTO or not name.startswith(f"{REFERENCE}-")}


def always(*names: str) -> Rule:
    """The reference and those of *names* that a view has, as one; its first where it has none of them."""
    return lambda checks: tuple(name for name in (reference(checks), *names) if name in checks) or (sorted(checks)[0],)


def without_nuisances(table: pd.DataFrame) -> float:
    return worth(table[~table["kind"].str.startswith(NUISANCE)])


def quiet(table: pd.DataFrame) -> float:
    """How seldom good pictures as they may come lie above 95 % of the normals, negative."""
    limit = table[table["kind"] == NORMAL]["score"].quantile(0.95)
    return -float((table[table["kind"].str.startswith(NUISANCE)]["score"] > limit).mean())


def consensus(checks: Checks) -> tuple[str, ...]:
    """The detector whose order of the pictures is most like that of the others."""
    known = agreement(once(checks))
    return (max(sorted(known), key=lambda name: known[name]) if known else sorted(checks)[0],)


def certain(share: float) -> Rule:
    return lambda checks: (by_evidence(checks, reference(checks), certain=share).detector,)


RULES: dict[str, Rule] = {
    f"always {REFERENCE}": always(),
    "highest AUROC of graded anomalies": highest(without_nuisances),
    "the same against nuisances too": highest(worth),
    "fewest alarms at nuisances": highest(quiet),
    "consensus": consensus,
    "reference unless certain": certain(0.95),
    f"always {REFERENCE} and padim": always("padim"),
    f"always {REFERENCE} and fastflow": always("fastflow"),
    f"always {REFERENCE}, padim and fastflow": always("padim", "fastflow"),
    "all as one": lambda checks: tuple(sorted(once(checks))),
    "reference unless certain, and whose company is certain": lambda checks: grown(once(checks), reference(checks)),
}


def main(arguments: list[str]) -> None:
    options("choice", __doc__).parse_args(arguments)
    OUT.write_text(page(stored(CHOICE)))


def views_of(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Entries by view and detector, seed 0; a view of one detector leaves nothing to choose and flatters every rule."""
    views: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, entry in sorted(found.items()):
        view, detector, seed = named(name)
        if seed == 0:
            views[view][detector] = entry
    return {view: entries for view, entries in views.items() if len(entries) > 1}


def regret(entries: Mapping[str, Any], rule: Rule) -> tuple[tuple[str, ...], float]:
    """What is taken for a view and what it loses."""
    replaced = REFERENCE if AUTO in entries else None
    chosen = rule({name: table_of(entry) for name, entry in entries.items() if name != replaced})
    found = auroc_of([entries[name] for name in chosen]) if len(chosen) > 1 else entries[chosen[0]]["auroc"]
    return chosen, max(e["auroc"] for e in entries.values()) - found


def left_out(views: Mapping[str, Any]) -> dict[str, tuple[tuple[str, ...], float]]:
    """For each view the choice with the certainty that loses least on the others, the surest of equal ones."""
    lost = {c: {view: regret(entries, certain(c)) for view, entries in views.items()} for c in CERTAINTIES}
    found = {}
    for view in views:
        others = {c: sum(r for v, (_, r) in of.items() if v != view) for c, of in lost.items()}
        found[view] = lost[min(sorted(CERTAINTIES, reverse=True), key=lambda c: round(others[c], 6))][view]
    return found


def worths(views: Mapping[str, Any]) -> list[list[str]]:
    """A row for each detector with its worth on every view where it is trained: what the rules see, labels do not."""
    names = sorted({name for entries in views.values() for name in entries})
    return [
        [name, *(f"{worth(table_of(of[name])):.3f}" if name in of else "-" for of in views.values())] for name in names
    ]


def joint(taken: tuple[str, ...]) -> str:
    """Names of an ensemble; of a large one, which is all there are, their number."""
    return " + ".join(taken) if len(taken) < 5 else f"all {len(taken)}"


def page(found: Mapping[str, Any]) -> str:
    views = views_of(found)
    lines = {name: {v: regret(entries, rule) for v, entries in views.items()} for name, rule in RULES.items()}
    lines["the same, certainty of the other views"] = left_out(views)
    head = ("rule", *views, "mean", "worst")
    rows = [[name, *(f"{r:.3f}" for _, r in of.values()), *_mean_worst(of)] for name, of in lines.items()]
    told = {name: of for name, of in lines.items() if not name.startswith("always")}  # the others' names say it
    chosen = [[name, *(joint(taken) for taken, _ in of.values())] for name, of in told.items()]
    used = [entry for entries in views.values() for entry in entries.values()]
    commits = sorted({str(e["commit"])[:7] + str(e["commit"])[40:] for e in used})
    about = wrapped(
        f"Seed 0, preset cpu, {len(used)} trainings at {', '.join(commits)}. Detectors by view: "
        + "; ".join(f"{view}: {', '.join(entries)}" for view, entries in views.items())
    )
    best = [[v, *max((e["auroc"], d) for d, e in entries.items())[::-1]] for v, entries in views.items()]
    return joined(
        "# Rules that choose a detector without a label",
        about,
        "## Regret, image AUROC",
        stacked(head, rows, 1, "mean"),
        "## What each rule takes",
        stacked(("rule", *views), chosen, 1, *list(views)[4:5]),
        "## Worth, without a label",
        stacked(("detector", *views), worths(views), 1, *list(views)[4:5]),
        "## The best of each view, by test labels",
        markdown(("view", "detector", "image AUROC"), [[v, d, f"{a:.3f}"] for v, d, a in best]),
    )


def _mean_worst(of: Mapping[str, tuple[tuple[str, ...], float]]) -> list[str]:
    lost = [r for _, r in of.values()]
    return [f"{np.mean(lost):.3f}", f"{max(lost):.3f}"]
