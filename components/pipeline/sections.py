"""The parts of params.yaml that ``loupe fit`` takes from ``--params`` and ``--set``, for its one data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core.artefacts import YamlError, parsed_yaml
from components.core.errors import SettingsError
from components.core.settings import build
from components.detectors.catalogue import AT, parted

Sections = dict[str, dict[str, Any]]
SECTIONS = ("validation", "data", "split", "synthesis", "train", "calibration", "evaluation", "export")
OF_DATA_SETS = ("validation", "data")  # in params.yaml these are given by the data set's name
OWN = {"train": ("detectors",), "data": ("adapter", "name")}  # told by other options


def sections_of(path: Path, name: str, detector: str) -> tuple[Sections, dict[str, Any]]:
    """The sections of a params file for the data set *name*, and its settings of *detector* by name, at all sizes.

    Raises SettingsError.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: not found; name a file such as params.yaml with --params")
    try:
        values = parsed_yaml(path.read_text()) or {}
    except ValueError as error:  # YamlError, or no text
        raise SettingsError(f"{path}: is no YAML ({error}); mend it") from error
    if not isinstance(values, Mapping):
        raise SettingsError(f"{path}: holds no sections; write for example `validation: {{max_side: 30000}}`")
    found: Sections = {}
    for section in SECTIONS:
        part = values.get(section) or {}
        if not isinstance(part, Mapping):
            raise SettingsError(f"{path}: {section} is {part!r}; give settings below it")
        found[section] = dict(_of_set(part, name) if section in OF_DATA_SETS else part)
    known, base = found["train"].get("detectors") or {}, parted(detector)[0]
    methods = {key: dict(value) for key, value in known.items() if value and key.partition(AT)[0] == base}
    for section, keys in OWN.items():
        for key in keys:
            found[section].pop(key, None)
    return {section: part for section, part in found.items() if part}, methods


def _of_set(part: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Settings below the data set's name; without any names, the section itself; {} where other sets are named only."""
    if isinstance(part.get(name), Mapping):
        return dict(part[name])
    return {} if part and all(isinstance(value, Mapping) for value in part.values()) else part


def assignment(text: str) -> tuple[str, Any]:
    """Key and value of ``--set key=value``. Raises SettingsError."""
    key, sign, value = text.partition("=")
    if not sign:
        raise SettingsError(f"--set {text}: write key=value")
    try:
        return key, parsed_yaml(value)
    except YamlError:
        raise SettingsError(f"--set {text}: the value is no YAML; put it in quotes") from None


def put(sections: Sections, key: str, value: Any) -> bool:
    """Set *key*, such as validation.max_side, if its first part is a section; False if it is a detector's."""
    section, _, rest = key.partition(".")
    if section not in SECTIONS or not rest:
        return False
    if rest.partition(".")[0] in OWN.get(section, ()):
        raise SettingsError(f"--set {key}: is told by other options and arguments of fit; leave it out")
    values = sections.setdefault(section, {})
    *parents, last = rest.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise SettingsError(f"--set {key}: {parent} has no settings below it")
    values[last] = value
    return True


def built(kind: type[Any], sections: Sections, section: str, **given: Any) -> Any:
    """The settings class *kind* of a section; what is *given* and not None comes on top. Raises SettingsError."""
    more = {key: value for key, value in given.items() if value is not None}
    return build(kind, {**sections.get(section, {}), **more}, section)
