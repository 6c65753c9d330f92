"""ONNX Runtime sessions, set up in one place."""

import os
from pathlib import Path
from typing import Any


def session(model: bytes | Path, threads: int | None = None) -> Any:
    """A CPU session that does not spin while idle, so that a busy neighbour costs nothing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or min(8, os.cpu_count() or 1)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
