"""What flows do around their tasks, without a server: whom they ask, in which order, and when they end early."""

from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.logging import disable_run_logger

from components.core.errors import DataError, MonitorError, SettingsError, StageError
from components.pipeline.params import Params, load_params
from components.pipeline.sizing import Sized
from components.pipeline.stages import JOINT
from components.registry.gate import Gate
from components.scorelog import table
from components.service.inbox import Processed
from components.storage import LocalStore
from flows import batch, benchmark, bulk, monitor, retrain, train

AT = datetime(2026, 1, 3, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _quiet():
    with disable_run_logger():
        yield


def test_the_monitor_looks_at_every_model_that_is_watched_unless_told(monkeypatch):
    params = SimpleNamespace()
    monkeypatch.setattr(monitor, "watched_models", lambda _: ["a", "b"])
    monkeypatch.setattr(monitor, "load_params", lambda _: params)
    monkeypatch.setattr(monitor, "look", lambda _, model: [f"{model}: keep"])
    told = []
    monkeypatch.setattr(monitor, "tell", lambda params: told.append(params) or ["event"])
    assert monitor.monitor.fn() == ["a: keep", "b: keep"]
    assert monitor.monitor.fn(models=["c"]) == ["c: keep"]
    assert told == [params, params]


def test_a_model_that_cannot_be_judged_stops_no_other_and_is_told_at_the_end(monkeypatch):
    def look(_, model):
        if model == "a":
            raise MonitorError("the reference is too small")
        return [f"{model}: keep"]

    told = []
    monkeypatch.setattr(monitor, "watched_models", lambda _: ["a", "b"])
    monkeypatch.setattr(monitor, "load_params", lambda _: SimpleNamespace())
    monkeypatch.setattr(monitor, "look", look)
    monkeypatch.setattr(monitor, "tell", lambda _: told.append("told") or [])
    with pytest.raises(MonitorError, match="too small"):
        monitor.monitor.fn()
    assert told == ["told"]


def test_the_inbox_is_emptied_with_the_first_view_and_what_is_quarantined_is_shown(monkeypatch):
    params, asked, shown = SimpleNamespace(pipeline=SimpleNamespace(views=["a", "b"])), [], []
    monkeypatch.setattr(batch, "load_params", lambda _: params)
    monkeypatch.setattr(batch, "create_table_artifact", lambda rows, key: shown.append((key, rows)))

    done = Processed(3, {"bad.png": "is not an image"}, 0)
    monkeypatch.setattr(batch, "empty_inbox", lambda _, name, __: asked.append(name) or done)
    monkeypatch.setattr(batch, "until_empty", lambda work: work(frozenset()))
    assert batch.batch_scoring.fn() == 3
    assert batch.batch_scoring.fn(model="c") == 3
    assert asked == ["a", "c"]
    assert shown[0] == ("quarantined", [{"file": "bad.png", "reason": "is not an image"}])


def test_a_manifest_is_scored_with_the_champion_of_the_first_view_unless_told(monkeypatch):
    params, asked = SimpleNamespace(pipeline=SimpleNamespace(views=["a", "b"])), []
    monkeypatch.setattr(bulk, "load_params", lambda _: params)
    monkeypatch.setattr(bulk, "champion_bundle", lambda _, name: Path(name))
    monkeypatch.setattr(bulk, "score_shards", lambda *given: asked.append(given) or "3 images scored")
    assert bulk.bulk.fn("shards", "out") == "3 images scored"
    bulk.bulk.fn("shards", "out", model="c", scheduler="tcp://host:1")
    assert asked == [("shards", Path("a"), "out", None, None), ("shards", Path("c"), "out", None, "tcp://host:1")]


def test_past_days_are_joined_in_every_table_and_today_is_left(tmp_path):
    store = LocalStore(tmp_path)
    for day in (1, 3):
        for number in range(3):
            at = datetime(2026, 1, day, number, tzinfo=UTC).isoformat()
            row = {
                "record_id": f"{day}{number}",
                "source": "line",
                "scored_at": at,
                "labelled_at": at,
                "label": "defect",
            }
            for name in table.COLUMNS:
                table.write(store, name, f"part-{day}{number}", [{k: row[k] for k in row if k in table.COLUMNS[name]}])
    before = len(list(store.keys()))
    params = Params({}, {}, store=str(tmp_path))
    joined, gone = benchmark.tidy.fn(params, AT)
    assert (joined, gone) == (3 * len(table.COLUMNS), 0)  # of day 1
    left = len(list(store.keys()))
    assert left < before
    assert benchmark.tidy.fn(params, AT) == (0, 0)
    assert len(list(table.newest_first(store, table.SCORES, "line"))) == 6


def test_a_failed_repro_is_one_sentence(monkeypatch):
    said = SimpleNamespace(returncode=1, stdout="", stderr="much\nERROR: locked\n")
    monkeypatch.setattr(benchmark.subprocess, "run", lambda *_, **__: said)
    with pytest.raises(StageError, match=r"dvc repro: \['ERROR: locked'\]"):
        benchmark.reproduce.fn()
    said.returncode = 0
    assert benchmark.reproduce.fn() is None


@pytest.fixture
def benchmarked(monkeypatch):
    """The benchmark over pools, of which DVC says what changed; returns what DVC and the pools were asked."""
    asked, params = {"dvc": [], "cells": []}, load_params(Path("params.yaml"))
    status = '{"train@elpv-mono-fastflow": [], "export@elpv-poly-patchcore": [], "manifest@elpv": []}'

    def dvc(*words):
        asked["dvc"].append(words)
        return status if words[0] == "status" else ""

    def over(failed):
        monkeypatch.setattr(benchmark, "fan_out", lambda _, cells: asked["cells"].extend(cells) or failed)
        benchmark.spread(params, Path("params.yaml"))

    monkeypatch.setattr(benchmark, "dvc", dvc)
    monkeypatch.setattr(benchmark, "reproduce", lambda *targets: asked["dvc"].append(("repro", *targets)))
    return asked, over


def test_pools_make_what_dvc_calls_changed_and_dvc_is_told(benchmarked):
    asked, over = benchmarked
    over({})
    assert [cell.name for cell in asked["cells"]] == ["elpv-mono/fastflow", "elpv-poly/patchcore"]
    first, _, (command, force, *targets) = asked["dvc"]
    assert first == ("repro", "synthesise")
    assert (command, force) == ("commit", "--force")
    cells = ("elpv-mono-fastflow", "elpv-poly-patchcore")
    assert targets == [f"{stage}@{cell}" for cell in cells for stage in ("train", "calibrate", "evaluate", "export")]


def test_dvc_is_not_told_of_a_training_that_failed(benchmarked):
    asked, over = benchmarked
    with pytest.raises(StageError, match="elpv-mono/fastflow: no memory"):
        over({"elpv-mono/fastflow": "no memory"})
    assert not any("fastflow" in word for word in asked["dvc"][-1])
    assert "train@elpv-poly-patchcore" in asked["dvc"][-1]


def test_the_benchmark_report_becomes_an_artefact_and_leaves_the_checkout_alone(monkeypatch, tmp_path):
    shown, committed = [], Path("docs/report/README.md").read_bytes()
    monkeypatch.setattr(benchmark, "create_markdown_artifact", lambda text, key: shown.append((key, text)))
    assert benchmark.publish.fn(tmp_path) == tmp_path / "index.html"
    assert (tmp_path / "index.html").exists()
    assert shown == [("benchmark-report", (tmp_path / "README.md").read_text())]
    assert Path("docs/report/README.md").read_bytes() == committed
    said = SimpleNamespace(returncode=1, stderr="much\nValueError: x\n")
    monkeypatch.setattr(benchmark.subprocess, "run", lambda *_, **__: said)
    with pytest.raises(StageError, match=r"loupe bench report: \['ValueError: x'\]"):
        benchmark.publish.fn(tmp_path)


class Job:
    """A retraining that notes what is asked of it."""

    def __init__(self, hindrance=None, refused=None, gathers=True, known=None):
        self.asked, self.gathers, self.derived = [], gathers, Path("derived.yaml")
        self.params = SimpleNamespace(
            retrain=SimpleNamespace(detectors=("one", "two")),
            settings_of=lambda name: self.asked.append(f"check {name}"),
        )
        self.alone, self.claim = nullcontext, lambda _: None
        self.decided, self.refused_before, self.hindrance = lambda: known, lambda: refused, lambda _: hindrance

    def plan(self):
        return [Sized("one", ("one",), "as named"), Sized("two", ("two@64", "two@96"), "by the pictures")]

    def company(self, challengers):
        return JOINT.join(sized.name for sized in challengers) if len(challengers) > 1 else None

    def refuse(self, reason, _):
        return SimpleNamespace(action="refuse", reasons=[reason])


@pytest.fixture
def ran(monkeypatch):
    """The flow over a job, with tasks that only note that they were called; returns its action and reasons."""
    shown = {}

    def gather(job):
        job.asked.append("gather")
        if not job.gathers:
            raise DataError("12 candidates are too few")

    def of(flow_job):
        monkeypatch.setattr(retrain, "Retraining", SimpleNamespace(of=lambda *_: flow_job))
        action = retrain.retrain.fn("verdict")
        assert shown.pop("standby", None) == (flow_job.derived if "prepare" in flow_job.asked else None)
        return action, shown["said"]

    def note(what, answer=None):
        return lambda job, *more: job.asked.append(" ".join([what, *more][:2])) or answer

    monkeypatch.setattr(retrain, "load_params", lambda _: None)
    monkeypatch.setattr(retrain, "create_markdown_artifact", lambda said, **_: shown.update(said=said))
    monkeypatch.setattr(retrain, "gather", gather)
    monkeypatch.setattr(retrain, "choose_sizes", lambda job: job.plan())
    for name in ("new_version", "prepare", "challenge", "combine"):
        monkeypatch.setattr(retrain, name, note(name))
    monkeypatch.setattr(retrain, "standby", lambda params: shown.update(standby=params) or nullcontext())
    outcome = Gate("promote", ("it is better",))
    monkeypatch.setattr(
        retrain, "compare", lambda job, _, names: job.asked.append(f"compare {names}") or ("two", outcome)
    )
    monkeypatch.setattr(retrain, "conclude", lambda _, best, outcome: best == "two" and outcome)
    return of


@pytest.mark.parametrize(
    ("job", "reason", "asked"),
    [
        (Job(hindrance="four today"), "four today", []),
        (Job(gathers=False), "12 candidates are too few", ["gather"]),
        (Job(refused="the same pool"), "the same pool", ["gather"]),
    ],
)
def test_nothing_is_trained_where_something_stands_against_it(ran, job, reason, asked):
    action, said = ran(job)
    assert action == "refuse"
    assert reason in said
    assert job.asked == asked


def test_every_detector_is_checked_before_the_first_is_trained(ran):
    job = Job()
    assert ran(job)[0] == "promote"
    checked = ["gather", "check one", "check two", "new_version", "prepare"]
    members = [
        "challenge one",
        "challenge two@64",
        "challenge two@96",
        "combine two@64-two@96",
        "combine one+two@64-two@96",
    ]
    made = ["one", "two@64", "two@96", "two@64-two@96", "one+two@64-two@96"]
    assert job.asked == [*checked, *members, f"compare {made}"]
    unknown = Job()
    unknown.params.settings_of = lambda name: (_ for _ in ()).throw(SettingsError(f"{name} does not exist"))
    with pytest.raises(SettingsError, match="one does not exist"):
        ran(unknown)
    assert unknown.asked == ["gather"]


def failing(*names):
    """In place of ``challenge``: the training of *names* fails."""

    def challenge(job, name):
        job.asked.append(f"challenge {name}")
        if name in names:
            raise StageError(f"train of {name}: was killed")

    return challenge


def test_a_challenger_that_fails_is_left_out_and_told_with_the_decision(ran, monkeypatch):
    """Of several sizes what was made stays a candidate; their mean is none without all of them."""
    monkeypatch.setattr(retrain, "challenge", failing("two@96"))
    action, said = ran(job := Job())
    assert action == "promote"
    assert "it is better" in said
    assert "left out: two@64-two@96, which failed: train of two@96: was killed" in said
    assert job.asked[-1] == "compare ['one', 'two@64']"


def test_where_every_challenger_fails_nothing_is_decided(ran, monkeypatch):
    monkeypatch.setattr(retrain, "challenge", failing("one", "two@64"))
    with pytest.raises(StageError, match="train of one: was killed; train of two@64: was killed"):
        ran(Job())


def test_a_window_that_was_decided_is_not_decided_again(ran):
    job = Job(known=SimpleNamespace(action="promote", reasons=["as before"]))
    assert ran(job) == ("promote", "**promote**\n\n- as before")
    assert job.asked == []


@pytest.mark.parametrize("pools", [(), ("gpu",)])
def test_a_process_stands_by_for_the_first_training_unless_pools_train(monkeypatch, tmp_path, pools):
    params = SimpleNamespace(pipeline=SimpleNamespace(pools=pools), artefacts=str(tmp_path))
    known, stood = tmp_path / "params.yaml", []
    monkeypatch.setattr(train, "asked_for", lambda *_: (params, [], []))
    monkeypatch.setattr(train, "fan_out", lambda *_: {})
    monkeypatch.setattr(train, "rank", lambda _, out: out)
    monkeypatch.setattr(train, "standby", lambda given: stood.append(given) or nullcontext())
    assert train.train.fn(known) == tmp_path / "leaderboard"
    assert stood == ([] if pools else [known])


def test_params_of_a_flow_are_a_file_in_the_project():
    for flow in (batch.batch_scoring, benchmark.benchmark, monitor.monitor, retrain.retrain):
        assert flow.parameters.properties["params_file"]["default"] in ("params.yaml", Path("params.yaml"))
