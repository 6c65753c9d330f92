"""What a model and another one must share for one graph to stand for both but for the weights."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from torch import Tensor, nn

from components.core.artefacts import code_hash, values_hash

LIBRARIES = ("torch", "timm", "onnx", "onnxscript")  # whose code a graph is traced through and written by
OWN = frozenset(vars(nn.Module()))  # what every module has
PLAIN = (int, float, str, bool, bytes, type(None))


def kind(model: nn.Module, opset: int, example: Tensor) -> str:
    """What two models must share to be of one graph: program, libraries, every plain value and the shape of tensors."""
    plain = [[name, type(part).__qualname__, _plain(vars(part))] for name, part in model.named_modules()]
    shapes = [[name, str(value.dtype), list(value.shape)] for name, value in tensors(model).items()]
    program = [code_hash(), *map(version, LIBRARIES)]
    return values_hash([program, opset, list(example.shape), plain, shapes])[:32]


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _plain(values: Mapping[str, Any]) -> list[Any]:
    """What an exporter could write into a graph that is no tensor of the state: numbers, settings, loose tensors."""
    return [[name, _said(value)] for name, value in sorted(values.items()) if name not in OWN]


def _said(value: Any) -> Any:
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, Tensor | np.ndarray):
        return digest(np.asarray(value))
    if isinstance(value, Mapping):
        return [[repr(key), _said(one)] for key, one in value.items()]
    if isinstance(value, list | tuple):
        return [_said(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if is_dataclass(value) and not isinstance(value, type):
        return [[field.name, _said(getattr(value, field.name))] for field in fields(value)]
    return getattr(value, "__qualname__", type(value).__qualname__)


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()
