"""Copies are pictures of one exposure, whatever the product repeats."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter1d, maximum_filter, minimum_filter, shift

from components.datasets.copies import leave_out, told
from components.datasets.duplicates import Copies, Pictures, _neighbours, complete_groups, find_copies
from components.datasets.exposure import _flat, fingerprint
from components.datasets.manifest import measure
from components.datasets.settings import SplitSettings

LIKENESS = SplitSettings().likeness
COPIES = {
    "encoded": lambda image: encoded(image, 80),
    "stored anew": lambda image: image,
    "resized": lambda image: image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.BICUBIC),
    "shifted": lambda image: Image.fromarray(np.roll(np.asarray(image), (4, 3), (0, 1))),
    "cropped": lambda image: image.crop((3, 2, image.width - 1, image.height - 3)),
}


def encoded(image, quality):
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue()))


def label(side=200):
    """A printed label: sharp print that every shot repeats."""
    image = Image.new("L", (side, side), 205)
    pen = ImageDraw.Draw(image)
    for line in range(12):
        pen.text((8, 6 + 16 * line), f"LOT 24{line:02d}  REF 88-{line * 7:03d}  STERILE", fill=25)
    pen.rectangle((120, 120, 190, 190), outline=25, width=3)
    return np.asarray(image, float)


def brushed(seed=0):
    """A brushed surface: fine texture that stays in its place."""
    return 130 + 2.5 * gaussian_filter1d(np.random.default_rng(seed).normal(0, 12, (200, 220)), 6, axis=1)


def shots(scene, count, noise, light=0.01, jitter=0.0, first=0):
    """Exposures of one scene, each with noise, light and place of its own."""
    for seed in range(first, first + count):
        rng = np.random.default_rng(seed)
        placed = shift(scene, rng.uniform(-jitter, jitter, 2), order=1, mode="nearest") if jitter else scene
        yield pictured(placed * rng.normal(1, light) + rng.normal(0, noise, scene.shape))


def pictured(grey):
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))


def searched(images, folder):
    paths, measured = [], []
    for number, image in enumerate(images):
        paths.append(folder / f"{number:03d}.png")
        image.save(paths[-1])
        measured.append(measure(np.asarray(image.convert("RGB"))))
    sizes = np.array([(m["height"], m["width"]) for m in measured])
    return find_copies(Pictures(paths, sizes, [m["phash"] for m in measured]), LIKENESS)


SCENES = {
    "a printed label in a fixture": lambda: shots(label(), 60, 3),
    "the label laid down by hand": lambda: shots(label(), 60, 3, jitter=4),
    "the label under a quiet sensor": lambda: shots(label(), 60, 1.5, jitter=1),
    "one brushed part again and again": lambda: shots(brushed(), 60, 2),
    "clean film": lambda: shots(np.full((200, 200), 180.0), 60, 0.8),
    "the label, all files encoded coarsely": lambda: (encoded(i, 60) for i in shots(label(), 60, 3)),
    "two products in turn": lambda: (
        image for pair in zip(shots(label(), 30, 3), shots(brushed(), 30, 4, first=30), strict=True) for image in pair
    ),
    "few": lambda: shots(label(), 9, 3),
}


@pytest.mark.parametrize("scene", SCENES)
def test_different_exposures_are_no_copies(scene, tmp_path):
    found = searched(SCENES[scene](), tmp_path)
    assert found.pairs == []
    assert found.same == list(range(len(found.same)))


@pytest.mark.parametrize("scene", ["a printed label in a fixture", "one brushed part again and again"])
def test_copies_are_found_where_the_camera_is_fixed(scene, tmp_path):
    originals = list(SCENES[scene]())
    made = [change(originals[number]) for number, change in enumerate(COPIES.values())]
    found = searched([*originals, *made], tmp_path)
    linked = {(i, j) for i, j, _ in found.pairs} | {(first, row) for row, first in enumerate(found.same) if first < row}
    assert linked == {(number, len(originals) + number) for number in range(len(COPIES))}


def test_one_part_taken_twice_in_other_light_is_no_copy(tmp_path):
    parts = [brushed(seed) for seed in range(20)]
    lights = [0.97, 1.03]
    scenes = [part * light for part in parts for light in lights]
    taken = [image for seed, scene in enumerate(scenes) for image in shots(scene, 1, 2, first=seed)]
    assert searched(taken, tmp_path).pairs == []
    assert len(searched([*taken, encoded(taken[0], 90)], tmp_path).pairs) == 1


def test_renderings_have_no_noise_and_say_so(tmp_path):
    def rendered(seed):
        image = Image.new("L", (400, 400), 90)
        at, pen = np.random.default_rng(seed).uniform(150, 250, 2), ImageDraw.Draw(image)
        pen.ellipse((at[0] - 90, at[1] - 90, at[0] + 90, at[1] + 90), fill=170)
        return image.resize((200, 200), Image.Resampling.BICUBIC)

    images = [rendered(seed) for seed in range(20)]
    found = searched([*images, encoded(images[3], 60), images[4]], tmp_path)
    assert found.silent == list(range(22))
    assert found.pairs == []
    assert found.same == [*range(21), 4]  # equal in every pixel needs no noise


def test_a_large_picture_is_reduced_before_it_is_smoothed():
    grey = np.random.default_rng(0).integers(0, 255, (1300, 2100), dtype=np.uint8)
    small = np.asarray(Image.fromarray(grey).reduce(2))
    one, two = fingerprint(grey, 320 / 1300), fingerprint(small, 320 / 650)
    assert np.corrcoef(one, two)[0, 1] > 0.95


def test_groups_are_complete_and_no_chains():
    chain = [(0, 1, 0.9), (1, 2, 0.8), (2, 3, 0.7)]
    assert complete_groups(chain) == [[0, 1], [2, 3]]
    assert complete_groups([*chain, (0, 2, 0.6)]) == [[0, 1, 2]]
    assert complete_groups([]) == []


def table(roles, labels=None):
    names = [f"{number}.png" for number in range(len(roles))]
    sides = ["test" if role == "test" else "fit" for role in roles]
    return pd.DataFrame(
        {"image_id": names, "role": roles, "label": labels or ["normal"] * len(roles), "split": sides, "note": None}
    )


def test_a_neighbour_of_a_copy_stays():
    """0 is a copy of 1, and 1 of the test image 2; that says nothing of 0 and 2."""
    rows = table(["train", "train", "test"])
    leave_out(rows, Copies([0, 1, 2], [(0, 1, 0.5), (1, 2, 0.5)], []))
    assert list(rows["split"]) == ["fit", "excluded", "test"]


def test_a_thousand_equal_frames_leave_one():
    rows = table(["train"] * 1000)
    copies = Copies([0] * 1000, [], [])
    leave_out(rows, copies)
    assert (rows["split"] == "fit").sum() == 1
    assert told(rows, copies)["repeats"] == 999


def test_copies_with_two_labels_are_named():
    rows = table(["test", "test", "train"], ["normal", "anomalous", "normal"])
    said = told(rows, Copies([0, 1, 2], [(0, 1, 0.8)], []))["said"]
    assert said == ["0.png (normal) and 1.png (anomalous) are one picture with two labels; remove the wrong one"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 31)])
def test_flat_pixels_are_those_whose_largest_and_smallest_neighbour_are_equal(shape):
    grey = np.random.default_rng(0).integers(0, 2, shape, np.uint8)
    grey[5:20, 8:] = 7
    assert (_flat(grey) == (maximum_filter(grey, 3) == minimum_filter(grey, 3))).all()


def test_pairs_of_pictures_that_hang_together_follow_one_another():
    """What was read for one pair serves the next; the order of what is found does not change."""
    pairs = [(0, 5, 0.9), (1, 4, 0.9), (2, 7, 0.9), (4, 6, 0.9), (5, 9, 0.9)]
    assert [pair[:2] for pair in _neighbours(pairs, 10)] == [(0, 5), (5, 9), (1, 4), (4, 6), (2, 7)]
