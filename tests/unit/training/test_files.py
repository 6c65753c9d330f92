"""From image files to what detectors see: full-size pictures one at a time, anomalies that differ by nothing else."""

import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from components.detectors.catalogue import create, settings_for
from components.pictures import imaging
from components.pictures.decoding import DEFAULT
from components.synthesis.settings import SynthesisSettings
from components.training import descriptors, model
from components.training.data import FileImages, draw_anomalies
from components.training.model import score_files, score_pictures
from tests.conftest import tile


@pytest.fixture
def paths(tmp_path):
    found = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(found):
        Image.fromarray(tile(i, 200)[:, :150]).save(path)
    return found


def test_one_picture_at_a_time_is_held_at_its_full_size(paths, monkeypatch):
    decode, to_tensor, held = imaging.decode, imaging.to_tensor, []

    def kept(made):
        held.append(weakref.ref(made))
        return made

    def decoding(*asked, **more):
        assert all(ref() is None for ref in held)
        return kept(decode(*asked, **more))

    monkeypatch.setattr(imaging, "decode", decoding)
    monkeypatch.setattr(imaging, "to_tensor", lambda pixels: kept(to_tensor(pixels)))
    detector = create("msfi", settings_for("msfi", "tiny"), pretrained=False).eval()
    assert sum(len(scores) for scores, _ in score_files(detector, paths)) == 4
    assert len(held) == 8


@pytest.mark.parametrize("size", [32, 64, 96])
def test_a_made_image_is_the_normal_one_at_that_size_but_for_its_anomaly(paths, size):
    """Also at other sizes than it was drawn at, where the mask, enlarged or reduced, bounds what differs."""
    images = FileImages(tuple(paths), tuple(p.name for p in paths))
    made = draw_anomalies(images, SynthesisSettings(size=64, strategies=("cutpaste",)), 0, copies=2)
    normal = images.pixels([0, 0, 1, 1, 2, 2, 3, 3], size)
    differs = (made.pixels(range(8), size) != normal).any(1)
    masks = torch.from_numpy(made.marked).float()[:, None]
    near = torch.nn.functional.max_pool2d(masks, 5, 1, 2)
    reach = torch.nn.functional.interpolate(near, size=(size, size), mode="bilinear", antialias=True)[:, 0] > 0
    assert differs.any((1, 2)).all()
    assert not (differs & ~reach).any()
    assert np.allclose(made.pixels([1], 64), made.pixels(range(8), 64)[1:2])


def test_no_more_pictures_are_seen_at_once_than_memory_is_meant_for(paths, monkeypatch, tmp_path):
    """However many are asked for: while scored from files, while scored as pictures and while described."""
    detector, seen = create("msfi", settings_for("msfi", "tiny"), pretrained=False).eval(), []
    prepare = detector.prepare
    monkeypatch.setattr(detector, "prepare", lambda images: (seen.append(len(images[0])), prepare(images))[1])
    for place in (model, descriptors):
        monkeypatch.setattr(place, "at_once", lambda size: 3 if size == max(detector.sizes) else 100)
    by_files = np.concatenate([scores for scores, _ in score_files(detector, paths)])
    by_pictures = score_pictures(detector, [imaging.decode(path) for path in paths])
    assert len(descriptors.descriptors_of(tmp_path, detector, paths, DEFAULT)) == 4
    assert seen == [3, 1] * 3
    np.testing.assert_allclose(by_pictures, by_files, rtol=1e-5)
