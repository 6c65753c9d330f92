"""What must be present for a detector to be FastFlow; each point fails without it."""

import dataclasses
import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from components.backbones.extractor import Backbone, BackboneSettings
from components.core.artefacts import file_hash
from components.core.errors import BundleError
from components.detectors.methods.fastflow import BACKBONES, Coupling, FastFlow, FastFlowSettings, Flow
from components.detectors.parts.winograd import WIDE
from components.training.model import load_model, save_model

RESNET18 = BackboneSettings("resnet18", (1, 2, 3), 256)


def coupling(channels=4, kernel=3, clamp=2.0):
    torch.manual_seed(0)
    step = Coupling(channels, kernel, 1.0, clamp)
    with torch.no_grad():
        for parameter in step.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return step.double()


def kernels(flow):
    return [step.subnet[0].kernel_size[0] for step in flow.steps]


def test_subnets_are_convolutions_on_the_maps_of_any_size():
    step = coupling()
    assert not any(isinstance(m, nn.Linear) for m in step.modules())
    for size in ((5, 5), (3, 8)):
        assert step(torch.randn(2, 4, *size, dtype=torch.double)).shape == (2, 4, *size)


def test_a_position_sees_its_neighbourhood_and_no_more():
    x = torch.randn(1, 4, 16, 16, dtype=torch.double)
    moved = x.clone()
    moved[..., 8, 8] += 1
    changed = (coupling()(x) - coupling()(moved)).abs().sum(1)[0] > 1e-12
    rows, columns = changed.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 10, 6, 10)  # two 3 x 3 convolutions


def test_kernels_alternate_or_are_all_three():
    alternating = Flow(8, 4, FastFlowSettings(steps=4))
    assert kernels(alternating) == [3, 1, 3, 1]
    assert kernels(Flow(8, 4, FastFlowSettings(steps=3, kernels=(3,)))) == [3, 3, 3]


def test_a_coupling_scales_and_shifts_by_what_it_keeps():
    step = coupling()
    step.permutation.copy_(torch.arange(4))

    def changed(kept: float, value: float) -> torch.Tensor:
        x = torch.full((1, 4, 5, 5), value, dtype=torch.double)
        x[:, :2] = kept
        return step(x)[:, 2:]

    assert not torch.allclose(changed(0.0, 0.0), changed(1.0, 0.0))  # a shift that the kept half decides
    slopes = [changed(kept, 1.0) - changed(kept, 0.0) for kept in (0.0, 1.0)]
    assert not torch.allclose(*slopes)  # and a scale


def test_channels_change_places_between_the_steps():
    step, x = coupling(), torch.randn(1, 4, 5, 5, dtype=torch.double)
    step.permutation.copy_(torch.arange(4))
    plain = step(x)
    step.permutation.copy_(torch.arange(4).flip(0))
    torch.testing.assert_close(step(x), plain.flip(1))
    drawn = Coupling(64, 3, 1.0, 2.0).permutation
    assert not torch.equal(drawn, torch.arange(64))
    assert torch.equal(drawn.sort().values, torch.arange(64))


def test_log_determinant_is_exact():
    step = coupling()
    x = torch.randn(1, 4, 3, 3, dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(lambda v: step(v.view(1, 4, 3, 3)).flatten(), x.flatten())
    torch.testing.assert_close(step.step(x)[1][0], torch.linalg.slogdet(jacobian).logabsdet)


def test_likelihood_is_half_the_square_less_the_log_determinants():
    flow = Flow(4, 3, FastFlowSettings(steps=3)).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.double)
    flat = flow.norm(x)
    total = torch.zeros(2, dtype=torch.double)
    for step in flow.steps:
        flat, log_det = step.step(flat)
        total += log_det
    torch.testing.assert_close(flow.likelihood(x), 0.5 * flow(x).square().sum((1, 2, 3)) - total)


def drawn_flow(channels, settings):
    torch.manual_seed(0)
    flow = Flow(channels, 4, settings)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return flow


@pytest.mark.parametrize("channels", [5, 8, 2 * WIDE])
def test_the_shorter_way_of_a_processor_says_and_learns_the_same(channels):
    flow = drawn_flow(channels, FastFlowSettings(steps=3)).double()
    x = torch.randn(3, channels, 4, 4, dtype=torch.double, requires_grad=True)
    said = []
    for way in (flow._stepped, flow._learnt):
        maps, total = way(x)
        likelihood = torch.cat([part.square().flatten(1) for part in maps], 1).sum(1) - total * torch.arange(1.0, 4.0)
        said.append([torch.cat(list(maps), 1), total, *torch.autograd.grad(likelihood.sum(), [x, *flow.parameters()])])
    for ours, literal in zip(said[1], said[0], strict=True):
        torch.testing.assert_close(ours, literal)


def test_a_processor_goes_the_shorter_way_and_mixed_precision_the_literal_one(monkeypatch):
    flow, x = drawn_flow(8, FastFlowSettings(steps=2)), torch.randn(2, 8, 4, 4)
    ways, likelihood = [], flow.likelihood(x)
    for name in ("_stepped", "_learnt"):
        way = getattr(flow, name)
        monkeypatch.setattr(flow, name, lambda x, name=name, way=way: ways.append(name) or way(x))
    torch.testing.assert_close(flow.likelihood(x), likelihood)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(flow.likelihood(x), likelihood, rtol=0.05, atol=1.0)
    assert ways == ["_learnt", "_stepped"]


def test_scoring_computes_no_log_determinant():
    flow, counted = Flow(8, 4, FastFlowSettings(steps=2)), []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counted.append(str(func))
            return func(*args, **(kwargs or {}))

    with torch.inference_mode(), Counting():
        flow(torch.randn(1, 8, 4, 4))
    assert sum("tanh" in name for name in counted) == 2
    assert not [name for name in counted if name.startswith(("aten.log.", "aten.sum."))]


def test_weights_have_the_names_that_older_models_and_checkpoints_hold():
    names = {"scale", "offset", "permutation", *(f"subnet.{n}.{part}" for n in (0, 2) for part in ("weight", "bias"))}
    assert set(Coupling(8, 3, 1.0, 2.0).state_dict()) == names


def test_log_determinant_of_the_whole_flow_behind_the_norm_is_exact():
    """What is learned is counted: no weight lies outside of the likelihood, where shrinking it would lower the loss."""
    flow = Flow(2, 2, FastFlowSettings(steps=2)).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    x = torch.randn(1, 2, 2, 2, dtype=torch.double)
    counted = 0.5 * flow(x).square().sum() - flow.likelihood(x)[0]
    entering = torch.nn.functional.layer_norm(x, x.shape[1:]).flatten()

    def behind(v):
        for step in flow.steps:
            v = step(v)
        return v.flatten()

    jacobian = torch.autograd.functional.jacobian(lambda v: behind(v.view(1, 2, 2, 2)), entering)
    torch.testing.assert_close(counted, torch.linalg.slogdet(jacobian).logabsdet)
    torch.testing.assert_close(behind(entering.view(1, 2, 2, 2)), flow(x).flatten())
    assert {name.split(".")[0] for name, _ in flow.named_parameters()} == {"steps"}


def test_a_model_whose_norm_has_weights_is_refused_with_advice(tmp_path):
    """Models of versions before had them, outside of the likelihood."""
    detector = FastFlow(FastFlow.presets["tiny"], pretrained=False)
    save_model(detector, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for number, flow in enumerate(detector.flows):
        norm = nn.LayerNorm(flow.norm.normalized_shape)
        state |= {f"flows.{number}.norm.{key}": value for key, value in norm.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(BundleError, match=r"do not fit fastflow .* train it again"):
        load_model(tmp_path)


def test_training_lowers_the_loss_of_the_likelihood():
    torch.manual_seed(0)
    flow = Flow(8, 4, FastFlowSettings(steps=4))
    x = torch.randn(32, 8, 4, 4) @ torch.randn(4, 4)
    optimiser = torch.optim.Adam(flow.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = flow.likelihood(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 10


@pytest.mark.parametrize(
    ("backbone", "kernels", "millions"),
    [("resnet18", (3,), 4.66), ("resnet18", (3, 1), 2.59), ("wide_resnet50_2", (3, 1), 41.3)],
)
def test_parameter_count_is_that_of_the_publication(backbone, kernels, millions):
    detector = FastFlow(FastFlowSettings(BackboneSettings(backbone), kernels=kernels), pretrained=False)
    weights = sum(m.weight.numel() for f in detector.flows for m in f.modules() if isinstance(m, nn.Conv2d))
    assert weights / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(
    "backbone", [RESNET18, BackboneSettings("deit_tiny_patch16_224", (7,), 224)], ids=lambda b: b.name
)
def test_backbone_is_a_setting_and_frozen(backbone):
    detector = FastFlow(FastFlowSettings(backbone, steps=2, hidden_ratio=0.16), pretrained=False).eval()
    learned = {name for name, p in detector.named_parameters() if p.requires_grad}
    assert all(name.startswith("flows.") for name in learned)
    scores = detector(torch.rand(1, 3, 100, 120))
    assert scores.map.shape == (1, 1, 100, 120)


def test_map_is_the_mean_over_taps_of_the_likelihood_at_each_position():
    detector = FastFlow(FastFlowSettings(dataclasses.replace(RESNET18, size=64), steps=1), pretrained=False).eval()
    values = (0.0, 1.0, 3.0)
    features = [
        torch.zeros(1, c, g, g) for c, g in zip(detector.backbone.channels, detector.backbone.grids, strict=True)
    ]
    for flow, value in zip(detector.flows, values, strict=True):
        flow.forward = lambda f, value=value: torch.full_like(f, value)
    expected = -torch.tensor([0.5 * v * v for v in values]).neg().exp().mean()
    scores = detector.score(features, (64, 64))
    torch.testing.assert_close(scores.map, expected.expand(1, 1, 64, 64))
    torch.testing.assert_close(scores.image, expected[None])


def test_permutation_is_saved_with_the_weights():
    assert "permutation" in Coupling(8, 3, 1.0, 2.0).state_dict()


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_published_backbones_are_presets_that_timm_knows(name):
    assert timm.is_model(name)
    assert FastFlow.presets[name].backbone.name == name


@pytest.mark.parametrize(("name", "block"), [("deit_tiny_distilled_patch16_224", 7), ("cait_xxs24_224", 20)])
def test_a_transformer_gives_one_normed_map_to_one_flow(name, block):
    settings = FastFlowSettings(BackboneSettings(name, (block,), 224), steps=2, hidden_ratio=0.16, layer_norm=False)
    detector = FastFlow(settings, pretrained=False).eval()
    with torch.inference_mode():
        (tokens,) = detector.backbone(torch.rand(1, 3, 224, 224))
        scores = detector(torch.rand(1, 3, 100, 90))
    assert tokens.shape == (1, 192, 14, 14)
    torch.testing.assert_close(tokens.mean(1), torch.zeros(1, 14, 14), rtol=0, atol=1e-4)  # the network's own norm
    assert isinstance(detector.flows[0].norm, nn.Identity)
    assert scores.map.shape == (1, 1, 100, 90)


def test_weights_of_a_transformer_reach_its_blocks_and_its_norm(tmp_path, monkeypatch):
    torch.manual_seed(4)
    name = "deit_tiny_distilled_patch16_224"
    full = timm.create_model(name)
    torch.nn.init.normal_(full.norm.weight)
    torch.save(full.state_dict(), tmp_path / f"{name}.pth")
    item = {"file": f"{name}.pth", "sha256": file_hash(tmp_path / f"{name}.pth"), "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "manifest.json").write_text(json.dumps({name: item}))
    monkeypatch.setenv("LOUPE_WEIGHTS", str(tmp_path))
    backbone = Backbone(BackboneSettings(name, (7,), 224))
    torch.testing.assert_close(backbone.norm.weight, full.norm.weight)
    torch.testing.assert_close(backbone.net.model.blocks[7].mlp.fc1.weight, full.blocks[7].mlp.fc1.weight)
