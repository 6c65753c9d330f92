"""Every strategy by its name. Each makes an anomaly of a mask, a source and a blend; the mask is what changed."""

from collections.abc import Sequence

from components.core.errors import SettingsError
from components.synthesis.artificial import line_defect, spot_defect, texture_defect
from components.synthesis.blending import Strategy, Synthetic, blend
from components.synthesis.confetti import confetti
from components.synthesis.cutpaste import cutpaste, scar
from components.synthesis.draem import perlin_self, perlin_texture
from components.synthesis.graded import graded_faint, graded_small, graded_structure, graded_wide
from components.synthesis.natural import natural, natural_blended
from components.synthesis.saliency import saliency
from components.synthesis.settings import SynthesisSettings
from components.synthesis.shade import AREA, shade
from components.synthesis.simulated import heterologous, homologous
from components.synthesis.smudge import smudge

__all__ = ["STRATEGIES", "Strategy", "SynthesisSettings", "Synthetic", "blend"]

STRATEGIES: dict[str, Strategy] = {
    "perlin_texture": perlin_texture,
    "perlin_self": perlin_self,
    "cutpaste": cutpaste,
    "scar": scar,
    "confetti": confetti,
    "saliency": saliency,
    "natural": natural,
    "natural_blended": natural_blended,
    "heterologous": heterologous,
    "homologous": homologous,
    "line_defect": line_defect,
    "spot_defect": spot_defect,
    "texture_defect": texture_defect,
    "smudge": smudge,
    "shade": shade,
    "graded_small": graded_small,
    "graded_faint": graded_faint,
    "graded_wide": graded_wide,
    "graded_structure": graded_structure,
}

# Share of the image that an anomaly may cover, where it is not that of the settings.
ANY = (1e-7, 1.0)  # not empty
AREAS = {"shade": AREA, "graded_small": ANY, "graded_faint": ANY, "graded_wide": AREA, "graded_structure": ANY}

# For checking only: what no detector learned from can choose among detectors.
LOCAL = ("graded_small", "graded_structure")  # sizes in pixels: drawn in a box of the picture as it was taken
GRADED = ("graded_small", "graded_faint", "graded_wide", "graded_structure")


def require_learnable(names: Sequence[str]) -> None:
    """Raises SettingsError where a strategy for checking is among those that a detector is to learn from."""
    for name in names:
        if name in GRADED:
            raise SettingsError(f"strategies: {name} is for checking only; a detector may learn from any other one")
