"""One model of several products beside a model for each of them.

Trains UniAD and SIVT on the view ``unified`` as ``loupe bench fit`` does: the same splits, so the same test images, as
the views it joins. benchmarks/results/unified.md is written from results/fit.json; what that does not hold is said to
be not measured.
"""

from typing import Any

from benchmarks.common.fitting import FIT, fitted
from benchmarks.common.results import RESULTS, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import markdown, number, wrapped
from components.pipeline.params import load_params

VIEW = "unified"
DETECTORS = ("uniad", "sivt")
OUT = RESULTS / "unified.md"
HEAD = (
    "group",
    "detector",
    "model",
    "image AUROC",
    "95 %",
    "AP",
    "pixel AUROC",
    "pixel AP",
    "AUPRO",
    "false alarms",
    "misses",
    "set by",
)
COST = ("detector", "model", "train s", "peak MiB", "state MB")
MISSING, ABSENT = "not measured", "not available"
ABOUT = (
    "Joined: {groups}. Both sides have the same fit, calibrate and test images; no detector is told the group. "
    "Set by: whose calibrate normals set the threshold. 95 %: bootstrap over images. AUPRO: up to a false-positive "
    "rate of 0.3. -: there are no masks."
)


def main(arguments: list[str]) -> None:
    parser = options("unified", __doc__, report=True)
    parser.add_argument("detectors", nargs="*", metavar="DETECTOR")
    asked = parser.parse_args(arguments)
    detectors = asked.detectors or list(DETECTORS)
    if not asked.report:
        fitted([f"{VIEW}/{name}" for name in detectors])
    OUT.write_text(report(stored(FIT), load_params().view(VIEW).views, detectors))


def report(known: dict[str, Any], groups: tuple[str, ...], detectors: list[str]) -> str:
    """The whole page, from the entries of results/fit.json."""
    side_by_side = [row(known, g, d, joined) for g in groups for d in detectors for joined in (True, False)]
    board = [r for g in groups for r in ranked(known, g)]
    return (
        "\n\n".join(
            (
                "# One model of all groups, and a model per group",
                wrapped(ABOUT.format(groups=", ".join(groups))),
                markdown(HEAD, side_by_side),
                "## What they cost\nPer group: the sum of times and states, the largest memory.",
                markdown(COST, [r for d in detectors for r in costs(known, groups, d)]),
                "## Leaderboard\nPer group every detector measured, best image AUROC first.",
                markdown(HEAD, board),
            )
        )
        + "\n"
    )


def figures(known: dict[str, Any], group: str, detector: str, joined: bool) -> dict[str, Any] | None:
    """The figures on the test images of *group*, of the unified model or of the group's own."""
    if joined:
        found: dict[str, Any] | None = known.get(f"{VIEW}/{detector}", {}).get("groups", {}).get(group)
        return found
    return known.get(f"{group}/{detector}", {}).get("overall")


def row(known: dict[str, Any], group: str, detector: str, joined: bool) -> list[str]:
    found, model = figures(known, group, detector, joined), VIEW if joined else "per group"
    if found is None:
        return [group, detector, model, MISSING, *["-"] * (len(HEAD) - 4)]
    image, pixel = found["image"], found["pixel"]
    interval = image.get("interval", {}).get("auroc", [])
    return [
        group,
        detector,
        model,
        number(image, "auroc", missing=ABSENT),
        " to ".join(f"{v:.3f}" for v in interval),
        number(image, "ap", missing=ABSENT),
        *(number(pixel, name, missing="-") for name in ("auroc", "ap", "aupro")),
        *(number(found[name], "rate", missing=ABSENT) for name in ("false_alarm_rate", "miss_rate")),
        calibrated(known, group, detector, joined),
    ]


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
    sizes = [e["state_mb"] for e in parts if "state_mb" in e]
    state = f"{sum(sizes):.1f}" if len(sizes) == len(parts) else MISSING
    seconds, peak = sum(e["seconds"]["train"] for e in parts), max(e["peak_memory_mb"] for e in parts)
    return [detector, model, f"{seconds:.0f}", str(peak), state]
