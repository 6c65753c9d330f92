"""`loupe fit` given again: nothing where nothing changed, one sentence and a fit where something did."""

import json
import logging
import os
import shutil

import pytest

from components.core.artefacts import code_hash, file_hash, read_json, write_json
from components.pipeline import finished as room
from components.pipeline import fit as fitting
from components.pipeline.finished import finished, listing, remember
from components.pipeline.fit import FitRequest, asked, fit_folder


@pytest.fixture
def data(tmp_path):
    for i in range(3):
        path = tmp_path / "photos/train/good" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([i]))
    return tmp_path / "photos"


@pytest.fixture
def done(data, tmp_path):
    """What a finished fit leaves, as far as it is looked at."""
    out = tmp_path / "run"
    (out / "work").mkdir(parents=True)
    (out / "calibration.json").write_text("{}")
    outputs = {"calibration.json": file_hash(out / "calibration.json")}
    record = {"request": asked(FitRequest("patchcore", data)), "outputs": outputs, "program": code_hash()}
    write_json(out / "run.json", json.loads(json.dumps(record)))
    remember(data, listing(data), out / "work")
    return out


def again(data, out, **changes):
    return finished(out, json.loads(json.dumps(asked(FitRequest("patchcore", data, **changes)))), data)


def test_the_same_command_does_nothing_and_says_so(done, data, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "loupe")
    monkeypatch.setattr(fitting, "_fitted", lambda *_: pytest.fail("fitted again"))
    assert fit_folder(FitRequest("patchcore", data), done) == done
    assert "is finished, with the same request, pictures and program; nothing to do" in caplog.text
    assert fit_folder(FitRequest("patchcore", data, checkpoint_every=5.0), done) == done  # has no part in the result


def more_pictures(data, _):
    (data / "train/good/9.png").write_bytes(b"9")


def other_bytes(data, _):
    path, before = data / "train/good/1.png", (data / "train/good/1.png").stat()
    path.write_bytes(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def one_less(data, _):
    (data / "train/good/1.png").unlink()


def damaged(_, out):
    (out / "calibration.json").write_text("{ }")


def lost(_, out):
    (out / "calibration.json").unlink()


def newer_program(_, out):
    write_json(out / "run.json", read_json(out / "run.json") | {"program": "older"})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (more_pictures, "the files of"),
        (other_bytes, "the files of"),
        (one_less, "the files of"),
        (damaged, "calibration.json has changed or is missing"),
        (lost, "calibration.json has changed or is missing"),
        (newer_program, "was made by another version of this program"),
    ],
)
def test_what_changed_is_said_and_fitted(done, data, caplog, change, sentence):
    caplog.set_level(logging.INFO, "loupe")
    assert again(data, done)
    caplog.clear()
    change(data, done)
    assert not again(data, done)
    assert sentence in caplog.text
    assert room.REFIT in caplog.text


def test_another_request_for_the_same_folder_is_told(done, data, caplog):
    caplog.set_level(logging.INFO, "loupe")
    assert not again(data, done, preset="tiny", seed=3)
    assert "preset None -> tiny, seed 0 -> 3; fitting again; the old run stays" in caplog.text
    assert not again(data, done, alpha=0.1)
    assert "alpha None -> 0.1 (`loupe calibrate` does that without training)" in caplog.text


def test_a_point_that_was_set_since_is_named(done, data, caplog):
    caplog.set_level(logging.INFO, "loupe")
    write_json(done / "run.json", read_json(done / "run.json") | {"operating_point": {"alpha": 0.02}})
    assert again(data, done)
    assert "`loupe calibrate` has set alpha 0.02 since" in caplog.text


def test_a_real_run_is_known_again(patchcore, product, tmp_path, monkeypatch):
    """The record of a whole fit, by the very request of the command line."""
    run = shutil.copytree(patchcore, tmp_path / "run")
    monkeypatch.setattr(fitting, "_fitted", lambda *_: pytest.fail("fitted again"))
    sections = {"evaluation": {"map_size": 64, "bootstrap": 20}}
    request = FitRequest("patchcore", product, preset="tiny", alpha=0.2, sections=sections)
    assert fit_folder(request, run) == run
