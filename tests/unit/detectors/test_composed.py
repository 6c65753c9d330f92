"""Several detectors as one: the average of what they say, with each frozen network once."""

import copy
from collections import Counter

import onnx
import pytest
import torch

from components.backbones.extractor import Backbone
from components.core.errors import SettingsError
from components.core.runtime import session
from components.detectors.catalogue import create, require, settings_for
from components.detectors.contract import scratch_keys
from components.detectors.ensemble import Scale, Scales, together
from components.export.card import _weights
from components.export.embedding import Described
from components.export.graph import write_graph
from components.training.descriptors import descriptor
from components.training.model import load_model, save_model
from tests.given import passed


def detector(name, seed=0, **overrides):
    """An untrained detector whose learned state is noise: its scores differ from picture to picture."""
    torch.manual_seed(seed)
    made = create(name, settings_for(name, "tiny", overrides)).eval()
    if name == "patchcore":
        made.coreset.offer(torch.randn(100, made.coreset.bank.shape[1]).abs())
        passed(made, "coreset")
    return made


def scales(*numbers):
    return [Scales(Scale(c, s), Scale(10 * c, 10 * s)) for c, s in numbers]


@pytest.fixture(scope="module")
def members():
    """Three over the same network, by other taps and at another size, and one over pixels."""
    return [detector("padim"), detector("patchcore"), detector("patchcore", **{"backbone.size": 96}), detector("nln")]


@pytest.fixture(scope="module")
def ensemble(members):
    return together(members, scales((1.0, 2.0), (3.0, 0.5), (-1.0, 1.0), (0.0, 4.0)))


@pytest.fixture
def images():
    return torch.rand(3, 3, 80, 112, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def runs(monkeypatch):
    """The sizes of the pictures that a frozen network ran on, in order."""
    seen, computed = [], Backbone._computed
    monkeypatch.setattr(Backbone, "_computed", lambda self, i: seen.append(self.settings.size) or computed(self, i))
    return seen


@torch.inference_mode()
def test_the_score_is_the_average_of_standardised_ones(members, ensemble, images):
    each = [member(images) for member in members]
    centres, spreads = (1.0, 3.0, -1.0, 0.0), (2.0, 0.5, 1.0, 4.0)
    image = sum((e.image - c) / s for e, c, s in zip(each, centres, spreads, strict=True)) / 4
    maps = sum((e.map - 10 * c) / (10 * s) for e, c, s in zip(each, centres, spreads, strict=True)) / 4
    found = ensemble(images)
    torch.testing.assert_close(found.image, image, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.map, maps, rtol=1e-4, atol=1e-4)
    assert found.map.shape == (3, 1, 80, 112)


@torch.inference_mode()
def test_a_network_runs_once_for_each_size(members, ensemble, images, runs):
    ensemble.prepared(images)
    assert sorted(runs) == [64, 96]
    ensemble.prepared(images)  # nothing is remembered beyond one picture
    assert sorted(runs) == [64, 64, 96, 96]
    runs.clear()
    for member in members:
        member.prepared(images)
    assert sorted(runs) == [64, 64, 96]


def test_its_weights_are_there_once(members, ensemble):
    assert len(ensemble.backbones) == 1
    assert ensemble.backbones[0].settings.taps == (1, 2, 3)
    whole = sum(value.numel() for value in ensemble.state_dict().values())
    alone = [sum(value.numel() for value in member.state_dict().values()) for member in members]
    network = sum(value.numel() for value in ensemble.backbones.state_dict().values())
    assert whole == sum(alone) - 2 * network + 2 * 2 * 4
    assert len({id(part.net) for part in ensemble.modules() if isinstance(part, Backbone)}) == 1


def test_a_network_with_other_weights_is_not_shared(members):
    other = copy.deepcopy(members[0])
    next(iter(other.backbone.parameters())).data += 1.0
    both = together([members[0], other], scales((0, 1), (0, 1)))
    assert [part.backbones for part in both.settings.members] == [(0,), (1,)]
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(both(images).image, (members[0](images).image + other(images).image) / 2)


@torch.inference_mode()
def test_two_networks_of_one_member_are_told_apart(images):
    """Both belong to the ensemble; one of them also to another member."""
    members = [detector("rstpm"), detector("padim")]
    both = together(members, scales((0, 1), (0, 1)))
    assert [part.backbones for part in both.settings.members] == [(0, 1), (0,)]
    expected = (members[0](images).image + members[1](images).image) / 2
    torch.testing.assert_close(both(images).image, expected, rtol=1e-5, atol=1e-5)


def test_a_saved_ensemble_scores_the_same(ensemble, images, tmp_path):
    save_model(ensemble, tmp_path)
    loaded = load_model(tmp_path)
    with torch.inference_mode():
        for one, other in zip(loaded(images), ensemble(images), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@torch.inference_mode()
def test_the_graph_scores_the_same_and_has_the_network_once(members, images, tmp_path):
    ensemble = together(members[:3], scales((1.0, 2.0), (3.0, 0.5), (-1.0, 1.0)))
    write_graph(Described(ensemble, descriptor(ensemble.prepared(images))), tmp_path / "all.onnx", 20, {})
    opened, expected = session(tmp_path / "all.onnx"), ensemble(images[:2, :, :70])
    score, heat = opened.run(["score", "map"], {"image": images[:2, :, :70].numpy()})
    torch.testing.assert_close(torch.from_numpy(score), expected.image, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(torch.from_numpy(heat), expected.map, rtol=1e-3, atol=1e-3)
    graph, left = onnx.load(tmp_path / "all.onnx").graph, scratch_keys(ensemble)
    state = sum(v.numel() * v.element_size() for k, v in ensemble.state_dict().items() if k not in left)
    network = sum(v.numel() * v.element_size() for v in ensemble.backbones.state_dict().values())
    assert (tmp_path / "all.onnx").stat().st_size < state + 0.5 * network  # no second copy
    weights = {value.name for value in graph.initializer if len(value.dims) == 4 and value.dims[0] > 1}
    used = Counter(node.input[1] for node in graph.node if node.op_type == "Conv" and node.input[1] in weights)
    assert len(used) > 20
    assert set(used.values()) <= {1, 2}  # once for each of two sizes, not for each of three members


@torch.inference_mode()
def test_an_ensemble_in_an_ensemble_has_one_voice_and_its_networks_are_shared(ensemble, members, images):
    """Four members and two others: the four are a third of the mean, as the ensemble is on its own scale."""
    others = [detector("padim"), detector("nln", seed=3)]
    made = together([ensemble, *others], scales((2.0, 3.0), (-1.0, 0.5), (1.0, 2.0)))
    assert len(made.members) == len(members) + 2
    assert len(made.backbones) == 1
    inner, *rest = (each(images) for each in (ensemble, *others))
    image = ((inner.image - 2) / 3 + (rest[0].image + 1) / 0.5 + (rest[1].image - 1) / 2) / 3
    maps = ((inner.map - 20) / 30 + (rest[0].map + 10) / 5 + (rest[1].map - 10) / 20) / 3
    found = made(images)
    torch.testing.assert_close(found.image, image, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.map, maps, rtol=1e-3, atol=1e-3)


def test_what_makes_no_ensemble_is_refused(members):
    with pytest.raises(SettingsError, match="two or more"):
        together(members[:1], scales((0, 1)))
    with pytest.raises(SettingsError, match=r"is not trained but made of trained runs; type `loupe ensemble RUN RUN`"):
        require("ensemble")


def test_the_card_names_every_frozen_network_once(members, ensemble):
    assert _weights(ensemble) == _weights(members[0])
    assert _weights(detector("rstpm")).count("trained on") == 2
    assert _weights(members[3]) == "trained here; own; trained on this data set"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_shared_networks_move_to_a_gpu_with_the_ensemble(ensemble, images):
    with torch.inference_mode():
        here, there = ensemble(images), copy.deepcopy(ensemble).cuda()(images.cuda())
    torch.testing.assert_close(there.image.cpu(), here.image, rtol=1e-2, atol=1e-2)
