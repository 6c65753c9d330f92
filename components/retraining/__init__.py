"""From a drift verdict to a challenger: candidate normals, a new data version, and the comparison the gate reads."""

from components.retraining.settings import RetrainSettings

__all__ = ["RetrainSettings"]
