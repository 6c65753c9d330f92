"""A training says which moves it learned from; one without moves is what it was before there were any."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.core.artefacts import read_json
from components.training import train as room
from components.training.pose import Pose
from components.training.settings import MOVES
from tests.given import TorchStore, parted_tiles, trained_tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight pictures to fit and ten to calibrate, with an anomaly on each of these."""
    return parted_tiles(tmp_path_factory.mktemp("moves"), 8, 10)


@pytest.fixture
def trained(data, tmp_path, monkeypatch):
    """*detector* with *moves* where every move is measured to have this AUROC."""
    store = TorchStore(tmp_path / "store")
    monkeypatch.setattr(room, "FeatureStore", lambda *_: store)

    def found(name: str, moves, auroc: float = 0.5, detector: str = "padim"):
        def measured(fit, calibrate, *_):
            assert (len(fit), len(calibrate)) == (8, 10)
            torch.rand(3)  # a probe is made, and takes what is random
            return {move: {"worst": Pose(auroc, auroc), "mean": Pose(0.5, 0.5)} for move in MOVES}

        monkeypatch.setattr("components.training.pose.measured", measured)
        return trained_tiny(data, tmp_path / name, detector, moves)

    return found


def test_where_no_move_is_as_normal_the_model_is_that_of_none(trained):
    none, auto = trained("none", "none"), trained("auto", "auto", 0.9)
    assert read_json(none / "pose.json") == {"moves": [], "turns": 0}
    assert read_json(auto / "pose.json")["moves"] == []
    assert (none / "model.safetensors").read_bytes() == (auto / "model.safetensors").read_bytes()
    assert read_json(none / "history.json") == read_json(auto / "history.json")


def test_moves_that_are_as_normal_are_learned_and_named(trained):
    none, auto, named = trained("none", "none"), trained("auto", "auto"), trained("named", ("left_right",))
    assert read_json(auto / "pose.json")["moves"] == list(MOVES)
    assert read_json(auto / "pose.json")["measured"]["diagonal"]["worst"] == {"auroc": 0.5, "upper": 0.5}
    assert read_json(named / "pose.json") == {"moves": ["left_right"], "turns": 1}
    means = [load_file(at / "model.safetensors")["mean"].numpy() for at in (none, auto, named)]
    assert all(not np.array_equal(one, two) for one, two in pairwise(means))
    assert read_json(auto / "timing.json")["spent"]["pose"] > 0


def test_a_bank_learns_pictures_as_they_come_unless_moves_are_named(trained):
    none, auto, named = (
        trained(name, moves, detector="patchcore")
        for name, moves in (("none", "none"), ("auto", "auto"), ("named", ("left_right",)))
    )
    assert read_json(auto / "pose.json") == {"moves": [], "turns": 0}
    assert (none / "model.safetensors").read_bytes() == (auto / "model.safetensors").read_bytes()
    assert read_json(auto / "timing.json")["spent"]["pose"] == 0, "nothing is measured that is not asked for"
    assert read_json(named / "pose.json") == {"moves": ["left_right"], "turns": 1}


def test_a_checkpoint_of_other_moves_is_not_gone_on_with(trained, monkeypatch):
    marks = []

    class Noted(room.Checkpoint):
        def __init__(self, folder, fingerprint):
            if folder.name.endswith(".checkpoint"):  # not the state of earlier fits, whose rows say their moves
                marks.append(fingerprint)
            super().__init__(folder, fingerprint)

    monkeypatch.setattr(room, "Checkpoint", Noted)
    for number, moves in enumerate(("none", (), ("left_right",), ("left_right", "turn_180"))):
        trained(str(number), moves)
    assert marks[0] == marks[1]
    assert len(set(marks)) == 3
