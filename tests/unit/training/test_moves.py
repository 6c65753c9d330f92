"""Turned and mirrored pictures as rows: what each row is, what the store reuses, who sees which rows."""

import dataclasses

import numpy as np
import pytest
import torch

from components.backbones.extractor import Backbone, BackboneSettings
from components.core.errors import SettingsError
from components.core.settings import build
from components.detectors.catalogue import create, settings_for
from components.detectors.contract import Chosen, Together, epochs_of, pictures_of
from components.pictures.decoding import Decoding
from components.pictures.roi import written
from components.training import moves as room
from components.training.data import FileImages, FitImages, PixelTable, origins
from components.training.loop import drawn_order
from components.training.moves import MOVES, MovedImages, allowed, turns_of
from components.training.settings import MOVES as NAMES
from components.training.settings import TrainSettings
from tests.given import TorchStore, learned

TURNS = ("turn_90", "left_right")


@pytest.fixture(scope="module")
def files(product) -> FileImages:
    paths = sorted((product / "train/good").glob("*.png"))[:5]
    return FileImages(tuple(paths), tuple(p.name for p in paths))


@pytest.fixture
def images(files) -> MovedImages:
    return MovedImages(files, TURNS, 2)


def test_the_moves_are_those_of_the_square_each_once():
    square = torch.arange(9).reshape(1, 3, 3)
    found = {tuple(move(square).flatten().tolist()) for move in (lambda x: x, *MOVES.values())}
    assert len(found) == 8
    assert tuple(MOVES) == NAMES
    assert MOVES["turn_90"](square)[0, :, 0].tolist() == [2, 1, 0]  # against the clock: what was on top is on the left
    assert MOVES["left_right"](square)[0, 0].tolist() == [2, 1, 0]
    assert torch.equal(MOVES["diagonal"](square)[0], square[0].T)


def test_pictures_as_they_come_are_the_first_rows_to_the_last_bit(files, images):
    everything = images.pixels(range(15), 48)
    assert len(images) == 15
    torch.testing.assert_close(everything[:5], files.pixels(range(5), 48), rtol=0, atol=0)
    for turn, name in enumerate(TURNS, 1):
        torch.testing.assert_close(everything[5 * turn : 5 * turn + 5], MOVES[name](everything[:5]), rtol=0, atol=0)


def test_every_row_has_an_identity_and_the_first_ones_keep_theirs(files, images):
    assert images.identities[:5] == files.identities
    assert len(set(images.identities)) == 15
    keys = {files.key, images.key, MovedImages(files, TURNS, 1).key, MovedImages(files, TURNS[::-1], 2).key}
    assert len(keys) == 4


def test_the_store_computes_the_moved_rows_alone(files, images, tmp_path):
    torch.manual_seed(0)
    store, backbone = TorchStore(tmp_path), Backbone(BackboneSettings(taps=(2,), size=64))
    (before,) = store.features(backbone, files).take(range(5))
    (after,) = store.features(backbone, images).take(range(15))
    assert (store.usage.copied, store.usage.computed) == (5, 15)
    assert torch.equal(after[:5], before)
    again = TorchStore(tmp_path)
    again.features(backbone, MovedImages(files, ("left_right",), 1))
    assert (again.usage.copied, again.usage.computed) == (10, 0)


def test_pixels_are_moved_when_they_are_drawn_and_kept_once(images, tmp_path):
    table = FitImages(images, TorchStore(tmp_path)).pixels(48)
    torch.testing.assert_close(table.take(range(15)), PixelTable(images, 48).take(range(15)), rtol=0, atol=0)
    assert len(table.table) == 5


def test_many_pictures_get_some_of_the_moves_and_few_get_all(files, monkeypatch):
    monkeypatch.setattr(room, "ROWS", 100)
    assert [turns_of(count, 7) for count in (10, 14, 33, 100, 5000)] == [7, 7, 3, 1, 1]
    assert turns_of(10, 0) == 0
    some = MovedImages(files, tuple(MOVES), 3)
    drawn = [[some.at(5 * turn + i) for turn in range(4)] for i in range(5)]
    assert [row[0] for row in drawn] == [(i, None) for i in range(5)]
    assert all(len({move for _, move in row}) == 4 for row in drawn)  # no move twice
    assert len({move for row in drawn for _, move in row}) > 5  # and not the same three for all


def test_an_epoch_draws_each_picture_once_in_one_of_its_poses(images, tmp_path):
    table = Together(*(FitImages(images, TorchStore(tmp_path)).pixels(size) for size in (48, 32)))
    epochs = [drawn_order(table, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert pictures_of(table) == 5
    assert all(sorted(row % 5 for row in rows) == list(range(5)) for rows in epochs)
    assert {row for rows in epochs for row in rows} == set(range(15))
    assert epochs[3] == drawn_order(table, torch.Generator().manual_seed(3))
    assert epochs_of(table, 1, 41) == 9


def test_without_moves_an_epoch_is_what_it_was(files, tmp_path):
    table = FitImages(files, TorchStore(tmp_path)).pixels(48)
    wanted = torch.randperm(5, generator=torch.Generator().manual_seed(1)).tolist()
    assert drawn_order(table, torch.Generator().manual_seed(1)) == wanted
    assert origins(files, 3, 0) == tuple(i // 3 for i in range(15))


def test_a_closed_form_phase_sees_all_rows(images, tmp_path):
    torch.manual_seed(0)
    seen = []

    class Watched(type(create("padim", settings_for("padim", "tiny")))):
        def _add(self, features):
            super()._add(features)
            seen.append(len(features[0]))

    learned(Watched(settings_for("padim", "tiny")), FitImages(images, TorchStore(tmp_path / "store")), tmp_path / "c")
    assert sum(seen) == 15


def test_a_gradient_phase_takes_as_many_steps_as_without_moves(files, images, tmp_path):
    def steps(given) -> int:
        torch.manual_seed(0)
        settings = dataclasses.replace(settings_for("fastflow", "tiny"), epochs=2, batch_size=2)
        detector, calls = create("fastflow", settings), []
        (phase,) = detector.phases(FitImages(given, TorchStore(tmp_path / "store")))
        counted = dataclasses.replace(phase, loss=lambda batch: (calls.append(1), phase.loss(batch))[1])
        detector.phases = lambda _: [counted]
        learned(detector, FitImages(given, TorchStore(tmp_path / "store")), tmp_path / str(len(given)))
        return len(calls)

    assert steps(files) == steps(images) == 6


def test_anomalies_are_as_many_as_without_moves_each_on_a_drawn_pose(images, tmp_path):
    data = FitImages(images, TorchStore(tmp_path))
    made = data.anomalies(("saliency",), 48, 4)
    assert len(made.images) == 20
    assert {row // 5 for row in made.images.rows} == {0, 1, 2}
    assert [row % 5 for row in made.images.rows] == [i // 4 for i in range(20)]
    clean, drawn, masks = (
        made.clean(48).take(range(20)),
        made.pixels(48).take(range(20)),
        made.masks(48).take(range(20)),
    )
    torch.testing.assert_close(clean, images.pixels(made.images.rows, 48), rtol=0, atol=1 / 255)
    assert (((drawn - clean).abs() > 2 / 255) & (masks == 0)).sum() == 0
    backbone = Backbone(BackboneSettings(taps=(2,), size=64))
    (before,), (everything,) = made.before(backbone).take(range(20)), data.features(backbone).take(range(15))
    assert torch.equal(before, everything[list(made.images.rows)])


def test_natural_images_stay_as_many_as_pictures(images, tmp_path):
    data = FitImages(images, TorchStore(tmp_path))
    phase = next(iter(create("dsr", settings_for("dsr", "tiny")).phases(data)))
    normal, other = phase.table.tables
    assert isinstance(other, Chosen)
    assert (len(normal), len(other), len(other.table)) == (15, 15, 5)


def test_a_region_that_a_move_does_not_leave_as_it_is_forbids_it():
    left = np.zeros((60, 90), bool)
    left[10:50, :60] = True
    centre = np.zeros((64, 64), bool)
    centre[16:48, 16:48] = True
    assert allowed(Decoding(roi=written(left, (90, 60)))) == ("top_bottom",)
    assert allowed(Decoding(roi=written(centre, (64, 64)))) == NAMES
    assert allowed(Decoding()) == NAMES


def test_moves_may_be_named_and_unknown_ones_are_refused():
    assert build(TrainSettings, {"moves": ["turn_180"]}, "train").moves == ("turn_180",)
    assert build(TrainSettings, {"moves": "none"}, "train").moves == "none"
    assert TrainSettings().moves == "auto"
    with pytest.raises(SettingsError, match=r"train.moves: turn_18 does not exist; did you mean turn_180"):
        build(TrainSettings, {"moves": ["turn_18"]}, "train")
    with pytest.raises(SettingsError, match="'auto', 'none'"):
        build(TrainSettings, {"moves": "all"}, "train")
