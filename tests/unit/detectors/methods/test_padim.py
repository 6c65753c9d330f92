"""What must be present for a detector to be PaDiM."""

import dataclasses

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from components.core.errors import SettingsError
from components.detectors.catalogue import create, settings_for
from components.detectors.contract import scratch_keys
from components.training.checkpoint import Checkpoint
from components.training.loop import Loop
from components.training.model import load_model, save_model


def made(**changes):
    torch.manual_seed(0)
    return create("padim", dataclasses.replace(settings_for("padim", "tiny"), **changes), pretrained=False).eval()


def drawn(detector, count, seed=1):
    """Features whose positions and channels have means and spreads of their own."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(c, g, g) for c, g in zip(detector.backbone.channels, detector.backbone.grids, strict=True)]
    own = [torch.rand(2, *shape, generator=torch.Generator().manual_seed(9)) for shape in shapes]
    return [m + s * torch.randn(count, *m.shape, generator=generator) for m, s in own]


class Rows:
    """A table of features, and the training data that has it."""

    def __init__(self, features):
        self.rows = features

    def __len__(self):
        return len(self.rows[0])

    def take(self, indices):
        return [f[list(indices)] for f in self.rows]

    def features(self, _):
        return self


def fitted(detector, features, folder, select=lambda _: 0.5):
    Loop(detector, select, Checkpoint(folder, "x"), 0, 1e9, Fabric(accelerator="cpu", devices=1)).run(Rows(features))
    return detector.eval()


def by_hand(rows, queries):
    """Equations 1 and 2 of the paper with numpy: rows (N, d) of one Gaussian, queries (M, d) -> distances (M,)."""
    spread = np.cov(rows, rowvar=False) + 0.01 * np.eye(rows.shape[1])
    apart = queries - rows.mean(0)
    return np.sqrt(np.einsum("nd,de,ne->n", apart, np.linalg.inv(spread), apart))


def test_features_of_all_taps_meet_at_every_position():
    detector = made(dims=10_000)  # more than there are: all of them
    assert len(detector.chosen) == sum(detector.backbone.channels)
    features = [torch.zeros(1, *f.shape[1:]) for f in drawn(detector, 1)]
    features[0][0, 0, 6:8, 4:6] = torch.tensor([[1.0, 2.0], [3.0, 6.0]])  # 16 cells a side over 8 positions: averaged
    features[2][0, 0, 1, 2] = 5.0  # 4 cells a side: repeated
    found = detector.embed(features).reshape(8, 8, -1)
    assert float(found[3, 2, 0]) == 3.0
    assert float(found[..., 0].sum()) == 3.0
    deep = found[..., sum(detector.backbone.channels[:2])]
    assert (deep[2:4, 4:6] == 5.0).all()
    assert float(deep.sum()) == 20.0


def test_channels_are_drawn_at_random_from_the_seed_and_kept(tmp_path):
    detector, same = made(), made()
    assert len(set(detector.chosen.tolist())) == 20
    assert not torch.equal(detector.chosen, torch.arange(20))
    assert torch.equal(detector.chosen, same.chosen)
    torch.manual_seed(1)
    other = create("padim", detector.settings, pretrained=False)
    assert not torch.equal(detector.chosen, other.chosen)
    save_model(detector, tmp_path)
    assert torch.equal(load_model(tmp_path).chosen, detector.chosen)


def test_every_position_has_the_gaussian_of_its_own_features(tmp_path):
    detector = made(gaussian="position")
    train, query = drawn(detector, 50), drawn(detector, 3, seed=2)
    fitted(detector, train, tmp_path)
    rows, asked = (detector.embed(f).double().numpy() for f in (train, query))
    found = detector.distances(query).flatten(1).T
    for place in (0, 11, 63):
        np.testing.assert_allclose(found[place], by_hand(rows[place], asked[place]), rtol=1e-4)


def test_one_gaussian_of_the_picture_is_that_of_all_positions(tmp_path):
    detector = made(gaussian="picture")
    train, query = drawn(detector, 50), drawn(detector, 2, seed=2)
    fitted(detector, train, tmp_path)
    rows, asked = (detector.embed(f).double().numpy().reshape(-1, 20) for f in (train, query))
    assert detector.whitening.shape == (1, 20, 20)
    np.testing.assert_allclose(detector.distances(query).flatten(1).T.flatten(), by_hand(rows, asked), rtol=1e-4)


def test_fewer_images_than_channels_are_enough(tmp_path):
    """0.01 on the diagonal is what makes such covariances invertible."""
    detector = fitted(made(gaussian="position"), drawn(made(), 3), tmp_path)
    assert torch.isfinite(detector.score(drawn(detector, 2, seed=2), (64, 64)).map).all()
    assert not torch.isfinite(fitted_without_epsilon(tmp_path / "other"))


def fitted_without_epsilon(folder):
    try:
        detector = fitted(made(gaussian="position", epsilon=0.0), drawn(made(), 3), folder)
    except torch.linalg.LinAlgError:
        return torch.tensor(float("nan"))
    return detector.score(drawn(detector, 2, seed=2), (64, 64)).map.sum()


def test_the_image_score_is_the_largest_value_of_the_blurred_map(tmp_path):
    detector = fitted(made(), drawn(made(), 20), tmp_path)
    features = drawn(detector, 2, seed=2)
    features[1][0, :, 5, 2] += 4.0
    scores = detector.score(features, (64, 64))
    assert torch.equal(scores.image, scores.map.flatten(1).amax(1))
    assert float(scores.image[0]) < float(detector.distances(features)[0].max())  # blurred
    y, x = divmod(int(scores.map[0].argmax()), 64)
    assert abs(y - 44) <= 4
    assert abs(x - 20) <= 4
    assert torch.equal(detector.score(features, (96, 80)).image, scores.image)  # whatever size the map is asked for


@pytest.mark.parametrize(
    ("worth", "places"), [({1: 0.9, 64: 0.8}, 1), ({1: 0.8, 64: 0.9}, 64), ({1: 0.9, 64: 0.9}, 64)]
)
def test_positions_stay_unless_synthetic_anomalies_speak_against_them(worth, places, tmp_path):
    train = drawn(made(), 20)
    detector = fitted(made(), train, tmp_path / "a", lambda d: worth[len(d.mean)])
    alone = fitted(made(gaussian="picture" if places == 1 else "position"), train, tmp_path / "b")
    assert len(detector.mean) == places
    torch.testing.assert_close(detector.whitening, alone.whitening, rtol=0, atol=0)
    detector.load_state_dict(alone.state_dict())  # neither variant holds tensors that cannot be loaded into
    save_model(detector, tmp_path)
    loaded, query = load_model(tmp_path), drawn(detector, 2, seed=2)
    torch.testing.assert_close(loaded.score(query, (64, 64)).map, detector.score(query, (64, 64)).map, rtol=0, atol=0)


def test_both_variants_come_from_one_pass_over_the_features(tmp_path):
    class Counted(Rows):
        read = 0

        def take(self, indices):
            Counted.read += len(indices)
            return super().take(indices)

    detector = made()
    loop = Loop(detector, lambda _: 0.5, Checkpoint(tmp_path, "x"), 0, 1e9, Fabric(accelerator="cpu", devices=1))
    loop.run(Counted(drawn(detector, 20)))
    assert Counted.read == 20
    assert [record["phase"] for record in loop.history] == ["statistics", "positions"]


def test_what_is_shipped_stays_below_sixty_megabytes():
    detector = create("padim", settings_for("padim", "cpu"), pretrained=False)
    places, d = detector.side**2, len(detector.chosen)
    assert 4 * places * (d * d + d) < 60e6
    assert scratch_keys(detector) == {"sums", "products", "seen"}


def test_a_stride_that_cuts_cells_is_refused_with_advice():
    with pytest.raises(SettingsError, match=r"stride 12 does not fit .* such as 8"):
        made(stride=12)
