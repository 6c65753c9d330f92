"""Training: one loop for every detector's phases, with progress, checkpoints and exact resume."""
