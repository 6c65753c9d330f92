"""Work spread over processes of this machine, or over those of a Dask scheduler. The one file that knows Dask."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from components.core.errors import PlaceError, SettingsError, StageError

T = TypeVar("T")
RETRIES = 3  # of a shard that fails
CONNECT_S = 30


def spread(
    work: Callable[[int], T], shards: Sequence[int], workers: int | None = None, scheduler: str | None = None
) -> Iterator[T]:
    """Yield what *work* makes of each of the *shards*, as it is done.

    With the address of a *scheduler*, such as tcp://10.0.0.1:8786, by its workers; a shard whose worker is killed goes
    to another one. Else by so many *workers* of this machine, one for each core by default.

    Raises PlaceError where no scheduler answers, StageError where workers of this machine are killed.
    """
    if scheduler and workers:
        raise SettingsError("give --workers for this machine or --scheduler for others, not both")
    if workers is not None and workers < 1:
        raise SettingsError(f"--workers is {workers}; give 1 or more")
    return _by_dask(work, shards, scheduler) if scheduler else _here(work, shards, workers or os.cpu_count() or 1)


def _here(work: Callable[[int], T], shards: Sequence[int], workers: int) -> Iterator[T]:
    if workers == 1 or len(shards) < 2:
        yield from map(work, shards)
        return
    spawned = multiprocessing.get_context("spawn")  # a fork would copy the threads of ONNX Runtime
    with ProcessPoolExecutor(min(workers, len(shards)), spawned) as pool:
        waiting = [pool.submit(work, number) for number in shards]
        try:
            yield from (done.result() for done in as_completed(waiting))
        except BrokenProcessPool:
            raise StageError("a worker was killed; give the same command again: it goes on with the rest") from None
        finally:
            for task in waiting:
                task.cancel()


def _by_dask(work: Callable[[int], T], shards: Sequence[int], scheduler: str) -> Iterator[T]:
    with _connected(scheduler) as client:
        from distributed import KilledWorker
        from distributed import as_completed as done_of

        try:
            for task in done_of(client.map(work, shards, pure=False, retries=RETRIES)):
                yield task.result()
        except KilledWorker as error:
            raise StageError(f"a shard ended every worker that tried it ({error}); look at their logs") from error


def _connected(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise SettingsError("--scheduler needs Dask; install the extra: pip install 'loupe[dask]'") from error
    try:
        return Client(scheduler, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise PlaceError(f"{scheduler}: no Dask scheduler answers ({error}); start it: dask scheduler") from error
