"""Trainings as runs in work pools: who goes where, who is dead, what came of it (docs/adr/0050-several-machines.md)."""

import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed
from prefect.utilities.callables import parameter_schema

from components.core.errors import ObjectError, SettingsError, StorageError
from components.pipeline.cells import Cell, announce, at, collect, result_of
from components.pipeline.leases import read_lease
from components.pipeline.params import Params, Pool
from components.storage import Store, open_store
from flows.cell import cell as flow_of_a_cell
from flows.slot import device_limit

log = logging.getLogger("loupe")
ATTEMPTS = 4  # runs of one cell whose workers died; a cell that fails by itself is not tried again
STARTING = 600.0  # seconds that a worker may take from taking a run to its first beat: a machine may have to start
POLL = 15.0  # looks in the time without a beat after which a run counts as dead
PATIENCE = 60.0  # seconds between two lines that say what waits
ENTRY = f"{flow_of_a_cell.__module__}.{flow_of_a_cell.fn.__name__}"
PREFACE = re.compile(r"^Flow run encountered an exception: (\w+: )?")  # of what Prefect says of a failed run
STEP = "prefect.deployments.steps.set_working_directory"


@dataclass
class Going:
    """A run that was started, and when it was last heard of, by this process's clock."""

    cell: Cell
    key: str
    pool: str
    attempt: int
    tries: int  # of this flow
    run: Any
    heard: float = field(default_factory=time.monotonic)
    beat: Any = None


def fan_out(params: Params, cells: Sequence[Cell]) -> dict[str, str]:
    """Make all *cells* in the pools of *params* and put their results into place; why, by name, of those that failed.

    What an earlier flow has made of the same inputs is taken from the store. Raises SettingsError before any start.
    """
    pools = params.pipeline.pools
    _require(pools, cells)
    with get_client(sync_client=True) as client:
        for name, pool in pools.items():
            _set_up(client, name, pool)
        return Fan(params, client, open_store(params.store)).run(cells)


class Fan:
    """The runs of one flow: started where there is room, watched until each has ended."""

    def __init__(self, params: Params, client: SyncPrefectClient, store: Store) -> None:
        self.pools, self.lapse = params.pipeline.pools, params.pipeline.lapse_seconds
        self.client, self.store = client, store
        self.going: list[Going] = []
        self.failed: dict[str, str] = {}
        self.said = time.monotonic()

    def run(self, cells: Sequence[Cell]) -> dict[str, str]:
        sent: dict[Path, str] = {}  # what the detectors of a view share travels once
        waiting = [(one, announce(one, self.store, sent)) for one in cells]
        while waiting or self.going:
            waiting = [one for one in waiting if not self._heard(one[0].name, self._begin, *one)]
            self._say(waiting)
            time.sleep(self.lapse / POLL)
            for one in list(self.going):
                if self._heard(one.cell.name, self._look, one) is None:
                    one.heard = time.monotonic()  # who cannot hear knows nothing of the dead
        return self.failed

    @staticmethod
    def _heard(name: str, ask: Callable[..., bool], *of: Any) -> bool | None:
        """What *ask* says; None while store or server do not answer."""
        try:
            return ask(*of)
        except (StorageError, httpx.HTTPError) as error:
            log.warning("%s: cannot be asked for now (%s)", name, error)
            return None

    def _begin(self, one: Cell, key: str) -> bool:
        """Whether the cell needs no more waiting: a pool had room for it, or it is there already."""
        if (pool := self._room(one.detector)) is None:
            return False
        if tree := result_of(self.store, key):
            log.info("%s: is in the store already", one.name)
            self._collect(one, tree)
        else:
            self._start(one, key, pool, int(read_lease(self.store, at(key)).get("attempt", 0)) + 1)
        return True

    def _room(self, detector: str) -> str | None:
        """The pool with the fewest runs of those that take *detector* and have room."""
        busy = {name: sum(one.pool == name for one in self.going) for name in self.pools}
        free = [n for n, p in self.pools.items() if p.takes(detector) and (p.runs is None or busy[n] < p.runs)]
        return min(free, key=lambda name: busy[name], default=None)

    def _start(self, one: Cell, key: str, pool: str, attempt: int, tries: int = 1) -> None:
        given = {"store": self.store.address, "key": key, "attempt": attempt, "lapse_seconds": self.lapse}
        given["device"] = self.pools[pool].device
        run: Any = run_deployment(f"cell/{pool}", parameters=given, timeout=0, flow_run_name=one.name)
        log.info("%s: asked of pool %s, run %s", one.name, pool, run.id)
        self.going.append(Going(one, key, pool, attempt, tries, run))

    def _look(self, one: Going) -> bool:
        """Whether it has ended, well or badly; a run that died is begun again."""
        state = self.client.read_flow_run(one.run.id).state
        if tree := result_of(self.store, one.key):
            self._end(one, tree)
        elif state is None or state.is_scheduled() or state.is_paused():
            one.heard = time.monotonic()
        elif state.is_crashed():
            self._again(one, "its worker reports a crash")
        elif state.is_final():
            self._fail(one, state.message or state.type.value)
        elif self._silent(one, STARTING if one.beat is None else self.lapse):
            self.client.set_flow_run_state(one.run.id, Crashed(message="No beat in the store."), force=True)
            self._again(one, f"nothing was heard of it for {time.monotonic() - one.heard:.0f} s")
        return one not in self.going

    def _silent(self, one: Going, seconds: float) -> bool:
        told = read_lease(self.store, at(one.key))
        if told.get("run") == str(one.run.id) and told["beat"] != one.beat:
            one.beat, one.heard = told["beat"], time.monotonic()
        return time.monotonic() - one.heard > seconds

    def _end(self, one: Going, tree: str) -> None:
        self._collect(one.cell, tree)
        self.going.remove(one)
        log.info("%s: done in pool %s", one.cell.name, one.pool)

    def _collect(self, one: Cell, tree: str) -> None:
        try:
            collect(one, self.store, tree)
        except ObjectError as error:
            self.failed[one.name] = str(error)

    def _again(self, one: Going, why: str) -> None:
        """Another run takes the cell up from what this one has left in the store."""
        if one.tries >= ATTEMPTS:
            self._fail(one, f"{why}, and so of {ATTEMPTS} runs in a row")
            return
        self.going.remove(one)
        pool = self._room(one.cell.detector) or one.pool
        log.warning("%s: run %s in pool %s is given up, as %s", one.cell.name, one.run.id, one.pool, why)
        self._start(one.cell, one.key, pool, one.attempt + 1, one.tries + 1)

    def _fail(self, one: Going, why: str) -> None:
        self.going.remove(one)
        said = PREFACE.sub("", why.strip().splitlines()[-1].strip())
        self.failed[one.cell.name] = f"{said} (log: {self.store.address}/{at(one.key)}/{one.run.id}.log)"
        log.error("%s: failed in pool %s: %s", one.cell.name, one.pool, said)

    def _say(self, waiting: Sequence[Any]) -> None:
        if time.monotonic() - self.said < PATIENCE:
            return
        self.said = time.monotonic()
        told = ", ".join(f"{one.cell.name} in {one.pool}" for one in self.going)
        log.info("%d wait for room; %s", len(waiting), told)


def _require(pools: dict[str, Pool], cells: Sequence[Cell]) -> None:
    if not PREFECT_API_URL.value():
        raise SettingsError(
            "pipeline.pools: needs a Prefect server with workers, and PREFECT_API_URL names none; set it, or leave the "
            "pools out to train here"
        )
    for one in cells:
        if not any(pool.takes(one.detector) for pool in pools.values()):
            raise SettingsError(f"pipeline.pools: none takes {one.detector}; name it in one, or leave detectors out")


def _set_up(client: SyncPrefectClient, name: str, pool: Pool) -> None:
    """The pool's limit, that of its device, and the deployment of cells in it, as params.yaml says."""
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        raise SettingsError(
            f"pipeline.pools: the server has no work pool {name}; start a worker there, `prefect worker start --pool "
            f"{name} --type process`, which makes it"
        ) from None
    if pool.runs is not None:  # else what somebody has set there stays
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=pool.runs))
    if pool.device:
        client.upsert_global_concurrency_limit_by_name(device_limit(pool.device), pool.at_once)
    client.create_deployment(
        flow_id=client.create_flow(flow_of_a_cell),
        name=name,
        work_pool_name=name,
        entrypoint=ENTRY,
        pull_steps=[{STEP: {"directory": os.environ.get("LOUPE_PROJECT") or str(Path.cwd())}}],
        parameter_openapi_schema=parameter_schema(flow_of_a_cell).model_dump_for_openapi(),
        enforce_parameter_schema=False,
    )
