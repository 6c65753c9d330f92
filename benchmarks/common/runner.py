"""How benchmarks run: options, processes of their own, and what those took."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ONE_THREAD = {"OMP_NUM_THREADS": "1"}


class Usage(NamedTuple):
    """What a process took: seconds by the clock and of the processor, and peak resident MiB."""

    seconds: float
    busy: float
    peak_mb: int


def options(name: str, about: str | None, jobs: bool = False, report: bool = False) -> argparse.ArgumentParser:
    """The parser of one question, with the options that several have."""
    parser = argparse.ArgumentParser(
        prog=f"loupe bench {name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if jobs:
        parser.add_argument("--jobs", type=int, default=1, help="so many trainings beside each other")
    if report:
        parser.add_argument("--report", action="store_true", help="measure nothing: write the tables again")
    return parser


def command(name: str, *words: object) -> list[str]:
    """``loupe bench NAME WORDS`` for a process of its own."""
    return [sys.executable, "-m", "benchmarks", name, *map(str, words)]


def timed(words: list[str], log: Path) -> Usage:
    """Run a command on one thread; raises CalledProcessError if it fails, and *log* says why."""
    started = time.perf_counter()
    with log.open("a") as stream:
        process = subprocess.Popen(words, stderr=stream, env=os.environ | ONE_THREAD)
        # Not ru_maxrss of all children: that of this one alone.
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), words)
    busy = usage.ru_utime + usage.ru_stime
    return Usage(round(time.perf_counter() - started, 1), round(busy, 1), usage.ru_maxrss // 1024)


def staged(step: str, view: str, detector: str, params: Path) -> Usage:
    """One stage of the pipeline in a process of its own on one thread; its log lies beside *params*."""
    words = [sys.executable, "-m", "components.pipeline.stages", step, view, detector, "--params", str(params)]
    return timed(words, params.parent / f"{view}-{detector}.log")


def apart(name: str, option: str, what: str, folder: Path) -> bool:
    """``loupe bench NAME OPTION WHAT`` on one thread; False, with a line that says so, if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    try:
        timed(command(name, option, what), log)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{what}: exit {error.returncode}, see {log}\n")
        return False
    return True


def asking(words: list[str], one_thread: bool = False) -> "subprocess.Popen[str]":
    """Start a command whose last line of output is JSON; ``told`` reads it."""
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=os.environ | (ONE_THREAD if one_thread else {})
    )


def told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait for a process of ``asking``. Raises CalledProcessError if it fails."""
    output, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return dict(json.loads(output.splitlines()[-1]))


def tell(found: Any, indent: int | None = None) -> None:
    """Print JSON on standard output."""
    sys.stdout.write(json.dumps(found, indent=indent) + "\n")


def peak_mb() -> int:
    """The largest resident set of this process so far, in MiB.

    Not ru_maxrss: that of a child begins with what its parent had.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) // 1024


def clocked(call: Callable[..., Any], *words: Any) -> tuple[Any, float]:
    """What a call returns, and the milliseconds it took."""
    started = time.perf_counter()
    found = call(*words)
    return found, 1000 * (time.perf_counter() - started)


def beside(jobs: int, work: Callable[[Any], object], items: Iterable[Any]) -> None:
    """*work* on every item, *jobs* at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, items))


def one_thread() -> None:
    """For a process that trains: one thread, and memory that is freed stays with it."""
    import torch

    from components.core.runtime import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
