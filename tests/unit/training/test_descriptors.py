"""A training leaves what its good pictures look like to the detector, so that no export looks at them once more."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from components.pictures.decoding import DEFAULT
from components.training import descriptors as room
from components.training import train as training
from components.training.descriptors import FILE, descriptors_of
from components.training.model import load_model
from tests.given import TorchStore, parted_tiles, trained_tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return parted_tiles(tmp_path_factory.mktemp("described"), 9, 10)


@pytest.fixture
def trained(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "FeatureStore", lambda *_: TorchStore(tmp_path / "store"))
    return lambda detector, moves="none": trained_tiny(data, tmp_path / detector, detector, moves)


def fit_paths(data):
    return [data / name for name in training.normal_rows(data / "split", "fit")["image_id"]]


@pytest.mark.parametrize("detector", ["patchcore", "pmb_ae", "msfi"])
def test_a_training_describes_its_good_pictures_as_their_files_do(data, trained, detector):
    """Of features, of pixels and of both; but for the rounding of what the store keeps."""
    model = trained(detector)
    left = np.load(model / FILE)
    (model / FILE).unlink()
    told = descriptors_of(model, load_model(model), fit_paths(data), DEFAULT).numpy()
    assert left.shape == told.shape == (9, told.shape[1])
    np.testing.assert_allclose(left, told, rtol=2e-3, atol=2e-3)


def test_what_a_training_left_is_taken_without_a_look_at_the_pictures(data, trained):
    model = trained("padim")
    gone = [data / "gone.png"]
    assert torch.equal(descriptors_of(model, load_model(model), gone, DEFAULT), torch.from_numpy(np.load(model / FILE)))


def test_moved_pictures_are_not_described(data, trained):
    model = trained("patchcore", ("left_right",))
    left = np.load(model / FILE)
    (model / FILE).unlink()
    assert len(left) == 9
    told = descriptors_of(model, load_model(model), fit_paths(data), DEFAULT).numpy()
    np.testing.assert_allclose(left, told, rtol=2e-3, atol=2e-3)


def test_of_many_pictures_some_are_described_spread_evenly(trained, monkeypatch):
    every = np.load(trained("padim") / FILE)
    monkeypatch.setattr(room, "PICTURES", 3)
    few = np.load(trained("padim") / FILE)
    np.testing.assert_array_equal(few, every[[0, 3, 6]])


def test_each_square_of_a_picture_that_is_cut_is_described(data, monkeypatch):
    """The rows of a sample are the squares of its own pictures among those of all."""
    monkeypatch.setattr(room, "PICTURES", 3)
    paths = fit_paths(data)
    whole = training.FileImages(tuple(paths), tuple(p.name for p in paths), replace(DEFAULT, tiles=64))
    some = room.sample(whole, whole, training.FeatureStore(None))
    assert len(whole) > len(paths)
    assert [some.images.paths[piece.picture] for piece in some.images.pieces] == [
        paths[whole.pieces[row].picture] for row in some.rows
    ]
    assert [piece.box for piece in some.images.pieces] == [whole.pieces[row].box for row in some.rows]
    assert {whole.pieces[row].picture for row in some.rows} == {0, 3, 6}
