"""How variants of a training are written down: read without torch, as the lists of a question are."""

from typing import Any

Overrides = dict[str, Any]  # settings on top of preset cpu
SGSF_PUBLISHED: Overrides = {  # without what is ours
    "guidance": "self",
    "strategies": ["saliency"],
    "copies": 3,
    "epochs": 10,
    "draws": 0,
}
