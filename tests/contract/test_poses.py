"""Every detector learns from turned and mirrored rows as from others, and resumes on them exactly."""

import pytest
import torch

from components.detectors.catalogue import CATALOGUE, create, settings_for
from components.detectors.contract import Optimise, pictures_of
from components.training.data import FileImages, FitImages
from components.training.loop import drawn_order
from components.training.moves import MovedImages
from tests.contract.conftest import looped
from tests.contract.test_detectors import Kept, a_few_steps

PICTURES, MOVES = 10, ("turn_90", "left_right")


@pytest.fixture(scope="module")
def rows(product) -> MovedImages:
    paths = sorted((product / "train/good").glob("*.png"))[:PICTURES]
    return MovedImages(FileImages(tuple(paths), tuple(p.name for p in paths)), MOVES, len(MOVES))


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_an_epoch_is_as_long_as_without_moves_and_its_tables_are_of_the_same_rows(name, rows, store):
    def draws(images) -> list[int]:
        phases = create(name, settings_for(name, "tiny")).phases(FitImages(images, store))
        tables = [phase.table for phase in phases if isinstance(phase, Optimise)]
        for table in tables:
            table.take([max(drawn_order(table, torch.Generator().manual_seed(0))), len(table) - 1])
        return [pictures_of(table) for table in tables]

    assert draws(rows) == draws(rows.images)


def test_a_training_on_moved_rows_killed_in_any_phase_resumes_as_if_it_had_not_been(rows, store, tmp_path):
    few = a_few_steps("fastflow") | {"batch_size": 4}
    whole = looped("fastflow", rows, store, tmp_path / "checkpoint", Kept, **few)
    assert sorted(whole.kept) == list(range(whole.begun))
    for folder in whole.kept.values():
        resumed = looped("fastflow", rows, store, folder, seed=1, **few)
        assert resumed.history == whole.history
        for key, value in resumed.detector.state_dict().items():
            torch.testing.assert_close(value, whole.detector.state_dict()[key], rtol=0, atol=0)
