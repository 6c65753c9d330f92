"""What the real data sets promise: counts per protocol, pins, and the search for copies on real pictures."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from components.datasets.adapters import adapter
from components.datasets.duplicates import Pictures, find_copies
from components.datasets.manifest import measure
from components.datasets.settings import SplitSettings
from components.datasets.versions import checkout, verify, version
from components.pictures.decoding import decode
from components.pipeline.params import load_params
from tests.sets import present

COUNTS = {
    "elpv": {
        ("mono", "normal", "train"): 470,
        ("mono", "normal", "test"): 118,
        ("mono", "anomalous", "test"): 313,
        ("poly", "normal", "train"): 736,
        ("poly", "normal", "test"): 184,
        ("poly", "anomalous", "test"): 402,
    },
    "mtd": {("mtd", "normal", "train"): 761, ("mtd", "normal", "test"): 191, ("mtd", "anomalous", "test"): 392},
    "mvtec_ad_screw": {
        ("mvtec_ad_screw", "normal", "train"): 320,
        ("mvtec_ad_screw", "normal", "test"): 41,
        ("mvtec_ad_screw", "anomalous", "test"): 119,
    },
    "ucsd_ped2": {  # frames
        ("ucsd_ped2", "normal", "train"): 1260,
        ("ucsd_ped2", "normal", "test"): 139,
        ("ucsd_ped2", "anomalous", "test"): 881,
    },
}


WORN = {("normal", "train"): 450, ("normal", "test"): 238, ("anomalous", "test"): 167}


def test_ball_screws_have_fifteen_positions_of_57_frames():
    rows = adapter("bsdata").rows(present("bsdata"))
    assert Counter((r.label, r.role) for r in rows) == WORN
    assert set(Counter(r.group for r in rows).values()) == {57}
    assert not any(r.label == "anomalous" for r in rows if r.group == "477500_315")
    assert all(r.mask for r in rows if r.label == "anomalous")


@pytest.fixture(scope="module")
def cells() -> Path:
    return checkout("elpv")


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_those_of_the_protocol(name, cells):
    rows = adapter(load_params().data[name].adapter).rows(present(name, cells.parent))
    found = Counter((r.group, r.label, r.role) for r in rows if r.label != "uncertain")
    assert found == COUNTS[name]


def test_uncertain_cells_are_kept_and_never_trained_on(cells):
    uncertain = [r for r in adapter("elpv").rows(cells) if r.label == "uncertain"]
    assert len(uncertain) == 2624 - sum(COUNTS["elpv"].values())
    assert {r.role for r in uncertain} == {"test"}


def test_data_built_from_the_package_equals_the_pin(tmp_path, monkeypatch, cells):
    pinned = tmp_path / "data" / "elpv.dvc"
    pinned.parent.mkdir()
    shutil.copy2(cells.parent / "elpv.dvc", pinned)
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    from dvc.repo import Repo

    Repo.init(".").close()
    assert checkout("elpv").is_dir()
    assert version(pinned).endswith(".dir")
    picture = next((tmp_path / "data/elpv/images").iterdir())
    picture.write_bytes(picture.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"differs from its pin elpv\.dvc"):
        verify(pinned)


def test_real_copies_are_found_and_real_look_alikes_are_not(cells, tmp_path):
    originals = sorted((cells / "images").iterdir())[:60]
    paths = [*originals, *(tmp_path / name for name in ("a.jpg", "b.png", "c.png"))]
    one, two, three = (Image.open(path) for path in originals[:3])
    one.save(paths[-3], quality=80)
    two.resize((240, 240), Image.Resampling.BICUBIC).save(paths[-2])
    Image.fromarray(np.roll(np.asarray(three), (4, 3), (0, 1))).save(paths[-1])
    measured = [measure(decode(path)) for path in paths]
    sizes = np.array([(m["height"], m["width"]) for m in measured])
    found = find_copies(Pictures(paths, sizes, [m["phash"] for m in measured]), SplitSettings().likeness)
    assert [(i, j) for i, j, _ in found.pairs] == [(0, 60), (1, 61), (2, 62)]
    assert found.silent == []
