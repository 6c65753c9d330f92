"""Training: one loop for every detector's stages, with progress, checkpoints and exact resume."""
