"""Frozen feature extractors, their weights with licence and hash, and the store of features computed once."""

from components.backbones.extractor import Backbone, BackboneSettings
from components.backbones.store import Features, FeatureStore

__all__ = ["Backbone", "BackboneSettings", "FeatureStore", "Features"]
