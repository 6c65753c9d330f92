"""Every strategy by its name. Each makes an anomaly of a mask, a source and a blend; the mask is what changed."""

from components.synthesis.artificial import line_defect, spot_defect, texture_defect
from components.synthesis.blending import Strategy, Synthetic, blend
from components.synthesis.confetti import confetti
from components.synthesis.cutpaste import cutpaste, scar
from components.synthesis.draem import perlin_self, perlin_texture
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
}

# Share of the image that an anomaly may cover, where it is not that of the settings.
AREAS = {"shade": AREA}
