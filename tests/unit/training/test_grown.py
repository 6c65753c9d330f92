"""A fit of more pictures goes on from an earlier one where that gives the same bytes, and nowhere else."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from components.core.artefacts import file_hash, read_json
from components.core.records import SPLIT_COLUMNS, SYNTHETIC_COLUMNS
from components.training import train as room
from components.training.checkpoint import Checkpoint
from components.training.data import FileImages
from components.training.grown import Grown
from components.training.settings import TrainSettings
from components.training.train import train
from tests.conftest import tile

OLD = [f"{number:03d}.png" for number in range(10, 30)]  # one whole batch of 16, and four
HELD = [f"{number:03d}.png" for number in range(90, 94)]
STATE = "model.safetensors"


@pytest.fixture
def place(tmp_path, store, monkeypatch):
    """A folder with the data set's pictures and synthetic anomalies; features are of the store that tests share."""
    monkeypatch.setattr(room, "FeatureStore", lambda *_: store)
    for below in ("data", "synthetic/images"):
        (tmp_path / below).mkdir(parents=True)
    for number in (*range(5, 40), *range(90, 94)):
        Image.fromarray(tile(number)).save(tmp_path / f"data/{number:03d}.png")
    pixels = tile(90)
    pixels[20:50, 20:50] = 0
    Image.fromarray(pixels).save(tmp_path / "synthetic/images/a.png")
    row = ("images/a.png", "masks/a.png", HELD[0], "graded_wide", 1.0, 0.1, 30.0, 0)
    pd.DataFrame([row], columns=list(SYNTHETIC_COLUMNS)).to_parquet(tmp_path / "synthetic/synthetic.parquet")
    return tmp_path


def fitted(place, names, out, method="patchcore", settings=None, seed=0, held=HELD):
    """The folder of a model of the pictures *names*, in their order."""
    rows = []
    for side, those in (("fit", names), ("calibrate", held), ("test", ["035.png"])):
        for name in those:
            known = {"image_id": name, "label": "normal", "split": side, "sha256": file_hash(place / "data" / name)}
            rows.append({**dict.fromkeys(SPLIT_COLUMNS), **known})
    split = place / "split"
    split.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_parquet(split / "split.parquet")
    settings = settings or TrainSettings("tiny", detectors={"pni": {"neighbourhood": False, "refine": False}})
    return train(method, split, place / "synthetic", place / "data", place / out / "model", settings, seed)


def identities(place, names):
    """What the state calls pictures."""
    paths = tuple(place / "data" / name for name in names)
    return FileImages(paths, tuple(map(file_hash, paths))).identities


def state(place, out):
    """What the state beside a model says of itself."""
    return read_json(place / out / ".model.state/position.json")


def same(one, other):
    """Whether two models are the same bytes, with the same history and evidence."""
    names = (STATE, "history.json", "settings.json", "check.parquet")
    return [name for name in names if file_hash(one / name) != file_hash(other / name)] == []


@pytest.mark.parametrize("method", ["patchcore", "pni"])
def test_later_pictures_are_added_to_the_state_with_the_bytes_of_a_fit_from_the_first(place, method, caplog):
    caplog.set_level("INFO", "loupe")
    more = [*OLD, *(f"{number:03d}.png" for number in range(30, 35))]
    before = file_hash(fitted(place, OLD, "run", method) / STATE)
    assert state(place, "run")["pictures"] == identities(place, OLD[:16])
    again = fitted(place, more, "run", method)
    assert "16 of 25 pictures are in the state of an earlier fit" in caplog.text
    assert "resumes at {'epoch': 0, 'phase': 0, 'step': 16}" in caplog.text
    assert same(again, fitted(place, more, "fresh", method))
    assert file_hash(again / STATE) != before


def test_the_state_is_what_scores_and_no_picture_is_offered_twice(place, monkeypatch):
    """The detector that goes on is offered the new pictures alone, and those behind the last whole batch."""
    from components.detectors.methods.patchcore import PatchCore

    offered, offer = [], PatchCore._offer_features

    def counted(detector, features):
        offered.append(len(features[0]))
        offer(detector, features)

    monkeypatch.setattr(PatchCore, "_offer_features", counted)
    fitted(place, OLD, "run")
    fitted(place, [*OLD, *(f"{number:03d}.png" for number in range(30, 35))], "run")
    assert offered == [16, 4, 9]


@pytest.mark.parametrize(
    "names",
    [
        ["005.png", *OLD],  # a new picture comes first
        [*OLD[:3], *OLD[4:], "030.png"],  # one is gone, or on another side
        [*OLD[1:], OLD[0]],  # another order
    ],
)
def test_where_the_pictures_of_the_state_do_not_come_first_the_fit_begins_at_the_first(place, names, caplog):
    caplog.set_level("INFO", "loupe")
    fitted(place, OLD, "run")
    fitted(place, names, "run")
    assert "not of the first of these pictures" in caplog.text
    assert "resumes" not in caplog.text
    assert state(place, "run")["pictures"] == identities(place, names[:16])


def test_a_picture_that_has_moved_to_another_side_is_never_in_the_state(place):
    """Old fit pictures that now calibrate: neither model nor state knows them."""
    fitted(place, OLD, "run")
    moved, kept = OLD[2:5], [name for name in OLD if name not in OLD[2:5]]
    again = fitted(place, [*kept, "030.png"], "run", held=[*HELD, *moved])
    known = set(state(place, "run")["pictures"])
    assert known == set(identities(place, kept[:16]))
    assert not known & set(identities(place, [*moved, *HELD, "035.png"]))
    assert same(again, fitted(place, [*kept, "030.png"], "fresh", held=[*HELD, *moved]))


def test_a_picture_of_the_same_name_and_other_bytes_is_another_one(place):
    fitted(place, OLD, "run")
    Image.fromarray(tile(500)).save(place / "data" / OLD[3])
    assert same(fitted(place, OLD, "run"), fitted(place, OLD, "fresh"))


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"settings": TrainSettings("tiny", detectors={"patchcore": {"bank_size": 64}})}]
)
def test_another_request_begins_at_the_first_picture(place, other, caplog):
    caplog.set_level("INFO", "loupe")
    fitted(place, OLD, "run")
    fitted(place, OLD, "run", **other)
    assert "resumes" not in caplog.text


def test_another_version_of_the_program_begins_at_the_first_picture(place, monkeypatch, caplog):
    caplog.set_level("INFO", "loupe")
    fitted(place, OLD, "run")
    monkeypatch.setattr(room, "code_hash", lambda: "another")
    fitted(place, OLD, "run")
    assert "resumes" not in caplog.text


def test_a_method_whose_first_phase_does_not_grow_keeps_no_state(place):
    settings = TrainSettings("tiny")
    fitted(place, OLD, "run", "sap2", replace(settings, detectors={"sap2": {"adapt": False}}))
    assert not (place / "run/.model.state").exists()
    assert np.isfinite(read_json(place / "run/model/history.json")[-1]["synthetic_auroc"])


def test_moved_rows_are_in_the_state_as_such_and_are_not_taken_for_pictures(tmp_path):
    """Turned and mirrored rows come behind all pictures: with one more of these they lie elsewhere."""
    kept = Checkpoint(tmp_path / "state", "x")
    tensors = {"model.count": torch.ones(())}
    Grown(kept, ["a", "b", "a turned", "b turned"]).save(tensors, 4)
    assert Grown(kept, ["a", "b", "a turned", "b turned"]).load() is not None
    for others in (
        ["a", "b"],
        ["a", "b", "c", "a turned", "b turned", "c turned"],
        ["a", "b", "a mirrored", "b turned"],
    ):
        assert Grown(kept, others).load() is None
    Grown(kept, ["a", "b", "c"]).save(tensors, 2)
    found, position = Grown(kept, ["a", "b", "d", "e"]).load()
    assert found.keys() == tensors.keys()
    assert (position["phase"], position["step"]) == (0, 2)
