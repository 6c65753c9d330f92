"""One model of several products beside a model each: ``python -m benchmarks.unified [--report] [DETECTOR ...]``.

Trains UniAD and SIVT on the view ``unified`` by ``benchmarks.fit``: the same splits, so the same test images, as the
views it joins. ``--report`` trains nothing. benchmarks/results/unified.md is written from results/fit.json; what that
does not hold is said to be not measured.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks import fit
from components.pipeline.params import load_params

VIEW = "unified"
DETECTORS = ("uniad", "sivt")
OUT = Path(__file__).parent / "results" / "unified.md"
HEAD = ("group", "detector", "model", "image AUROC", "95 %", "AP", "pixel AUROC", "pixel AP", "AUPRO 0.3",
        "false alarms", "misses", "threshold")  # fmt: skip
COST = ("detector", "model", "train s", "peak MiB", "state MB")
MISSING = "not measured"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.unified")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("detectors", nargs="*")
    asked = parser.parse_args(arguments)
    detectors = asked.detectors or list(DETECTORS)
    if not asked.report:
        fit.main([f"{VIEW}/{name}" for name in detectors])
    known = fit.stored(fit.RESULTS)
    OUT.write_text(report(known, load_params().view(VIEW).views, detectors))


def report(known: dict[str, Any], groups: tuple[str, ...], detectors: list[str]) -> str:
    """The whole page, from the entries of results/fit.json."""
    side_by_side = [row(known, g, d, joined) for g in groups for d in detectors for joined in (True, False)]
    board = [r for g in groups for r in ranked(known, g)]
    return "\n\n".join((
        "# One model of all groups, and a model per group",
        f"Joined: {', '.join(groups)}. Both sides have the same fit, calibrate and test images; no detector is told "
        "the group. Threshold: whose calibrate normals set it. 95 %: bootstrap over images.",
        table(HEAD, side_by_side),
        "## What they cost\nPer group: the sum of times and states, the largest memory.",
        table(COST, [r for d in detectors for r in costs(known, groups, d)]),
        "## Leaderboard\nPer group every detector measured, best image AUROC first.",
        table(HEAD, board),
    )) + "\n"  # fmt: skip


def table(head: tuple[str, ...], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (list(head), ["---"] * len(head), *lines))


def figures(known: dict[str, Any], group: str, detector: str, joined: bool) -> dict[str, Any] | None:
    """The figures on the test images of *group*, of the unified model or of the group's own."""
    if joined:
        found: dict[str, Any] | None = known.get(f"{VIEW}/{detector}", {}).get("groups", {}).get(group)
        return found
    return known.get(f"{group}/{detector}", {}).get("overall")


def row(known: dict[str, Any], group: str, detector: str, joined: bool) -> list[str]:
    found, model = figures(known, group, detector, joined), VIEW if joined else "per group"
    if found is None:
        return [group, detector, model, *[MISSING] * (len(HEAD) - 3)]
    image, pixel = found["image"], found["pixel"]
    interval = image.get("interval", {}).get("auroc", [])
    return [
        group, detector, model, shown(image, "auroc"), " to ".join(f"{v:.3f}" for v in interval), shown(image, "ap"),
        *(shown(pixel, name, "no masks") for name in ("auroc", "ap", "aupro")),
        *(shown(found[name], "rate") for name in ("false_alarm_rate", "miss_rate")),
        calibrated(known, group, detector, joined),
    ]  # fmt: skip


def shown(figures: dict[str, Any], name: str, absent: str = "not available") -> str:
    return f"{figures[name]:.3f}" if name in figures else absent


def calibrated(known: dict[str, Any], group: str, detector: str, joined: bool) -> str:
    """Whose calibrate normals set the threshold."""
    if not joined:
        return "own"
    return str(known[f"{VIEW}/{detector}"]["calibration"].get(group, "overall"))


def ranked(known: dict[str, Any], group: str) -> list[list[str]]:
    names = sorted({n.split("/")[1] for n in known if n.split("/")[0] in (group, VIEW) and "@" not in n})
    pairs = [(d, joined) for d in names for joined in (True, False)]
    found = {pair: f for pair in pairs if (f := figures(known, group, *pair)) and "auroc" in f["image"]}
    best = sorted(found, key=lambda pair: -found[pair]["image"]["auroc"])
    return [row(known, group, *pair) for pair in best]


def costs(known: dict[str, Any], groups: tuple[str, ...], detector: str) -> list[list[str]]:
    entries = {VIEW: [known.get(f"{VIEW}/{detector}")], "per group": [known.get(f"{g}/{detector}") for g in groups]}
    return [cost(detector, model, parts) for model, parts in entries.items()]


def cost(detector: str, model: str, entries: list[dict[str, Any] | None]) -> list[str]:
    parts = [e for e in entries if e]
    if len(parts) < len(entries):
        return [detector, model, *[MISSING] * (len(COST) - 2)]
    sizes = [e.get("state_mb") for e in parts]
    state = MISSING if None in sizes else f"{sum(sizes):.1f}"
    seconds, peak = sum(e["seconds"]["train"] for e in parts), max(e["peak_memory_mb"] for e in parts)
    return [detector, model, f"{seconds:.0f}", str(peak), state]


if __name__ == "__main__":
    main(sys.argv[1:])
