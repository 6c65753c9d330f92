"""Weights, frozen features, and the store."""

import json

import numpy as np
import pytest
import timm
import torch

from components.backbones import Backbone, BackboneSettings, FeatureStore
from components.backbones.weights import entry, load_into
from components.errors import WeightsError
from components.training.data import FileImages

SETTINGS = BackboneSettings(taps=(2, 3), size=64)


@pytest.fixture(scope="module")
def backbone():
    return Backbone(SETTINGS)


@pytest.fixture
def images(product):
    paths = tuple(sorted((product / "train/good").glob("*.png"))[:10])
    return FileImages(paths, tuple(p.name for p in paths))


def test_packaged_weights_say_where_they_come_from():
    item = entry("tf_efficientnet_lite0")
    assert {"source", "licence", "sha256", "trained_on"} <= set(item)


def test_weights_map_one_to_one_onto_timm():
    model = timm.create_model("tf_efficientnet_lite0")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load_into(model, "tf_efficientnet_lite0")
    changed = [k for k, v in model.state_dict().items() if v.is_floating_point() and not torch.equal(v, before[k])]
    assert len(changed) == sum(v.is_floating_point() for v in before.values())
    assert all("running_var" not in k or (v >= 0).all() for k, v in model.state_dict().items())


def test_unknown_backbone_and_changed_file_are_named(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="no weights in the manifest"):
        entry("resnet18")
    monkeypatch.setenv("LOUPE_WEIGHTS", str(tmp_path))
    (tmp_path / "resnet18.pth").write_bytes(b"other bytes")
    item = {"file": "resnet18.pth", "sha256": "0" * 64, "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "manifest.json").write_text(json.dumps({"resnet18": item}))
    with pytest.raises(WeightsError, match="the manifest says 0000"):
        load_into(timm.create_model("resnet18"), "resnet18")


def test_a_site_brings_its_own_weights(tmp_path, monkeypatch):
    from components.artefacts import file_hash

    torch.manual_seed(3)
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.pth")
    item = {"file": "resnet18.pth", "sha256": file_hash(tmp_path / "resnet18.pth"), "mean": [0.4] * 3, "std": [0.2] * 3}
    (tmp_path / "manifest.json").write_text(json.dumps({"resnet18": item}))
    monkeypatch.setenv("LOUPE_WEIGHTS", str(tmp_path))
    taps = Backbone(BackboneSettings("resnet18", (1, 2), 64))(torch.rand(1, 3, 80, 70))
    assert [tuple(t.shape) for t in taps] == [(1, 64, 16, 16), (1, 128, 8, 8)]


def test_store_gives_the_features_of_the_backbone(backbone, images, tmp_path):
    table = FeatureStore(tmp_path).features(backbone, images)
    with torch.inference_mode():
        direct = backbone(images.pixels(range(10), 64))
    for stored, tap in zip(table.take(range(10)), direct, strict=True):
        assert float((stored - tap).abs().max()) < 2e-3 * float(tap.abs().max())  # float16


def test_store_computes_once_and_repairs_itself(backbone, images, tmp_path, monkeypatch):
    calls = []
    compute = FeatureStore._compute
    monkeypatch.setattr(FeatureStore, "_compute", lambda self, *a: (calls.append(1), compute(self, *a)))
    store = FeatureStore(tmp_path)
    first = [tap.copy() for tap in store.features(backbone, images).taps]
    store.features(backbone, images)
    assert len(calls) == 1
    (array,) = tmp_path.glob("*/0.npy")
    content = bytearray(array.read_bytes())
    content[-1] ^= 255
    array.write_bytes(bytes(content))
    np.testing.assert_array_equal(store.features(backbone, images).taps[0], first[0])
    assert len(calls) == 2


def test_store_evicts_the_oldest_beyond_its_limit(backbone, images, tmp_path):
    store = FeatureStore(tmp_path, limit_gb=1e-6)
    halves = [FileImages(images.paths[i : i + 5], images.hashes[i : i + 5]) for i in (0, 5)]
    for half in (*halves, images):
        store.features(backbone, half)
    left = {p.name for p in tmp_path.iterdir() if p.is_dir()}
    assert len(left) == 2  # the newest is kept whatever the limit, and the one just written
