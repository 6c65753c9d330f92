"""Published files that hold many pictures each: CIFAR's pickles and MNIST's idx files, unpacked to a folder per class.

A pickle can run any program. So nothing but numpy's arrays and plain values is built from one; all else is refused.
"""

import gzip
import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy._core.multiarray import _reconstruct
from PIL import Image

from components.core.errors import DataError
from components.core.progress import progress
from components.datasets.sets.layout import folders

Writer = Callable[[Path], None]
# What damaged bytes make of the unpickler, a size beyond all memory among it.
BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    ArithmeticError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    MemoryError,
)
ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
FASHION = ["t-shirt_top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot"]
DIGITS = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
KINDS = (("images", 2051), ("labels", 2049))  # the first number of an idx file: bytes in three dimensions and in one


class Packed(NamedTuple):
    """One side: pixels uint8 (N, H, W) or (N, H, W, 3), the class of each, and what its file name begins with."""

    pixels: np.ndarray
    classes: list[str]
    begins: list[str]


def cifar_10(source: Path) -> Writer | None:
    """What unpacks the python version of CIFAR-10 in *source*, or in a folder of it; None: it is not there."""
    at = next((at for at in (source, *folders(source)) if _holds(at, "batches.meta", "test_batch")), None)
    return partial(_write, _cifar_10, at) if at else None


def cifar_100(source: Path) -> Writer | None:
    """The same of CIFAR-100."""
    at = next((at for at in (source, *folders(source)) if _holds(at, "meta", "train", "test")), None)
    return partial(_write, _cifar_100, at) if at else None


def mnist(source: Path, names: list[str] = DIGITS) -> Writer | None:
    """What unpacks the idx files in *source* or in a folder of it, gzipped or not; None: they are not there."""
    places = (at for at in (source, *folders(source)) if _idx(at, "train-images") and _idx(at, "t10k-images"))
    at = next(places, None)
    return partial(_write, partial(_mnist, names), at) if at else None


def fashion_mnist(source: Path) -> Writer | None:
    """``mnist`` with the classes of Fashion-MNIST by name."""
    return mnist(source, FASHION)


def _holds(at: Path, *files: str) -> bool:
    return all((at / file).is_file() for file in files)


def _write(read: Callable[[Path], Iterable[tuple[str, Packed]]], at: Path, out: Path) -> None:
    for side, packed in read(at):
        for number, pixels in enumerate(progress(list(packed.pixels), f"unpacking {side}")):
            folder = out / side / packed.classes[number]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{packed.begins[number]}{number:05d}.png")


def _cifar_10(at: Path) -> Iterator[tuple[str, Packed]]:
    names = _names(at / "batches.meta", b"label_names")
    for side, files in (("train", sorted(at.glob("data_batch_*"))), ("test", [at / "test_batch"])):
        if not files:
            raise DataError(f"{at}: expected data_batch_1 to data_batch_5; found none")
        parts = [_cifar_file(file, b"labels", names) for file in files]
        classes = [label for part in parts for label in part[1]]
        yield side, Packed(np.concatenate([part[0] for part in parts]), classes, [""] * len(classes))


def _cifar_100(at: Path) -> Iterator[tuple[str, Packed]]:
    """By the 20 coarse classes, as one-class protocols have it; a file's name begins with the fine class."""
    coarse, fine = (_names(at / "meta", key) for key in (b"coarse_label_names", b"fine_label_names"))
    for side in ("train", "test"):
        pixels, classes = _cifar_file(at / side, b"coarse_labels", coarse)
        begins = _cifar_file(at / side, b"fine_labels", fine)[1]
        yield side, Packed(pixels, classes, [f"{label}_" for label in begins])


def _cifar_file(path: Path, key: bytes, names: list[str]) -> tuple[np.ndarray, list[str]]:
    found = arrays(path)
    data, labels = (found.get(k) if isinstance(found, dict) else None for k in (b"data", key))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
        raise DataError(f"{path}: expected data (N, 3072) uint8; found something else")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise DataError(f"{path}: expected a label of each picture, {key.decode()}; found something else")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), [_named(names, label, path) for label in labels]


def _named(names: list[str], label: Any, path: Path) -> str:
    if not isinstance(label, int | np.integer) or not 0 <= label < len(names):
        raise DataError(f"{path}: expected labels from 0 to {len(names) - 1}; found {label!r}")
    return names[label]


def _names(path: Path, key: bytes) -> list[str]:
    found = arrays(path)
    names = found.get(key) if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(n, bytes) and n.replace(b"_", b"").isalnum() for n in names):
        raise DataError(f"{path}: expected the names of the classes, {key.decode()}; found something else")
    return [found.decode() for found in names]


def arrays(path: Path) -> Any:
    """What a pickle of arrays and plain values holds. Raises DataError for any other, before anything of it is run."""
    with path.open("rb") as stream:
        try:
            return _Arrays(stream, encoding="bytes").load()
        except BROKEN as error:
            raise DataError(f"{path}: expected a pickle of arrays alone; found {error}") from error


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"{module}.{name}, which is refused: a pickle can run any program")
        return ARRAYS[module, name]


def _idx(at: Path, stem: str) -> Path | None:
    return next(iter(sorted(at.glob(f"{stem}[-.]idx?-ubyte*"))), None)


def _mnist(names: list[str], at: Path) -> Iterator[tuple[str, Packed]]:
    for side, stem in (("train", "train"), ("test", "t10k")):
        pixels, labels = (_idx_array(at, f"{stem}-{what}", kind) for what, kind in KINDS)
        if len(pixels) != len(labels):
            raise DataError(f"{at}: expected a label of each picture; found {len(pixels)} and {len(labels)}")
        yield side, Packed(pixels, [_named(names, n, at) for n in labels], [""] * len(labels))


def _idx_array(at: Path, stem: str, kind: int) -> np.ndarray:
    """The bytes of an idx file: (N, H, W) or (N,)."""
    path, count = _idx(at, stem), kind - 2048
    if path is None:
        raise DataError(f"{at}: expected {stem}-idx{count}-ubyte, gzipped or not; found none")
    content = path.read_bytes()
    try:
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a whole gzip file; found {error}") from error
    head = np.frombuffer(content[: 4 * (1 + count)], ">u4")
    if len(head) <= count or head[0] != kind or len(content) != head.nbytes + int(np.prod(head[1:], dtype=np.int64)):
        raise DataError(f"{path}: expected an idx file that begins with {kind} and its sizes; found something else")
    return np.frombuffer(content, np.uint8, offset=head.nbytes).reshape([int(side) for side in head[1:]])
