"""What a training will take is told before it starts: living tensors are counted, and small rounds scaled."""

import dataclasses

import pytest
import torch
from lightning_fabric import Fabric

from components.core.cache import cache_folder
from components.detectors.catalogue import CATALOGUE, create, settings_for
from components.detectors.presets import lengthened
from components.training.checkpoint import Checkpoint
from components.training.loop import Loop
from components.training.memory import (
    CHECK,
    GRAPH_MIB,
    MIB,
    PIXEL,
    Invented,
    Kept,
    Living,
    Memory,
    Sounded,
    fitted,
    measured,
)

PICTURES, WITHIN = 20, 1.6  # the factor within which the tensors of a tiny training are foreseen


def test_living_tensors_are_counted_and_forgotten():
    with Living() as living:
        kept = torch.zeros(256, 1024)  # 1 MiB
        torch.zeros(512, 1024).sum()
        view = kept[:128]  # no bytes of its own
        assert living.since() == pytest.approx(3 * MIB, rel=0.01)
        assert living.now == pytest.approx(MIB, rel=0.01)
        assert len(view) == 128
        del kept, view
        assert living.now < 0.1 * MIB


def short(name):
    """The settings of tests, with one epoch a phase."""
    return lengthened(settings_for(name, "tiny"), 0.001)


def trained(name, folder):
    """Bytes of tensors at the peak of a whole training by the one loop."""
    with Living() as living, torch.random.fork_rng():
        detector = create(name, short(name), pretrained=False)
        loop = Loop(detector, lambda _: 0.5, Checkpoint(folder, "x"), 0, 1e9, Fabric(accelerator="cpu", devices=1))
        living.since()
        loop.run(Invented(PICTURES))
        return living.since()


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
def test_every_detector_is_foreseen(name, monkeypatch, tmp_path):
    """A whole training on twenty pictures in its own batches, from rounds of twelve pictures in twos and fours."""
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path))
    found = measured(name, short(name))
    foreseen = max(found.tensors(phase, PICTURES) for phase in found.fixed if phase not in (CHECK, "made"))
    real = trained(name, tmp_path / "checkpoint")
    assert real / WITHIN <= foreseen <= real * WITHIN, f"{foreseen / MIB:.1f} foreseen, {real / MIB:.1f} MiB real"
    monkeypatch.setattr("components.training.memory.sound", None)  # what was measured once is read
    assert measured(name, short(name)) == found


def test_what_was_measured_for_other_settings_is_no_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path))
    asked = []

    def sounded(*given):
        asked.append(given)
        return Sounded({"fit": 100}, {"fit": 8}, {}, {}, {}, {}, {}, Kept(), Kept(), 1, 0)

    monkeypatch.setattr("components.training.memory.sound", sounded)
    measured("padim", short("padim"))
    measured("padim", settings_for("padim", "cpu"))
    assert len(asked) == 6
    assert len(list((cache_folder() / "memory").iterdir())) == 2


def rounds(peaks, epochs=(2, 2, 2), steps=(0.0, 4.0, 6.0), held=None):
    """As (6, 2), (12, 2), (12, 4); two rows for each picture, in batches of 16, and 30 seconds once."""
    shares, once = {"fit": 2.0}, {"fit": 30.0}
    return [
        Sounded({"fit": p}, {"fit": 16}, held or {}, {"fit": e}, {"fit": s}, shares, once, Kept(3, 5), Kept(1), 8, 0)
        for p, e, s in zip(peaks, epochs, steps, strict=True)
    ]


def test_a_plane_through_three_rounds():
    """1000 bytes, 10 for each picture of the batch, 2 for each picture: as (6, 2), (12, 2), (12, 4)."""
    found = fitted(rounds([1000 + 20 + 12, 1000 + 20 + 24, 1000 + 40 + 24]))
    assert (found.fixed["fit"], found.row["fit"], found.picture["fit"]) == (1000, 10, 2)
    assert found.tensors("fit", 100) == 1000 + 160 + 200
    assert found.tensors("fit", 4) == 1000 + 40 + 8  # no batch is larger than what there is
    assert found.mapped(100, 0) == 500 / MIB
    assert fitted(rounds([900, 800, 700])).tensors("fit", 100) == 900  # nothing shrinks


def test_what_a_step_takes_for_itself_is_shared_by_its_batch():
    """A row takes 1 s and a step 2 s more: 18 s for 16 rows, of which a picture has two, in each of two epochs."""
    assert fitted(rounds([100] * 3)).minutes(60) == pytest.approx((60 * 2 * 2 * 18 / 16 + 30) / 60)
    faster = fitted(rounds([100] * 3, steps=(0.0, 6.0, 4.0)))  # a busy machine: no row takes less than nothing
    assert faster.minutes(60) == pytest.approx((60 * 2 * 2 * 4 / 16 + 30) / 60)


def test_epochs_that_fall_with_the_pictures_draw_a_number_of_them():
    found = fitted(rounds([100] * 3, epochs=(100, 50, 50)), least=3)
    each = 2 * 18 / 16 / 60
    assert found.minutes(100) == pytest.approx(100 * 6 * each + 0.5)
    assert found.minutes(1000) == pytest.approx(1000 * 3 * each + 0.5)


def test_a_phase_holds_no_more_pictures_than_it_says():
    peaks = [1000 + 20 + 12, 1000 + 20 + 24, 1000 + 40 + 24]
    assert fitted(rounds(peaks, held={"fit": 50})).tensors("fit", 5000) == 1000 + 160 + 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["patchcore", "pni", "paedid"])
def test_a_bank_is_full_and_does_not_grow_with_the_pictures(name, monkeypatch, tmp_path):
    """Twelve pictures do not fill it: what it grows by from six to twelve, times 5,000, would be refused anywhere."""
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path))
    found = measured(name, dataclasses.replace(short(name), bank_size=2000))
    for phase in found.fixed:
        assert found.tensors(phase, 5000) <= 1.2 * found.tensors(phase, 100) + MIB, phase


def test_a_graph_that_is_still_to_be_made_counts(tmp_path):
    zero, kept = {"fit": 0.0}, Kept(backbones=["k" * 64])
    found = Memory(zero, zero, zero, {"fit": 1}, {}, {}, {}, {}, {}, kept, Kept(), 0, 0)
    without = found.training(10, 10, tmp_path)
    (tmp_path / f"backbone-{'k' * 16}.onnx").touch()
    assert without - found.training(10, 10, tmp_path) == GRAPH_MIB
    assert found.training(10, 10) == found.training(10, 10, tmp_path)  # where the store is off none is made


def test_reading_the_largest_picture_counts():
    zero = {"fit": 0.0}
    found = Memory(zero, zero, zero, {"fit": 1}, {}, {}, {}, {}, {}, Kept(), Kept(), 0, 0)
    assert found.training(10, 10, pixels=MIB) - found.training(10, 10) == PIXEL


def test_a_full_bank_is_copied_once():
    given = {"fit": 5}, {"fit": 1}, {}, {}, {}, {}, {}
    small, large = (fitted([Sounded(*given, Kept(), Kept(), 1, bank)] * 3) for bank in (0, 70))
    assert large.tensors("fit", 1) - small.tensors("fit", 1) == 70
