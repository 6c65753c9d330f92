"""The networks of timm, which is read when the first one is made: a process may know detectors and make none."""

from typing import Any

from torch import nn


def network(name: str, **options: Any) -> nn.Module:
    """A network of timm with random weights, or with ``features_only`` the maps of some of its blocks."""
    import timm

    made: nn.Module = timm.create_model(name, **options)
    return made


def is_transformer(features: nn.Module) -> bool:
    """Whether *features*, a network by ``features_only``, are of a transformer's blocks."""
    from timm.models._features import FeatureGetterNet

    return isinstance(features, FeatureGetterNet)
