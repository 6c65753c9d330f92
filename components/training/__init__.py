"""Training: one loop for every detector's stages, with progress, checkpoints and exact resume."""

from components.training.component import TrainSettings, train

__all__ = ["TrainSettings", "train"]
