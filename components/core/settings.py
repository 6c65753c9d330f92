"""Typed, frozen settings from plain mappings: unknown keys and wrong types fail with a suggestion.

Every settings class of the project is a frozen dataclass; ``build`` is the one way from YAML, JSON or ``--set`` to it.
"""

import dataclasses
import difflib
import logging
import reprlib
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from components.core.errors import SettingsError

T = TypeVar("T")
log = logging.getLogger("loupe")


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the settings class *cls*; keys that are absent keep their defaults.

    A key that *cls* names in ``RETIRED``, with the reason, is left out with a warning: files of older versions load.
    *where* prefixes each message, for example ``params.yaml: split``. Raises SettingsError.
    """
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise SettingsError(f"{where} is {shown(values)}; give keys with values")
    values = _without_retired(cls, values, where)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    for key in values:
        if key not in known:
            raise SettingsError(f"{where}.{key} is not a setting{_suggest(key, known)}")
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise SettingsError(f"{where}.{name} is missing; add it")
    return cls(**{k: convert(v, hints[k], f"{where}.{k}") for k, v in values.items()})


def _without_retired(cls: type, values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    retired: Mapping[str, str] = getattr(cls, "RETIRED", {})
    for key in retired.keys() & values.keys():
        log.warning("%s.%s is no setting any more and has no effect: %s", where, key, retired[key])
    return {key: value for key, value in values.items() if key not in retired}


def convert(value: Any, hint: Any, where: str) -> Any:
    """Check *value* against the annotation *hint*, turning lists into tuples and mappings into settings classes."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, get_args(hint), where)
    if origin is Literal:
        if not any(value == one and type(value) is type(one) for one in get_args(hint)):
            raise SettingsError(f"{where} is {shown(value)}; choose one of {', '.join(map(repr, get_args(hint)))}")
        return value
    if origin is tuple:
        return _convert_tuple(value, get_args(hint), where)
    if origin is dict and isinstance(value, Mapping):
        kind = get_args(hint)[0]
        return {_key(k, kind): convert(v, get_args(hint)[1], f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(hint, value, where)  # type: ignore[arg-type]
    if hint is float and type(value) is int and abs(value) < 2**1000:  # a larger one is no float
        return float(value)
    if hint is Any or type(value) is hint or (origin is dict and type(value) is dict):
        return value
    raise SettingsError(
        f"{where} is {shown(value)}, a {type(value).__name__}; give a {getattr(hint, '__name__', hint)}"
    )


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 200, 200, 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12


def shown(value: Any) -> str:
    """*value* for a message. An alias within aliases of YAML can stand for more than any memory holds."""
    return _SHORT.repr(value)


def _key(key: Any, kind: Any) -> Any:
    """A key of YAML or JSON, where a number may be a text."""
    return int(key) if kind is int and isinstance(key, str) and key.isdecimal() else key


def _convert_union(value: Any, options: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in options:
        return None
    errors = []
    for option in options:
        if option is type(None):
            continue
        try:
            return convert(value, option, where)
        except SettingsError as error:
            errors.append(str(error))
    raise SettingsError(errors[-1])


def _convert_tuple(value: Any, args: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise SettingsError(f"{where} is {shown(value)}; give a list")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(convert(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(args):
        raise SettingsError(f"{where} has {len(value)} values; give {len(args)}")
    return tuple(convert(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(zip(value, args, strict=True)))


def plain(settings: Any) -> Any:
    """Settings as JSON-ready mappings and lists: the inverse of ``build``."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {f.name: plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
    if isinstance(settings, Mapping):
        return {k: plain(v) for k, v in settings.items()}
    if isinstance(settings, list | tuple):
        return [plain(v) for v in settings]
    return settings


def _suggest(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
