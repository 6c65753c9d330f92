"""Views of sets of classes: some classes are normal, all others are the anomalies of the test side."""

import pandas as pd

from components.core.errors import DataError, SettingsError
from components.datasets.settings import SplitSettings


def one_class(table: pd.DataFrame, settings: SplitSettings, where: str) -> pd.DataFrame:
    """*table* with its groups as classes: those of ``settings.normal`` are good, or all but ``settings.anomalous``.

    Training pictures of the others are left out. No group is left, as nobody tells a detector the class of a picture:
    the class of an anomaly is its ``defect``. Raises SettingsError, or DataError for what is no set of classes.
    """
    if not settings.classes:
        return table
    known = sorted(set(table["group"]))
    _require(settings, known, where)
    if set(table["label"]) != {"normal"}:
        raise DataError(f"{where}: has defects of its own; split.normal and split.anomalous are for sets of classes")
    good = set(settings.normal or known) - set(settings.anomalous or ())
    bad = ~table["group"].isin(good)
    classed = table.assign(
        label=table["label"].mask(bad, "anomalous"),
        defect=table["group"].where(bad, ""),
        group=table["dataset"],
    )
    return classed[~bad | (table["role"] == "test")].reset_index(drop=True)


def _require(settings: SplitSettings, known: list[str], where: str) -> None:
    if settings.normal and settings.anomalous:
        raise SettingsError(f"{where}: names normal and anomalous classes; name one of the two, the rest is the other")
    named = settings.normal or settings.anomalous or ()
    missing = [name for name in named if name not in known]
    if missing:
        raise SettingsError(f"{where}: has no class {missing[0]}; known are {', '.join(known)}")
    if not named or set(named) == set(known):
        raise SettingsError(f"{where}: leaves no class on one of the two sides; name some of {', '.join(known)}")
    if settings.together == "group":
        raise SettingsError(f"{where}: split.together group is not for views of classes; leave it out")
