"""Which moves are as normal: measured on made-up products whose symmetry is known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from components.core.errors import SettingsError
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.roi import written
from components.training import pose
from components.training.data import StoredImages
from components.training.moves import MovedImages
from components.training.pose import agreed, learned, passes, taken, told_apart
from components.training.probe import BANK, probe_of
from components.training.settings import MOVES, TrainSettings
from tests.given import TorchStore

TINY = TrainSettings("tiny")


@dataclass(frozen=True)
class Drawn:
    """Pictures in memory: (N, 64, 64) in [0, 1]."""

    key: str
    grey: torch.Tensor
    rules: Decoding = DEFAULT

    def __len__(self) -> int:
        return len(self.grey)

    def pixels(self, indices, size) -> torch.Tensor:
        assert size == 64
        return self.grey[torch.as_tensor(list(indices))][:, None].expand(-1, 3, 64, 64)


def pictures(angle, wave, count: int, seed: int) -> torch.Tensor:
    """(count, 64, 64): a *wave* of the place along the direction at *angle*, in radians, and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] / 64
    found = []
    for _ in range(count):
        at = angle(rng)
        place = np.cos(at) * x + np.sin(at) * y + rng.uniform()
        found.append(0.5 + 0.3 * wave(6 * place) + rng.normal(0, 0.02, x.shape))
    return torch.from_numpy(np.stack(found).clip(0, 1)).float()


def ripple(place):
    return np.sin(2 * np.pi * place)


def teeth(place):
    """Rises slowly and falls at once: another picture upside down."""
    return 2 * (place % 1) - 1


PRODUCTS = {
    "at any angle": (lambda rng: rng.uniform(0, 2 * np.pi), ripple, set(MOVES)),
    "in one direction": (lambda _: 0.0, ripple, {"turn_180", "left_right", "top_bottom"}),
    "mirrored only": (lambda _: np.pi / 2, teeth, {"left_right"}),
}


def product(name: str, count: int, seed: int, rules: Decoding = DEFAULT) -> Drawn:
    angle, wave, _ = PRODUCTS[name]
    return Drawn(f"{name} {count} {seed}", pictures(angle, wave, count, seed), rules)


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_moves_that_leave_a_product_as_normal_are_found(name, tmp_path):
    record = taken(product(name, 60, 0), product(name, 40, 1), TorchStore(tmp_path), TINY)
    assert set(record["moves"]) == PRODUCTS[name][2]
    assert record["turns"] == len(record["moves"])
    assert record["pictures"] == 40
    assert set(record["measured"]) == set(MOVES)


def test_what_is_measured_is_the_same_again(tmp_path):
    one, two = (
        taken(product("mirrored only", 20, 0), product("mirrored only", 12, 1), TorchStore(tmp_path / at), TINY)
        for at in ("one", "two")
    )
    assert one == two


def test_of_too_few_pictures_nothing_is_said(monkeypatch):
    monkeypatch.setattr(pose, "measured", None)
    record = taken(product("at any angle", 60, 0), product("at any angle", 7, 1), TorchStore(None), TINY)
    assert record == {"moves": [], "turns": 0}


def test_none_measures_nothing_and_leaves_the_pictures_alone(monkeypatch):
    monkeypatch.setattr(pose, "measured", None)
    images = product("at any angle", 10, 0)
    record = taken(images, images, TorchStore(None), TrainSettings("tiny", moves="none"))
    assert record == {"moves": [], "turns": 0}
    assert learned(images, record) is images


def test_named_moves_are_taken_unmeasured_in_one_order(monkeypatch):
    monkeypatch.setattr(pose, "measured", None)
    images = product("in one direction", 10, 0)
    record = taken(images, images, TorchStore(None), TrainSettings("tiny", moves=("left_right", "turn_90")))
    assert record == {"moves": ["turn_90", "left_right"], "turns": 2}
    rows = learned(images, record)
    assert isinstance(rows, MovedImages)
    assert len(rows) == 30


def test_a_region_forbids_moves_measured_and_named(tmp_path):
    region = np.zeros((64, 64), bool)
    region[:, :40] = True
    rules = Decoding(roi=written(region, (64, 64)))
    fit, calibrate = (product("at any angle", count, seed, rules) for count, seed in ((30, 0), (20, 1)))
    assert set(taken(fit, calibrate, TorchStore(tmp_path), TINY)["measured"]) == {"top_bottom"}
    with pytest.raises(SettingsError, match=r"train.moves: turn_90 does not leave the region"):
        taken(fit, calibrate, TorchStore(tmp_path), TrainSettings("tiny", moves=("turn_90",)))


def test_moves_of_all_pictures_are_those_of_most_folds():
    folds = [{"moves": moves} for moves in (["turn_90", "left_right"], ["left_right"], ["diagonal", "left_right"])]
    assert agreed(folds, 30)["moves"] == ["left_right"]
    assert agreed(folds[:2], 30)["moves"] == ["left_right"]  # half of the folds are not most of them


def test_pictures_are_compared_in_pairs_and_few_of_them_prove_nothing():
    rng = np.random.default_rng(0)
    own = rng.normal(size=60)
    alike, apart = told_apart(own + 0.01 * rng.normal(size=60), own), told_apart(own + 2, own)
    assert alike.auroc == pytest.approx(0.5, abs=0.02)
    assert passes({"worst": alike, "mean": alike})
    assert not passes({"worst": alike, "mean": apart})
    few = told_apart(rng.normal(size=8), rng.normal(size=8))
    assert few.upper > few.auroc + 0.1


def test_the_probe_knows_what_it_has_seen_and_is_small(tmp_path):
    """What shows another direction is farther from it than any picture of the kind that it has seen."""
    kinds = [Drawn(f"{angle}", pictures(lambda _, to=angle: to, ripple, 12, 5)) for angle in (0.0, 1.0)]
    store = TorchStore(tmp_path)
    probe = probe_of(StoredImages(kinds[0], store), "tiny")
    own, other = (pose.distances(probe, StoredImages(kind, store))[0] for kind in kinds)
    assert own.max() < other.min()
    assert len(probe.coreset.bank) <= BANK
    assert probe_of(StoredImages(kinds[0], store), "tiny") is probe  # a fit asks for it twice
    assert probe_of(StoredImages(kinds[1], store), "tiny") is not probe


def test_moves_are_measured_once_for_all_detectors_that_learn_from_the_same_pictures(tmp_path, monkeypatch):
    asked, plain = [], pose.measured
    monkeypatch.setattr(pose, "measured", lambda *args: asked.append(args) or plain(*args))
    normal, held = product("mirrored only", 60, 0), product("mirrored only", 40, 1)
    first = taken(normal, held, TorchStore(tmp_path), TINY)
    assert taken(normal, held, TorchStore(tmp_path), TINY) == first
    assert len(asked) == 1
    (kept,) = tmp_path.glob("moves-*.json")
    kept.write_text(kept.read_text()[:40])  # damaged: measured again, and whole afterwards
    assert taken(normal, held, TorchStore(tmp_path), TINY) == first
    assert taken(normal, held, TorchStore(tmp_path), TINY) == first
    assert len(asked) == 2
    monkeypatch.setattr(pose, "code_hash", lambda: "another version")
    assert taken(normal, held, TorchStore(tmp_path), TINY) == first
    other = taken(normal, product("mirrored only", 40, 2), TorchStore(tmp_path), TINY)
    assert len(asked) == 4
    assert other["measured"] != first["measured"]
