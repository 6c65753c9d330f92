"""Each picture decoded once by a run."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from components.pictures import decoding
from components.pictures.decoding import Decoding
from components.pictures.kept import decode, keeping, picture
from components.pipeline.fit import FitRequest, fit_folder
from tests.conftest import tile


@pytest.fixture
def decoded(monkeypatch) -> Counter:
    """How often each file was decompressed."""
    found: Counter = Counter()
    opened = decoding.picture

    def counting(source, *more, **named):
        found[str(source)] += 1
        return opened(source, *more, **named)

    monkeypatch.setattr(decoding, "picture", counting)
    return found


@pytest.fixture
def file(tmp_path) -> Path:
    Image.fromarray(tile(0)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.slow
def test_a_fit_decodes_no_picture_more_than_twice(product, tmp_path, decoded):
    fit_folder(FitRequest("patchcore", product, preset="tiny", alpha=0.2), tmp_path / "run")
    pictures = {name: count for name, count in decoded.items() if "/train/" in name or "/test/" in name}
    assert len(pictures) == 56
    assert max(decoded.values()) <= 2


def test_a_picture_that_has_changed_and_other_rules_are_decoded_anew(file, decoded):
    with keeping():
        first = decode(file)
        assert decode(file) is first
        decode(file, rules=Decoding(max_pixels=10**6))
        Image.fromarray(tile(1, 80)).save(file)
        assert decode(file).shape == (80, 80, 3)
    assert decoded[str(file)] == 3


def test_what_finds_no_room_is_decoded_again_and_nothing_is_kept_outside(file, decoded):
    with keeping(megabytes=0.01):
        assert decode(file) is not decode(file)
    assert decode(file) is not decode(file)
    assert decoded[str(file)] == 4
    assert decode(file.read_bytes()).shape == (96, 96, 3)


def test_what_is_kept_cannot_be_changed_and_a_broken_file_is_told_each_time(file, tmp_path):
    (tmp_path / "b.png").write_bytes(b"no picture")
    with keeping():
        with pytest.raises(ValueError, match="read-only"):
            picture(file).pixels[:] = 0
        for _ in range(2):
            with pytest.raises(DataError, match=r"b\.png: is not an image"):
                decode(tmp_path / "b.png")
    assert np.array_equal(decode(file), tile(0))
