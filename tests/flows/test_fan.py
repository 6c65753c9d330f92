"""Runs in work pools, with a server that only notes: who goes where, who is dead, and that one failure stops no other.

The same with a real server, workers as processes and a kill: test_pools.py.
"""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Failed, Running, Scheduled

from components.core.errors import ParityError, PlaceError, SettingsError, StageError, StorageError
from components.pipeline.cells import at
from components.pipeline.leases import lease_key
from components.pipeline.params import Params, Pipeline, Pool
from components.storage import LocalStore
from flows import fan, train
from flows.fan import ATTEMPTS, Fan, fan_out
from flows.slot import device_limit


class Server:
    """Runs by number; *script* says of each cell what its runs do, one after another."""

    def __init__(self, store, script):
        self.store, self.script, self.runs, self.marked = store, {k: list(v) for k, v in script.items()}, [], []
        self.most = {}

    def start(self, name, parameters, timeout, flow_run_name):
        assert timeout == 0  # nobody waits for it here
        does = self.script[flow_run_name].pop(0)
        run = SimpleNamespace(id=f"run-{len(self.runs)}", name=f"name-{len(self.runs)}", pool=name.split("/")[1])
        run.__dict__.update(given=parameters, does=does, looks=0, ended=False)
        self.runs.append(run)
        busy = sum(not one.ended and one.pool == run.pool for one in self.runs)
        self.most[run.pool] = max(busy, self.most.get(run.pool, 0))
        return run

    def read_flow_run(self, number):
        run = next(run for run in self.runs if run.id == number)
        run.looks += 1
        state = run.does(self, run)
        run.ended = state.is_final()
        return SimpleNamespace(state=state)

    def set_flow_run_state(self, number, state, force):
        self.marked.append((number, state.type.value, force))
        next(run for run in self.runs if run.id == number).ended = True


def well(server, run):
    if run.looks < 3:
        return Running()
    server.store.put(f"{at(run.given['key'])}/result.json", json.dumps({"tree": f"tree of {run.id}"}).encode())
    return Completed()


def badly(_, __):
    return Failed(message="Flow run encountered an exception: StageError: no memory")


def crashed(_, __):
    return Crashed(message="the process went away")


def dead(server, run):
    """It begins, beats once and is never heard of again."""
    if run.looks == 1:
        beat = {"run": run.id, "attempt": run.given["attempt"], "beat": 1}
        server.store.put(lease_key(at(run.given["key"])), json.dumps(beat).encode())
    return Running()


def slowly(server, run):
    """Its beat goes on for longer than the lapse."""
    beat = {"run": run.id, "attempt": run.given["attempt"], "beat": run.looks}
    server.store.put(lease_key(at(run.given["key"])), json.dumps(beat).encode())
    return Running() if run.looks < 40 else well(server, run)


@pytest.fixture
def flown(tmp_path, monkeypatch):
    """The flow over cells and pools; returns the server, what failed and what came home."""
    store = LocalStore(tmp_path)

    def over(script, pools, lapse=2.0):
        server, home = Server(store, script), {}
        monkeypatch.setattr(fan, "announce", lambda cell, *_: f"key-{cell.detector}")
        monkeypatch.setattr(fan, "collect", lambda cell, _, tree: home.update({cell.name: tree}))
        monkeypatch.setattr(fan, "run_deployment", server.start)
        monkeypatch.setattr(fan, "POLL", 200.0)
        params = Params({}, {}, pipeline=Pipeline(pools=pools, lapse_seconds=lapse))
        cells = [SimpleNamespace(name=name, detector=name.split("/")[1]) for name in script]
        failed = Fan(params, server, store).run(cells)
        return server, failed, home

    return over


def test_every_cell_is_made_and_comes_home(flown):
    server, failed, home = flown({f"v/{n}": [well] for n in "abcd"}, {"one": Pool(), "two": Pool()})
    assert failed == {}
    assert set(home) == {"v/a", "v/b", "v/c", "v/d"}
    assert {run.pool for run in server.runs} == {"one", "two"}
    given = server.runs[0].given
    assert set(given) == {"store", "key", "attempt", "lapse_seconds", "device"}  # names and hashes, no artefact


def test_no_pool_has_more_runs_than_its_limit(flown):
    script = {f"v/{n}": [well] for n in "abcdef"}
    server, _, home = flown(script, {"one": Pool(runs=2), "two": Pool(runs=1)})
    assert len(home) == 6
    assert server.most == {"one": 2, "two": 1}


def test_detectors_go_where_they_are_taken(flown):
    pools = {"big": Pool(device="gpu", detectors=("uniad",)), "small": Pool(detectors=("padim",))}
    server, _, _ = flown({"v/uniad": [well], "v/padim@96": [well]}, pools)
    assert [(run.pool, run.given["device"]) for run in server.runs] == [("big", "gpu"), ("small", None)]


def test_a_broken_cell_stops_no_other_and_is_told_with_its_log(flown, tmp_path):
    server, failed, home = flown({"v/a": [badly], "v/b": [well]}, {"one": Pool()})
    assert set(home) == {"v/b"}
    assert failed == {"v/a": f"no memory (log: {tmp_path}/fan/cells/key-a/run-0.log)"}
    assert len(server.runs) == 2


def test_a_run_that_is_silent_is_given_up_and_another_takes_the_cell_up(flown):
    server, failed, home = flown({"v/a": [dead, well]}, {"one": Pool()}, lapse=2.0)
    assert failed == {}
    assert home == {"v/a": "tree of run-1"}
    assert server.marked == [("run-0", "CRASHED", True)]
    assert [run.given["attempt"] for run in server.runs] == [1, 2]


def test_a_run_that_beats_is_left_alone_however_long_it_takes(flown, monkeypatch):
    monkeypatch.setattr(fan, "STARTING", 0.1)
    server, _, home = flown({"v/a": [slowly]}, {"one": Pool()}, lapse=2.0)
    assert home == {"v/a": "tree of run-0"}
    assert server.marked == []


def test_a_cell_whose_workers_always_die_is_given_up(flown):
    server, failed, _ = flown({"v/a": [crashed] * 9, "v/b": [well]}, {"one": Pool()})
    assert len(server.runs) == ATTEMPTS + 1
    assert "runs in a row" in failed["v/a"]


def test_what_waits_for_a_worker_is_not_taken_for_dead(flown, monkeypatch):
    monkeypatch.setattr(fan, "STARTING", 0.0)
    began = time.monotonic()

    def waits(server, run):
        return Scheduled() if time.monotonic() - began < 0.3 else finishes(server, run)

    def finishes(server, run):
        run.looks = 3
        return well(server, run)

    server, _, home = flown({"v/a": [waits]}, {"one": Pool()})
    assert home == {"v/a": "tree of run-0"}
    assert server.marked == []


@pytest.mark.parametrize("error", [StorageError("the store is away"), httpx.ConnectError("no server")])
def test_who_cannot_hear_gives_nobody_up(flown, monkeypatch, error):
    monkeypatch.setattr(fan, "STARTING", 0.2)

    def deaf(server, run):
        if run.looks < 60:
            raise error
        run.looks = 3
        run.does = well
        return well(server, run)

    server, _, home = flown({"v/a": [deaf]}, {"one": Pool()})
    assert home == {"v/a": "tree of run-0"}
    assert server.marked == []


def test_what_is_in_the_store_is_not_made_again(flown, tmp_path):
    LocalStore(tmp_path).put(f"{at('key-a')}/result.json", b'{"tree": "of last week"}')
    server, _, home = flown({"v/a": []}, {"one": Pool()})
    assert home == {"v/a": "of last week"}
    assert server.runs == []


# Settings


def test_pools_need_a_server_and_a_place_for_every_detector():
    params = Params({}, {}, pipeline=Pipeline(pools={"one": Pool(detectors=("padim",))}))
    cell = SimpleNamespace(name="v/uniad", detector="uniad")
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(SettingsError, match="PREFECT_API_URL names none"):
        fan_out(params, [cell])
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), pytest.raises(SettingsError, match="uniad"):
        fan_out(params, [cell])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pools": {"a": Pool()}, "total_minutes": 5}, "total_minutes"),
        ({"pools": {"a": Pool(device="g", at_once=2), "b": Pool(device="g")}}, "at_once"),
        ({"lapse_seconds": 1}, "lapse_seconds"),
    ],
)
def test_settings_that_contradict_are_told(given, said):
    with pytest.raises(SettingsError, match=said):
        Params({}, {}, pipeline=Pipeline(**given))


def test_slips_in_a_pool_are_told():
    for given in ({"runs": 0}, {"at_once": 0}, {"device": "a b"}, {"detectors": ("nope",)}):
        with pytest.raises(SettingsError, match="pool"):
            Pool(**given)
    assert device_limit("h100") == "device-h100"


# The training flow


def test_a_candidate_with_a_failed_member_is_left_out(monkeypatch):
    asked = []
    plan = SimpleNamespace(
        stages=SimpleNamespace(
            view="v",
            params=SimpleNamespace(
                pipeline=SimpleNamespace(
                    total_minutes=None,
                    pools={"one": Pool()},
                    listed=[("a", "b"), ("a", "c")],
                    grows=False,
                    ahead=True,
                )
            ),
        ),
        found=[SimpleNamespace(detector=n, name=n, names=(n,), members=(n,)) for n in "abc"],
    )
    monkeypatch.setattr(train, "reference_of", lambda _: "a")
    monkeypatch.setattr(train, "found_made", lambda _, name: asked.append(f"home {name}") or Path(name))
    monkeypatch.setattr(train, "combine", lambda _, name: asked.append(f"combine {name}"))
    monkeypatch.setattr(train, "evaluate", lambda _, name: Path(name))
    made, _ = train._candidates(plan, {"v/b": "no memory"})
    assert list(made) == ["a", "c", "a+c"]
    assert asked == ["home a", "home c", "combine a+c"]


@pytest.fixture
def flow(monkeypatch):
    """The training flow over two views with tasks that only note that they were called; returns what they noted."""
    asked = []

    def note(what):
        return lambda stages, *more: asked.append(f"{what} {stages.view} {' '.join(map(str, more[:1]))}".strip())

    def over(pools, failed):
        pipeline = Pipeline(ensembles=(), pools=pools, ahead=False)
        params = Params({}, {}, pipeline=pipeline)
        monkeypatch.setattr(train, "asked_for", lambda *_: (params, ["v", "w"], ["a", "b"]))
        monkeypatch.setattr(train, "Stages", lambda params, view, _: made(params, view))
        monkeypatch.setattr(train, "fan_out", lambda _, cells: asked.append([c.name for c in cells]) or failed)
        with disable_run_logger():
            return train.train.fn()

    def made(params, view):
        return SimpleNamespace(
            params=params, view=view, sources=[], folder=Path(view), of=lambda name: Path(view, name)
        )

    def found(_, names):
        return [SimpleNamespace(detector=n, name=n, names=(n,), members=(n,), overrides={}) for n in names]

    monkeypatch.setattr(train, "choose_sizes", found)
    monkeypatch.setattr(train, "members_file", lambda *_: Path("params.yaml"))
    monkeypatch.setattr(train, "reference_of", lambda _: "a")
    monkeypatch.setattr(train, "register", lambda _, stages, names, __: asked.append(f"register {stages.view} {names}"))
    monkeypatch.setattr(train, "rank", lambda made, out: asked.append(sorted(made)) or out)
    monkeypatch.setattr(train, "create_table_artifact", lambda rows, key: asked.append((key, rows)))
    monkeypatch.setattr(train, "evaluate", lambda stages, name: note("evaluate")(stages, name) or Path(name))
    monkeypatch.setattr(train, "found_made", lambda stages, name: note("home")(stages, name) or Path(name))
    for name in ("prepare", "fit"):
        monkeypatch.setattr(train, name, note(name))
    return asked, over


def test_without_pools_a_view_is_done_before_the_next_begins(flow):
    asked, over = flow
    over({}, {})
    each = ["prepare", "fit {} a", "evaluate {} a", "fit {} b", "evaluate {} b", "register {} ['a', 'b']"]
    first = ["prepare v", *(text.format("v") for text in each[1:])]
    assert asked == [*first, *(text.replace(" v", " w") for text in first), ["v/a", "v/b", "w/a", "w/b"]]


@pytest.mark.parametrize(
    ("task", "error"), [("fit", StageError("train of a: was killed")), ("evaluate", ParityError("maps differ"))]
)
def test_a_detector_that_fails_is_left_out_and_told_at_the_end(flow, monkeypatch, caplog, task, error):
    asked, over = flow
    known = getattr(train, task)

    def fails(stages, name, *more):
        if (stages.view, name) == ("v", "a"):
            raise error
        return known(stages, name, *more)

    monkeypatch.setattr(train, task, fails)
    with pytest.raises(StageError, match=rf"1 of 4 failed, the others are done .*: v/a: {error}"):
        over({}, {})
    assert "register v ['b']" in asked
    assert "register w ['a', 'b']" in asked
    assert ["v/b", "w/a", "w/b"] in asked
    assert f"v/a failed and is left out, the others go on: {error}" in caplog.text


def test_where_all_fail_there_is_no_leaderboard(flow, monkeypatch):
    asked, over = flow

    def fails(stages, name, _):
        raise StageError(f"train of {name} on {stages.view}: was killed")

    monkeypatch.setattr(train, "fit", fails)
    with pytest.raises(StageError, match=r"^v/a: train of a on v: was killed; v/b: .*; w/a: .*; w/b: "):
        over({}, {})
    assert not [one for one in asked if "register" in one or isinstance(one, list)]


def test_what_is_no_fault_of_one_detector_ends_the_flow(flow, monkeypatch):
    asked, over = flow

    def full(*_):
        raise PlaceError("the disk is full")

    monkeypatch.setattr(train, "evaluate", full)
    with pytest.raises(PlaceError):
        over({}, {})
    assert asked == ["prepare v", "fit v a"]


def test_with_pools_all_views_are_trained_at_once_and_a_failure_is_told_at_the_end(flow):
    asked, over = flow
    with pytest.raises(StageError, match=r"1 of 4 failed, the others are done \(leaderboard in .*: w/b: no memory"):
        over({"one": Pool()}, {"w/b": "no memory"})
    assert asked[:3] == ["prepare v", "prepare w", ["v/a", "v/b", "w/a", "w/b"]]
    assert asked[3:] == [
        *("home v a", "home v b", "register v ['a', 'b']", "home w a", "register w ['a']", ["v/a", "v/b", "w/a"]),
        ("failed-cells", [{"cell": "w/b", "reason": "no memory"}]),
    ]
