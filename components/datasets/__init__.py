"""Data sets: adapters from native folders, the manifest, splits without leaks, and versions pinned by DVC."""
