"""Adapters of published sets on the real pictures that are here: the same rows as by the house's own layouts."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.datasets.adapters import adapter
from components.datasets.versions import checkout
from components.pictures.masks import mask_paths
from tests.sets import present


def counts(rows) -> dict[tuple[str, str], int]:
    return Counter((row.label, row.role) for row in rows)


@pytest.mark.parametrize("name", ["mvtec_ad_bottle", "mvtec_ad_screw"])
def test_a_category_of_mvtec_ad_is_what_the_folder_adapter_reads(name):
    at = present(name)
    assert sorted(adapter("mvtec_ad").rows(at), key=str) == sorted(adapter("folder").rows(at), key=str)


def test_kolektor_sdd_in_its_published_layout_has_the_same_rows(tmp_path):
    """The pictures that are here, linked as they are published: kosNN/PartM.jpg with a mask beside each."""
    at = present("kolektor_sdd")
    ours = adapter("kolektor_sdd").rows(at)
    for row in ours:
        item, _, part = Path(row.image_id).stem.partition("_")
        place = tmp_path / item / f"{part}.jpg"
        place.parent.mkdir(exist_ok=True)
        place.symlink_to((at / row.image_id).resolve())
        mask = place.with_name(f"{part}_label.bmp")
        if row.mask:
            mask.symlink_to((at / mask_paths(row.mask)[0]).resolve())
        else:
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(mask)
    found = adapter("ksdd").rows(tmp_path)
    assert (
        counts(found) == counts(ours) == {("normal", "train"): 263, ("normal", "test"): 70, ("anomalous", "test"): 50}
    )
    known = {Path(row.image_id).stem: (row.group, row.label, row.role) for row in ours}
    assert {row.image_id[:-4].replace("/", "_"): (row.group, row.label, row.role) for row in found} == known


def test_cifar10_subset_has_500_and_200_pictures_of_ten_classes():
    found = Counter((row.group, row.role) for row in adapter("cifar10").rows(present("cifar10_subset")))
    assert len(found) == 20
    assert {count for (_, role), count in found.items() if role == "train"} == {500}
    assert {count for (_, role), count in found.items() if role == "test"} == {200}


def test_digits_are_built_as_pinned():
    assert len(adapter("digits").rows(checkout("digits"))) == 1797
