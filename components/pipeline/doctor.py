"""Is this machine ready? Each finding says what was looked at, what was found and what to do."""

import ctypes
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components.core.cache import VARIABLE, cache_folder, contents
from components.core.errors import LoupeError
from components.core.places import check_room

DISK_GB = 5.0
Finding = dict[str, Any]


def examine(load: bool = False) -> list[Finding]:
    """All findings, in the order a user would mend them; with *load* torch is loaded, which takes seconds."""
    return [_torch_loaded() if load and check is _torch else check() for check in CHECKS]


def _finding(what: str, ok: bool, found: str, advice: str) -> Finding:
    return {"what": what, "ok": ok, "found": found, "advice": advice}


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return _finding("Python", sys.version_info[:2] in ((3, 11), (3, 12)), version, "use Python 3.11 or 3.12")


def _torch() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return _finding("torch", False, "not installed", "run `make setup`; scoring alone needs only onnxruntime")
    where = f"{name}, by its driver" if (name := _graphics()) else "CPU"
    return _finding("torch", True, f"{version('torch')} on {where}", "")


def _torch_loaded() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:  # files are missing, or a library that they need
        return _finding("torch", False, f"cannot be loaded ({error})", "install it anew: `make setup`")
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return _finding("torch", True, f"{torch.__version__} on {where}", "")


def _graphics() -> str | None:
    """The name of the first GPU by NVIDIA's driver, which answers in milliseconds; None without one."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    failed = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
    return None if failed or driver.cuDeviceGetName(name, 256, device) else name.value.decode(errors="replace")


def _waiting() -> Finding:
    found = os.environ.get("OMP_WAIT_POLICY", "unset")
    return _finding("OMP_WAIT_POLICY", found == "PASSIVE", found, "unset it: torch spins and may run 30 times slower")


def _weights() -> Finding:
    from components.backbones.weights import entry
    from components.core.artefacts import file_hash

    try:
        item = entry("tf_efficientnet_lite0")
        whole = item["path"].exists() and file_hash(item["path"]) == item["sha256"]
        return _finding("backbone weights", whole, str(item["path"]), "the file is missing or changed: `make setup`")
    except LoupeError as error:
        return _finding("backbone weights", False, str(error), "run `make setup`")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return _finding("disk", free >= DISK_GB, f"{free:.0f} GB free", f"free at least {DISK_GB:.0f} GB here")


def _cache() -> Finding:
    folder = cache_folder()
    held = contents(folder / "features")
    try:
        check_room(folder / "features", 0.0)
    except LoupeError as error:
        return _finding("cache", False, str(error), f"name another folder in {VARIABLE}; until then training is slower")
    at = next(path for path in (folder, *folder.parents) if path.exists())
    found = f"{held['bytes'] / 1e9:.2f} GB in {folder}, {shutil.disk_usage(at).free / 1e9:.0f} GB free there"
    return _finding("cache", True, found, "")


def _git() -> Finding:
    return _finding(
        "git", shutil.which("git") is not None, shutil.which("git") or "missing", "install git; DVC needs it"
    )


def _telemetry() -> Finding:
    off = os.environ.get("DO_NOT_TRACK") == "true" and os.environ.get("DVC_NO_ANALYTICS") == "1"
    return _finding("telemetry", off, "off" if off else "partly on", "unset DO_NOT_TRACK and DVC_NO_ANALYTICS")


CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _torch,
    _waiting,
    _weights,
    _disk,
    _cache,
    _git,
    _telemetry,
)
