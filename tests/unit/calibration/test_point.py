"""Another operating point: what export would have written, whole or not at all, and chosen by what mistakes cost."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from components.calibration.calibrate import group_tables, summary
from components.calibration.exits import Scored, evidence, exits, moved_exits
from components.calibration.point import Costs, Defects, cheapest, estimate, moved
from components.calibration.settings import CalibrationSettings, CascadeSettings
from components.cli import app
from components.core.artefacts import file_hash, read_json, tree_hash
from components.core.errors import BundleError, CalibrationError, DataError, SettingsError
from components.datasets.loading import rows
from components.decision.batch import score
from components.decision.bundle import Bundle
from components.decision.calibration import Calibration
from components.export.card import moved_card
from components.pipeline import operating
from components.pipeline.operating import PointRequest, costs_of, set_point
from components.scorelog import table
from components.storage import open_store

PROJECT = Path(__file__).parents[3]


def loupe(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def values(n: int = 99, alpha: float = 0.05) -> dict:
    scores = np.arange(float(n))
    settings = CalibrationSettings(alpha)
    return {**summary(scores, settings), "groups": group_tables({"": scores}, settings), "model": "m", "map": {}}


@pytest.fixture
def run(patchcore, tmp_path):
    return shutil.copytree(patchcore, tmp_path / "run")


def whole(run):
    """What a run holds, but for the note of who locks it."""
    return {p.relative_to(run): file_hash(p) for p in run.rglob("*") if p.is_file() and p.name != ".lock"}


# The table


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.37])
def test_the_table_is_what_a_calibration_at_that_alpha_would_be(alpha):
    assert moved(values(), alpha) == values(alpha=alpha)
    assert moved(moved(values(), alpha), 0.05) == values()


def test_groups_get_and_lose_tables_of_their_own():
    rng = np.random.default_rng(0)
    by = {"a": rng.normal(size=40), "b": rng.normal(5, 1, size=12)}
    whole = np.concatenate(list(by.values()))

    def made(alpha):
        settings = CalibrationSettings(alpha)
        return {**summary(whole, settings), "groups": group_tables(by, settings)}

    assert moved(made(0.05), 0.1) == made(0.1)
    assert set(Calibration.of(made(0.05)).own) == {"a"}
    assert set(Calibration.of(moved(made(0.05), 0.1)).own) == {"a", "b"}
    assert set(Calibration.of(moved(made(0.1), 0.02)).own) == set()


def test_a_group_of_an_older_file_stays_with_the_overall_table():
    by, settings = {"a": np.arange(40.0), "b": np.arange(12.0)}, CalibrationSettings(0.05)
    old = {**summary(np.r_[by["a"], by["b"]], settings), "groups": group_tables(by, settings)}
    del old["groups"]["b"]["held"]
    assert set(Calibration.of(moved(old, 0.1)).own) == {"a"}


def test_an_alpha_that_the_normals_cannot_give_is_refused_with_the_smallest():
    with pytest.raises(CalibrationError, match=r"19 normals are too few.*99 are needed.*allow is 0\.05$"):
        moved(values(19), 0.01)
    with pytest.raises(SettingsError, match=r"calibration\.alpha"):
        moved(values(19), 5.0)


def test_the_exits_of_a_cascade_follow():
    rng, settings = np.random.default_rng(1), CascadeSettings(missed=0.1)
    normals = Scored(rng.normal(size=300), np.array(["a", "b"] * 150))
    made, full = Scored(rng.normal(1, 1, size=60), np.array(["a", "b"] * 30)), rng.normal(100, 80, size=60)
    kept = {"evidence": json.loads(json.dumps(evidence(normals, made, full, settings)))}
    old, new = (Calibration.of(values(199, alpha)) for alpha in (0.05, 0.2))
    for known in (old, new):
        found = np.array([d == "anomalous" for d in known.decide(full, list(made.groups))[1]])
        expected = exits(normals, Scored(made.scores[found], made.groups[found]), known, settings)
        assert moved_exits(kept, known) == {**expected, **kept}
    assert moved_exits(kept, old)["high"] != moved_exits(kept, new)["high"]
    with pytest.raises(BundleError, match="export the bundle again"):
        moved_exits({}, old)


# A run and a bundle


def test_the_bundle_is_byte_for_byte_what_export_would_have_written(run, product):
    from components.calibration.calibrate import calibrate
    from components.export.export import export
    from components.export.settings import ExportSettings

    work = run / "work/run"
    model, graph, split = work / "patchcore/model", work / "patchcore/graph", work / "split"
    calibration = calibrate(model, split, product, run / "c", CalibrationSettings(0.3), graph)
    fresh = export(model, calibration, split, work / "synthetic", product, run / "fresh", ExportSettings(), graph)
    done = loupe("calibrate", run, "--alpha", 0.3)
    assert done.exit_code == 0, done.exception
    for path in sorted(fresh.iterdir()):
        if path.name != "timing.json":
            assert (run / "bundle" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (run / "calibration.json").read_bytes() == (fresh / "calibration.json").read_bytes()
    outputs = read_json(run / "run.json")["outputs"]
    assert {name: tree_hash(run / name) for name in outputs} == outputs
    assert read_json(run / "run.json")["operating_point"]["alpha"] == 0.3


def test_it_says_both_points_and_leaves_the_old_run_alone_with_out(run, tmp_path):
    before, old = whole(run), Bundle.open(run / "bundle").calibration
    done = loupe("calibrate", run, "--alpha", 0.3, "--out", tmp_path / "other")
    assert done.exit_code == 0, done.exception
    new = Bundle.open(tmp_path / "other" / "bundle").calibration
    assert f"alpha 0.2 -> 0.3, threshold {old.threshold:.6g} -> {new.threshold:.6g}" in done.output
    assert f"{new.interval[0]:.4f} to {new.interval[1]:.4f} (before {old.interval[0]:.4f}" in done.output
    assert whole(run) == before
    assert not (tmp_path / "other" / "work").exists()


def test_a_bundle_alone_is_enough_and_scores_by_the_new_table(run, product, tmp_path):
    bundle = shutil.copytree(run / "bundle", tmp_path / "alone")
    assert loupe("calibrate", bundle, "--alpha", 0.4).exit_code == 0
    images = sorted((product / "test").rglob("*.png"))
    told = pd.read_parquet(score(bundle, images, tmp_path / "s.parquet"))
    new = moved(read_json(run / "bundle" / "calibration.json"), 0.4)
    assert set(told["threshold"]) == {new["threshold"]}
    assert list(told["decision"]) == ["anomalous" if s > new["threshold"] else "normal" for s in told["score"]]
    code = subprocess.run([sys.executable, bundle / "runner.py", images[0]], capture_output=True)
    assert code.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (["--alpha", "0.01"], CalibrationError, "the smallest rate that these allow"),
        (["--alpha", "nan"], SettingsError, "calibration.alpha is nan"),
        ([], SettingsError, "give --alpha, or --cost-miss"),
        (["--alpha", "0.3", "--labelled", "."], SettingsError, "--labelled goes with"),
        (["--cost-miss", "3"], SettingsError, "together"),
        (["--cost-miss", "3", "--cost-alarm", "-1", "--defect-rate", "0.1"], SettingsError, "--cost-alarm is -1"),
        (["--cost-miss", "3", "--cost-alarm", "1", "--defect-rate", "1"], SettingsError, "--defect-rate is 1"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_changes_nothing(run, arguments, kind, sentence):
    before = whole(run)
    done = loupe("calibrate", run, *arguments)
    assert isinstance(done.exception, kind)
    assert sentence in str(done.exception)
    assert whole(run) == before


def test_a_folder_that_is_neither_is_told(tmp_path):
    done = loupe("calibrate", tmp_path, "--alpha", 0.1)
    assert isinstance(done.exception, DataError)
    assert "no run of `loupe fit` and no bundle" in str(done.exception)


def test_killed_at_any_moment_it_leaves_the_old_run_whole(run):
    """A process that forks one child per moment: torch and ONNX Runtime are read once."""
    before = whole(run)
    code = f"""
import os, signal
from pathlib import Path
from components.pipeline import operating
def killed(real):
    def run(*given):
        real(*given)
        os.kill(os.getpid(), signal.SIGKILL)
    return run
for moment in ("clone", "repoint", "_restate_run"):
    if not (child := os.fork()):
        setattr(operating, moment, killed(getattr(operating, moment)))
        operating.set_point(operating.PointRequest(Path({str(run)!r}), 0.3))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, moment
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
    assert whole(run) == before
    assert [p for p in run.parent.iterdir() if p.name.startswith(".run")]  # what the last one left; each clears first
    assert loupe("calibrate", run, "--alpha", 0.3).exit_code == 0
    assert [p.name for p in run.parent.iterdir()] == ["run"]


def test_the_card_of_another_hand_is_refused():
    with pytest.raises(BundleError, match="no rows of an operating point"):
        moved_card("# mine", Calibration.of(values()), {})


def test_a_registered_model_gets_a_new_version_and_the_champion_stays(bundle, tmp_path):
    from components.registry.mlflow import Registry
    from components.registry.settings import RegistrySettings

    registry = Registry(RegistrySettings(str(tmp_path / "registry")))
    tags = {"detector": "patchcore", "verdict": "line-1-00001"}
    first = registry.register("line-1", bundle, {"detector": "patchcore"}, {"synthetic_auroc": 0.9}, tags)
    registry.promote("line-1", first, ("first",), {})
    params = tmp_path / "params.yaml"
    params.write_text(f"data: {{}}\nviews: {{}}\nregistry: {{folder: {tmp_path / 'registry'}}}\n")
    done = loupe("calibrate", "line-1", "--alpha", 0.3, "--params", params)
    assert done.exit_code == 0, done.exception
    assert "version 2 is registered; `loupe promote line-1 2" in done.output
    assert (registry.champion("line-1"), registry.challenger("line-1")) == ("1", "2")
    assert registry.tags("line-1", "2") == {"detector": "patchcore", operating.ORIGIN: "1"}
    assert registry.metrics("line-1", "2") == {"synthetic_auroc": 0.9}
    new = Bundle.open(registry.fetch("line-1", "2", tmp_path / "fetched")).calibration
    assert new.alpha == 0.3
    done = loupe("calibrate", "line-9", "--alpha", 0.3, "--params", params)
    assert "line-9: is no folder, and no registered model" in str(done.exception)


# By cost


def test_the_point_of_least_cost_by_hand():
    """Normals 0 to 98; defects at 90.5 and 120: catching both takes alpha 0.09, of which 8 in 100 are alarms more."""
    defects, known = Defects(np.array([90.5, 120.0]), [None, None]), values()
    dear, cheap = Costs(100, 1, 0.1), Costs(1, 1, 0.1)
    assert cheapest(known, defects, dear).alpha == pytest.approx(0.09)
    assert cheapest(known, defects, cheap).alpha == pytest.approx(0.01)
    now = estimate(known, 0.05, defects, dear)
    assert now.missed == 1
    assert now.cost == pytest.approx(0.1 * 100 / 2 + 0.9 * 0.05)
    assert now.misses[0] < 0.5 < now.misses[1]
    best = cheapest(known, defects, dear)
    decided = Calibration.of(moved(known, best.alpha)).decide(defects.scores, defects.groups)[1]
    assert decided == ["anomalous", "anomalous"]


def test_no_defect_no_choice():
    with pytest.raises(CalibrationError, match="no reviewed or labelled defect"):
        cheapest(values(), Defects(np.zeros(0), []), Costs(1, 1, 0.1))
    assert costs_of(None, None, None) is None


COSTS = ["--cost-miss", "100", "--cost-alarm", "1", "--defect-rate", "0.05"]


def test_labelled_defects_choose_and_those_of_the_test_split_never(run, product, tmp_path):
    from tests.conftest import _save, tile

    for i in range(4):
        scratched = tile(900 + i)
        scratched[30:50, 20 + i : 44 + i] = 250
        _save(tmp_path / "found/scratch" / f"{i}.png", scratched)
        _save(tmp_path / "found/good" / f"{i}.png", tile(950 + i))
    done = loupe("calibrate", run, *COSTS, "--labelled", tmp_path / "found")
    assert done.exit_code == 0, done.exception
    assert "from 4 defects" in done.output
    assert "estimated cost per picture" in done.output
    assert read_json(run / "run.json")["operating_point"]["costs"]["miss"] == 100
    before = whole(run)
    done = loupe("calibrate", run, *COSTS, "--labelled", product)
    assert isinstance(done.exception, DataError)
    assert "8 of its defects are pictures of the test split" in str(done.exception)
    alone = shutil.copytree(run / "bundle", tmp_path / "alone")
    done = loupe("calibrate", alone, *COSTS, "--labelled", tmp_path / "found")
    assert "give the run" in str(done.exception)
    assert whole(run) == before


def _logged(store, bundle, names):
    """Records of pictures as the service writes them, and what a reviewer said of each."""
    from components.decision.batch import record
    from components.scorelog.shipper import image_key

    opened, at = Bundle.open(bundle), datetime(2026, 5, 1, tzinfo=UTC).isoformat()
    for i, path in enumerate(names):
        digest = file_hash(path)
        more = {"record_id": f"r{i}", "scored_at": at, "sha256": digest, "image_uri": image_key(digest)}
        table.write(store, table.SCORES, f"s{i}", [{**record(opened, path, path.name, "line"), **more}])
        store.put(image_key(digest), path.read_bytes())
        label = {"record_id": f"r{i}", "labelled_at": at, "source": "line", "sha256": digest, "label": "defect"}
        table.write(store, table.LABELS, f"l{i}", [{**label, "image_id": path.name, "reviewer": "anna"}])


def test_reviewed_defects_of_the_store_choose_whichever_model_scored_them(run, bundle, other_bundle, tmp_path):
    from tests.conftest import _save, tile

    names = []
    for i in range(3):
        scratched = tile(800 + i)
        scratched[20:60, 20:60] = 250
        _save(tmp_path / f"{i}.png", scratched)
        names.append(tmp_path / f"{i}.png")
    params = tmp_path / "params.yaml"
    params.write_text(f"data: {{}}\nviews: {{}}\nstore: {tmp_path / 'kept'}\n")
    done = loupe("calibrate", run, *COSTS, "--params", params)
    assert isinstance(done.exception, CalibrationError)
    store = open_store(str(tmp_path / "kept"))
    _logged(store, other_bundle, names)
    found = operating.reviewed(PointRequest(run, store=str(tmp_path / "kept")), run / "bundle")
    told = pd.read_parquet(score(bundle, names, tmp_path / "s.parquet"))
    np.testing.assert_allclose(np.sort(found.scores), np.sort(told["score"]))  # not those of the other model
    done = loupe("calibrate", run, *COSTS, "--params", params)
    assert done.exit_code == 0, done.exception
    assert "from 3 defects" in done.output


def test_reviewed_pictures_of_the_test_split_are_refused(run, product, tmp_path):
    store = open_store(str(tmp_path / "kept"))
    _logged(store, run / "bundle", [product / "test/scratch/000.png"])
    with pytest.raises(DataError, match="1 of its defects are pictures of the test split"):
        set_point(PointRequest(run, costs=Costs(9, 1, 0.1), store=str(tmp_path / "kept")))
    assert len(rows(run, "test"))
