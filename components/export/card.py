"""The model card, written from what is known of the run."""

from typing import Any

from components.backbones.weights import entry
from components.detectors.contract import Detector
from components.settings import plain


def model_card(detector: Detector, identity: dict[str, Any], known: dict[str, Any], parity: dict[str, Any]) -> str:
    """Markdown: use, data, calibration, parity, licences, limits."""
    info, low_high = detector.info, known["false_alarm_interval"]
    backbone = plain(detector.settings).get("backbone", {}).get("name")
    weights = (
        entry(backbone) if backbone else {"licence": "own", "trained_on": "this data set", "source": "trained here"}
    )
    return f"""# {info.title} on {identity["dataset"]} ({identity["groups"]})

**Use.** Finds what differs from the good images it was trained on. Raw score and heat map; higher = more anomalous.
It does not name the kind of defect and knows nothing of products it has not seen.

| | |
|---|---|
| method | {info.paper} ({info.venue} {info.year}) |
| ours where the paper is silent | {"; ".join(info.reconstructed) or "nothing"} |
| model | `{identity["model"]}` |
| data (split table) | `{identity["data"]}` |
| calibration | {known["n"]} held-out good images, false-alarm rate asked for: {known["alpha"]} |
| threshold (raw score) | {known["threshold"]:.6g} |
| true false-alarm rate, {known["confidence"]:.0%} interval | {low_high[0]:.3f} to {low_high[1]:.3f} |
| parity with torch, of the range | score {parity["score_error"]:.1e}, map {parity["map_error"]:.1e} |
| backbone weights | {weights["source"]}; {weights["licence"]}; trained on {weights["trained_on"]} |

**Limits.** The false-alarm rate holds while production looks like the calibration images; watch for drift. Input is RGB
in [0, 1] of any size; the graph resizes to {detector.size} x {detector.size} pixels, so defects smaller than a few
pixels of that picture cannot be seen.

**Run it.** `python runner.py image.png` (onnxruntime, numpy, Pillow).
"""
