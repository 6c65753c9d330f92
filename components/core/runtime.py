"""ONNX Runtime sessions and the allocator, set up in one place."""

import os
from pathlib import Path
from typing import Any

from components.core.errors import BundleError
from components.core.system import libc

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def cores() -> int:
    """How many threads a session gets unless told otherwise."""
    return min(8, os.cpu_count() or 1)


def session(model: bytes | Path, threads: int | None = None) -> Any:
    """A CPU session that does not spin while idle, so that a busy neighbour costs nothing. Raises BundleError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # classes of the library below, one for each thing that a graph can lack
        said = " ".join(str(error).split())[:200]
        name = model if isinstance(model, Path) else "a graph"
        raise BundleError(f"{name}: is no graph that ONNX Runtime can run ({said}); make it again") from error


def keep_freed_memory() -> None:
    """Let the allocator keep large blocks (glibc only).

    By default each large tensor goes back to the kernel when it is freed, and the next one of its size is paid for page
    by page again: more than half of the time of a backbone in torch on CPU.
    """
    allocator = getattr(libc(), "mallopt", None)
    if allocator:
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            allocator(option, 1 << 30)
