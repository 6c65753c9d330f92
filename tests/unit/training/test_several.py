"""A training in two processes is that of one, but for the order of sums; a failing process ends all; a killed one
resumes."""

import json
import logging
import os
import shutil
import signal
import threading
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from components.core.artefacts import read_json
from components.core.errors import DataError, SettingsError, StageError
from components.detectors.catalogue import CATALOGUE, detector_class
from components.training import several
from components.training.ranks import ALONE, Ranks
from components.training.settings import TrainSettings
from components.training.train import train
from tests import pair
from tests.conftest import tile
from tests.given import parted_tiles

# A flow; a bank; batch normalisation, two gradient phases and sums of two kinds.
WHOLE = ("fastflow", "patchcore", "msfi")
STEPS = sorted(name for name in CATALOGUE if not detector_class(name).clips and name not in ("patchcore", "padim"))
# By docs/gpu.md: one part in 100 of a gradient, where the statistics of four tiny pictures are normalised by.
NOISE = 1e-2


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folder of what two processes made, and one beside them."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "pictures").mkdir()
    for number in range(10):
        Image.fromarray(tile(number)).save(folder / f"pictures/{number}.png")
    asked = {"names": WHOLE, "steps": STEPS, "cache": str(folder / "cache")}
    (folder / "asked.json").write_text(json.dumps(asked))
    pair.start(folder)
    images = pair.images_in(folder / "pictures", folder / "cache", ALONE)
    for name in WHOLE:
        pair.trained(name, images, folder)
    for name in STEPS:
        pair.stepped(name, images, folder)
    return folder


@pytest.mark.parametrize("name", WHOLE)
def test_two_processes_make_the_model_of_one(both, name):
    one, two, other = (load_file(both / f"{name}.{end}") for end in ("1.0", "2.0", "2.1"))
    for key, value in two.items():
        torch.testing.assert_close(other[key], value, rtol=0, atol=0, msg=key)
    told, alone = (json.loads((both / f"{name}.{end}.json").read_text()) for end in ("2.0", "1.0"))
    assert [record.keys() for record in told] == [record.keys() for record in alone]
    for record, known in zip(told, alone, strict=True):
        assert record.get("loss", 0.0) == pytest.approx(known.get("loss", 0.0), rel=1e-3)
    apart = (two["scores"] - one["scores"]).abs().max() / one["scores"].std()
    assert apart < (0 if name == "patchcore" else NOISE) + 1e-9


def test_a_bank_is_that_of_one_process_to_the_last_bit(both):
    one, two = (load_file(both / f"patchcore.{end}") for end in ("1.0", "2.0"))
    torch.testing.assert_close(two, one, rtol=0, atol=0)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_two_processes_is_that_of_one(both, name):
    one, two = (load_file(both / f"{name}.step.{end}") for end in ("1.0", "2.0"))
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-4, atol=1e-5)
    assert (two["gradient"] - one["gradient"]).norm() < NOISE * one["gradient"].norm()


def test_rows_are_shared_evenly_and_too_few_are_taken_by_all():
    parts = [Ranks(rank, 3).part(8) for rank in range(3)]
    assert [tuple(part) for part in parts] == [(0, 2, 8), (2, 5, 8), (5, 8, 8)]
    assert Ranks(1, 3).part(2) is None
    assert ALONE.part(8) is None
    assert [list(Ranks(rank, 3).share(range(2))) for rank in range(3)] == [[], [0], [1]]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve pictures to fit and four to calibrate, with an anomaly on each of these."""
    return parted_tiles(tmp_path_factory.mktemp("rows"), 12, 4)


def fitted(data, out, devices):
    """fastflow, with features that are computed at every draw, in so many processes."""
    settings = TrainSettings(
        "tiny", moves="none", store=None, checkpoint_every=0.05, devices=devices, detectors={"fastflow": {"epochs": 16}}
    )
    return train("fastflow", data / "split", data / "synthetic", data, out, settings, 0)


def test_a_killed_process_ends_all_and_the_same_call_goes_on_with_any_number(data, tmp_path, monkeypatch, capfd):
    started, wait = [], several._wait
    monkeypatch.setattr(several, "_wait", lambda found, *rest: (started.extend(found), wait(found, *rest)))

    def kill() -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end and not (tmp_path / ".two.checkpoint/position.json").exists():
            time.sleep(0.01)
        os.kill(started[1].pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(StageError, match="process 2 of 2 was killed by signal 9"):
        fitted(data, tmp_path / "two", 2)
    thread.join()
    assert all(process.poll() is not None for process in started)
    assert "Traceback" not in capfd.readouterr().err
    shutil.copytree(tmp_path / ".two.checkpoint", tmp_path / ".one.checkpoint")
    begun = read_json(tmp_path / ".one.checkpoint/position.json")
    assert (begun["phase"], begun["epoch"] < 15) == (0, True)
    whole = read_json(fitted(data, tmp_path / "whole", 1) / "history.json")
    for out, devices in (("two", 2), ("one", 1)):
        made = fitted(data, tmp_path / out, devices)
        losses = [record["loss"] for record in read_json(made / "history.json") if "loss" in record]
        assert losses == pytest.approx([record["loss"] for record in whole if "loss" in record], rel=1e-3)
        scores = [pd.read_parquet(at / "check.parquet")["score"] for at in (made, tmp_path / "whole")]
        assert (scores[0] - scores[1]).abs().max() < NOISE * scores[1].std()
        assert not (tmp_path / f".{out}.checkpoint").exists()


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("killed", StageError, "killed: process 2 of 2 was killed by signal 9; where memory ran out"),
        ("DataError: a.png: is damaged", DataError, "a.png: is damaged"),
        ("OSError: the disk is full", StageError, "process 2 of 2: the disk is full"),
    ],
)
def test_what_the_first_to_fail_says_is_what_the_training_says(how, kind, said, monkeypatch, tmp_path):
    monkeypatch.setattr(several, "MODULE", "tests.failing")
    started = time.monotonic()
    with pytest.raises(kind, match=said):
        several.train_in(2, several.Asked(how, *[tmp_path] * 4, 0), TrainSettings())
    assert time.monotonic() - started < 60


def test_a_process_leaves_one_sentence_of_what_it_fails_with(tmp_path):
    paths = dict.fromkeys(("split", "synthetic", "data", "out"), str(tmp_path))
    asked = {"name": "alps", "seed": 0, "folds": [], "checks": None, **paths}
    told = {
        "asked": asked,
        "settings": {"preset": "tiny", "devices": 9},
        "count": 9,
        "level": logging.INFO,
        "curves": [],
    }
    (tmp_path / "asked.json").write_text(json.dumps(told))
    assert several.work(tmp_path, 1) == 1
    found = read_json(tmp_path / "1.failed.json")
    assert found["kind"] == "SettingsError"
    assert found["said"].startswith("train.devices is 9 and alps learns from batches of")


def test_numbers_that_cannot_be_are_refused_before_anything_starts(data, tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match=r"train\.devices is 0; give a whole number, 1 or more"):
        TrainSettings(devices=0)
    settings = TrainSettings("tiny")
    several.require_devices("patchcore", replace(settings, devices=9))  # no gradients, no batches to share
    with pytest.raises(SettingsError, match="fastflow learns from batches of"):
        several.require_devices("fastflow", replace(settings, devices=99))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match=r"train\.devices is 2 and this machine has 1 GPU"):
        train("alps", data / "split", data / "synthetic", data, tmp_path / "x", replace(settings, devices=2), 0)
    several.require_devices("alps", replace(settings, devices=1))
    assert not list(tmp_path.iterdir())
