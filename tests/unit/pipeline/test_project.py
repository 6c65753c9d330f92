"""``loupe init``: a folder becomes a project that every command knows."""

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.cli import app
from components.core.errors import DataError, SettingsError
from components.pipeline.params import load_params
from components.pipeline.project import PARAMS, init
from flows.train import asked_for

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def here(tmp_path, monkeypatch):
    (folder := tmp_path / "plant").mkdir()
    monkeypatch.chdir(folder)
    return folder


def loupe(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_pipeline_service_and_checks_know_the_product_by_one_name(here, product):
    told = loupe("init", "housings", "--source", product, "--alpha", "0.02")
    assert [line.strip() for line in told.splitlines()[1:]] == [
        "loupe data check housings",
        "loupe pipeline",
        "loupe serve housings",
        "loupe monitor housings",
    ]
    known = load_params(PARAMS)
    assert known.calibration.alpha == 0.02
    assert known.view("housings").data == "housings"
    assert known.retrain.detectors == ("patchcore",)
    _, views, detectors = asked_for(PARAMS, None, None)
    assert (views, detectors) == (["housings"], ["patchcore", "padim"])
    assert (here / "data/housings.dvc").exists()
    assert "report in" in loupe("data", "check", "housings")


def test_folders_of_other_names_are_read_as_declared(product, tmp_path):
    source = shutil.copytree(product, tmp_path / "photos")
    (source / "train/good").rename(source / "train/OK")
    loupe("init", "housings", "--source", source, "--good", "OK")
    assert yaml.safe_load(PARAMS.read_text())["data"]["housings"]["good"] == ["good", "OK"]
    loupe("data", "check", "housings")


def test_a_folder_of_good_pictures_alone_begins_a_project(product):
    loupe("init", "housings", "--source", product / "train/good", "--good", ".")
    assert yaml.safe_load(PARAMS.read_text())["data"]["housings"] == {"adapter": "folder", "name": "housings"}
    assert len(list(Path("data/housings/train/good").iterdir())) == 40
    loupe("data", "check", "housings")


def test_what_cannot_be_begun_leaves_nothing(here, tmp_path, product):
    for name, source, error, said in (
        ("housings", tmp_path / "none", DataError, "is not a folder"),
        ("housings", here, DataError, "train"),
        ("two words", product, SettingsError, "would name a folder and a model"),
        ("retrain", product, SettingsError, "retrain"),
    ):
        with pytest.raises(error, match=said):
            init(name, "folder", source)
        assert not list(here.iterdir())
    with pytest.raises(SettingsError, match="alpha"):
        init("housings", "folder", product, alpha=5)
    assert not (here / "params.yaml").exists()


def test_a_project_is_not_begun_twice(product):
    init("housings", "folder", product)
    before = PARAMS.read_text()
    with pytest.raises(SettingsError, match=r"is there already; `loupe data add lids`"):
        init("lids", "folder", product)
    assert PARAMS.read_text() == before
