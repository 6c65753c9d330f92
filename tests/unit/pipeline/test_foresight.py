"""What a fit would do, told before it begins; and what would not fit is refused with advice."""

import logging
from types import SimpleNamespace

import pandas as pd
import pytest
from typer.testing import CliRunner

from components.cli import app
from components.core.errors import SettingsError
from components.datasets.settings import DataSettings
from components.pipeline import foresight
from components.pipeline.fit import FitRequest, fit_folder
from components.pipeline.foresight import Need, advice, require_room
from components.pipeline.params import Params, View
from components.pipeline.sizing import Sized
from components.pipeline.stages import Stages
from components.training.settings import TrainSettings

NEED = Need("padim", 40, "statistics", training=900, mapped=5000, export=400, minutes=1.0)


@pytest.fixture
def stages(tmp_path):
    def made(**train):
        params = Params({"d": DataSettings("folder", "d")}, {"run": View("d")}, train=TrainSettings(**train))
        return Stages(params, "run", tmp_path)

    return made


def given(monkeypatch, free, need=NEED):
    monkeypatch.setattr(foresight, "available_memory_mb", lambda: free)
    monkeypatch.setattr(foresight, "need", lambda *_: need)


def test_what_does_not_fit_is_refused_with_advice(stages, monkeypatch):
    given(monkeypatch, 899)
    said = "padim: its phase statistics on 40 pictures needs about 900 MiB where 899 are available; give a smaller --si"
    with pytest.raises(SettingsError, match=said) as error:
        require_room(stages(), ["padim"])
    assert "--set train.memory=warn" in str(error.value)
    given(monkeypatch, 900)
    require_room(stages(), ["padim"])  # what the system can take back, 5000 of features, refuses nothing


def refused(*_):
    raise SettingsError("padim: no")


def test_seconds_are_those_of_all_sizes_and_none_of_what_cannot_be_trained(stages, monkeypatch):
    given(monkeypatch, 100)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    both = Sized("padim", ("padim@64", "padim@96"), "", {"padim@64": {"dimensions": 8}})
    assert foresight.seconds(stages(), both) == 120
    monkeypatch.setattr(foresight, "need", refused)
    assert foresight.seconds(stages(), both) == 0
    given(monkeypatch, 100)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert foresight.seconds(stages(), both) == 0


def test_export_may_be_what_does_not_fit(stages, monkeypatch):
    given(monkeypatch, 1000, NEED._replace(export=1200))
    said = "padim: its export on 40 pictures needs about 1200 MiB .*, or smaller pictures, or try"
    with pytest.raises(SettingsError, match=said):
        require_room(stages(), ["padim"])


def test_who_wants_it_all_the_same_is_warned(stages, monkeypatch, caplog):
    given(monkeypatch, 100)
    require_room(stages(memory="warn"), ["padim"])
    assert "needs about 900 MiB where 100 are available" in caplog.text


def test_where_the_system_does_not_tell_nothing_is_measured(stages, monkeypatch):
    monkeypatch.setattr(foresight, "available_memory_mb", lambda: None)
    monkeypatch.setattr(foresight, "need", None)
    require_room(stages(), ["padim"])


def test_advice_names_what_the_detector_has():
    train = TrainSettings(preset="tiny")
    assert "a smaller bank_size (now " in advice(train.method("patchcore"))
    assert "batch_size" not in advice(train.method("patchcore"))
    assert "a smaller batch_size (now 4)" in advice(train.method("fastflow"))


def test_the_pictures_of_each_side_count(stages, monkeypatch):
    asked = {}

    def training(*counts):
        asked["training"], asked["pixels"] = counts[:2], counts[3]
        return 1.0

    found = SimpleNamespace(
        widest=lambda _: "fit",
        training=training,
        mapped=lambda *_: 2.0,
        export=lambda: 3.0,
        minutes=lambda pictures: pictures / 10,
    )
    monkeypatch.setattr("components.training.memory.measured", lambda *_: found)
    monkeypatch.setattr(foresight, "squares_of", lambda _: 2)
    sides = ["fit"] * 30 + ["calibrate"] * 10 + ["test"] * 5
    table = pd.DataFrame({"split": sides, "label": ["normal"] * 40 + ["anomalous"] * 5, "width": 30, "height": 20})
    table.loc[44, "width"] = 300
    monkeypatch.setattr(Stages, "folds", 5)
    monkeypatch.setattr(foresight, "read_split", lambda _: table)
    found = foresight.need(stages(), "padim@128")
    assert asked["training"] == (60, 40)  # in squares; the check has an anomaly on each calibrate normal
    assert asked["pixels"] == 6000  # of the largest picture, wherever it is
    assert (found.pictures, found.export) == (60, 3)
    assert found.minutes == 36.0  # of the model that ships and of each of five folds
    assert found.drawing <= 1  # few and small ones


def test_large_pictures_take_memory_before_a_detector_sees_them(stages, monkeypatch):
    """Anomalies are drawn on some at once, and two go through the graph together."""
    found = SimpleNamespace(
        widest=lambda _: "fit",
        training=lambda *_: 90.0,
        mapped=lambda *_: 0.0,
        export=lambda: 50.0,
        minutes=lambda _: 0.0,
    )
    monkeypatch.setattr("components.training.memory.measured", lambda *_: found)
    monkeypatch.setattr(foresight, "cores", lambda: 3)
    monkeypatch.setattr(Stages, "folds", 0)
    table = pd.DataFrame({"split": ["fit", "calibrate"] * 20, "label": "normal", "width": 4000, "height": 3000})
    monkeypatch.setattr(foresight, "read_split", lambda _: table)
    monkeypatch.setattr(foresight, "squares_of", lambda _: 1)
    seen = foresight.need(stages(), "padim", 3)
    assert seen.drawing == pytest.approx(4 * 12e6 * foresight.DRAWN / 2**20, abs=1)
    assert seen.export == pytest.approx(50 + 3 * 12e6 * foresight.PARITY / 2**20, abs=1)


def test_drawing_may_be_what_does_not_fit(stages, monkeypatch):
    given(monkeypatch, 1000, NEED._replace(drawing=1500))
    with pytest.raises(SettingsError, match=r"drawing synthetic anomalies on 40 .* 1500 MiB .* set LOUPE_CORES=1 in"):
        require_room(stages(), ["padim"])


@pytest.mark.slow
def test_a_dry_run_tells_and_leaves_nothing(product, tmp_path):
    out = tmp_path / "run"
    asked = ["fit", "fastflow", "--data", str(product), "--out", str(out), "--preset", "tiny", "--alpha", "0.2"]
    result = CliRunner().invoke(app, [*asked, "--dry-run"])
    assert result.exit_code == 0, result.output
    for said in (
        "pictures: calibrate 7 normal, fit 33 normal, test 8 anomalous, test 8 normal",
        "sizes: fastflow (the preset tiny has one)",
        "fastflow: epochs 4, batch_size 4; less than a minute of training",
        "fastflow: peak about",
        "available: ",
        f"the run would go to {out}; nothing was trained",
    ):
        assert said in result.output
    assert not out.exists()


@pytest.mark.slow
def test_a_fit_is_refused_before_anything_is_learned(product, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(foresight, "available_memory_mb", lambda: 10)
    with pytest.raises(SettingsError, match=r"patchcore: .* where 10 are available; .* a smaller bank_size"):
        fit_folder(FitRequest("patchcore", product, preset="tiny", alpha=0.2), tmp_path / "run")
    assert "synthesise" not in caplog.text
    assert not (tmp_path / "run" / "work" / "run" / "synthetic").exists()


def test_every_training_of_the_pipeline_asks(stages, monkeypatch):
    given(monkeypatch, 10)
    with pytest.raises(SettingsError, match=r"padim: its phase statistics .* where 10 are available"):
        stages().train("padim")
