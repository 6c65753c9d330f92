"""Real data sets that may be on this machine."""

from pathlib import Path

import pytest


def present(name: str, root: Path = Path("data")) -> Path:
    """The folder of a set; the test is skipped where it is not here."""
    if not (root / name).exists():
        pytest.skip(f"{name} is not on this machine; docs/data.md says where it comes from")
    return root / name
