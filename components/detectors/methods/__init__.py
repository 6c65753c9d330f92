"""One file per method: its settings and presets, how it learns, how it scores."""
