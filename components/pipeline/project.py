"""``loupe init``: a project for a data set of one's own, so that pipeline, service and monitor know it."""

import json
import shutil
from pathlib import Path
from typing import Any

from components.calibration.settings import CalibrationSettings
from components.core.checks import check_name
from components.core.errors import SettingsError
from components.datasets.rows import DEFAULT, Naming
from components.datasets.versions import begin_repository, bring_in
from components.pipeline.params import FOLDERS, load_params

PARAMS = Path("params.yaml")
TEXT = """\
# What Loupe does with {name}. Keys that are absent keep their defaults.
seed: 0

data:
  {name}: {data}

views: # what a detector is trained on; the registered model is called after it
  {name}: {{data: {name}}}

pipeline: # what `loupe pipeline` trains; the evidence chooses among them, without labels
  views: [{name}]
  detectors: [patchcore, padim]

calibration:
  alpha: {alpha:g} # the share of good pictures that may alarm

store: store # score log, labels, pictures, verdicts: a folder, or s3://bucket/prefix

retrain:
  detectors: [patchcore]
"""


def init(
    name: str,
    adapter: str,
    source: Path | None,
    naming: Naming = DEFAULT,
    more: dict[str, Any] | None = None,
    alpha: float = 0.05,
) -> list[str]:
    """Make the current folder a project: data/NAME with its pin, and params.yaml; returns what to do next.

    *more* are keys of the section data, as they were typed. A wrong name or layout leaves nothing. Raises DataError,
    SettingsError.
    """
    check_name(name, "the name", FOLDERS)
    CalibrationSettings(alpha)
    if PARAMS.exists():
        raise SettingsError(f"{PARAMS.resolve()}: is there already; `loupe data add {name}` brings another data set in")
    begun = begin_repository()
    try:
        bring_in(name, adapter, source, naming=naming)
        data = json.dumps({"adapter": adapter, "name": name} | (more or {}))
        PARAMS.write_text(TEXT.format(name=name, data=data, alpha=alpha))
        load_params(PARAMS)
    except BaseException:
        for path in (PARAMS, *begun):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise
    return [f"loupe data check {name}", "loupe pipeline", f"loupe serve {name}", f"loupe monitor {name}"]
