"""Trainings as curves of MLflow: points of a history, a run that is followed, and the version that takes it over."""

import json
import logging
import math
import time
from types import SimpleNamespace

import pytest

from components.core.errors import RegistryError, StageError
from components.core.progress import CURVES, write_curves
from components.pipeline.following import followed
from components.registry.curves import points
from components.registry.mlflow import REGISTERED, Registry
from components.registry.settings import RegistrySettings

HISTORY = [
    {"phase": "flow", "epoch": 0, "loss": 2.0, "kept": True, "note": "x", "bad": math.nan},
    {"phase": "flow", "epoch": 1, "loss": 1.0, "synthetic_auroc": 0.9},
]


@pytest.fixture
def registry(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").write_text("{}")
    return Registry(RegistrySettings(str(tmp_path / "registry")))


@pytest.fixture
def stages(registry, tmp_path):
    params = SimpleNamespace(registry=RegistrySettings(str(registry.folder)))
    return SimpleNamespace(params=params, view="cells", of=lambda name: tmp_path / "artefacts" / name)


def curve(registry, run, name="flow/loss"):
    return [(m.step, m.value) for m in registry.client.get_metric_history(run, name)]


def runs(registry):
    return registry.client.search_runs([registry.experiment])


def test_points_are_the_finite_numbers_of_each_record():
    assert list(points(HISTORY)) == [("flow/loss", 2.0, 0), ("flow/loss", 1.0, 1), ("flow/synthetic_auroc", 0.9, 1)]


def test_a_version_has_a_named_run_with_curves_figures_and_descriptions(registry, tmp_path):
    tags, drawn = {"detector": "fastflow"}, list(points(HISTORY))
    registry.register("cells", tmp_path / "bundle", {"seed": 1}, {"auroc": 0.9}, tags, ("somewhere", drawn))
    (run,) = runs(registry)
    assert (run.info.run_name, run.info.status) == ("cells fastflow", "FINISHED")
    assert curve(registry, run.info.run_id) == [(0, 2.0), (1, 1.0)]
    assert registry.metrics("cells", "1") == {"auroc": 0.9}  # curves are no figures of a version
    assert registry.tags("cells", "1") == tags
    assert "alias champion" in registry.client.get_registered_model("cells").description
    assert registry.client.get_model_version("cells", "1").description == "fastflow: auroc 0.900"
    kind = registry.client.get_experiment(registry.experiment).tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"


def test_a_training_is_followed_while_it_runs_and_its_version_takes_the_run(registry, stages, tmp_path):
    seen = []
    with followed(stages, "fastflow", 0.05) as file:
        for step, record in enumerate(HISTORY):
            with file.open("a") as stream:
                stream.write(json.dumps([step, record]) + "\n")
            for _ in range(600):
                if (found := runs(registry)) and len(curve(registry, found[0].info.run_id)) > step:
                    seen.append((found[0].info.status, step))
                    break
                time.sleep(0.05)
    assert seen == [("RUNNING", 0), ("RUNNING", 1)]
    place = registry.client.get_run(runs(registry)[0].info.run_id).data.tags["training"]
    registry.register("cells", tmp_path / "bundle", {}, {}, {"detector": "fastflow"}, (place, list(points(HISTORY))))
    (run,) = runs(registry)  # the very one
    assert run.data.tags[REGISTERED] == "yes"
    assert curve(registry, run.info.run_id) == [(0, 2.0), (1, 1.0)]
    registry.register("cells", tmp_path / "bundle", {}, {}, {"detector": "fastflow"}, (place, list(points(HISTORY))))
    assert len(runs(registry)) == 2  # it has a version: the next one gets its own


def test_a_training_that_fails_leaves_a_failed_run_and_one_that_is_there_already_none(registry, stages):
    with followed(stages, "patchcore", 60):
        pass
    assert runs(registry) == []
    with pytest.raises(StageError), followed(stages, "patchcore", 60) as file:  # noqa: PT012
        file.write_text(json.dumps([0, HISTORY[0]]) + "\n")
        raise StageError("train of patchcore was killed")
    assert runs(registry)[0].info.status == "FAILED"


def test_a_registry_that_does_not_answer_costs_no_training(stages, monkeypatch, caplog):
    def silent(_):
        raise RegistryError("the registry does not answer")

    monkeypatch.setattr("components.pipeline.following.Registry", silent)
    with caplog.at_level(logging.WARNING), followed(stages, "patchcore", 60) as file:
        file.write_text(json.dumps([0, HISTORY[0]]) + "\n")
    assert "not followed: the registry does not answer" in caplog.text


def test_a_training_writes_its_history_line_by_line(tmp_path):
    from components.detectors.contract import OnePass  # noqa: F401  (the loop is torch's)
    from components.training.loop import Loop

    told = SimpleNamespace(history=[], _tell=lambda step: Loop._tell(told, step))
    write_curves(tmp_path / "curves")
    logger = logging.getLogger(CURVES)
    try:
        for record in HISTORY[1:]:
            Loop._note(told, record)
    finally:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(logging.NOTSET)
    assert json.loads((tmp_path / "curves").read_text()) == [0, HISTORY[1]]
