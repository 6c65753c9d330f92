"""Cross-conformal calibration: when it is taken, what is in which fold, what it promises, and a whole fit with it."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmarks.mechanisms.thresholds import alarms
from components.calibration.calibrate import summary
from components.calibration.folds import Fold, calibrate_folds, fold_count
from components.calibration.settings import CalibrationSettings
from components.cli import app
from components.core.artefacts import read_json, seconds_of
from components.core.errors import BundleError, CalibrationError, SettingsError
from components.core.records import SPLIT_COLUMNS
from components.datasets.folds import write_folds
from components.datasets.loading import read_split, rows
from components.decision.bundle import Bundle, Manifest
from components.decision.calibration import Calibration, middle_and_spread
from components.pipeline import crossing
from components.training.select import FoldsAUROC, common_check


def counted(calibrate, normals, alpha=0.05, folds=None):
    return fold_count(calibrate, normals, CalibrationSettings(alpha, folds=folds), "photos", 0.2)


# When


def test_folds_are_taken_where_too_few_would_be_held_out():
    assert [counted(n // 5, n) for n in (20, 31, 54, 60, 119)] == [5] * 5
    assert [counted(n // 5, n) for n in (120, 500)] == [0, 0]
    assert counted(4, 20, folds=20) == 20
    assert counted(100, 500, folds=3) == 3
    assert counted(19, 95, folds=0) == 0


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ((4, 18), "18 good training pictures are too few.*19 are needed: add 1, or raise alpha to 0.05264"),
        ((4, 20, 0.05, 30), "30 are needed: add 10"),
        ((4, 20, 0.05, 0), "4 calibrate normals are too few"),
    ],
)
def test_what_cannot_be_promised_is_said_with_the_number_that_is_missing(asked, sentence):
    with pytest.raises(CalibrationError, match=sentence):
        counted(*asked)


def test_the_alpha_that_a_refusal_names_is_accepted():
    for n in range(5, 60):
        with pytest.raises(CalibrationError) as refused:
            counted(0, n, alpha=0.5 / (n + 1))
        assert counted(0, n, alpha=float(str(refused.value).split()[-1])) == 5


@pytest.mark.parametrize("folds", [1, -2])
def test_a_number_of_folds_that_is_none(folds):
    with pytest.raises(SettingsError, match=r"calibration\.folds is"):
        CalibrationSettings(folds=folds)


# What it promises


@pytest.mark.parametrize(("n", "folds"), [(20, 5), (20, 20), (31, 5), (60, 5)])
def test_no_more_false_alarms_than_asked_for(n, folds):
    """A score by nearest neighbours, the bank of all against out-of-fold scores; the guarantee itself is no theorem."""
    rates = alarms(n, folds, rounds=600)
    assert rates.mean() < 0.05 + 3 * rates.std() / 600**0.5
    assert rates.mean() > 0.01  # it is no threshold that lets all pass


def test_scores_of_the_pictures_that_were_learned_would_not_do():
    """What the out-of-fold scores are for: the bank knows its own pictures."""
    from benchmarks.mechanisms.thresholds import knn
    from components.decision.conformal import threshold

    rng = np.random.default_rng(0)
    bank, fresh = rng.normal(size=(40, 16)), rng.normal(size=(500, 16))
    assert (knn(bank, fresh) > threshold(knn(bank, bank), 0.05)).mean() > 0.5


# Which pictures


@pytest.fixture
def split(tmp_path):
    names = [f"train/good/{i:02d}.png" for i in range(23)] + ["test/good/0.png", "test/hole/0.png", "test/hole/1.png"]
    table = pd.DataFrame({"image_id": names}).reindex(columns=list(SPLIT_COLUMNS))
    table["group"] = ["left", "right"] * 13
    table["label"] = ["normal"] * 24 + ["anomalous"] * 2
    table["split"] = ["calibrate" if i % 5 == 0 else "fit" for i in range(23)] + ["test", "test", "fit"]
    table["note"] = pd.Series(None, table.index, object)
    table.loc[7, ["split", "note"]] = ["excluded", "copy of train/good/06.png"]
    (tmp_path / "split").mkdir()
    table.to_parquet(tmp_path / "split" / "split.parquet", index=False)
    return tmp_path / "split"


def test_every_good_picture_is_in_one_fold_and_nothing_else_moves(split, tmp_path):
    at = write_folds(split, tmp_path / "folds", 4)
    before, held = read_split(split), []
    others = ~before["split"].isin(["fit", "calibrate"]) | (before["label"] != "normal")
    for number in range(4):
        table = read_split(at / str(number) / "split")
        assert table[others].equals(before[others])  # the test side, the copy that is left out, labelled anomalies
        held += list(rows(at / str(number) / "split", "calibrate")["image_id"])
        assert len(rows(at / str(number) / "split", "calibrate")["group"].unique()) == 2  # folds are alike
    good = before[~others]["image_id"]
    assert sorted(held) == sorted(good)
    assert sorted(rows(at / "all" / "split", "fit", "normal")["image_id"]) == sorted(good)
    assert len(rows(at / "all" / "split", "calibrate")) == 0
    assert sorted(rows(at / "held" / "split", "calibrate")["image_id"]) == sorted(good)
    sizes = read_json(at / "folds.json")["normals"]
    assert max(sizes) - min(sizes) <= 1


# Which epoch


class Asking:
    """What a loop tells of itself."""

    def __init__(self, history, best=None):
        self.history, self.best = history, best


def epoch(number, score=None, phase="flows"):
    record = {"phase": phase, "epoch": number, "loss": 1.0}
    return record if score is None else record | {"synthetic_auroc": score}


def test_the_epoch_is_the_one_that_is_best_over_all_folds():
    histories = [
        [epoch(0, 0.9), epoch(1), epoch(2, 0.5), epoch(3, 0.6)],
        [epoch(0, 0.5), epoch(1), epoch(2, 0.8), epoch(3, 0.7)],
    ]
    select = FoldsAUROC(histories)
    said = []
    for passed in range(3):
        select.loop = Asking([epoch(0, 0.1)] * passed + [epoch(9)])
        said.append(select(None))
    assert said == pytest.approx([0.7, 0.65, 0.65])
    assert common_check(histories) == 0
    assert common_check([[epoch(0, 0.5), epoch(1, 0.5)]]) == 1  # of equal ones the later, as the loop keeps it
    assert common_check([[{"phase": "coreset", "epoch": 0, "synthetic_auroc": 0.9}]]) is None


@pytest.mark.parametrize(("kept", "stays"), [([True, True, False], True), ([False, False, True], False)])
def test_an_optional_phase_stays_where_most_folds_keep_it(kept, stays):
    one = [{"phase": "whiten", "epoch": 0, "synthetic_auroc": 0.8, "before": 0.7, "kept": k} for k in kept]
    select = FoldsAUROC([[record] for record in one])
    select.loop = Asking([])
    before = select(None)
    select.loop = Asking([], best=(before, {}))
    assert before == pytest.approx(0.7)
    assert (select(None) >= before) == stays


# A whole fit


@pytest.fixture(scope="module")
def fitted(product, tmp_path_factory):
    """Twenty pictures, three folds, FastFlow: a method that chooses epochs."""
    from components.pipeline.fit import FitRequest, fit_folder

    root = tmp_path_factory.mktemp("few")
    for path in sorted((product / "train/good").iterdir())[:20]:
        (root / "photos/train/good").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "photos/train/good")
    sections = {"calibration": {"folds": 3}}
    few = {"epochs": 2}
    request = FitRequest("fastflow", root / "photos", preset="tiny", overrides=few, sections=sections)
    return fit_folder(request, root / "run")


def test_twenty_pictures_allow_five_in_a_hundred(fitted):
    known = Bundle.open(fitted / "bundle").calibration
    assert (known.n, known.alpha, known.folds) == (20, 0.05, 3)
    assert read_json(fitted / "bundle" / "manifest.json")["rule"].startswith("cross-conformal, 3 folds")
    assert set(rows(fitted, "fit", "normal")["image_id"]) == set(read_split(fitted)["image_id"])  # all were learned
    card = (fitted / "bundle" / "MODEL_CARD.md").read_text()
    assert "20 good images, each by one of 3 models without it" in card
    assert "interval, nominal" in card


def test_the_table_is_of_models_that_had_not_seen_the_picture(fitted):
    from components.training.model import load_model, score_files

    below = fitted / "work/run"
    table = pd.read_parquet(below / "fastflow/calibration/scores.parquet")
    best = common_check([read_json(below / f"fastflow/folds/{k}/model/history.json") for k in range(3)])
    for number in range(3):
        part = table[table["fold"] == number].set_index("image_id")["score"]
        assert set(part.index) == set(rows(below / f"folds/{number}/split", "calibrate")["image_id"])
        detector = load_model(below / f"fastflow/folds/{number}/checks/{best}")
        paths = [fitted.parent / "photos" / name for name in part.index]
        np.testing.assert_allclose(part, np.concatenate([s for s, _ in score_files(detector, paths)]), rtol=1e-5)
    expected = summary(table["score"].to_numpy(), CalibrationSettings())
    assert read_json(fitted / "calibration.json")["threshold"] == expected["threshold"]


def test_drift_is_measured_against_scores_of_pictures_that_were_not_learned(fitted):
    reference = pd.read_parquet(fitted / "bundle/reference.parquet").set_index("image_id")
    table = pd.read_parquet(fitted / "work/run/fastflow/calibration/scores.parquet").set_index("image_id")
    pd.testing.assert_series_equal(reference["score"].sort_index(), table["score"].sort_index())
    assert sorted(reference["p_value"]) == pytest.approx(np.arange(1, 21)[::1] / 21 + 1 / 21)
    assert set(reference["decision"]) == {"normal"}


def test_there_is_no_cascade_and_it_says_why(fitted):
    with pytest.raises(BundleError, match="a calibration by folds has no edge graph"):
        _ = Bundle(fitted / "bundle", Manifest.read(fitted / "bundle"), 1).edge


def test_another_operating_point_needs_no_training(fitted, tmp_path):
    done = CliRunner().invoke(app, ["calibrate", str(fitted), "--alpha", "0.1", "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.exception
    assert "interval, nominal" in done.output
    new = Bundle.open(tmp_path / "run" / "bundle").calibration
    assert (new.alpha, new.folds, new.rule) == (0.1, 3, Bundle.open(fitted / "bundle").calibration.rule)


def test_after_a_kill_the_folds_that_are_there_are_not_trained_again(fitted, monkeypatch):
    """Only the model that ships is trained again, by the same choice."""
    from components.datasets.settings import DataSettings
    from components.pipeline.params import Params, View
    from components.pipeline.stages import Stages
    from components.training import train as room
    from components.training.settings import TrainSettings

    params = Params(
        {"photos": DataSettings("folder", "photos")},
        {"run": View("photos")},
        artefacts=str(fitted / "work"),
        train=TrainSettings("tiny", detectors={"fastflow": {"epochs": 2}}),
        calibration=CalibrationSettings(folds=3),
    )
    trained = []
    monkeypatch.setattr(room, "train", lambda *given, **_: trained.append(given[4].parent.name))
    crossing.train(Stages(params, "run", fitted.parent), "fastflow", 3)
    assert trained == ["fastflow"]
    shutil.rmtree(fitted / "work/run/fastflow/folds/1/model")
    with pytest.raises(FileNotFoundError):  # the training above writes nothing, so there is nothing to go on with
        crossing.train(Stages(params, "run", fitted.parent), "fastflow", 3)
    assert trained[1:] == ["1"]


# Ensembles


@pytest.fixture(scope="module")
def sizes(fitted, tmp_path_factory):
    """The same twenty pictures, PatchCore at two sizes."""
    from components.pipeline.fit import FitRequest, fit_folder

    sections, few = {"calibration": {"folds": 3}}, {"bank_size": 64}
    asked = FitRequest("patchcore", fitted.parent / "photos", preset="tiny", overrides=few, sections=sections)
    return fit_folder(replace(asked, size=(64, 96)), tmp_path_factory.mktemp("sizes") / "run")


MEAN = "patchcore@64-patchcore@96"


def out_of_fold(run, name):
    return pd.read_parquet(run / "work/run" / name / "calibration/scores.parquet").set_index("image_id")


def test_the_mean_of_sizes_is_calibrated_by_the_means_of_the_folds(sizes):
    """Each member's out-of-fold scores on the scale that ships, and their mean."""
    known = Bundle.open(sizes / "bundle").calibration
    assert (known.n, known.folds) == (20, 3)
    tables = [out_of_fold(sizes, name) for name in MEAN.split("-")]
    found, expected = out_of_fold(sizes, MEAN), 0.0
    for table in tables:
        middle, spread = middle_and_spread(table["score"].to_numpy())
        expected += (table["score"] - middle) / spread / len(tables)
    assert (found["fold"] == tables[0]["fold"][found.index]).all()
    np.testing.assert_allclose(found["score"], expected[found.index], rtol=1e-3, atol=1e-3)


def test_the_evidence_of_a_mean_is_that_of_its_folds(sizes, fitted):
    from components.training.model import load_model, score_files

    at = sizes / "work/run" / MEAN
    folds = [pd.read_parquet(at / f"folds/{number}/model/check.parquet") for number in range(3)]
    pd.testing.assert_frame_equal(pd.read_parquet(at / "model/check.parquet"), pd.concat(folds, ignore_index=True))
    held = out_of_fold(sizes, MEAN)["score"]
    paths = [fitted.parent / "photos" / name for name in held.index]
    whole = np.concatenate([scores for scores, _ in score_files(load_model(sizes / "model"), paths)])
    assert np.median(whole) < np.median(held)  # the model of all pictures has learned them


def test_the_page_has_good_pictures_with_the_scores_of_when_they_were_held_out(sizes):
    checked = pd.read_parquet(sizes / "model/check.parquet")
    worst = checked[checked["kind"] == "normal"].nlargest(1, "score").iloc[0]
    first = read_json(sizes / "report/cells.json")[0]
    assert first["name"] == worst["image_id"].rpartition("/")[2]
    assert first["checked"] == pytest.approx(worst["score"], rel=1e-3)
    assert first["score"] < first["checked"]  # the model that ships has learned it
    page = (sizes / "report.html").read_text()
    assert (
        f"score {worst['score']:.4g}, p {2 / 21:.3f}" in page
    )  # the picture itself is one of those that score as high
    assert "<h1>PatchCore at 64 and 96 pixels on photos</h1>" in page


def test_what_a_mean_took_is_what_its_members_took(sizes):
    each = [seconds_of(sizes / "work/run" / name / "model") for name in MEAN.split("-")]
    assert min(each) > 0
    assert seconds_of(sizes / "model") > sum(each)
    assert seconds_of(sizes / "bundle/none") is None


def test_different_detectors_are_put_together_fold_by_fold(sizes, fitted):
    """As the pipeline does it, of a mean of sizes and another detector."""
    from components.pipeline.fit import FitRequest, stages_of

    sections = {"calibration": {"folds": 3}}
    asked = FitRequest("padim", fitted.parent / "photos", preset="tiny", sections=sections)
    stages, name = stages_of(asked, sizes / "work"), f"{MEAN}+padim"
    stages.train("padim")
    stages.calibrate_member("padim")
    stages.combine(name)
    stages.calibrate(name)
    assert Calibration.read(stages.of(name) / "calibration/calibration.json").folds == 3
    both = read_json(stages.of(name) / "model/settings.json")["settings"]["members"]
    assert [member["detector"] for member in both] == ["patchcore", "patchcore", "padim"]


def test_nobody_is_warned_of_a_member_of_a_mean(monkeypatch, tmp_path):
    from components.calibration import folds as room

    warned = []
    monkeypatch.setattr(room, "_tell_unlike", lambda parts: warned.append(len(parts)))
    monkeypatch.setattr(room, "_scored", lambda *_: (one_fold(), np.zeros((4, 4))))
    monkeypatch.setattr(room, "tree_hash", lambda _: "a model")
    (tmp_path / "split").mkdir()
    for name in ("split/split.parquet", "model.safetensors"):
        (tmp_path / name).write_text("x")
    given = tmp_path, [Fold(tmp_path, tmp_path / "split")] * 2, tmp_path
    for warns in (False, True):
        calibrate_folds(*given, tmp_path / f"out-{warns}", CalibrationSettings(0.2), warns=warns)
    assert warned == [2]


def one_fold():
    return pd.DataFrame({"image_id": list("abcd"), "group": "all", "score": [1.0, 2.0, 3.0, 4.0], "fold": 0})
