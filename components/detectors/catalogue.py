"""The catalogue: every detector by the name people type. Adding a method is its own file and one line here."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from typing import TYPE_CHECKING, Any

from components.core.errors import SettingsError
from components.core.settings import build, plain

if TYPE_CHECKING:  # whoever only asks for names does not wait for torch
    from components.detectors.contract import Detector

CATALOGUE = {
    "adtr": "components.detectors.methods.adtr:ADTR",
    "alps": "components.detectors.methods.alps:ALPS",
    "cma_ae": "components.detectors.methods.cma_ae:CMAAE",
    "dsr": "components.detectors.methods.dsr:DSR",
    "fastflow": "components.detectors.methods.fastflow:FastFlow",
    "fmr_net": "components.detectors.methods.fmr_net:FMRNet",
    "msfi": "components.detectors.methods.msfi:MSFI",
    "nln": "components.detectors.methods.nln:NLN",
    "padim": "components.detectors.methods.padim:PaDiM",
    "paedid": "components.detectors.methods.paedid:PAEDID",
    "patchcore": "components.detectors.methods.patchcore:PatchCore",
    "pmb_ae": "components.detectors.methods.pmb_ae:PMBAE",
    "pni": "components.detectors.methods.pni:PNI",
    "prn": "components.detectors.methods.prn:PRN",
    "rstpm": "components.detectors.methods.rstpm:RSTPM",
    "sap2": "components.detectors.methods.sap2:SAP2",
    "sgsf": "components.detectors.methods.sgsf:SGSF",
    "sivt": "components.detectors.methods.sivt:SIVT",
    "uniad": "components.detectors.methods.uniad:UniAD",
}
COMPOSED = {"ensemble": "components.detectors.ensemble:Ensemble"}  # made of trained detectors, never trained itself


def require(name: str) -> None:
    """Raises SettingsError with the nearest name where *name* is none of the catalogue; loads nothing."""
    if name in COMPOSED:
        raise SettingsError(f"{name} is not trained but made of trained runs; type `loupe {name} RUN RUN`")
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(CATALOGUE)}"
        raise SettingsError(f"{name} is not a detector; {hint}")


def detector_class(name: str) -> type[Detector]:
    """The class behind a name of the catalogue, or of what is composed. Raises SettingsError."""
    if name not in COMPOSED:
        require(name)
    module, _, attribute = (CATALOGUE | COMPOSED)[name].partition(":")
    found: type[Detector] = getattr(importlib.import_module(module), attribute)
    return found


def settings_for(name: str, preset: str = "cpu", overrides: dict[str, Any] | None = None) -> Any:
    """A detector's settings: the preset with *overrides* (nested mappings or dotted keys) on top."""
    kind = detector_class(name)
    if preset not in kind.presets:
        raise SettingsError(f"{name} has no preset {preset}; choose one of {', '.join(kind.presets)}")
    values = plain(kind.presets[preset])
    for key, value in (overrides or {}).items():
        _put(values, key.split("."), value, f"{name}.{key}")
    return build(kind.settings_type, values, name)


def _put(values: dict[str, Any], keys: list[str], value: Any, where: str) -> None:
    *parents, last = keys
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise SettingsError(f"{where}: {parent} has no settings below it")
    values[last] = (
        {**values[last], **value} if isinstance(value, dict) and isinstance(values.get(last), dict) else value
    )


def create(name: str, settings: Any, pretrained: bool = True) -> Detector:
    """A new, untrained detector. *pretrained* False leaves the backbone empty, for weights that are loaded next."""
    return detector_class(name)(settings, pretrained)  # type: ignore[call-arg]


def describe(name: str) -> dict[str, Any]:
    """The catalogue's entry as JSON: paper, family, needs, presets."""
    kind = detector_class(name)
    return {"name": name, **dataclasses.asdict(kind.info), "presets": {k: plain(v) for k, v in kind.presets.items()}}
