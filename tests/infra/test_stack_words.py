"""What `make stack` says at its end: where each part is, and what to do next."""

import json
import os

import psutil
import pytest

from infra.stack import PORTS, Stack


@pytest.fixture
def stack(tmp_path):
    """A stack whose parts are all this very process."""
    made = Stack(tmp_path, 100)
    made.folder.mkdir()

    def runs(*names):
        note = {"project": str(made.project), "pid": os.getpid(), "started": psutil.Process().create_time()}
        made.notes.write_text(json.dumps(dict.fromkeys(names, note)))
        return "\n".join(made.told())

    return runs


def test_addresses_are_those_of_what_runs_and_the_next_steps_follow(stack):
    said = stack("prefect", "mlflow", "service", "pages", "s3", "worker")
    for name in ("prefect", "mlflow", "service", "pages"):
        assert f"http://127.0.0.1:{PORTS[name] + 100}/" in said
    assert "/.stack/environment" in said
    assert "make stack-down" in said
    assert "make pipeline" not in said


def test_without_a_champion_it_says_how_to_get_one(stack):
    said = stack("prefect", "mlflow", "pages")
    assert f":{PORTS['service'] + 100}" not in said
    assert "make pipeline" in said


def test_flows_know_where_pages_are_served(tmp_path):
    from flows.pages import PAGES

    environment = Stack(tmp_path, 100).environment(None)
    assert environment[PAGES] == f"http://127.0.0.1:{PORTS['pages'] + 100}"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
