"""Standardised positions are undone where they lower the AUROC on synthetic anomalies, in every detector (ADR 0016)."""

import dataclasses
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from components.detectors.catalogue import CATALOGUE, create, settings_for
from components.detectors.contract import scratch_keys
from components.detectors.parts.blocks import POSITIONS
from components.training.checkpoint import Checkpoint, learned
from components.training.data import FileImages, FitImages
from components.training.loop import Loop
from tests.contract.test_detectors import a_few_steps

SWITCH = {  # what turns positions on
    name: {"positions": True} for name in sorted(CATALOGUE) if hasattr(settings_for(name, "cpu"), "positions")
} | {"pmb_ae": {"standardise": True}, "cma_ae": {"standardise": "position"}}


class Judge:
    """Stands for the AUROC on synthetic anomalies: what is rated later is *better*, or worse; all states are kept."""

    def __init__(self, better: bool) -> None:
        self.better, self.states = better, []

    def __call__(self, detector) -> float:
        left = scratch_keys(detector)
        self.states.append({k: v.clone() for k, v in learned(detector).items() if k not in left})
        return 0.5 + (0.01 if self.better else -0.01) * len(self.states)


def judged(name: str, better: bool, product: Path, store, folder: Path):
    """A detector behind a few steps and its positions, the states that were rated, and the last record."""
    paths = sorted((product / "train/good").glob("*.png"))[:6]
    data = FitImages(FileImages(tuple(paths), tuple(p.name for p in paths)), store)
    torch.manual_seed(0)
    settings = dataclasses.replace(settings_for(name, "tiny"), **a_few_steps(name) | SWITCH[name])
    detector, judge = create(name, settings), Judge(better)
    loop = Loop(detector, judge, Checkpoint(folder, "x"), 0, 1e9, Fabric(accelerator="cpu", devices=1))
    loop.run(data)
    left = scratch_keys(detector)
    state = {k: v for k, v in learned(detector).items() if k not in left}
    return detector, state, judge.states, loop.history[-1]


def differing(one: dict, two: dict) -> set[str]:
    return {key for key in one if not torch.equal(one[key], two[key])}


@pytest.mark.parametrize("name", SWITCH)
def test_positions_that_hurt_leave_the_state_as_it_was(name, product, store, tmp_path):
    detector, state, (*_, before, with_it), record = judged(name, False, product, store, tmp_path)
    assert (record["phase"], record["kept"]) == (POSITIONS, False)
    assert differing(before, with_it), "the phase changes nothing that could hurt"
    assert differing(before, state) == set()
    with torch.inference_mode():  # and that state is one that scores
        scores = detector.eval()(torch.rand(2, 3, 64, 64))
    assert torch.isfinite(scores.image).all()
    assert float(scores.map.std()) > 0


@pytest.mark.parametrize("name", ["nln", "paedid", "cma_ae", "pmb_ae"])
def test_positions_that_help_stay(name, product, store, tmp_path):
    _, state, (*_, with_it), record = judged(name, True, product, store, tmp_path)
    assert (record["phase"], record["kept"]) == (POSITIONS, True)
    assert differing(with_it, state) == set()
