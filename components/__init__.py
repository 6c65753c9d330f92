"""The work of Loupe: plain functions, paths and settings in, one artefact directory out.

Importing this package sets the environment switches of ``environment.env`` (telemetry off, passive OpenMP waits), so
that they hold before torch or any tool is loaded. A value the user has set already is left alone.
"""

import os
from pathlib import Path

for _line in (Path(__file__).parent / "environment.env").read_text().splitlines():
    if _line and not _line.startswith("#"):
        os.environ.setdefault(*_line.split("=", 1))
