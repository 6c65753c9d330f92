"""Checks of settings that do not stand alone: each says which key, what it is and what it may be."""

import difflib
import re
from collections.abc import Collection
from datetime import date

from components.core.errors import SettingsError

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true")  # of Lightning Fabric
LARGEST_SEED = 2**32 - 1  # that of numpy and scikit-learn
LARGEST_PORT = 65_535
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_seed(seed: int) -> None:
    """Raises SettingsError for a seed that a random generator would refuse in the middle of a run."""
    if not 0 <= seed <= LARGEST_SEED:
        raise SettingsError(f"seed is {seed}; give a whole number from 0 to {LARGEST_SEED}")


def check_training(precision: str, checkpoint_every: float, store_limit_gb: float, devices: int = 1) -> None:
    """Raises SettingsError for what would stop a training only once it runs."""
    if precision not in PRECISIONS:
        raise SettingsError(f"train.precision is {precision}; choose one of {', '.join(PRECISIONS)}")
    if devices < 1:
        raise SettingsError(f"train.devices is {devices}; give a whole number, 1 or more")
    if not checkpoint_every > 0:
        raise SettingsError(f"train.checkpoint_every is {checkpoint_every:g}; give seconds above 0")
    if not store_limit_gb >= 0:
        raise SettingsError(f"train.store_limit_gb is {store_limit_gb:g}; give gigabytes, 0 or more")


def check_budget(where: str, most: float | None) -> None:
    """Raises SettingsError for a limit that nothing can keep."""
    if most is not None and not most > 0:
        raise SettingsError(f"{where} is {most:g}; give a number above 0, or leave it out")


def check_port(port: int, where: str) -> None:
    """Raises SettingsError for a number that is none of a TCP port; 0 takes a free one."""
    if not 0 <= port <= LARGEST_PORT:
        raise SettingsError(f"{where} is {port}; give a number from 0 to {LARGEST_PORT}")


def check_day(day: str, where: str) -> None:
    """Raises SettingsError for what is no day; an empty text stands for all days."""
    try:
        date.fromisoformat(day or "2026-01-01")
    except ValueError:
        raise SettingsError(f"{where}: {day} is no day; write one such as 2026-11-02") from None


def check_name(name: str, where: str, taken: Collection[str] = ()) -> None:
    """Raises SettingsError for a name that cannot be that of a folder and of a model; *taken* are those of others."""
    if not NAME.fullmatch(name) or name.endswith("."):
        raise SettingsError(
            f"{where}: {name!r} would name a folder and a model; write it with at most 100 of A to Z, a to z, 0 to 9, "
            "dot, dash and underscore, a letter or digit first"
        )
    if name in taken:
        raise SettingsError(f"{where}: {name} is the name of a folder that is not a view's; choose another")


def check_known(name: str, known: Collection[str], where: str) -> None:
    """Raises SettingsError for a name that is none of *known*, with the nearest one."""
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    raise SettingsError(f"{where}: {name} does not exist; {hint}")
