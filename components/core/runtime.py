"""Sessions over ONNX graphs, threads and the allocator, set up in one place: which provider computes, on how many."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from components.core.errors import BundleError, SettingsError
from components.core.system import libc

log = logging.getLogger("loupe")
T = TypeVar("T")
R = TypeVar("R")
SHARE = "LOUPE_CORES"  # how many cores this process is to take of the machine's
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
Provider = Literal["cpu", "openvino", "cuda", "tensorrt"]
# What ONNX Runtime calls them; of each the ones behind it, for what it cannot compute itself.
STATED = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
CHAINS = {"cpu": ["cpu"], "cuda": ["cuda", "cpu"], "tensorrt": ["tensorrt", "cuda", "cpu"]}
WANTED = {
    "cuda": "put onnxruntime-gpu in place of onnxruntime, with CUDA and cuDNN",
    "tensorrt": "put onnxruntime-gpu in place of onnxruntime, with CUDA, cuDNN and TensorRT",
}


class Runs(NamedTuple):
    """Which provider is asked for, None: the one that a bundle was measured with; and what follows if it is another."""

    provider: Provider | None = None
    unmeasured: Literal["warn", "refuse"] = "warn"

    def of(self, measured: str, where: Path) -> str:
        """The provider that the bundle *where* runs with. Raises BundleError where another is refused."""
        if self.provider in (None, measured):
            return measured
        said = f"{where}: was held against its detector with provider {measured}, and {self.provider} is asked for"
        if self.unmeasured == "refuse":
            raise BundleError(f"{said}; export it with export.provider {self.provider}")
        log.warning("%s: scores may differ in the last digits", said)
        return str(self.provider)


OWN = Runs()


def cores() -> int:
    """How many threads a session gets unless told otherwise; one of several processes of a training, its share."""
    return min(8, int(os.environ.get(SHARE) or os.cpu_count() or 1))


def side_by_side(call: Callable[[T], R], given: Iterable[T], most: int | None = None) -> Iterator[R]:
    """What *call* makes of each of *given*, in order, on *most* threads, or one a core.

    No more than that and one are ahead of what is asked for, as they may be large. It is worth it for libraries that
    let other threads run meanwhile: NumPy, SciPy, Pillow, ONNX Runtime.
    """
    count, waiting = most or cores(), deque[Future[R]]()
    with ThreadPoolExecutor(count) as pool:
        for one in given:
            waiting.append(pool.submit(call, one))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Room:
    """At most *size* of something at once; who asks for more than all of it has it for itself."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self.changed = threading.Condition()

    @contextmanager
    def of(self, amount: int) -> Iterator[None]:
        """Within, *amount* is taken; waits until it is free."""
        taken = min(amount, self.size)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= taken)
            self.free -= taken
        try:
            yield
        finally:
            with self.changed:
                self.free += taken
                self.changed.notify_all()


def session(model: bytes | Path, threads: int | None = None, provider: str = "cpu") -> Any:
    """What runs a graph; it does not spin while idle, so that a busy neighbour costs nothing.

    Raises SettingsError where *provider* is not to be had here, BundleError for what is no graph.
    """
    if provider == "openvino":
        from components.core.openvino import opened

        return opened(model, threads or cores())
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    require_provider(provider, onnxruntime.get_available_providers())
    try:
        made = onnxruntime.InferenceSession(source, options, providers=[STATED[name] for name in CHAINS[provider]])
    except Exception as error:  # classes of the library below, one for each thing that a graph can lack
        said = " ".join(str(error).split())[:200]
        name = model if isinstance(model, Path) else "a graph"
        raise BundleError(f"{name}: is no graph that ONNX Runtime can run ({said}); make it again") from error
    require_provider(provider, made.get_providers())  # a library that is missing is left out without a word
    return made


def require_provider(provider: str, available: list[str]) -> None:
    """Raises SettingsError for a provider that is none, or that *available* lacks (ONNX Runtime's names)."""
    if provider not in STATED:
        raise SettingsError(f"provider {provider!r}: is none; choose one of {', '.join([*STATED, 'openvino'])}")
    if STATED[provider] not in available:
        raise SettingsError(f"provider {provider}: this ONNX Runtime cannot use it here; {WANTED[provider]}, or cpu")


def keep_freed_memory() -> None:
    """Let the allocator keep large blocks (glibc only).

    By default each large tensor goes back to the kernel when it is freed, and the next one of its size is paid for page
    by page again: more than half of the time of a backbone in torch on CPU.
    """
    allocator = getattr(libc(), "mallopt", None)
    if allocator:
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            allocator(option, 1 << 30)


def return_freed_memory() -> None:
    """Give what was freed back to the kernel (glibc only): a closed session leaves up to its own size with us else."""
    trim = getattr(libc(), "malloc_trim", None)
    if trim:
        trim(0)
