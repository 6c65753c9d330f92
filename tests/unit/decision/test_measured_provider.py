"""A bundle runs with the provider that it was measured with, or says that it does not."""

import logging
import shutil

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from components.cli import app
from components.core.artefacts import read_json, write_json
from components.core.errors import BundleError
from components.core.runtime import Runs
from components.decision.bundle import Bundle
from components.service.champion import Champion
from components.service.settings import ServiceSettings

pytestmark = pytest.mark.slow


@pytest.fixture
def of_openvino(bundle, tmp_path):
    """A bundle that says that it was measured with OpenVINO."""
    pytest.importorskip("openvino", reason="needs OpenVINO")
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    manifest = read_json(folder / "manifest.json")
    assert manifest["runtime"]["provider"] == "cpu"
    assert 0 <= manifest["runtime"]["score_error"] <= 1e-3
    write_json(folder / "manifest.json", manifest | {"runtime": {"provider": "openvino"}})
    return folder


def test_scores_of_both_are_alike(bundle, product, tmp_path, caplog):
    pytest.importorskip("openvino", reason="needs OpenVINO")
    caplog.set_level(logging.WARNING)
    asked = ["score", str(bundle), str(product / "test/scratch/000.png"), str(product / "test/good/000.png"), "--out"]
    assert CliRunner().invoke(app, [*asked, str(tmp_path / "ours.parquet")]).exit_code == 0
    assert caplog.messages == []
    done = CliRunner().invoke(app, [*asked, str(tmp_path / "theirs.parquet"), "--provider", "openvino"])
    assert done.exit_code == 0, done.output
    assert "with provider cpu, and openvino is asked for: scores may differ" in caplog.text
    ours, theirs = (pq.read_table(tmp_path / f"{side}.parquet").to_pydict() for side in ("ours", "theirs"))
    assert theirs["score"] == pytest.approx(ours["score"], rel=1e-3)
    assert theirs["decision"] == ours["decision"]


def test_what_was_measured_is_what_runs(of_openvino):
    opened = Bundle.open(of_openvino, 1)
    assert (opened.provider, type(opened.session).__module__) == ("openvino", "components.core.openvino")
    assert opened.decide(float(opened.score([opened.blank], narrow=True)[0][0])).decision in ("normal", "anomalous")


def test_a_service_refuses_what_was_not_measured(of_openvino, tmp_path):
    settings = ServiceSettings(provider="cpu", unmeasured="refuse")
    with pytest.raises(BundleError, match="was held against its detector with provider openvino, and cpu is asked for"):
        Champion(str(of_openvino), None, tmp_path, 1, settings.runs)
    served = Champion(str(of_openvino), None, tmp_path, 1, ServiceSettings(provider="cpu").runs)
    assert served.current().provider == "cpu"
    assert ServiceSettings().runs == Runs()
