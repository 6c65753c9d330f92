"""prefect.yaml: every deployment is a flow that exists, with parameters it has; events that nobody hears are kept."""

import importlib
import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from components.core.settings import plain
from components.monitoring import monitor as component
from components.monitoring.settings import MonitorSettings
from components.monitoring.verdict import Verdict
from components.pipeline import monitoring as operation
from components.pipeline.params import Params
from components.retraining.outcomes import key_of
from components.storage import LocalStore
from flows.events import EVENT, send

AT = datetime(2026, 1, 2, tzinfo=UTC)
DEPLOYMENTS = {d["name"]: d for d in yaml.safe_load(Path("prefect.yaml").read_text())["deployments"]}


@pytest.mark.slow
def test_flows_are_read_without_what_computes():
    """Each is read when it is deployed and whenever it is run, also where a verdict asks for nothing."""
    modules = ", ".join(sorted({deployment["entrypoint"].rpartition(".")[0] for deployment in DEPLOYMENTS.values()}))
    heavy = "{'torch', 'sklearn', 'evidently', 'great_expectations', 'mlflow'}"
    asked = f"import sys, {modules}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", asked], env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_entrypoints_are_flows_and_parameters_are_theirs(name):
    deployment = DEPLOYMENTS[name]
    module, _, attribute = deployment["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), attribute)
    parameters = inspect.signature(flow.fn).parameters
    given = dict(deployment.get("parameters", {}))
    for trigger in deployment.get("triggers", []):
        given |= trigger["parameters"]
    assert set(given) <= set(parameters)
    required = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}
    assert required <= set(given)


def test_retraining_waits_for_the_event_that_the_monitor_sends():
    (trigger,) = DEPLOYMENTS["on-drift"]["triggers"]
    assert trigger["expect"] == [EVENT]
    assert "schedules" not in DEPLOYMENTS["on-drift"]
    assert {"weekly", "hourly", "inbox", "nightly"} == {n for n, d in DEPLOYMENTS.items() if d.get("schedules")}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """The registry knows one model; verdicts on others are of other projects."""
    monkeypatch.setattr(operation, "Registry", lambda _: SimpleNamespace(names=lambda: ["m"]))


def verdict():
    return Verdict("retrain", "line-v-00001", "line", "m", "v", 1, True, ("x",), {}, {}, "", {}, AT.isoformat())


@pytest.mark.parametrize("address", [None, "http://127.0.0.1:9/api"])
def test_an_event_is_not_sent_to_nobody(address):
    with temporary_settings({PREFECT_API_URL: address}):
        assert send(verdict()) is None


def test_an_unsent_verdict_is_sent_by_the_next_run_and_only_once(tmp_path):
    store, asked = LocalStore(tmp_path), verdict()
    store.put(component.key_of(asked), _encoded(asked))
    params, tried = Params({}, {}, store=str(tmp_path)), []

    def away(one):
        tried.append(one.id)

    assert operation.announce(params, away, AT) == []
    assert operation.announce(params, lambda one: f"event of {one.id}", AT) == [asked.id]
    assert operation.announce(params, away, AT) == []
    assert tried == [asked.id]


def test_a_verdict_on_a_model_of_another_project_is_left_to_it(tmp_path):
    store, other = LocalStore(tmp_path), replace(verdict(), model="theirs")
    store.put(component.key_of(other), _encoded(other))
    assert operation.announce(Params({}, {}, store=str(tmp_path)), lambda _: "event", AT) == []
    assert component.unsent(store) == [other]


@pytest.fixture
def announced(tmp_path):
    """A store with one verdict whose event has arrived at AT, and a monitor run so many hours later."""
    store, asked = LocalStore(tmp_path), verdict()
    store.put(component.key_of(asked), _encoded(asked))
    params = Params({}, {}, monitor=MonitorSettings(again_hours=6.0, again=2), store=str(tmp_path))

    def run(hours):
        return operation.announce(params, lambda one: f"event of {one.id}", AT + timedelta(hours=hours))

    assert run(0) == [asked.id]
    return store, asked, run


def test_a_retraining_that_was_cut_off_is_asked_for_again_so_many_times(announced, caplog):
    _, asked, run = announced
    assert run(5.9) == []
    assert run(6) == [asked.id]
    assert run(7) == []
    assert run(12) == [asked.id]
    assert not caplog.messages
    assert run(100) == []
    assert f"`loupe retrain {asked.id}`" in caplog.messages[-1]


def test_a_note_of_an_older_version_counts_as_one_event(announced):
    store, asked, run = announced
    store.put(component.sent_key(asked), json.dumps({"event": "e", "at": AT.isoformat()}).encode())
    assert [run(hours) for hours in (6, 12, 18)] == [[asked.id], [asked.id], []]


def test_a_retraining_that_was_decided_is_not_asked_for_again(announced):
    store, asked, run = announced
    store.put(key_of(asked.id), b"{}")
    assert run(6) == []


def _encoded(one):
    return json.dumps(plain(one)).encode()
