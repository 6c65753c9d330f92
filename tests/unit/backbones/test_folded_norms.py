"""Norms are folded into convolutions while a graph is traced, and stand again behind it."""

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from components.backbones.frozen import norms_folded


def network(name):
    torch.manual_seed(0)
    net = timm.create_model(name, features_only=True, out_indices=(1, 2)).eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.running_mean, part.running_var, part.weight.data, part.bias.data):
                values.uniform_(0.5, 1.5)
    return net


def norms(net):
    return [part for part in net.modules() if isinstance(part, BatchNormAct2d)]


@torch.inference_mode()
def test_the_same_features_without_norms_in_the_blocks():
    net, pictures = network("tf_efficientnet_lite0"), torch.rand(2, 3, 64, 64)
    before, parts, count = net(pictures), list(net.modules()), len(norms(net))
    with norms_folded(net):
        assert len(norms(net)) < count / 10
        for ours, literal in zip(net(pictures), before, strict=True):
            torch.testing.assert_close(ours, literal, rtol=1e-4, atol=1e-5 * float(literal.abs().max()))
    assert [id(part) for part in net.modules()] == [id(part) for part in parts]
    for ours, literal in zip(net(pictures), before, strict=True):
        torch.testing.assert_close(ours, literal, rtol=0, atol=0)


def test_norms_stand_again_where_tracing_fails():
    net = network("tf_efficientnet_lite0")
    parts = [id(part) for part in net.modules()]
    with pytest.raises(ValueError, match="traced"), norms_folded(net):
        raise ValueError("traced in vain")
    assert [id(part) for part in net.modules()] == parts


def test_networks_whose_norms_may_stand_elsewhere_stay_as_they_are():
    net = network("resnet18")
    parts = [id(part) for part in net.modules()]
    with norms_folded(net):
        assert [id(part) for part in net.modules()] == parts
