"""The model card, written from what is known of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.core.errors import BundleError
from components.decision.bundle import Manifest
from components.decision.calibration import Calibration
from components.pictures.framing import drawn

if TYPE_CHECKING:  # who only moves the rows of an operating point does not wait for torch
    from components.detectors.contract import Detector

EDGE = "| edge graph "
FIRST, LAST = "| calibration |", "| true false-alarm rate"  # rows of the operating point, and what is between


def model_card(
    detector: Detector, manifest: Manifest, known: Calibration, parity: dict[str, Any], runtime: dict[str, Any]
) -> str:
    """Markdown: use, data, calibration, parity, licences, limits."""
    info = detector.info
    groups = "" if manifest.groups == manifest.dataset else f" ({manifest.groups})"  # one that is called as the set
    return f"""# {info.title} on {manifest.dataset}{groups}

**Use.** Finds what differs from the good images it was trained on. Raw score and heat map; higher = more anomalous.
It does not name the kind of defect and knows nothing of products it has not seen.

| | |
|---|---|
| method | {info.paper} ({info.venue} {info.year}) |
| ours where the paper is silent | {"; ".join(info.reconstructed) or "nothing"} |
| model | `{manifest.model}` |
| data (split table) | `{manifest.data}` |
{point_rows(known)}{_of_region(manifest)}
| parity with torch, of the span | score {parity["score_error"]:.1e}, map {parity["map_error"]:.1e}, on \
{" and ".join(f"{n} {side}" for side, n in parity["sides"].items())} images{_undecided(parity)} |\
{_of_runtime(runtime)}{_of_edge(parity)}
| backbone weights | {_weights(detector)} |

**Limits.** The false-alarm rate holds while production looks like the calibration images; watch for drift. Input is RGB
in [0, 1] of any size; the graph resizes to {_sizes(detector)} pixels, so defects smaller
than a few pixels of the largest of these cannot be seen.

**Run it.** `python runner.py image.png` (onnxruntime, numpy, Pillow).
"""


def point_rows(known: Calibration) -> str:
    """The rows that say where the model decides."""
    low, high = known.interval
    said = f"good images, each by one of {known.folds} models without it" if known.folds else "held-out good images"
    return f"""{FIRST} {known.n} {said}, false-alarm rate asked for: {known.alpha} |
| threshold (raw score) | {known.threshold:.6g} |{_of_groups(known)}
{LAST}, {known.confidence:.0%} interval{", nominal" if known.nominal else ""} | {low:.3f} to {high:.3f}\
{f" ({known.nominal})" if known.nominal else ""} |"""


def moved_card(card: str, known: Calibration, parity: dict[str, Any]) -> str:
    """*card* with the rows of another operating point. Raises BundleError where it has no such rows."""
    lines = card.split("\n")
    at = [i for i, line in enumerate(lines) if line.startswith((FIRST, LAST))]
    if len(at) != 2:
        raise BundleError("MODEL_CARD.md: has no rows of an operating point; export the bundle again")
    lines[at[0] : at[1] + 1] = [point_rows(known)]
    kept = [line for line in lines if not line.startswith(EDGE)]
    if "edge" in parity:
        kept.insert(
            next(i for i, line in enumerate(kept) if line.startswith("| parity")) + 1, _of_edge(parity).lstrip()
        )
    return "\n".join(kept)


def _of_region(manifest: Manifest) -> str:
    """Rows that say how the model looks, where that is not everywhere and at the whole at once."""
    rules = manifest.decoding
    said = f"\n| squares | {rules.tiles} across the shorter side |" if rules.tiles else ""
    if rules.roi is None:
        return said
    size, bits = drawn(rules.roi)
    of = f" of pictures like {size[0]} x {size[1]}" if size else ""
    return f"{said}\n| region of interest | {bits.mean():.0%}{of}; nothing outside is scored |"


def _of_runtime(runtime: dict[str, Any]) -> str:
    """Rows that say what computed the graph when it was measured, and of its 8-bit form."""
    said = f"\n| measured with | provider `{runtime['provider']}` |"
    if (int8 := runtime.get("int8")) is None:
        return said
    if not int8["taken"]:
        return f"{said}\n| int8 | tried and not taken: {int8['why']} |"
    return (
        f"{said}\n| int8 | the backbone, {int8['times_faster']:.2f} times as fast; ranks of good images alike to "
        f"{int8['rank_correlation']:.4f}, AUROC on synthetic anomalies {int8['synthetic_auroc_float']:.4f} before, "
        f"{int8['synthetic_auroc']:.4f} with it; calibrated through itself |"
    )


def _weights(detector: Detector) -> str:
    """Source, licence and training data of every frozen network in the detector."""
    from components.backbones.extractor import Backbone
    from components.backbones.weights import entry

    names = dict.fromkeys(part.settings.name for part in detector.modules() if isinstance(part, Backbone))
    said = [f"{e['source']}; {e['licence']}; trained on {e['trained_on']}" for e in map(entry, names)]
    return "; and ".join(said) or "trained here; own; trained on this data set"


def _sizes(detector: Detector) -> str:
    return " and ".join(f"{size} x {size}" for size in dict.fromkeys(detector.sizes))


def _of_groups(known: Calibration) -> str:
    """Rows of the groups that have a table of their own; with none, nothing."""
    said = "\n| threshold of group {} | {:.6g}, from {} good images |"
    return "".join(said.format(name, group.threshold, group.n) for name, group in known.own.items())


def _undecided(parity: dict[str, Any]) -> str:
    """Of how many of them rounding decides what the detector itself says."""
    found = parity.get("undecided")
    return f", {found} of which it sees in two ways that are equally near" if found else ""


def _of_edge(parity: dict[str, Any]) -> str:
    """The row of the edge graph, where there is one."""
    if "edge" not in parity:
        return ""
    edge, leave = parity["edge"], parity["edge"]["leave"]
    return (
        f"\n{EDGE}(`loupe score --cascade`, `cascade.json`) | its parity: "
        f"score {edge['score_error']:.1e}, map {edge['map_error']:.1e}; normal at once: {leave['normals']:.0%} of the "
        f"calibrate normals, {leave['found_synthetic'] or 0:.0%} of {leave['of']} synthetic anomalies that would be "
        "found |"
    )
