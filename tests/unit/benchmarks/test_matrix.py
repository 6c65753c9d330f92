"""``loupe bench matrix`` without DVC: the matrix spelled out in params.yaml, and what is made of DVC's words."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.production import matrix, seeds
from components.core.errors import LoupeError, SettingsError
from components.pipeline.params import load_params

SAID = """Stage 'manifest@elpv' didn't change, skipping
Running stage 'train@a-alps':
> python -m components.pipeline.stages train a alps
loupe: a/alps: no | pictures
WARNING: failed to run: python -m components.pipeline.stages train a alps, exited with 1
WARNING: Stage 'calibrate@a-alps' will be skipped due to this failure
Stage 'export@a-sap2' didn't change, skipping

Running stage 'train@a-padim':
> python -m components.pipeline.stages train a padim
trained
Running stage 'split@b':
gone
WARNING: Stage 'train@b-padim' will be skipped due to this failure
ERROR: failed to reproduce 'train@a-alps', failed to reproduce 'split@b'
"""
CELLS = ["a-alps", "a-padim", "a-sap2", "b-padim"]


@pytest.fixture(autouse=True)
def logs(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "LOGS", tmp_path)


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "params.yaml"
    path.write_text(Path("params.yaml").read_text())
    monkeypatch.setattr(matrix, "PARAMS", path)
    return path


def test_each_cell_has_its_state_and_a_broken_one_its_reason_and_log(tmp_path):
    ran = matrix.followed(SAID.splitlines(keepends=True), matrix.Ran(CELLS))
    rows = {row.split(" | ")[0].strip("| "): row for row in ran.table().splitlines()[2:-1]}
    assert f"failed: loupe: a/alps: no / pictures | 0 | {tmp_path}/train@a-alps.log" in rows["a-alps"]
    assert "| done |" in rows["a-padim"]
    assert "| up to date |" in rows["a-sap2"]
    assert "| waits for a failed stage |" in rows["b-padim"]
    assert "| failed: gone |" in rows["split@b"]
    assert (tmp_path / "train@a-padim.log").read_text().endswith("trained\n")


def test_a_log_is_of_the_last_run_alone(tmp_path):
    (tmp_path / "train@a-padim.log").write_text("of last week")
    matrix.followed(SAID.splitlines(keepends=True), matrix.Ran(CELLS))
    assert "week" not in (tmp_path / "train@a-padim.log").read_text()


def test_the_matrix_is_spelled_out_and_the_rest_of_the_file_stays(file):
    before = file.read_text()
    matrix.main(["--views", "mtd,screw", "--detectors", "patchcore@384,padim", "--write"])
    params = load_params(file)  # which refuses a matrix that does not fit its views
    assert params.benchmark.views == ("mtd", "screw")
    values, old = yaml.safe_load(file.read_text()), yaml.safe_load(before)
    assert values["benchmark"]["runs"]["mtd-patchcore-384"]["detector"] == "patchcore@384"
    assert values["train"]["detectors"].pop("patchcore@384") == {}
    assert values | {"benchmark": 0} == old | {"benchmark": 0}
    assert "# what `dvc repro` runs" in file.read_text()
    matrix.main(["--views", "elpv-mono,elpv-poly", "--detectors", "fastflow,patchcore", "--write"])
    assert file.read_text().replace("    patchcore@384: {}\n", "") == before


def test_all_leaves_out_what_needs_frames(file):
    matrix.main(["--views", "screw", "--detectors", "all", "--write"])
    assert "stm_ae" not in load_params(file).benchmark.detectors
    matrix.main(["--views", "ped2", "--detectors", "all", "--write"])
    assert "stm_ae" in load_params(file).benchmark.detectors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--views", "screws"], "did you mean screw"),
        (["--detectors", "patchore"], "did you mean patchcore"),
        (["--views", "unified"], "made of several views"),
    ],
)
def test_a_slip_is_one_sentence_and_changes_nothing(words, said, file):
    before = file.read_text()
    with pytest.raises(SettingsError, match=said):
        matrix.main([*words, "--write"])
    assert file.read_text() == before


def test_what_failed_ends_the_command(file, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(matrix, "repro", lambda names: matrix.Ran(names, code=1, failed=["train@elpv-mono-fastflow"]))
    with pytest.raises(LoupeError, match="1 stages failed"):
        matrix.main([])


def test_a_command_that_ends_before_a_stage_is_told(file, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(matrix, "repro", lambda names: matrix.Ran(names, code=255))
    with pytest.raises(LoupeError, match="status 255 before a stage began"):
        matrix.main([])


def test_each_seed_is_a_run_and_that_of_the_file_the_last(file, monkeypatch, tmp_path, capsys):
    """A cell that breaks at one seed has no figure there, although that of the seed before lies in its place."""
    monkeypatch.setattr(seeds, "ARTEFACTS", tmp_path)
    before, ran = file.read_text(), []

    def repro(names):
        seed = yaml.safe_load(file.read_text())["seed"]
        ran.append(seed)
        for number, detector in enumerate(("fastflow", "patchcore")):
            if (seed, detector) != (1, "fastflow"):
                place = tmp_path / "elpv-mono" / detector / "evaluation"
                place.mkdir(parents=True, exist_ok=True)
                figure = {"overall": {"image": {"auroc": 0.9 + number / 20 + seed / 100}}}
                (place / "metrics.json").write_text(json.dumps(figure))
        failed = ["train@elpv-mono-fastflow"] if seed == 1 else []
        return matrix.Ran(names, code=len(failed), failed=failed)

    monkeypatch.setattr(matrix, "repro", repro)
    matrix.main(["--views", "elpv-mono", "--detectors", "fastflow,patchcore", "--write"])
    with pytest.raises(LoupeError, match="1 stages failed"):
        matrix.main(["--seeds", "0,2,1"])
    assert ran == [1, 2, 0]
    said = capsys.readouterr().out
    assert "| elpv-mono-fastflow | 0.910 (0.900 to 0.920) | 0.900 | - | 0.920 |" in said
    assert "| elpv-mono-patchcore | 0.960 (0.950 to 0.970) | 0.950 | 0.960 | 0.970 |" in said
    assert json.loads((tmp_path / "seeds.json").read_text())["elpv-mono-fastflow"] == {"0": 0.9, "2": 0.92}
    assert yaml.safe_load(file.read_text())["seed"] == yaml.safe_load(before)["seed"] == 0


@pytest.mark.parametrize("text", ["0,one", "-1", ""])
def test_what_is_no_seed_is_told_before_the_first_run(text, file):  # noqa: ARG001
    with pytest.raises(SettingsError, match="seed"):
        seeds.seeds_of(text)
