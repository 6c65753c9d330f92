"""Published files of many pictures: unpacked to a folder per class, and no pickle runs anything."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from components.datasets import versions
from components.datasets.adapters import ADAPTERS, adapter
from components.datasets.sets import packed
from components.datasets.sets.classes import rows

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 3072), dtype=np.uint8)


def pickled(path: Path, values: object) -> None:
    """As the published ones: protocol 2 names numpy's arrays by the module that they had then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(values, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def cifar_10(root: Path) -> Path:
    at = root / "cifar-10-batches-py"
    pickled(at / "batches.meta", {b"label_names": [b"airplane", b"cat"]})
    pickled(at / "data_batch_1", {b"data": PIXELS[:2], b"labels": [1, 0]})
    pickled(at / "data_batch_2", {b"data": PIXELS[2:3], b"labels": [1]})
    pickled(at / "test_batch", {b"data": PIXELS[3:], b"labels": [0]})
    return at


def cifar_100(root: Path) -> Path:
    at = root / "cifar-100-python"
    pickled(at / "meta", {b"coarse_label_names": [b"fish"], b"fine_label_names": [b"ray", b"shark"]})
    for side, part in (("train", PIXELS[:2]), ("test", PIXELS[2:])):
        pickled(at / side, {b"data": part, b"coarse_labels": [0, 0], b"fine_labels": [1, 0]})
    return at


def idx(path: Path, values: np.ndarray) -> None:
    head = struct.pack(f">{values.ndim + 1}I", 2048 + values.ndim, *values.shape)
    content = head + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def mnist(root: Path, suffix: str = "") -> Path:
    root.mkdir(exist_ok=True)
    for stem, count in (("train", 3), ("t10k", 2)):
        idx(root / f"{stem}-images-idx3-ubyte{suffix}", PIXELS[:count, :784].reshape(count, 28, 28))
        idx(root / f"{stem}-labels-idx1-ubyte{suffix}", np.array([9, 0, 9])[:count])
    return root


@pytest.fixture
def added(tmp_path, monkeypatch):
    """``loupe data add`` without its pin, and the folder that it wrote."""
    monkeypatch.setattr(versions, "pin", lambda folder: folder)
    return lambda name, source: versions.bring_in("set", name, source, tmp_path / "data")


def found(root: Path) -> list[str]:
    return [row.image_id for row in rows(root)]


def test_cifar_10_is_unpacked_by_class(tmp_path, added):
    cifar_10(tmp_path / "from")
    out = added("cifar10", tmp_path / "from")  # the folder around it, as an archive unpacks
    assert found(out) == [
        "train/airplane/00001.png",
        *(f"train/cat/0000{i}.png" for i in (0, 2)),
        "test/airplane/00000.png",
    ]
    assert {row.group for row in rows(out)} == {"airplane", "cat"}
    shown = np.asarray(Image.open(out / "train/cat/00002.png"))
    np.testing.assert_array_equal(shown, PIXELS[2].reshape(3, 32, 32).transpose(1, 2, 0))


def test_cifar_100_is_unpacked_by_coarse_class(tmp_path, added):
    out = added("cifar100", cifar_100(tmp_path))
    names = ["fish/ray_00001.png", "fish/shark_00000.png"]
    assert found(out) == [f"{side}/{name}" for side in ("train", "test") for name in names]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_unpacked(tmp_path, added, suffix):
    out = added("fashion_mnist", mnist(tmp_path / "from", suffix))
    train = ["t-shirt_top/00001.png", "ankle_boot/00000.png", "ankle_boot/00002.png"]
    assert sorted(found(out)) == sorted(
        [*(f"train/{name}" for name in train), "test/ankle_boot/00000.png", "test/t-shirt_top/00001.png"]
    )
    shown = np.asarray(Image.open(out / "train/t-shirt_top/00001.png"))
    np.testing.assert_array_equal(shown, PIXELS[1, :784].reshape(28, 28))
    assert {row.group for row in _of(packed.mnist, tmp_path)} == {"0", "9"}


def _of(unpack, tmp_path):
    out = tmp_path / "digits"
    unpack(tmp_path / "from")(out)
    return rows(out)


def test_a_folder_by_class_is_copied_as_it_is(tmp_path, added):
    for side in ("train", "test"):
        (tmp_path / "from" / side / "cat").mkdir(parents=True)
        Image.fromarray(PIXELS[0].reshape(32, 32, 3)).save(tmp_path / "from" / side / "cat/a.png")
    assert found(added("cifar10", tmp_path / "from")) == ["train/cat/a.png", "test/cat/a.png"]


def test_packed_files_are_no_data_set_yet(tmp_path):
    with pytest.raises(DataError, match=r"expected train/CLASS.*; found the published files.*loupe data add"):
        adapter("cifar10").rows(cifar_10(tmp_path))
    assert packed.cifar_100(tmp_path) is None  # neither is one for the other
    assert packed.cifar_10(cifar_100(tmp_path / "other")) is None


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


def test_a_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for harm in (Harmful(), {b"data": PIXELS, b"labels": Harmful()}):
        pickled(tmp_path / "data_batch_1", harm)
        with pytest.raises(DataError, match=r"expected a pickle of arrays alone; found .* refused"):
            packed.arrays(tmp_path / "data_batch_1")
    assert not Path("harmed").exists()
    (tmp_path / "cut").write_bytes(pickle.dumps({b"data": PIXELS})[:40])
    with pytest.raises(DataError, match="expected a pickle"):
        packed.arrays(tmp_path / "cut")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({b"data": PIXELS[:, :100], b"labels": [0] * 4}, r"expected data \(N, 3072\) uint8"),
        ({b"data": PIXELS, b"labels": [0]}, "expected a label of each picture"),
        ({b"data": PIXELS[:1], b"labels": [2]}, "expected labels from 0 to 1; found 2"),
        ([1, 2], "expected data"),
    ],
)
def test_a_batch_that_holds_something_else(tmp_path, values, said):
    at = cifar_10(tmp_path)
    pickled(at / "test_batch", values)
    with pytest.raises(DataError, match=said):
        packed.cifar_10(at)(tmp_path / "out")


def test_class_names_lead_nowhere_else(tmp_path):
    at = cifar_10(tmp_path)
    pickled(at / "batches.meta", {b"label_names": [b"../../cat", b"dog"]})
    with pytest.raises(DataError, match="expected the names of the classes"):
        packed.cifar_10(at)(tmp_path / "out")


def test_idx_files_that_are_broken(tmp_path):
    at = mnist(tmp_path / "from")
    images = at / "train-images-idx3-ubyte"
    for content in (images.read_bytes()[:-1], b"", images.read_bytes()[4:], b"\x1f\x8bcut"):
        images.write_bytes(content)
        with pytest.raises(DataError, match=r"expected an idx file|expected a whole gzip"):
            packed.mnist(at)(tmp_path / "out")
    mnist(at)
    idx(at / "train-labels-idx1-ubyte", np.array([1]))
    with pytest.raises(DataError, match="expected a label of each picture; found 3 and 1"):
        packed.mnist(at)(tmp_path / "out")
    (at / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="expected train-labels-idx1-ubyte, gzipped or not; found none"):
        packed.mnist(at)(tmp_path / "out")


def test_digits_come_from_scikit_learn(tmp_path):
    ADAPTERS["digits"].fetch(tmp_path)
    kind = rows(tmp_path)
    assert len(kind) == ADAPTERS["digits"].counts["normals"]
    assert {row.group for row in kind} == set("0123456789")
    tests = [row for row in kind if row.role == "test"]
    assert len(tests) == 364
    assert Image.open(tmp_path / tests[0].image_id).size == (8, 8)


class Endless:
    """An array of more bytes than any memory has, as damaged bytes may ask for."""

    def __reduce__(self) -> tuple:
        return np.ndarray, ((10**17,), np.dtype(np.uint8))


def test_a_size_beyond_all_memory_is_a_damaged_file(tmp_path):
    pickled(tmp_path / "data_batch_1", Endless())
    with pytest.raises(DataError, match="expected a pickle of arrays alone"):
        packed.arrays(tmp_path / "data_batch_1")
