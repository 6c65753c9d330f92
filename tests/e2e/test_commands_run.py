"""Commands as the documents have them, on what the tests have trained: they end well and write what the page says."""

import json
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from components.cli import app
from components.datasets.versions import begin_repository

pytestmark = pytest.mark.slow


@pytest.fixture
def loupe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_score_writes_maps_and_overlays_and_searches_folders_below_folders(loupe, bundle, product, tmp_path):
    (tmp_path / "today/shift/2").mkdir(parents=True)
    shutil.copy(product / "test/scratch/000.png", tmp_path / "today/shift/2")
    shutil.copy(product / "test/good/000.png", tmp_path / "today/good.png")
    loupe("score", bundle, "today", "--out", "today.csv", "--overlays", "today-heat", "--maps", "today-maps")
    table = pd.read_csv("today.csv")
    assert set(table["image_id"]) == {"today/good.png", "today/shift/2/000.png"}
    assert len(list((tmp_path / "today-heat").glob("*.png"))) == 2
    assert len(list((tmp_path / "today-maps").glob("*.npy"))) == 2


def test_compare_puts_two_runs_on_a_page(loupe, patchcore, other_bundle, product, tmp_path):
    loupe("compare", patchcore, other_bundle.parent, "--data", product, "--out", "compare.html")
    page = (tmp_path / "compare.html").read_text()
    assert ">patchcore<" in page
    assert ">other<" in page


def test_a_run_without_labels_is_measured_on_a_labelled_folder_from_elsewhere(loupe, without_test, product, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(without_test, run)
    said = loupe("evaluate", run, "--labelled", product)
    measured = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert measured["overall"]["n"]["anomalous"] == 8


def test_a_data_set_is_brought_in_by_its_adapter(loupe, product, tmp_path):
    begin_repository()
    assert "views and data" in loupe("data", "add", "housings", "--adapter", "folder", "--source", product)
    assert (tmp_path / "data/housings/train/good/000.png").exists()
