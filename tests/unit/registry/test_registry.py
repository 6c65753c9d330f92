"""The registry on SQLite: versions, champion, rollback, two promotions at once."""

import itertools
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.core.errors import RegistryError
from components.registry.choice import synthetic_score
from components.registry.mlflow import Registry
from components.registry.overview import champion_lines, describe_models, overview_lines
from components.registry.register import DATA_PIN, register_best
from components.registry.rows import Rows, reader
from components.registry.settings import RegistrySettings

AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    bundle = tmp_path_factory.mktemp("bundle")
    (bundle / "model.onnx").write_bytes(b"graph")
    (bundle / "manifest.json").write_text("{}")
    registry = Registry(RegistrySettings(str(folder)))
    for _ in range(3):
        registry.register("cells", bundle, {"detector": "patchcore"}, {"synthetic_auroc": 0.9}, {"split": "abc"})
    return registry


def test_versions_and_challenger(registry):
    assert registry.versions("cells") == ["1", "2", "3"]
    assert registry.challenger("cells") == "3"
    assert registry.champion("nothing") is None


def test_promotion_and_rollback_leave_decisions(registry, tmp_path):
    evidence = tmp_path / "metrics.json"
    evidence.write_text("{}")
    first = registry.promote("cells", "1", ("first",), {"metrics": evidence}, AT)
    assert (first.previous, registry.champion("cells")) == (None, "1")
    registry.promote("cells", "3", ("better",), {}, AT)
    back = registry.rollback("cells", ("worse on the line",), AT)
    assert (back.action, back.version, back.previous) == ("rollback", "1", "3")
    assert registry.champion("cells") == "1"
    assert [d.version for d in registry.decisions("cells")] == ["1", "3", "1"]
    assert len(registry.decisions("cells")[0].evidence[str(evidence)]) == 64


def test_the_tables_say_what_mlflow_says(registry):
    """Fails where the MLflow that is installed makes tables of another revision than rows.REVISION."""
    registry.client.create_registered_model("empty")
    registry.register("cells", registry.folder / "decisions", {}, {}, {"detector": "gone"})
    registry.client.delete_model_version("cells", "4")
    found = reader(RegistrySettings(str(registry.folder)))
    assert isinstance(found, Rows)
    assert found.names() == ["cells", "empty"]
    assert found.versions("cells") == ["1", "2", "3"]
    assert describe_models(found, None) == describe_models(registry, None)


def test_other_tables_and_servers_are_left_to_mlflow(registry, tmp_path, monkeypatch):
    assert describe_models(reader(RegistrySettings(str(tmp_path))), None) == {}
    assert list(tmp_path.iterdir()) == []  # who only asks makes nothing
    monkeypatch.setattr("components.registry.rows.REVISION", "another")
    assert isinstance(reader(RegistrySettings(str(registry.folder))), Registry)
    monkeypatch.undo()
    served = RegistrySettings(str(tmp_path), uri=f"sqlite:///{registry.folder / 'mlflow.db'}")
    assert isinstance(reader(served), Registry)


def test_unknown_version_is_refused(registry):
    with pytest.raises(RegistryError, match="no version 9; known are 1, 2, 3"):
        registry.promote("cells", "9", (), {})
    with pytest.raises(RegistryError, match="no earlier champion"):
        registry.rollback("nothing")


def test_bundle_comes_back(registry, tmp_path):
    assert (registry.fetch("cells", "2", tmp_path / "2") / "model.onnx").read_bytes() == b"graph"


def test_a_download_that_was_cut_off_is_begun_anew_and_a_whole_one_kept(registry, tmp_path, monkeypatch):
    def cut(_source, target, **_options):
        Path(target).mkdir(exist_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("components.registry.mlflow.shutil.copytree", cut)
        with pytest.raises(KeyboardInterrupt):
            registry.fetch("cells", "2", tmp_path / "2")
    assert not (tmp_path / "2").exists()
    (tmp_path / "2" / "bundle").mkdir(parents=True)  # as an older version left it
    whole = registry.fetch("cells", "2", tmp_path / "2")
    assert (whole / "model.onnx").read_bytes() == b"graph"
    monkeypatch.setattr("components.registry.mlflow.shutil.copytree", cut)
    assert registry.fetch("cells", "2", tmp_path / "2") == whole


def test_files_are_on_the_disk_before_their_version_is_known(registry, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"graph")
    before, seen = registry.versions("cells"), []
    monkeypatch.setattr(os, "sync", lambda: seen.append(registry.versions("cells")))
    made = registry.register("cells", tmp_path, {}, {}, {})
    assert seen
    assert all(known == before for known in seen)
    assert registry.versions("cells") == [*before, made]


@pytest.mark.slow
def test_two_promotions_at_once_do_not_interleave(registry):
    before = len(registry.decisions("cells"))
    code = (
        "from components.registry.mlflow import Registry, RegistrySettings\n"
        f"r = Registry(RegistrySettings({str(registry.folder)!r}))\n"
        "for _ in range(4): r.promote('cells', '{}', (), {{}})\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code.format(v)]) for v in (2, 3)]
    assert [p.wait() for p in running] == [0, 0]
    chain = registry.decisions("cells")
    assert len(chain) == before + 8
    for earlier, later in itertools.pairwise(chain):
        assert later.previous == earlier.version
    assert registry.champion("cells") == chain[-1].version


@pytest.mark.slow
def test_scheduled_training_leaves_a_retrained_champion_alone(tmp_path):
    at = tmp_path / "patchcore"
    (at / "model").mkdir(parents=True)
    (at / "bundle").mkdir()
    (at / "bundle" / "model.onnx").write_bytes(b"graph")
    (at / "model" / "history.json").write_text('[{"stage": "coreset", "synthetic_auroc": 0.9}]')
    (at / "model" / "run.json").write_text('{"seed": 0, "settings": {"settings": {}}, "inputs": {"split": "s"}}')
    settings = RegistrySettings(str(tmp_path / "registry"))
    assert "version 1" in register_best(settings, "cells", {"patchcore": at})
    assert "version 2" in register_best(settings, "cells", {"patchcore": at})
    registry = Registry(settings)
    retrained = registry.register("cells", at / "bundle", {}, {}, {DATA_PIN: "somewhere"})
    registry.promote("cells", retrained, ("gate",), {}, AT)
    assert "not promoted" in register_best(settings, "cells", {"patchcore": at})
    assert registry.champion("cells") == retrained
    assert registry.decisions("cells")[-1].action == "refuse"


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([("imitate", 0.8), ("imitate", 0.9), ("imitate", 0.7)], 0.9),  # the loop brings the best epoch back
        ([("imitate", 0.9), ("search", None), ("cut", 0.7)], 0.7),  # what was cut afterwards is what scores
        ([("imitate", None)], 0.0),
    ],
)
def test_a_model_is_rated_as_it_ended(tmp_path, history, expected):
    (tmp_path / "model").mkdir()
    records = [{"phase": stage, **({} if auroc is None else {"synthetic_auroc": auroc})} for stage, auroc in history]
    (tmp_path / "model" / "history.json").write_text(json.dumps(records))
    assert synthetic_score(tmp_path) == expected


def test_a_refusal_moves_nothing_and_is_no_way_back(tmp_path):
    (tmp_path / "bundle").mkdir()
    registry = Registry(RegistrySettings(str(tmp_path / "registry")))
    for _ in range(3):
        registry.register("cells", tmp_path / "bundle", {}, {}, {})
    registry.promote("cells", "1", ("first",), {}, AT)
    registry.promote("cells", "2", ("second",), {}, AT)
    registry.refuse("cells", "3", ("worse",), {}, AT)
    assert registry.champion("cells") == "2"
    assert registry.rollback("cells", (), AT).version == "1"
    models = describe_models(registry, None)
    assert [d["action"] for d in models["cells"]["decisions"]] == ["promote", "promote", "refuse", "rollback"]
    assert any("refuse 3: worse" in line for line in overview_lines(models))


def test_a_pipeline_ends_with_its_champion_its_figures_and_how_it_is_served(registry, tmp_path, monkeypatch):
    registry.promote("cells", "2", ("best",), {}, AT)
    assert champion_lines(registry, "cells", " --params other.yaml") == [
        "cells: champion is ?, version 2",
        "  AUROC on synthetic anomalies     0.900",
        "next: loupe serve cells --params other.yaml",
    ]
    assert champion_lines(registry, "nothing") == ["nothing: has no champion; `loupe models nothing` says why"]
    from components.pipeline.params import Params
    from flows import train

    (tmp_path / "leaderboard.md").write_text("| table |")
    params = Params({}, {}, registry=RegistrySettings(str(registry.folder)))
    monkeypatch.setattr(train, "asked_for", lambda *_: (params, ["cells"], ["patchcore"]))
    monkeypatch.setattr(train, "train", lambda *_: tmp_path)
    said = train.run_here(Path("params.yaml"), None, None).splitlines()
    assert said[0] == "| table |"
    assert said[-1] == "next: loupe serve cells"
