"""OpenVINO behind the face of an ONNX Runtime session: it reads the same graph file, in float32.

onnxruntime-openvino would bring a second ONNX Runtime of the same name, which pip cannot keep beside the first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from components.core.errors import SettingsError

# bfloat16, which OpenVINO takes by itself where the processor has it, does not pass the parity gate.
CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


class Session:
    """``run``, ``get_outputs`` and ``get_modelmeta`` as ONNX Runtime has them; several threads may run it at once."""

    def __init__(self, compiled: Any, metadata: Mapping[str, str]) -> None:
        self.compiled, self.metadata = compiled, dict(metadata)

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs by name, all of them for None; arrays of the caller's own."""
        request = self.compiled.create_infer_request()  # its buffers are its own
        request.infer(dict(feeds))
        names = outputs or [port.get_any_name() for port in self.compiled.outputs]
        return [np.array(request.get_tensor(name).data) for name in names]

    def get_outputs(self) -> list[SimpleNamespace]:
        """The graph's outputs by name."""
        return [SimpleNamespace(name=port.get_any_name()) for port in self.compiled.outputs]

    def get_modelmeta(self) -> SimpleNamespace:
        """What the graph says of itself."""
        return SimpleNamespace(custom_metadata_map=self.metadata)


def opened(model: bytes | Path, threads: int) -> Session:
    """A graph, compiled for the processor. Raises SettingsError where the extra is missing."""
    try:
        import openvino
    except ImportError as error:
        raise SettingsError("provider openvino: is not installed; pip install 'loupe[openvino]', or cpu") from error
    core = openvino.Core()
    content = model.read_bytes() if isinstance(model, Path) else model
    read = core.read_model(content)
    _antialias(read)
    return Session(core.compile_model(read, "CPU", {**CONFIG, "INFERENCE_NUM_THREADS": threads}), metadata_of(content))


def _antialias(model: Any) -> None:
    """Make pictures smaller by products with the weights of a triangle, as torch and ONNX Runtime do.

    OpenVINO reads that a Resize is antialiased and computes it without: maps then differ by a fifth of their span.
    """
    import openvino.opset13 as ops

    for node in model.get_ops():
        if node.get_type_name() != "Interpolate" or not node.get_attributes().get("antialias"):
            continue
        picture, shape = node.input_value(0), node.get_output_partial_shape(0)
        sizes = ops.convert(ops.shape_of(picture), "f32")
        rows, columns = (_weights(ops, sizes, axis, shape[axis].get_length()) for axis in (2, 3))
        done = ops.matmul(ops.matmul(rows, picture, False, False), columns, False, True)
        node.output(0).replace(done.output(0))
    model.validate_nodes_and_infer_types()


def _weights(ops: Any, sizes: Any, axis: int, side: int) -> Any:
    """(side, n): what each of n pixels along *axis* adds to each of *side*, by the distance of their centres."""
    n = ops.gather(sizes, np.int64(axis), np.int64(0))
    step = ops.divide(n, np.float32(side))
    middles = ops.multiply(np.arange(side, dtype=np.float32)[:, None] + np.float32(0.5), step)
    places = ops.add(ops.range(np.float32(0), n, np.float32(1), "f32"), np.float32(0.5))
    apart = ops.abs(ops.subtract(ops.unsqueeze(places, np.int64(0)), middles))
    weights = ops.relu(ops.subtract(np.float32(1), ops.divide(apart, ops.maximum(step, np.float32(1)))))
    return ops.divide(weights, ops.reduce_sum(weights, np.int64(1), True))


def metadata_of(content: bytes) -> dict[str, str]:
    """metadata_props of an ONNX file, which OpenVINO does not hand on: field 14 of ModelProto, of strings 1 and 2."""
    entries = [dict(_fields(value)) for number, value in _fields(content) if number == 14]
    return {entry[1].decode(): entry.get(2, b"").decode() for entry in entries}


def _fields(content: bytes) -> list[tuple[int, bytes]]:
    """The length-delimited fields of one protobuf message; others are passed over."""
    found, at, view = [], 0, memoryview(content)
    while at < len(view):
        key, at = _varint(view, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(view, at)
        elif kind == 2:
            size, at = _varint(view, at)
            found.append((key >> 3, bytes(view[at : at + size]) if key >> 3 != 7 else b""))  # 7: the graph itself
            at += size
        else:
            at += {1: 8, 5: 4}[kind]
    return found


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
