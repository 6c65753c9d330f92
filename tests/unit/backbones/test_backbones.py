"""Weights, frozen features, and the store."""

import copy
import json
import multiprocessing
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import timm
import torch

from components.backbones import extractor, features, runtime
from components.backbones.batches import IN_GRAPH, at_once
from components.backbones.extractor import Backbone, BackboneSettings
from components.backbones.features import FeatureStore
from components.backbones.runtime import FastBackbone, through_graphs
from components.backbones.weights import entry, load_into
from components.core.errors import WeightsError
from components.pictures.decoding import Decoding
from components.training.data import FileImages
from tests.given import in_torch

SETTINGS = BackboneSettings(taps=(2, 3), size=64)


@pytest.fixture(scope="module")
def backbone():
    return Backbone(SETTINGS)


@pytest.fixture
def place(store, backbone, tmp_path):
    """A folder for a store that has the graph of ``backbone`` already and nothing else."""
    FastBackbone(backbone, store.root)
    for graph in store.root.glob("*.onnx"):
        shutil.copy2(graph, tmp_path)
    return tmp_path


@pytest.fixture
def images(product):
    paths = tuple(sorted((product / "train/good").glob("*.png"))[:10])
    return FileImages(paths, tuple(p.name for p in paths))


@pytest.fixture(name="in_torch")
def _in_torch(monkeypatch):
    """Features by torch: exporting the graph takes longer than these tests."""
    monkeypatch.setattr(features, "extractor", in_torch)


def test_a_graph_that_another_process_has_made_meanwhile_is_not_made_again(place, backbone, monkeypatch):
    made, other = runtime.graph_of(place, backbone.key()), place / "other"
    locks = []

    @contextmanager
    def meanwhile(lock):
        locks.append(lock.name)
        other.mkdir()
        shutil.copy2(made, other)
        yield

    monkeypatch.setattr(runtime, "locked", meanwhile)
    monkeypatch.setattr(runtime, "_export", lambda *_: pytest.fail("the graph is made a second time"))
    for _ in range(2):
        FastBackbone(backbone, other)
    assert locks == [f"{made.stem}.lock"]


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


def test_a_backbone_is_frozen_and_stays_in_evaluation_mode():
    parent = torch.nn.Sequential(Backbone(BackboneSettings(taps=(2,), size=64), pretrained=False))
    parent.train()
    assert parent.training
    assert not any(part.training for part in parent[0].modules())
    assert not any(p.requires_grad for p in parent.parameters())


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
    from components.core.artefacts import file_hash

    torch.manual_seed(3)
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.pth")
    item = {"file": "resnet18.pth", "sha256": file_hash(tmp_path / "resnet18.pth"), "mean": [0.4] * 3, "std": [0.2] * 3}
    (tmp_path / "manifest.json").write_text(json.dumps({"resnet18": item}))
    monkeypatch.setenv("LOUPE_WEIGHTS", str(tmp_path))
    backbone = Backbone(BackboneSettings("resnet18", (1, 2), 64))
    assert [tuple(t.shape) for t in backbone(torch.rand(1, 3, 64, 64))] == [(1, 64, 16, 16), (1, 128, 8, 8)]
    with pytest.raises(ValueError, match=r"images of \(80, 70\) pixels; resize them once, to 64"):
        backbone(torch.rand(1, 3, 80, 70))


@pytest.mark.slow
def test_store_gives_the_features_of_the_backbone(backbone, images, tmp_path):
    table = FeatureStore(tmp_path).features(backbone, images)
    with torch.inference_mode():
        direct = backbone(images.pixels(range(10), 64))
    for stored, tap in zip(table.take(range(10)), direct, strict=True):
        assert float((stored - tap).abs().max()) < 2e-3 * float(tap.abs().max())  # float16


def test_store_computes_once_and_repairs_itself(backbone, images, place, monkeypatch):
    calls = []
    compute = FeatureStore._compute
    monkeypatch.setattr(FeatureStore, "_compute", lambda self, *a: (calls.append(1), compute(self, *a)))
    store = FeatureStore(place)
    first = [tap.copy() for tap in store.features(backbone, images).taps]
    store.features(backbone, images)
    assert len(calls) == 1
    array = sorted(place.glob("*/tap.npy"))[0]
    content = bytearray(array.read_bytes())
    content[-1] ^= 255
    array.write_bytes(bytes(content))
    for found, known in zip(store.features(backbone, images).taps, first, strict=True):
        np.testing.assert_array_equal(found, known)
    assert len(calls) == 2
    assert (store.usage.hits, store.usage.misses) == (2 + 1, 2 + 1)
    assert store.usage.seconds_saved > 0


@pytest.mark.parametrize(
    ("size", "graph", "in_torch"), [(64, 16, 16), (128, 16, 4), (256, 4, 1), (384, 1, 1), (1024, 1, 1)]
)
def test_larger_pictures_are_seen_in_smaller_batches(size, graph, in_torch, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (at_once(size, IN_GRAPH), at_once(size)) == (graph, in_torch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert at_once(size) == at_once(size, IN_GRAPH) >= graph  # a GPU wants more of them


def test_features_are_those_of_any_batch(backbone, images, place, monkeypatch):
    def found(count, name):
        monkeypatch.setattr(features, "batch_of", lambda _: count)
        sizes.clear()
        root = shutil.copytree(place, place.with_name(name))
        taps = FeatureStore(root).features(backbone, images).taps
        return list(sizes), [np.array(tap) for tap in taps]

    sizes, call = [], FastBackbone.__call__
    monkeypatch.setattr(FastBackbone, "__call__", lambda self, seen: (sizes.append(len(seen)), call(self, seen))[1])
    together, of_all = found(16, "together")
    alone, of_each = found(3, "alone")
    assert (together, alone) == ([10], [3, 3, 3, 1])
    for one, other in zip(of_all, of_each, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("in_torch")
def test_taps_are_shared_by_detectors_that_read_different_ones(backbone, images, tmp_path):
    store = FeatureStore(tmp_path)
    store.features(backbone, images)
    before = {p: p.stat().st_ino for p in tmp_path.glob("*/tap.npy")}
    one, two = backbone.settings.taps
    for taps in ((two,), (one, two, two + 1)):
        other = Backbone(BackboneSettings(taps=taps, size=64))
        assert [len(t) for t in store.features(other, images).take([0])] == [1] * len(taps)
    assert (store.usage.hits, store.usage.misses) == (1 + 2, 2 + 1)
    assert {p: p.stat().st_ino for p in before} == before
    assert len(list(tmp_path.glob("*/tap.npy"))) == 3


def _ask(root, paths, hashes, size, done):
    features.extractor = in_torch
    store = FeatureStore(root)
    store.features(Backbone(BackboneSettings(taps=(2, 3), size=size)), FileImages(paths, hashes))
    done.put((store.usage.hits, store.usage.misses))


@pytest.mark.slow
def test_two_processes_that_ask_for_the_same_features_compute_them_once(images, tmp_path):
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    asking = [context.Process(target=_ask, args=(tmp_path, images.paths, images.hashes, 64, done)) for _ in range(2)]
    for process in asking:
        process.start()
    usages = sorted(done.get(timeout=500) for _ in asking)
    for process in asking:
        process.join()
    assert usages == [(0, 2), (2, 0)]


def test_the_store_can_be_off(backbone, images, place):
    kept, live = FeatureStore(place).features(backbone, images), FeatureStore(None).features(backbone, images)
    assert len(live) == len(kept)
    for a, b in zip(live.take([3, 1]), kept.take([3, 1]), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3 * float(b.abs().max()))


@pytest.mark.usefixtures("in_torch")
def test_the_least_recently_used_goes_beyond_the_limit(backbone, images, tmp_path):
    parts = [FileImages(images.paths[i : i + 3], images.hashes[i : i + 3]) for i in (0, 3, 6)]
    size = 3 * sum(c * g * g for c, g in zip(backbone.channels, backbone.grids, strict=True)) * 2
    store = FeatureStore(tmp_path, limit_gb=1.5 * size / 1e9)
    for part in (parts[0], parts[1], parts[0], parts[2], parts[0]):
        store.features(backbone, part)
    # parts[1] was used least recently when parts[2] came, so that parts[0] was still there at the end
    assert store.usage.hits == 2 * 2
    assert len(list(tmp_path.glob("*/tap.npy"))) < 2 * 3


@pytest.mark.usefixtures("in_torch")
def test_what_is_asked_for_stays_whatever_the_limit(backbone, images, tmp_path):
    store = FeatureStore(tmp_path, limit_gb=0.0)
    first = store.features(backbone, images)
    assert (store.usage.hits, store.usage.misses) == (0, 2)
    other = FileImages(images.paths[:3], images.hashes[:3])
    store.features(backbone, other)  # evicts the two entries above; who has them mapped keeps reading
    assert len(first.take([0, 9])) == 2
    assert sorted(np.load(p, mmap_mode="r").shape[0] for p in tmp_path.glob("*/tap.npy")) == [3, 3]
    store.features(backbone, other)
    assert (store.usage.hits, store.usage.misses) == (2, 4)


@pytest.mark.usefixtures("in_torch")
def test_a_changed_picture_has_features_of_its_own(backbone, images, tmp_path):
    store = FeatureStore(tmp_path)
    store.features(backbone, images)
    store.features(backbone, FileImages(images.paths, (*images.hashes[:-1], "other bytes under the same name")))
    assert (store.usage.hits, store.usage.misses) == (0, 4)


def test_an_off_store_writes_and_counts_nothing(backbone, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = FeatureStore(None)
    store.features(backbone, images).take([0])
    assert list(tmp_path.iterdir()) == []
    assert (store.usage.hits, store.usage.misses) == (0, 0)


def test_the_benchmark_sums_what_the_store_saved(tmp_path):
    from benchmarks.production.features import trainings

    usages = {
        "a": {"hits": 3, "misses": 1, "seconds_spent": 2.0, "seconds_saved": 30.0},
        "b": {"hits": 0, "misses": 4, "seconds_spent": 40.0, "seconds_saved": 0.0},
        "pixels": {"hits": 0, "misses": 0, "seconds_spent": 0.0, "seconds_saved": 0.0},
    }
    for name, usage in usages.items():
        folder = tmp_path / "view" / name / "model"
        folder.mkdir(parents=True)
        (folder / "timing.json").write_text(json.dumps({"features": usage}))
    found = trainings(tmp_path)
    assert [line[0] for line in found] == ["view/a", "view/b", "all 2"]
    assert found[-1][1:] == ["3", "5", "38%", "42", "30"]
    assert trainings(tmp_path / "view")[0][0] == "not measured"


@pytest.mark.usefixtures("in_torch")
def test_a_new_picture_costs_itself_alone(backbone, images, tmp_path):
    """What a data set that has grown, and the folds of a small one, ask for: lists that share pictures."""
    store = FeatureStore(tmp_path)
    old = FileImages(images.paths[:7], images.hashes[:7])
    store.features(backbone, old)
    assert (store.usage.computed, store.usage.copied) == (7, 0)
    grown = store.features(backbone, images)
    assert (store.usage.computed, store.usage.copied) == (10, 7)
    alone = FeatureStore(tmp_path / "alone").features(backbone, images)
    for one, other in zip(grown.taps, alone.taps, strict=True):
        np.testing.assert_array_equal(one, other)
    turned = FileImages(images.paths[2:8][::-1], images.hashes[2:8][::-1])
    for one, other in zip(store.features(backbone, turned).taps, alone.taps, strict=True):
        np.testing.assert_array_equal(one, other[2:8][::-1])
    assert (store.usage.computed, store.usage.copied) == (10, 13)


@pytest.mark.usefixtures("in_torch")
def test_features_are_copied_of_the_same_bytes_read_alike_only(backbone, images, tmp_path):
    store = FeatureStore(tmp_path)
    store.features(backbone, images)
    store.features(backbone, FileImages(images.paths, images.hashes, Decoding(white=4095.0)))  # another white
    store.features(backbone, FileImages(images.paths, tuple(f"{name}+" for name in images.hashes)))  # other bytes
    store.features(Backbone(BackboneSettings(taps=(2,), size=96)), images)  # another size
    assert (store.usage.computed, store.usage.copied) == (40, 0)


@pytest.mark.usefixtures("in_torch")
def test_features_whose_bytes_have_changed_are_not_copied(backbone, images, tmp_path):
    store = FeatureStore(tmp_path)
    store.features(backbone, FileImages(images.paths[:7], images.hashes[:7]))
    for tap in tmp_path.glob("*/tap.npy"):
        with tap.open("r+b") as stream:
            stream.seek(-4, 2)
            stream.write(b"rot!")
    store.features(backbone, images)
    assert (store.usage.computed, store.usage.copied) == (17, 0)


def test_a_frozen_backbone_of_a_detector_is_run_by_its_graph_where_that_is_kept(backbone, images, place, monkeypatch):
    """The scores of torch but for rounding, without torch; and torch again behind it."""
    detector, seen = Holder(backbone), images.pixels(range(3), backbone.settings.size)
    before, calls, call = detector(seen), [], FastBackbone.__call__
    monkeypatch.setattr(FastBackbone, "__call__", lambda self, seen: (calls.append(len(seen)), call(self, seen))[1])
    with through_graphs(detector, place):
        inside = detector(seen)
    assert calls == [3]
    torch.testing.assert_close(inside, before, rtol=1e-4, atol=1e-4)
    for there in (place / "none", None):
        with through_graphs(detector, there):
            torch.testing.assert_close(detector(seen), before, rtol=0, atol=0)
    torch.testing.assert_close(detector(seen), before, rtol=0, atol=0)
    assert calls == [3]


def test_a_graph_stands_for_one_size_and_all_taps(backbone, images, place):
    """The same network at another size, or with fewer taps, is run by torch."""
    detector, side = Holder(backbone), backbone.settings.size
    small, first = images.pixels(range(2), side // 2), backbone.settings.taps[:1]
    whole = images.pixels(range(2), side)
    known = backbone.at(side // 2)(small), backbone.part(first, side)(whole)
    with through_graphs(detector, place):
        inside = backbone.at(side // 2)(small), backbone.part(first, side)(whole)
    torch.testing.assert_close(inside, known, rtol=0, atol=0)


def test_a_network_of_other_weights_is_run_by_itself(backbone, images, place, monkeypatch):
    """A graph is kept by the name of its weights: a model that was loaded may have had others by that name."""
    seen = images.pixels(range(2), backbone.settings.size)
    loaded = Backbone(backbone.settings, pretrained=False)
    loaded.load_state_dict(backbone.state_dict())
    older = copy.deepcopy(loaded)
    next(older.net.parameters()).data += 0.1
    assert not loaded.todays
    assert loaded.is_todays()
    assert not older.is_todays()
    calls, call = [], FastBackbone.__call__
    monkeypatch.setattr(FastBackbone, "__call__", lambda self, seen: (calls.append(len(seen)), call(self, seen))[1])
    for part, count in ((loaded, 1), (older, 0)):
        with through_graphs(Holder(part), place):
            part(seen)
        assert len(calls) == count
        calls.clear()
    monkeypatch.setattr(extractor, "entry", gone)
    assert not Backbone(backbone.settings, pretrained=False).is_todays()


def gone(name):
    raise WeightsError(name)


def test_a_network_that_is_shared_is_run_by_its_graph(backbone, place):
    """It lies beside the modules of its owners, which have no state of their own for it."""
    owner = torch.nn.Module()
    owner.__dict__["backbone"] = backbone
    with through_graphs(owner, place):
        assert backbone.graph is not None
    assert backbone.graph is None


class Holder(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    @torch.inference_mode()
    def forward(self, images):
        return list(self.backbone(images))
