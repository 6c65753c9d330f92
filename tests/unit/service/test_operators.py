"""Threshold and models: what the pages show, who may change it, what is written down, and what is served afterwards."""

import json
import shutil
from datetime import timedelta

import numpy as np
import pytest

from components.decision.bundle import Bundle
from components.decision.conformal import Table
from components.pipeline.params import load_params
from components.pipeline.serving import desk_of
from components.registry.mlflow import Registry
from components.service.champion import Champion
from components.service.point import STEPS, steps
from components.service.rights import Rights
from components.service.settings import ServiceSettings
from components.service.standing import standing
from tests.service_pages import Line

OPERATOR = {"Authorization": "Bearer master"}


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params.yaml"
    places = {"store": str(tmp_path / "store"), "registry": {"folder": str(tmp_path / "registry")}}
    path.write_text(json.dumps({"data": {}, "views": {}} | places))
    return load_params(path)


@pytest.fixture
def line(bundle, tmp_path, params, monkeypatch):
    """A service on a copy of the bundle that may be changed, with twenty pictures of p-values 0.05, 0.10, ... 1."""
    monkeypatch.setenv("LOUPE_OPERATOR_TOKEN", "master")
    own = shutil.copytree(bundle, tmp_path / "own" / "bundle")
    line = Line(own, tmp_path, desk_of(params, str(own)))
    for i in range(20):
        p = (i + 1) / 20
        line.put(f"p{i}", timedelta(minutes=i), alarm=p <= 0.2, p_value=p)
    return line


def ask(line, path="/v1/threshold", token=OPERATOR, **body):
    seen = line.champion.served.bundle.calibration.alpha
    return line.http.post(path, json={"reason": "too many", "seen": seen} | body, headers=token)


def test_the_slider_has_the_places_that_the_calibration_can_tell_apart(line):
    told = line.get("/v1/threshold?n=5")
    assert (len(told["pictures"]), told["may_change"]) == (5, True)
    point = line.bundle.calibration
    now = [s for s in told["steps"] if abs(s["alpha"] - point.alpha) < 0.5 / (point.n + 1)]
    assert now[0]["threshold"] == pytest.approx(point.threshold)
    limits = [s["threshold"] for s in told["steps"]]
    assert limits == sorted(limits, reverse=True)


def test_of_many_normals_the_slider_keeps_a_few_places_and_the_present_one():
    scores = np.sort(np.random.default_rng(0).normal(size=9999))
    found = steps(Table(scores, 0.0333, 0.0))
    assert len(found) <= STEPS + 1
    assert any(abs(s["alpha"] - 0.0333) < 1e-9 for s in found)
    assert found[0]["alpha"] == pytest.approx(1e-4)


def test_labelled_pictures_are_told_apart_and_other_models_left_out(line):
    line.put("foreign", model_version="another")
    line.http.put("/v1/records/id-p0/label", json={"label": "defect"})
    told = line.get("/v1/threshold")
    assert [label for _, _, label in told["labelled"]] == ["defect"]
    assert len(told["pictures"]) == 20


def test_a_change_is_served_recorded_and_what_loupe_calibrate_does(line, bundle):
    from components.calibration.point import moved
    from components.core.artefacts import read_json

    told = line.get("/v1/threshold")
    alpha = next(s["alpha"] for s in told["steps"] if s["alpha"] > 0.25)
    answer = ask(line, alpha=alpha, who="Ada")
    assert answer.status_code == 200, answer.text
    expected = moved(read_json(bundle / "calibration.json"), alpha)["threshold"]
    served = line.get("/v1/models/current")["calibration"]
    assert (served["alpha"], served["threshold"]) == (alpha, expected)
    assert Bundle.open(line.champion.served.bundle.folder).calibration.threshold == expected
    (decision,) = line.get("/v1/models")["decisions"]
    assert decision["reasons"][0] == "by hand, Ada: too many"
    would = sum(p <= alpha for p in np.arange(1, 21) / 20)
    assert decision["reasons"][1].startswith(f"of the last 20 pictures {would} would have been alarms")
    assert decision["reasons"][2].startswith("alpha 0.2 -> ")


def test_two_people_do_not_undo_each_other_unseen(line):
    assert ask(line, alpha=0.3, seen=0.11).status_code == 409
    assert line.get("/v1/models/current")["calibration"]["alpha"] == 0.2


@pytest.mark.parametrize("body", [{"alpha": 0}, {"alpha": 0.9}, {"alpha": 0.3, "reason": ""}, {"alpha": 0.0001}])
def test_a_change_that_makes_no_sense_is_refused_and_changes_nothing(line, body):
    answer = ask(line, **body)
    assert answer.status_code == 422
    assert line.get("/v1/models/current")["calibration"]["alpha"] == 0.2


@pytest.mark.parametrize("path", ["/v1/threshold", "/v1/models/rollback"])
def test_only_the_operators_token_may_change_anything(line, path, monkeypatch):
    for token in ({}, {"Authorization": "Bearer other"}):
        assert ask(line, path, token, alpha=0.3).status_code == 403
    monkeypatch.delenv("LOUPE_OPERATOR_TOKEN")
    off = Rights(ServiceSettings())
    assert not off.changes


def test_without_an_operators_token_changes_are_off(bundle, tmp_path, params, monkeypatch):
    monkeypatch.delenv("LOUPE_OPERATOR_TOKEN", raising=False)
    line = Line(bundle, tmp_path, desk_of(params, str(bundle)))
    answer = ask(line, alpha=0.3)
    assert answer.status_code == 403
    assert "LOUPE_OPERATOR_TOKEN" in answer.json()["detail"]
    assert line.get("/v1/threshold")["may_change"] is line.get("/v1/models")["may_change"] is False


def test_a_folder_has_no_way_back(line):
    assert standing(line.service)["back"] is None
    assert ask(line, "/v1/models/rollback", seen="1").status_code == 422


def test_models_of_the_registry_threshold_and_way_back(bundle, other_bundle, tmp_path, params, monkeypatch):
    monkeypatch.setenv("LOUPE_OPERATOR_TOKEN", "master")
    registry = Registry(params.registry)
    registry.register("tiles", bundle, {}, {"synthetic_auroc": 0.9}, {"detector": "patchcore"})
    registry.promote("tiles", "1", ("first",), {})
    registry.register("tiles", other_bundle, {}, {}, {"detector": "patchcore"})
    registry.refuse("tiles", "2", ("failed: latency 90 ms", "passed: parity"), {})
    line = Line(bundle, tmp_path, desk_of(params, "tiles"), Champion("tiles", registry, tmp_path / "models", 1))
    told = line.get("/v1/models")
    assert (told["champion"], told["challenger"], told["back"]) == ("1", "2", None)
    assert [v["version"] for v in told["versions"]] == ["2", "1"]
    assert told["versions"][1]["metrics"] == {"synthetic_auroc": 0.9}
    assert told["decisions"][0]["reasons"] == ["failed: latency 90 ms", "passed: parity"]
    assert ask(line, "/v1/models/rollback", seen="1").status_code == 422  # there is no earlier one
    answer = ask(line, alpha=0.3)
    assert answer.status_code == 200, answer.text
    assert (line.champion.served.version, registry.champion("tiles")) == ("3", "3")
    assert line.champion.served.bundle.calibration.alpha == pytest.approx(0.3)
    assert line.get("/v1/models")["back"] == "1"
    assert ask(line, "/v1/models/rollback", seen="2").status_code == 409
    back = ask(line, "/v1/models/rollback", seen="3", who="Bo")
    assert (back.status_code, line.champion.served.version) == (200, "1")
    decision = registry.decisions("tiles")[-1]
    assert (decision.action, decision.reasons) == ("rollback", ("by hand, Bo: too many",))
