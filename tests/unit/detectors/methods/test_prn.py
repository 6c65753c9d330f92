"""What must be present for a detector to be PRN; each point fails without it. And how labelled anomalies reach it."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from components.core.errors import DataError, SettingsError
from components.core.records import MANIFEST_COLUMNS
from components.core.settings import build, plain
from components.datasets.loading import read_split
from components.datasets.manifest import measure
from components.datasets.settings import SplitSettings
from components.datasets.splits import split
from components.detectors.catalogue import settings_for
from components.detectors.contract import OnePass, Optimise
from components.detectors.methods.prn import PRN, ROWS, Attention, Exchange, Pointwise, PRNSettings
from components.detectors.parts.blocks import focal
from components.training.data import FileImages, FitImages
from components.training.train import _labelled
from tests.conftest import tile
from tests.given import passed

TINY = settings_for("prn", "tiny")


def made(**changes) -> PRN:
    torch.manual_seed(0)
    return PRN(dataclasses.replace(TINY, **changes), pretrained=False).eval()


@pytest.fixture
def detector():
    return made()


@pytest.fixture
def features(detector):
    torch.manual_seed(1)
    return [torch.randn(4, c, g, g) for c, g in zip(detector.backbone.channels, detector.backbone.grids, strict=True)]


class Rows:
    """A table of given feature maps."""

    def __init__(self, maps):
        self.maps = maps

    def __len__(self):
        return len(self.maps[0])

    def take(self, indices):
        return [x[list(indices)] for x in self.maps]


def clustered(detector, maps):
    """The phase of *detector* that finds its prototypes, on *maps* of normals."""
    passed(detector, "prototypes", data=SimpleNamespace(features=lambda _: Rows(maps)))


def kinds(detector, count):
    """*count* images of each of two kinds, which differ in where things are, not in how much of it there is."""
    torch.manual_seed(2)
    maps = []
    for c, g in zip(detector.backbone.channels, detector.backbone.grids, strict=True):
        one = torch.randn(1, c, g, g)
        maps.append(torch.cat([one, one.flip(3)]).repeat(count, 1, 1, 1) + 0.01 * torch.randn(2 * count, c, g, g))
    return maps


def test_prototypes_are_mean_maps_of_clusters_of_whole_images(detector):
    maps = kinds(detector, 10)
    clustered(detector, maps)  # 10 % of 20 images: two
    for bank, x in zip(detector.banks(), maps[:3], strict=True):
        wanted = torch.stack([x[0::2].mean(0), x[1::2].mean(0)]).flatten(1)
        found = bank
        order = [0, 1] if (found[0] - wanted[0]).norm() < (found[0] - wanted[1]).norm() else [1, 0]
        torch.testing.assert_close(found[order], wanted, rtol=1e-4, atol=1e-4)
        assert len(bank) == 2  # a model is as large as what it has learned


@pytest.mark.parametrize(("images", "expected"), [(10, 2), (15, 3), (200, 4)])
def test_there_is_a_prototype_per_ten_images_up_to_the_cap(images, expected):
    detector = made(most=4)
    torch.manual_seed(3)
    sizes = zip(detector.backbone.channels, detector.backbone.grids, strict=True)
    clustered(detector, [torch.randn(2 * images, c, g, g) for c, g in sizes])
    assert all(len(bank) == expected and (bank < 1000).all() for bank in detector.banks())


def test_no_cap_lies_below_the_published_tenth():
    """MVTec's largest class has 391 good images; of more than ROWS no more are clustered."""
    for preset in ("paper", "cpu"):
        settings = settings_for("prn", preset)
        assert settings.prototypes == 0.1
        assert settings.most >= 0.1 * ROWS


def test_a_model_of_any_number_of_prototypes_is_loaded(detector, features):
    clustered(detector, kinds(detector, 10))
    other = made()
    other.load_state_dict(detector.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other.eval().logits(features), detector.eval().logits(features), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="bank0"):
        other.load_state_dict({**detector.state_dict(), "bank0": torch.zeros(2, 5)})


def test_the_same_images_give_the_same_prototypes(detector):
    torch.manual_seed(4)
    maps = [torch.randn(150, c, g, g) for c, g in zip(detector.backbone.channels, detector.backbone.grids, strict=True)]
    other = made()
    clustered(detector, maps)
    clustered(other, maps)
    assert all(torch.equal(a, b) for a, b in zip(detector.banks(), other.banks(), strict=True))


def test_deviation_is_squared_from_the_prototype_nearest_to_the_whole_map(detector, features):
    for bank in detector.banks():
        bank[:2] = torch.randn(2, bank.shape[1])
    for scale, (bank, found) in enumerate(zip(detector.banks(), detector.deviations(features[:3]), strict=True)):
        x = features[scale].flatten(1)
        apart = (x[:, None] - bank[None, :2]).square()
        whole = apart.sum(2).argmin(1)
        torch.testing.assert_close(found.flatten(1), apart[range(len(x)), whole], rtol=1e-4, atol=1e-4)
        assert (found.flatten(1) > apart.min(1).values + 1e-3).any()  # not the nearest position by position
    bank = detector.banks()[0]
    exact = detector.deviations([bank[:1].reshape_as(features[0][:1]), features[1], features[2]])[0]
    assert not exact.any()


def test_the_decoder_sees_features_and_deviations_of_all_three_scales(detector, features):
    seen = []
    for enter in detector.enter:
        enter.register_forward_hook(lambda *parts: seen.append(parts[1][0]))
    detector.logits(features)
    assert [x.shape[1] for x in seen] == [2 * c for c in detector.backbone.channels[:3]]
    before = detector.logits(features)
    without = made(residual=False)
    without.load_state_dict(detector.state_dict())
    for bank in (*detector.banks(), *without.banks()):
        bank[0] = 3.0
    assert not torch.allclose(detector.logits(features), before)
    torch.testing.assert_close(without.logits(features), without.logits(features))
    assert not torch.allclose(without.logits(features), detector.logits(features))


def test_every_scale_gets_from_every_other():
    torch.manual_seed(0)
    exchange = Exchange((4, 6, 8)).eval()
    maps = [torch.randn(1, c, g, g).requires_grad_() for c, g in ((4, 16), (6, 8), (8, 4))]
    found = exchange(maps)
    assert [x.shape for x in found] == [x.shape for x in maps]
    for x in found:
        grads = torch.autograd.grad(x.square().sum(), maps, retain_graph=True)
        assert all(g.any() for g in grads)


def reference(project, x, n):
    """Attention between n x n patches, patch by patch."""
    c, side = x.shape[1], x.shape[2] // n
    queries, keys, values = project(x).split(c, 1)
    cuts = [(slice(i * side, (i + 1) * side), slice(j * side, (j + 1) * side)) for i in range(n) for j in range(n)]
    result = torch.zeros_like(x)
    for a in cuts:
        products = [(queries[0][:, *a] * keys[0][:, *b]).sum() / math.sqrt(c * side * side) for b in cuts]
        for weight, b in zip(torch.stack(products).softmax(0), cuts, strict=True):
            result[0][:, *a] += weight * values[0][:, *b]
    return result


def test_patches_of_several_sizes_attend_to_each_other():
    torch.manual_seed(0)
    attention = Attention(3, (1, 2, 4)).eval()
    seen = []
    attention.shortcut.register_forward_hook(lambda *parts: seen.append(parts[1][0]))
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert attention(x).shape == x.shape
        alone, *others = zip((1, 2, 4), attention.project, seen[0].split(3, 1), strict=True)
        torch.testing.assert_close(alone[2], alone[1](x))  # one patch attends to itself alone
        for n, project, found in others:
            torch.testing.assert_close(found, reference(project, x, n), rtol=1e-4, atol=1e-5)


def test_attended_scales_are_fused_before_the_decoder(detector, features):
    """Where fusion says nothing, the decoder has the code alone."""
    others = [*(x + 1 for x in features[:3]), features[3]]
    assert not torch.allclose(detector.logits(features), detector.logits(others))
    detector.fusion.register_forward_hook(lambda *parts: [torch.zeros_like(x) for x in parts[2]])
    torch.testing.assert_close(detector.logits(features), detector.logits(others), rtol=0, atol=0)


def test_the_product_of_a_training_step_is_the_convolution():
    point = Pointwise(3, 5)
    x = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(point.train()(x), point.eval()(x))


def test_each_scale_has_attention_of_the_published_sizes():
    paper = settings_for("prn", "paper")
    assert paper.patches == (1, 2, 4, 8)
    detector = PRN(dataclasses.replace(settings_for("prn", "cpu"), most=1), pretrained=False)
    assert [block.patches for scale in detector.attention for block in scale] == [(1, 2, 4, 8)] * 3


def test_loss_is_smooth_l1_and_weighted_focal_with_normal_images_empty(detector, features):
    masks = (torch.rand(4, 1, 32, 32) > 0.8).float()
    for bank in detector.banks():
        bank.normal_()  # empty banks are far away, and their huge residuals would drown one of the two losses
    normal = [x + 1 for x in features]
    with torch.no_grad():
        logits = torch.cat([detector.logits(normal), detector.logits(features)])
        target = torch.cat([torch.zeros_like(masks), masks])
        wanted = F.smooth_l1_loss(logits.sigmoid(), target) + 5 * focal(logits, target, gamma=4, alpha=0.5)
        assert float(detector.loss((normal, features, masks))) == pytest.approx(float(wanted), rel=1e-4)


def test_image_score_is_the_mean_of_the_hundred_largest_pixels(detector, features, monkeypatch):
    logits = torch.full((4, 1, 64, 64), -3.0)
    logits[0, 0, :5, :10] = 3.0
    logits[1, 0, :10, :10] = 3.0
    logits[2, 0, :20, :20] = 3.0
    monkeypatch.setattr(detector, "logits", lambda _: logits)
    scores = detector.score(features, (64, 64))
    high, low = (torch.tensor([3.0, -3.0]).sigmoid()).tolist()
    assert scores.image.tolist() == pytest.approx([(high + low) / 2, high, high, low], rel=1e-4)
    torch.testing.assert_close(scores.map, logits.sigmoid())


def validated(folder: Path, out: Path) -> Path:
    """A manifest of 12 good images for training and, for testing, 4 good ones and 6 anomalous ones of two types."""
    records = []
    for i in range(22):
        role, defect = ("train", None) if i < 12 else ("test", [None, "dent", "stain"][(i - 12) % 3 if i >= 16 else 0])
        pixels, mask = tile(500 + i), None
        if defect or i in (18, 21):
            defect = defect or "dent"
            mask = np.zeros((96, 96), np.uint8)
            mask[30:60, 20 + i : 50 + i] = 255
            pixels[mask > 0] = 240 if defect == "dent" else 10
            Image.fromarray(mask).save(folder / f"{i}_mask.png")
        Image.fromarray(pixels).save(folder / f"{i}.png")
        record = dict.fromkeys(MANIFEST_COLUMNS) | measure(pixels)
        record |= {
            "image_id": f"{i}.png",
            "dataset": "d",
            "group": "g",
            "role": role,
            "sha256": str(i),
            "label": "anomalous" if defect else "normal",
            "defect": defect,
            "mask": f"{i}_mask.png" if defect else None,
        }
        records.append(record)
    out.mkdir()
    pd.DataFrame(records).to_parquet(out / "clean.parquet")
    return out


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    validated(tmp_path / "data", tmp_path / "validated")
    return tmp_path


def sides(folder, count) -> pd.DataFrame:
    settings = SplitSettings(labelled=count)
    return read_split(split(folder / "validated", folder / "data", folder / f"split{count}", settings))


def test_labelled_anomalies_leave_the_test_split_of_each_type_in_turn(folder):
    before, after = sides(folder, 0), sides(folder, 2)
    assert not ((before["split"] == "fit") & (before["label"] == "anomalous")).any()
    moved = after[(after["split"] == "fit") & (after["label"] == "anomalous")]
    assert sorted(moved["defect"]) == ["dent", "stain"]
    tested = set(after[after["split"] == "test"]["image_id"])
    assert tested == set(before[before["split"] == "test"]["image_id"]) - set(moved["image_id"])
    normal = after["label"] == "normal"
    assert after[normal]["split"].tolist() == before[normal]["split"].tolist()
    more = sides(folder, 4)
    assert set(moved["image_id"]) <= set(more[(more["split"] == "fit") & (more["label"] == "anomalous")]["image_id"])


def test_an_anomaly_with_a_copy_in_the_test_is_not_moved(folder):
    clean = pd.read_parquet(folder / "validated/clean.parquet")
    moved = sides(folder, 1).query("split == 'fit' and label == 'anomalous'").iloc[0]
    Image.open(folder / "data" / moved["image_id"]).save(folder / "data/copy.png")
    twin = clean[clean["image_id"] == moved["image_id"]].assign(image_id="copy.png", sha256="copy")
    pd.concat([clean, twin], ignore_index=True).to_parquet(folder / "validated/clean.parquet")
    after = sides(folder, 2).set_index("image_id")
    assert list(after.loc[[moved["image_id"], "copy.png"], "split"]) == ["test", "test"]
    assert ((after["split"] == "fit") & (after["label"] == "anomalous")).sum() == 2


def test_more_labelled_anomalies_than_there_are_is_refused(folder):
    with pytest.raises(DataError, match="6 anomalous test images have a mask"):
        sides(folder, 7)


def test_an_empty_mask_labels_nothing(folder):
    for i in range(16, 22):
        if i != 18:
            Image.fromarray(np.zeros((96, 96), np.uint8)).save(folder / "data" / f"{i}_mask.png")
    after = sides(folder, 1)
    assert after[after["note"].notna()]["image_id"].tolist() == ["18.png"]


def training_data(folder, count, store) -> FitImages:
    table = sides(folder, count)
    rows = table[(table["split"] == "fit") & (table["label"] == "normal")]
    images = FileImages(tuple(folder / "data" / i for i in rows["image_id"]), tuple(rows["sha256"]))
    anomalous, masks = _labelled(folder / "data", folder / f"split{count}")
    return FitImages(images, store, 0, anomalous=anomalous, masks=masks)


def test_the_training_data_offers_labelled_anomalies_with_their_masks(folder, store):
    assert training_data(folder, 0, store).labelled(64) is None
    found = training_data(folder, 2, store).labelled(96)
    assert found.pixels.shape == (2, 3, 96, 96)
    assert found.masks.shape == (2, 1, 96, 96)
    shades = sorted(float(p[:, m[0]].mean()) for p, m in zip(found.pixels, found.masks, strict=True))
    assert shades == pytest.approx([10 / 255, 240 / 255], abs=0.01)


def test_extended_needs_labelled_anomalies(folder, store):
    with pytest.raises(SettingsError, match=r"split\.labelled"):
        training_data(folder, 0, store).anomalies(("extended",), 64)


def test_it_trains_on_labelled_anomalies_only_where_there_are_any(folder, store, monkeypatch):
    used = []
    from components.training import data as module

    varied = module.extended

    def spy(normal, defect, mask, rng, settings):
        used.append(round(float(defect[mask].mean())))
        return varied(normal, defect, mask, rng, settings)

    monkeypatch.setattr(module, "extended", spy)
    for count, expected in ((0, set()), (2, {10, 240})):
        used.clear()
        torch.manual_seed(0)
        detector = PRN(TINY)
        prototypes, segmentation = detector.phases(training_data(folder, count, store))
        assert isinstance(prototypes, OnePass)
        assert isinstance(segmentation, Optimise)
        assert {10 if shade < 60 else 240 for shade in used} == expected
    normals = len(prototypes.table)
    assert len(used) == normals * TINY.copies // 2  # half of the anomalies are extended ones
    prototypes.finish()
    detector.loss(segmentation.table.take([0, 1, 2])).backward()
    assert detector.head.weight.grad.any()


def test_settings_of_an_older_version_load(caplog):
    old = {**plain(TINY), "grey": True}
    assert build(PRNSettings, old, "settings.json") == TINY
    assert "settings.json.grey is no setting any more" in caplog.text
