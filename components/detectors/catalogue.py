"""The catalogue: every detector by the name people type. Adding a method is its own file and one line here.

A name may say the input size: ``patchcore@384`` is patchcore at 384 pixels, whatever its settings say of the size.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.core.checks import check_known
from components.core.errors import LoupeError, SettingsError
from components.core.settings import build, plain
from components.detectors.facts import facts
from components.detectors.presets import presets_of

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
    "stm_ae": "components.detectors.methods.stm_ae:STMAE",
    "uniad": "components.detectors.methods.uniad:UniAD",
}
WHEN = {  # when to take it, in one line; what was measured is in benchmarks/results/fit.md
    "patchcore": "begin here: nothing to learn, and the best or close to it on every view that was measured",
    "padim": "trained in seconds; parts that always lie alike",
    "pni": "as patchcore, and where on the part a pattern belongs is learned too",
    "fastflow": "learns by gradients; a second opinion beside patchcore",
    "msfi": "small features taught by large ones; no memory bank to search",
    "prn": "where some defects are known: they are learned as well",
    "uniad": "one model for several products",
    "sivt": "one model for several products; features rebuilt from a part of them",
    "adtr": "features rebuilt by a transformer",
    "sap2": "trained in seconds; one vector of the whole picture, so it says little of where",
    "rstpm": "two teachers, one student with a memory",
    "sgsf": "learns from made anomalies, with a gallery of normal features",
    "stm_ae": "videos of a fixed camera: each frame is foretold from those before it",
    "dsr": "learns from made anomalies in a quantised space",
    "fmr_net": "a small graph in front answers where it is certain; for comparison",
    "pmb_ae": "rebuilds pixels from a memory; for comparison",
    "cma_ae": "rebuilds pixels from a memory; for comparison",
    "nln": "rebuilds pixels, compares with the nearest normal ones; for comparison",
    "paedid": "removes noise from pixels; small, for comparison",
    "alps": "rebuilds pixels, trained against itself; the quickest graph, for comparison",
}
FIRST = next(iter(WHEN))  # what a fit takes where none is named
COMPOSED = {"ensemble": "components.detectors.ensemble:Ensemble"}  # made of trained detectors, never trained itself
AT = "@"  # in a name, between the detector and the input size that is asked of it
ALL = "all"  # in a list of detectors: every one of the catalogue
AUTO = "auto"  # sizes by the pictures: docs/sizes.md
Sizes = str | int | tuple[int, ...]  # as they are typed
SMALLEST = 32  # pixels: the deepest taps have a cell for so many


def named(detector: str, size: int) -> str:
    """The name of *detector* at *size* pixels."""
    return f"{detector}{AT}{size}"


def parted(name: str) -> tuple[str, int | None]:
    """The detector that *name* is of, and the size that it asks for, if any. Raises SettingsError for no size."""
    detector, at, size = name.partition(AT)
    if not at:
        return name, None
    if not (size.isascii() and size.isdecimal()) or size[0] == "0":
        raise SettingsError(f"{name}: {size!r} is no size; write pixels behind {AT}, such as {named(detector, 384)}")
    if int(size) < SMALLEST:
        raise SettingsError(f"{name}: {size} pixels are too few for a detector; give {SMALLEST} or more")
    return detector, int(size)


def sizes_of(asked: Sizes, where: str) -> tuple[int, ...] | None:
    """Input sizes as they are typed, 384, "256,384" or a list, smallest first; None: auto. Raises SettingsError."""
    if asked == AUTO:
        return None
    parts = asked.split(",") if isinstance(asked, str) else [asked] if isinstance(asked, int) else list(asked)
    try:
        found = [parted(f"{where}{AT}{str(part).strip()}")[1] for part in parts]
    except SettingsError:
        found = []
    if not found or len(set(found)) < len(found):
        raise SettingsError(
            f"{where} is {asked!r}; give auto, or different sizes from {SMALLEST} pixels, such as 384 or 256,384,512"
        )
    return tuple(sorted(size for size in found if size))


def require(name: str) -> None:
    """Raises SettingsError with the nearest name where *name* is none of the catalogue; loads nothing."""
    base, _ = parted(name)
    if base in COMPOSED:
        raise SettingsError(f"{base} is not trained but made of trained runs; type `loupe {base} RUN RUN`")
    if base not in CATALOGUE:
        near = difflib.get_close_matches(base, CATALOGUE, n=1)
        hint = f"did you mean {near[0]}{name.removeprefix(base)}?" if near else f"known are {', '.join(CATALOGUE)}"
        raise SettingsError(f"{name} is not a detector; {hint}")


def check_detector(name: str, where: str) -> None:
    """Raises SettingsError, with the key *where*, for a name that is no detector's, with or without a size."""
    try:
        base, _ = parted(name)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None
    check_known(base, CATALOGUE, where)


def every(names: Sequence[str]) -> tuple[str, ...]:
    """*names*, with ``all`` for the whole catalogue, in the order in which a budget of time had best be spent.

    First what needs no gradients, as it is trained soonest; then what reads a network that has learned from other
    pictures; last what learns from pixels alone.
    """
    if ALL not in names:
        return tuple(names)
    whole = sorted(CATALOGUE, key=lambda name: _turn(detector_class(name)))
    return tuple(dict.fromkeys(name for given in names for name in (whole if given == ALL else [given])))


def _turn(kind: type[Detector]) -> int:
    if kind.averages_sizes:
        return 0
    return 1 if {"frozen backbone", "two frozen backbones"} & set(kind.info.needs) else 2


def detector_class(name: str) -> type[Detector]:
    """The class behind a name of the catalogue, at any size, or of what is composed. Raises SettingsError."""
    if name not in COMPOSED:
        require(name)
    module, _, attribute = (CATALOGUE | COMPOSED)[parted(name)[0]].partition(":")
    found: type[Detector] = getattr(importlib.import_module(module), attribute)
    return found


def settings_for(name: str, preset: str = "cpu", *overrides: Mapping[str, Any] | None) -> Any:
    """A detector's settings: the preset, *overrides* (nested or dotted keys) in order, then the size in its name."""
    kind = detector_class(name)
    presets = presets_of(kind.presets)
    if preset not in presets:
        raise SettingsError(f"{name} has no preset {preset}; choose one of {', '.join(presets)}")
    values = plain(presets[preset])
    size = parted(name)[1]
    own = {size_key(kind): size} if size else {}
    for given in (*overrides, own):
        for key, value in (given or {}).items():
            _put(values, key.split("."), value, f"{name}.{key}")
    return build(kind.settings_type, values, name)


def size_key(kind: type[Detector]) -> str:
    """The setting that is the input size: of the backbone, or of a method that learns from pixels."""
    return "size" if any(field.name == "size" for field in dataclasses.fields(kind.settings_type)) else "backbone.size"


def size_in(overrides: Mapping[str, Any]) -> int | None:
    """The input size that overrides of a detector name, however they spell it."""
    below = overrides.get("backbone")
    nested = below.get("size") if isinstance(below, Mapping) else None
    return next((s for s in (overrides.get("backbone.size"), nested, overrides.get("size")) if s is not None), None)


def require_size(name: str, settings: Any) -> None:
    """Raises SettingsError where the method behind *name* cannot take the size that it asks for; loads torch."""
    base, size = parted(name)
    if size is None:
        return
    import torch

    takes = f"{base} cannot take pictures of this size"
    try:
        with torch.inference_mode():
            create(name, settings, pretrained=False).eval()(torch.zeros(1, 3, size, size))
    except LoupeError as error:
        raise SettingsError(f"{name}: {takes}: {error}") from error
    except (RuntimeError, ValueError, AssertionError) as error:  # of torch and timm, wherever the shapes do not fit
        raise SettingsError(f"{name}: {takes}; give another, such as a multiple of {SMALLEST}") from error


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
    """The catalogue's entry as JSON: paper, family, needs, presets; read without torch. Raises SettingsError."""
    require(name)
    info, stated = facts(*CATALOGUE[parted(name)[0]].split(":"))
    presets = {preset: plain(settings) for preset, settings in presets_of(stated).items()}
    return {"name": name, **dataclasses.asdict(info), "presets": presets}
