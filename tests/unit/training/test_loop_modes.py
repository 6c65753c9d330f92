"""The mode belongs to the phase: what learns is in training mode while it steps, all else always in eval mode."""

from functools import partial

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from components.detectors.contract import OnePass, Optimise
from components.training.checkpoint import Checkpoint
from components.training.loop import Loop, learning
from tests.unit.training.test_loop_players import Rows

BLOCKS = ("one", "other", "one.1", "other.1", "one.2", "other.2")
EVAL = dict.fromkeys(BLOCKS, False)
ONE, OTHER = (EVAL | {n: True for n in BLOCKS if n.startswith(who)} for who in ("one", "other"))


def block():
    """Weights, a norm that learns nothing but statistics, dropout."""
    return nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4, affine=False), nn.Dropout(0.5), nn.Linear(4, 1))


class Staged(nn.Module):
    """Two networks that learn one behind the other, with a closed-form phase between and one that may be undone."""

    name = "staged"

    def __init__(self):
        super().__init__()
        self.one, self.other = block(), block()
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("noise", torch.zeros(()))
        self.seen = []

    def phases(self, _):
        self.note("phases")
        yield self.optimise("first", self.one)
        self.note("phases")
        yield OnePass("statistics", Rows(), self.add, self.finish, 4)
        yield self.optimise("second", self.other)
        yield OnePass("optional", Rows(), self.add, self.finish, 4, optional=True)

    def optimise(self, name, net):
        rate = partial(torch.optim.Adam, lr=0.05)
        return Optimise(name, Rows(), partial(self.loss, name), list(net.parameters()), rate, 2, 4, average=0.5)

    def loss(self, name, rows):
        self.note(name)
        return (self.other(self.one(rows)) - rows).square().mean()

    def add(self, rows):
        self.note("one pass")
        self.total += self.other(self.one(rows)).sum()
        self.noise += torch.rand(())

    def finish(self):
        self.note("one pass")
        self.noise += torch.rand(())

    def note(self, where):
        self.seen.append((where, {name: self.get_submodule(name).training for name in BLOCKS}))


class Kept(Loop):
    """Every checkpoint of a training stays, in a folder of its number."""

    def _save(self, extra=None):
        self.checkpoint.folder = self.checkpoint.folder.with_name(str(int(self.checkpoint.folder.name) + 1))
        super()._save(extra)


def run(folder, kind=Loop, every=1e9, seed=0):
    def select(detector):
        detector.note("choosing")
        return 0.5 + float(detector.total) * 1e-6

    torch.manual_seed(seed)
    made = kind(Staged(), select, Checkpoint(folder, "x"), 0, every, Fabric(accelerator="cpu", devices=1))
    made.run(None)
    return made


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return run(tmp_path_factory.mktemp("kept") / "0", Kept, every=0)


def test_modes_are_those_of_the_phase_wherever_the_training_begins(kept):
    wanted = {"first": ONE, "second": OTHER, "one pass": EVAL, "choosing": EVAL, "phases": EVAL}
    folders = sorted(kept.checkpoint.folder.parent.iterdir(), key=lambda folder: int(folder.name))
    places = {where for where, _ in kept.detector.seen}
    assert places == set(wanted)
    for detector in [kept.detector, *(run(folder).detector for folder in folders)]:
        assert not any(part.training for part in detector.modules())
        for where, modes in detector.seen:
            assert modes == wanted[where], where


def test_a_training_goes_on_from_each_of_its_checkpoints_as_if_it_had_not_ended(kept):
    folders = list(kept.checkpoint.folder.parent.iterdir())
    assert len(folders) == 4 + 2 * (2 * 3 + 2) + 2 * 3  # phases, steps and epochs, batches
    for folder in folders:
        again = run(folder, seed=1)  # what it starts from must not matter
        assert again.history == kept.history
        for key, value in kept.detector.state_dict().items():
            torch.testing.assert_close(again.detector.state_dict()[key], value, rtol=0, atol=0, msg=f"{folder}: {key}")


def test_a_block_that_rests_keeps_its_statistics_and_drops_nothing():
    detector, rows = Staged(), torch.rand(64, 1)
    plain = detector.eval().other(rows)
    _, _, second, _ = detector.phases(None)
    with learning(detector, second):
        torch.testing.assert_close(detector.one(rows), detector.one(rows), rtol=0, atol=0)
        assert (detector.other(rows) - detector.other(rows)).abs().max() > 0
    assert int(detector.one[1].num_batches_tracked) == 0
    assert int(detector.other[1].num_batches_tracked) == 2
    assert detector.other(rows).shape == plain.shape
    assert not any(part.training for part in detector.modules())


def test_a_parameter_that_is_named_and_frozen_does_not_learn():
    detector = Staged()
    first = next(iter(detector.phases(None)))
    detector.one.requires_grad_(False)
    with learning(detector, first):
        assert not detector.one.training


def test_a_checkpoint_of_another_version_of_the_detector_is_left_aside(tmp_path, caplog):
    """As when a layer has lost its weights: what the optimiser kept would go to other weights."""
    caplog.set_level("INFO", "loupe")
    whole = run(tmp_path / "whole")
    older = Checkpoint(tmp_path / "cut", "x")
    tensors = {f"model.{k}": torch.ones_like(v) for k, v in Staged().state_dict().items()}
    position = {"phase": 4, "epoch": 0, "step": 0, "history": [], "best": None}
    older.save(tensors | {"model.one.1.weight": torch.ones(4)}, position)
    again = run(tmp_path / "cut")
    assert "starts anew" in caplog.text
    assert again.history == whole.history
    for key, value in whole.detector.state_dict().items():
        torch.testing.assert_close(again.detector.state_dict()[key], value, rtol=0, atol=0)
