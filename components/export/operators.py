"""Operators of ours that the exporter does not know, in those of ONNX."""

import math
from collections.abc import Callable
from typing import Any

from onnxscript import opset18 as op

from components.backbones import frozen
from components.detectors.parts import lists


def least_in_lists(queries: Any, centres: Any, rows: Any, ends: list[int], probes: int, limit: float) -> Any:
    """``detectors.parts.lists.least_in_lists`` with a branch for each list."""
    near, nearest = op.TopK(_products(queries, centres), _numbers(probes), axis=1, largest=0)
    beyond = op.Sub(near, op.Slice(near, _numbers(0), _numbers(1), _numbers(1)))
    visited = op.Where(op.LessOrEqual(beyond, op.Constant(value_float=limit)), nearest, _number(lists.NONE))
    pairs = op.Reshape(visited, _numbers(-1))
    places, found = [], []
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        at = op.Reshape(op.NonZero(op.Equal(pairs, _number(number))), _numbers(-1))
        here = op.Gather(queries, op.Div(at, _number(probes)))
        places.append(at)
        found.append(_least(_products(here, op.Slice(rows, _numbers(start), _numbers(end)))))
    none: Any = op.Constant(value_float=math.inf)
    visits = op.ScatterElements(op.Expand(none, op.Shape(pairs)), op.Concat(*places, axis=0), op.Concat(*found, axis=0))
    return _least(op.Reshape(visits, _numbers(-1, probes)))


def _products(queries: Any, rows: Any) -> Any:
    return op.Gemm(queries, rows, op.ReduceSumSquare(rows, _numbers(1), keepdims=0), alpha=-2.0, transB=1)


def _least(block: Any) -> Any:
    return op.ReduceMin(block, _numbers(1), keepdims=0)


def _numbers(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _number(value: int) -> Any:
    return op.Constant(value_int=value)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {lists.OPERATOR: least_in_lists, **frozen.TRANSLATIONS}
