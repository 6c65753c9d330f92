"""Settings, params.yaml and artefacts."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest

from components.core.errors import SettingsError
from components.core.settings import build, plain
from components.pipeline.params import load_params


@dataclass(frozen=True)
class Knobs:
    bank_size: int = 10
    sizes: tuple[int, ...] = (1, 2)
    rate: float = 0.5


def test_misspelt_key_is_named_with_a_suggestion():
    with pytest.raises(SettingsError, match=r"params\.bank_sise is not a setting; did you mean bank_size\?"):
        build(Knobs, {"bank_sise": 3}, "params")


def test_wrong_type_is_refused_and_whole_numbers_serve_as_floats():
    with pytest.raises(SettingsError, match="bank_size"):
        build(Knobs, {"bank_size": "many"}, "params")
    assert build(Knobs, {"rate": 1}, "params").rate == 1.0


@dataclass(frozen=True)
class Fewer:
    RETIRED: ClassVar[dict[str, str]] = {"grey": "it always is"}
    rate: float = 0.5


def test_a_retired_key_is_left_out_with_a_warning(caplog):
    assert build(Fewer, {"grey": True, "rate": 0.1}, "params") == Fewer(0.1)
    assert caplog.messages == ["params.grey is no setting any more and has no effect: it always is"]
    with pytest.raises(SettingsError, match="is not a setting"):
        build(Knobs, {"grey": True}, "params")


def test_plain_is_the_inverse_of_build():
    knobs = Knobs(3, (4, 5, 6), 0.1)
    assert build(Knobs, plain(knobs), "x") == knobs


def test_params_yaml_of_the_project_loads():
    params = load_params()
    assert set(params.pipeline.views) <= set(params.views)
    parts = {part for name in params.views for part in params.view(name).views or (name,)}
    assert {params.view(part).data for part in parts} <= set(params.data)


HEAVY = {"torch", "timm", "sklearn", "matplotlib", "mlflow", "great_expectations", "evidently"}
STAGES, FLOWS = "components.pipeline.stages", ("flows.train", "flows.batch", "flows.monitor")


def loaded(*modules: str) -> dict[str, list[str]]:
    """For each of *modules* what of HEAVY is there once it is imported: all in one process, one after another."""
    code = "import importlib, json, sys\nfound = {}\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    code += f"    found[name] = sorted({HEAVY!r} & set(sys.modules))\nprint(json.dumps(found))"
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_reading_the_parameters_loads_nothing_heavy():
    """Commands that only look, and stages that neither train nor draw, do not wait for what they do not use."""
    assert loaded(STAGES) == {STAGES: []}


@pytest.mark.slow
def test_reading_a_flow_loads_nothing_heavy():
    assert loaded(*FLOWS) == {name: [] for name in FLOWS}
