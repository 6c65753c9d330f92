"""The place of computed features: stated, limited, emptied, and nothing that a training cannot do without."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from components.backbones import features as store
from components.backbones.features import FeatureStore
from components.cli import app
from components.core.artefacts import file_hash, locked, write_json
from components.core.cache import cache_folder, clear, contents, features_folder
from components.pipeline.doctor import examine
from components.training.settings import TrainSettings


class Backbone(torch.nn.Module):
    """One tap: the picture at a quarter of its size."""

    channels, grids = (3,), (4,)

    class settings:  # noqa: N801
        size = 16

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def tap_keys(self):
        return ["tap"]

    def base_key(self):
        return "base"

    def forward(self, pixels):
        return [torch.nn.functional.avg_pool2d(self.weight * pixels, 4)]


class Images:
    key = "images"

    def __len__(self):
        return 6

    def pixels(self, indices, size):
        return torch.stack([torch.full((3, size, size), i / 8) for i in indices])


@pytest.fixture(autouse=True)
def in_torch(monkeypatch):
    def extractor(backbone, _):
        return torch.inference_mode()(lambda pixels: [tap.numpy() for tap in backbone(pixels)])

    monkeypatch.setattr(store, "extractor", extractor)


def test_by_default_features_lie_in_the_cache_folder_of_the_user(monkeypatch, tmp_path):
    assert TrainSettings().store == "auto"
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path))
    assert features_folder("auto") == tmp_path / "features"
    assert features_folder("elsewhere") == Path("elsewhere")
    assert features_folder(None) is None
    monkeypatch.delenv("LOUPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of-user"))
    assert cache_folder() == tmp_path / "of-user" / "loupe"


def no_room(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("trouble", ["a file in its place", "a full disk"])
def test_where_the_store_cannot_be_written_training_goes_on_with_one_warning(trouble, tmp_path, monkeypatch, caplog):
    root = tmp_path / "features"
    expected = FeatureStore(tmp_path / "good").features(Backbone(), Images()).take([1, 5])
    if trouble == "a full disk":
        monkeypatch.setattr(os, "posix_fallocate", no_room)
    else:
        root.write_text("")
    monkeypatch.setattr(store.log, "propagate", True)
    kept = FeatureStore(root)
    with caplog.at_level("WARNING", "loupe"):
        found = [kept.features(Backbone(), Images()).take([1, 5]) for _ in range(2)]
    assert sum("without the store" in line for line in caplog.messages) == 1
    assert str(root) in caplog.text
    assert str(root) in str(kept.usage.unusable)
    torch.testing.assert_close(found[1], expected)
    assert not list(tmp_path.rglob("*.part"))


def test_space_is_taken_before_it_is_written(tmp_path):
    FeatureStore(tmp_path).features(Backbone(), Images())
    (array,) = tmp_path.glob("*/tap.npy")
    made = store._reserved(tmp_path / "new.npy", (100, 100, 10, 10))
    assert (tmp_path / "new.npy").stat().st_blocks * 512 >= made.nbytes
    assert np.load(array).shape == (6, 3, 4, 4)


@pytest.mark.parametrize("refused", [OSError(errno.EOPNOTSUPP, "not supported"), AttributeError("posix_fallocate")])
def test_a_file_system_that_cannot_reserve_gets_zeros(refused, tmp_path, monkeypatch):
    def refuse(*_):
        raise refused

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    made = store._reserved(tmp_path / "new.npy", (64, 64, 10, 10))
    made[:] = 1
    made.flush()
    assert (tmp_path / "new.npy").stat().st_blocks * 512 >= made.nbytes
    assert (np.load(tmp_path / "new.npy") == 1).all()


def test_clearing_takes_features_and_leaves_what_is_in_use_or_foreign(tmp_path):
    kept = FeatureStore(tmp_path)
    mapped = kept.features(Backbone(), Images())
    before = mapped.take([0, 5])[0].clone()
    (tmp_path / "backbone-abc.onnx").write_text("graph")
    (tmp_path / "moves-abc.json").write_text("{}")
    (tmp_path / "mine.txt").write_text("keep")
    running = tmp_path / f".entry.{os.getppid()}.part"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".entry.{dead.pid}.part").mkdir()
    running.mkdir()
    assert contents(tmp_path)["entries"] == 1
    with locked(tmp_path / "waiting.lock"):
        clear(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "waiting.lock", running.name}
    torch.testing.assert_close(mapped.take([0, 5])[0], before)
    kept.features(Backbone(), Images())
    assert contents(tmp_path)["entries"] == 1


def test_features_cleared_between_the_look_and_the_reading_are_computed_again(tmp_path, monkeypatch):
    kept = FeatureStore(tmp_path)
    kept.features(Backbone(), Images())
    plain, calls = FeatureStore._found, []

    def cleared(self, entry):
        found = plain(self, entry)
        if not calls:
            clear(tmp_path)
        calls.append(found)
        return found

    monkeypatch.setattr(FeatureStore, "_found", cleared)
    assert len(kept.features(Backbone(), Images())) == 6
    assert calls == [True, False]


def test_the_command_tells_and_empties(tmp_path, monkeypatch):
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    entry = tmp_path / "features" / "entry"
    entry.mkdir(parents=True)
    np.save(entry / "tap.npy", np.zeros(1000, np.float16))
    write_json(entry / "manifest.json", {"sha256": file_hash(entry / "tap.npy"), "seconds": 1.0})
    told = json.loads(CliRunner().invoke(app, ["cache", "--json"]).output)
    assert told["folder"] == str(tmp_path / "features")
    assert (told["entries"], told["limit_gb"]) == (1, 20.0)
    assert told["bytes"] > 2000
    said = CliRunner().invoke(app, ["cache", "--clear"]).output
    assert "0 entries, 0.00 GB of at most 20 GB" in said
    assert not list((tmp_path / "features").iterdir())


def test_the_doctor_tells_of_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path))
    found = next(finding for finding in examine() if finding["what"] == "cache")
    assert found["ok"]
    assert str(tmp_path) in found["found"]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path / "file"))
    assert not next(finding for finding in examine() if finding["what"] == "cache")["ok"]


def test_fit_and_score_write_nothing_where_they_are_started(product, patchcore, tmp_path):
    here = patchcore.parent / "here"  # where the command that made the run was started
    loupe = [sys.executable, "-m", "components.cli"]
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])}
    picture = next((product / "test").rglob("*.png"))
    command = ["score", patchcore / "bundle", picture, "--out", tmp_path / "scores.parquet"]
    done = subprocess.run([*loupe, *command], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(here.iterdir())
