"""Views that join others: the same rows on the same sides, calibration per group, one detector for all products."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from benchmarks.common.fitting import by_group
from benchmarks.common.results import WORK
from benchmarks.common.views import prepare
from benchmarks.quality import unified
from components.calibration.calibrate import by_group as scores_by_group
from components.calibration.calibrate import group_tables, summary
from components.calibration.settings import CalibrationSettings
from components.core.artefacts import file_hash, read_json
from components.core.errors import DataError, SettingsError
from components.datasets.loading import read_split, rows
from components.datasets.splits import join
from components.decision.batch import score
from components.decision.bundle import Bundle
from components.decision.calibration import Calibration
from components.decision.conformal import p_values
from components.evaluation.evaluate import _score_table
from components.pipeline.params import Params, View, load_params
from components.pipeline.stages import Stages
from tests.given import decisions

MEMBERS = ("tiles", "plates")
SETTINGS = {
    "data": {name: {"adapter": "folder", "name": name} for name in MEMBERS},
    "views": {"tiles": {"data": "tiles"}, "plates": {"data": "plates"}, "both": {"views": list(MEMBERS)}},
    "validation": {name: {"expect_masks": True} for name in MEMBERS},
    "split": {"calibrate_share": 0.4},
    "train": {"preset": "tiny"},
    "calibration": {"alpha": 0.2},
    "evaluation": {"map_size": 64, "bootstrap": 20},
}


def plate(source: Path, target: Path) -> None:
    """Another product of the same files: upside down, brighter and coarser."""
    with Image.open(source) as image:
        picture = np.asarray(image.convert("RGB").transpose(Image.Transpose.ROTATE_90).resize((24, 24)), float)
    target.parent.mkdir(parents=True, exist_ok=True)
    bright = (0.5 * picture + 120).clip(0, 255).astype(np.uint8)
    Image.fromarray(bright).resize((96, 96), Image.Resampling.NEAREST).save(target)


@pytest.fixture(scope="module")
def project(product, tmp_path_factory):
    """A folder with params.yaml and two products, prepared by the benchmark's own ``prepare``."""
    root = tmp_path_factory.mktemp("joined")
    shutil.copytree(product, root / "data/tiles")
    for path in (p for p in product.rglob("*.png") if "ground_truth" not in p.parts):
        plate(path, root / "data/plates" / path.relative_to(product))
    for path in (product / "ground_truth").rglob("*.png"):
        target = root / "data/plates" / path.relative_to(product)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as mask:
            mask.transpose(Image.Transpose.ROTATE_90).save(target)
    (root / "params.yaml").write_text(yaml.safe_dump(SETTINGS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        prepare("both", 0)
    return root


@pytest.fixture(scope="module")
def stages(project):
    params = load_params(project / WORK / "seed-0/params.yaml")
    return Stages(replace(params, artefacts=str(project / WORK / "seed-0")), "both", project / "data")


@pytest.fixture(scope="module")
def trained(stages):
    """A tiny UniAD through every stage of the joined view."""
    for step in (stages.train, stages.calibrate, stages.evaluate, stages.export):
        step("uniad")
    return stages.of("uniad")


def test_every_row_of_a_member_keeps_its_side(stages):
    joined = read_split(stages.folder / "split")
    parts = [read_split(member.folder / "split") for member in stages.members]
    assert len(joined) == sum(map(len, parts))
    for name, part in zip(MEMBERS, parts, strict=True):
        ours = joined[joined["group"] == name]
        assert list(zip(ours["sha256"], ours["split"], strict=True)) == list(
            zip(part["sha256"], part["split"], strict=True)
        )
    assert set(joined["split"]) >= {"fit", "calibrate", "test"}


def test_ids_and_masks_resolve_from_the_common_root(stages):
    joined = read_split(stages.folder / "split")
    assert stages.data == stages.data_root
    assert all(file_hash(stages.data / i) == h for i, h in zip(joined["image_id"], joined["sha256"], strict=True))
    masks = joined["mask"].dropna()
    assert len(masks) == 16
    assert all((stages.data / m).is_file() for m in masks)
    assert set(joined["dataset"]) == {"both"}
    assert set(joined["group"]) == set(MEMBERS)


def test_synthetic_anomalies_stand_on_the_calibrate_normals_of_all(stages):
    made = pd.read_parquet(stages.folder / "synthetic" / "synthetic.parquet")
    assert set(made["origin"]) == set(rows(stages.folder / "split", "calibrate", "normal")["image_id"])


def test_a_picture_in_two_members_is_refused_and_a_missing_split_named(stages, tmp_path):
    tiles = stages.members[0]
    path = (tiles.folder / "split", Path("tiles"))
    with pytest.raises(DataError, match="more than one of the views"):
        join({"tiles": path, "again": path}, tmp_path / "split", "twice")
    with pytest.raises(DataError, match="make the split of none"):
        join({"none": (tmp_path / "nowhere", Path("none"))}, tmp_path / "split", "x")
    assert not (tmp_path / "split").exists()


def test_views_that_cannot_be_built_are_refused(stages):
    views = {
        "a": View("a"),
        "both": View(views=("a",)),
        "nested": View(views=("both",)),
        "self": View(views=("self",)),
        "neither": View(),
        "mixed": View("a", views=("a",)),
    }
    params = Params(data={}, views=views)
    assert params.view("both").views == ("a",)
    for name in ("nested", "self", "neither", "mixed"):
        with pytest.raises(SettingsError, match=f"views.{name}"):
            params.view(name)
    with pytest.raises(SettingsError, match="those of its members"):
        stages.manifest()


def two_groups(settings: CalibrationSettings) -> Calibration:
    """Group a scores about 0, b about 10; c has too few normals."""
    rng = np.random.default_rng(0)
    scores = np.r_[rng.normal(0, 1, 99), rng.normal(10, 1, 99), rng.normal(5, 1, 3)]
    names = np.repeat(["a", "b", "c"], [99, 99, 3])
    return Calibration.of(
        {**summary(scores, settings), "groups": group_tables(scores_by_group(scores, names), settings)}
    )


def test_p_values_are_those_of_the_group_and_else_overall():
    known = two_groups(CalibrationSettings(0.05))
    p, decisions, limits = known.decide(np.full(4, 5.0), ["a", "b", "c", None])
    assert decisions == ["anomalous", "normal", "normal", "normal"]  # far above what a shows, usual elsewhere
    assert p[0] == 0.01
    assert p[1] == 1.0
    assert p[2] == p[3] == p_values(known.table, np.array([5.0]))[0]
    assert limits[2] == limits[3] == known.threshold
    assert limits[0] < 5 < limits[1]
    assert set(known.own) == {"a", "b"}
    assert known.groups["c"].threshold is None
    assert known.table_of("unheard of") is known.table
    assert group_tables({"c": np.zeros(3)}, CalibrationSettings(0.05))["c"]["reason"] == "fewer than 19 normals"


def test_false_alarms_per_group_are_those_asked_for():
    """On the overall table b would raise nearly all false alarms and a none."""
    rng, known = np.random.default_rng(1), two_groups(CalibrationSettings(0.05))
    for group, mean in (("a", 0), ("b", 10)):
        fresh = rng.normal(mean, 1, 4000)
        apart = np.mean(np.array(known.decide(fresh, [group] * 4000)[1]) == "anomalous")
        overall = np.mean(np.array(known.decide(fresh, [None] * 4000)[1]) == "anomalous")
        assert 0.01 < apart < 0.1
        assert not 0.03 < overall < 0.08


def test_a_single_group_has_no_table_of_its_own_and_decides_as_before(tmp_path):
    scores, settings = np.random.default_rng(2).normal(size=99), CalibrationSettings(0.05)
    values = {**summary(scores, settings), "groups": group_tables({"only": scores}, settings)}
    assert values["groups"] == {"only": {"n": 99, "threshold": values["threshold"]}}
    known = Calibration.of(values)
    asked = np.r_[scores, np.linspace(-4, 4, 50)]
    (tmp_path / "settings.json").write_text('{"detector": "x"}')
    (tmp_path / "model.safetensors").write_text("")
    table = pd.DataFrame({"image_id": map(str, range(149)), "group": "only"})
    result = _score_table(table, asked, known, tmp_path)
    assert list(result["p_value"]) == list(p_values(known.table, asked))
    assert list(result["decision"]) == decisions(known.table, asked)
    assert set(result["threshold"]) == {known.threshold}


def test_uniad_runs_through_every_stage_of_a_joined_view(trained):
    known = Calibration.read(trained / "calibration/calibration.json")
    metrics = read_json(trained / "evaluation/metrics.json")
    assert set(known.own) == set(MEMBERS)
    assert sum(known.groups[name].n for name in MEMBERS) == known.n
    scored = pd.read_parquet(trained / "evaluation/scores.parquet")
    for name in MEMBERS:
        part = scored[scored["group"] == name]
        assert list(part["p_value"]) == list(p_values(known.table_of(name), part["score"].to_numpy()))
        assert set(part["threshold"]) == {known.groups[name].threshold}
        alarms = (part[part["label"] == "normal"]["decision"] == "anomalous").mean()
        assert metrics["groups"][name]["false_alarm_rate"]["rate"] == alarms
        assert "aupro" in metrics["groups"][name]["pixel"]
    assert (scored["p_value"].to_numpy() != p_values(known.table, scored["score"].to_numpy())).any()
    assert len(pd.read_parquet(trained / "bundle/reference.parquet")) == known.n


def test_the_detector_never_learns_the_group(trained, stages, tmp_path):
    """Groups drawn at random in the split change no byte of the model."""
    from components.training.settings import TrainSettings
    from components.training.train import train

    shutil.copytree(stages.folder / "split", tmp_path / "split")
    table = read_split(tmp_path / "split")
    table["group"] = np.random.default_rng(0).permutation(table["group"])
    table.to_parquet(tmp_path / "split/split.parquet", index=False)
    settings = TrainSettings("tiny")
    train("uniad", tmp_path / "split", stages.folder / "synthetic", stages.data, tmp_path / "model", settings, 0)
    assert file_hash(tmp_path / "model/model.safetensors") == file_hash(trained / "model/model.safetensors")


def test_a_bundle_decides_by_the_group_it_is_told(trained, stages, tmp_path):
    bundle = Bundle.open(trained / "bundle")
    images = [stages.data / i for i in rows(stages.folder / "split", "test")["image_id"] if i.startswith("plates")]
    tables = [
        pd.read_parquet(score(trained / "bundle", images, tmp_path / f"{g}.parquet", group=g)) for g in (None, "plates")
    ]
    for group, table in zip((None, "plates"), tables, strict=True):
        own = bundle.calibration.table_of(group)
        assert set(table["threshold"]) == {own.threshold}
        assert list(table["p_value"]) == list(p_values(own, table["score"].to_numpy()))
        assert set(table["group"]) == {group}
    assert list(tables[0]["score"]) == list(tables[1]["score"])
    card = (trained / "bundle/MODEL_CARD.md").read_text()
    assert all(f"| threshold of group {name} |" in card for name in MEMBERS)
    with pytest.raises(DataError, match="known are plates, tiles"):
        score(trained / "bundle", images, tmp_path / "x.parquet", group="plate")


def test_the_service_decides_by_the_group_it_is_told(trained, product, tmp_path):
    from fastapi.testclient import TestClient

    from components.service.champion import Champion
    from components.service.recorder import Recorder
    from components.service.routes import create_app
    from components.service.settings import ServiceSettings
    from components.storage import open_store

    settings = ServiceSettings(spool=str(tmp_path / "spool"))
    champion = Champion(str(trained / "bundle"), None, tmp_path / "models")
    recorder = Recorder(open_store(str(tmp_path / "store")), settings)
    known, picture = champion.served.bundle.calibration, (product / "test/good/000.png").read_bytes()
    with TestClient(create_app(champion, recorder, settings)) as client:
        for group in (None, "tiles"):
            answer = client.post(
                "/v1/score",
                content=picture,
                headers={"Content-Type": "image/png"},
                params={"group": group} if group else {},
            )
            (result,) = answer.json()["results"]
            table = known.table_of(group)
            assert result["threshold"] == table.threshold
            assert result["p_value"] == p_values(table, np.array([result["score"]]))[0]
        refused = client.post("/v1/score", content=picture, params={"group": "tile"})
    assert refused.status_code == 422
    assert "known are plates, tiles" in refused.json()["detail"]


def test_the_report_sets_one_model_beside_several(trained):
    metrics = read_json(trained / "evaluation/metrics.json")
    known = read_json(trained / "calibration/calibration.json")["groups"]
    cost = {"seconds": {"train": 10.0}, "peak_memory_mb": 100, "state_mb": 1.5}
    entries = {
        "unified/uniad": {**cost, **by_group(metrics["groups"], known)},
        "tiles/uniad": {**cost, "overall": metrics["groups"]["tiles"]},
    }
    assert "curve" not in entries["unified/uniad"]["groups"]["tiles"]["pixel"]
    assert by_group({"only": {}}, {}) == {}
    lines = [line.split(" | ") for line in unified.report(entries, MEMBERS, ["uniad"]).splitlines()]
    auroc = f"{metrics['groups']['tiles']['image']['auroc']:.3f}"
    (joined, own), (_, other) = ([x for x in lines if x[0] == f"| {name}" and x[1] == "uniad"][:2] for name in MEMBERS)
    assert joined[2:4] == ["unified", auroc]
    assert own[2:4] == ["per group", auroc]
    assert joined[-1] == own[-1] == "own |"
    assert other[2:4] == ["per group", "not measured"]
    assert ["| uniad", "unified", "10", "100", "1.5 |"] in lines
