"""One boundary around decoders: RGB pixels or a named error, whatever a file holds."""

import io
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from components.core.errors import DataError
from components.pictures.decoding import FORMATS, SUFFIXES, Decoding, decode, extent, largest
from tests.conftest import tile

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
GREY = tile(3, 48)[..., 0]


def written(kind):
    stream = io.BytesIO()
    Image.fromarray(tile(3, 48)).save(stream, kind)
    return stream.getvalue()


FILES = {kind: written(kind) for kind in FORMATS if kind in Image.SAVE and kind != "MPO"}


def judged(content, rules=None):
    """The pixels, or None for a file that is refused; nothing else may come out."""
    try:
        pixels = decode(content, "x", rules or Decoding(max_pixels=1_000_000))
    except DataError:
        return None
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    return pixels


@pytest.mark.parametrize("kind", FILES)
def test_every_format_is_read_and_no_program_is_started(kind):
    assert judged(FILES[kind]).shape == (48, 48, 3)
    assert not {"EPS", "PDF", "WMF"} & set(FORMATS)
    assert {".png", ".jpg", ".jfif", ".jp2", ".avif", ".pgm", ".tif", ".bmp", ".webp"} <= SUFFIXES


@pytest.mark.parametrize("kind", FILES)
@QUICK
@given(data=st.data())
def test_damaged_files_are_refused_or_read(kind, data):
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(len(content) - 1, 400)))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(1, len(content)))
    found = judged(bytes(content[:end]))
    assert found is None or found.size > 0


def exif(entries, tail=b""):
    head = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    return head + b"".join(struct.pack("<HHI4s", *entry) for entry in entries) + b"\0\0\0\0" + tail


ENTRY = st.tuples(
    st.sampled_from([0x112, 0x11A, 0x10F, 0x8769, 0x100, 0x201]),
    st.integers(0, 13),
    st.integers(0, 2**20),
    st.binary(min_size=4, max_size=4),
)


@QUICK
@given(entries=st.lists(ENTRY, max_size=4), tail=st.binary(max_size=40))
def test_any_exif_leaves_a_picture(entries, tail):
    stream = io.BytesIO()
    Image.fromarray(tile(3, 48)).save(stream, "jpeg", exif=exif(entries, tail))
    assert judged(stream.getvalue()) is not None


@pytest.mark.parametrize("kind", ["TIFF"])
@QUICK
@given(tag=st.integers(254, 345), kind_of=st.integers(0, 13), value=st.integers(0, 2**32 - 1))
def test_any_tiff_tag(kind, tag, kind_of, value):
    content = bytearray(FILES[kind])
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    place = start + 2 + 12 * (tag % count)
    struct.pack_into("<HHII", content, place, tag, kind_of, 1, value)
    found = judged(bytes(content))
    assert found is None or found.size > 0


UPRIGHT = np.repeat(np.arange(48 * 32, dtype=np.int64).reshape(32, 48)[..., None] % 251, 3, 2).astype(np.uint8)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_orientation_is_undone_once(turn, kind):
    tags = Image.Exif()
    tags[0x112] = turn
    stream = io.BytesIO()
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(UPRIGHT).save(stream, kind, exif=tags.tobytes(), **options)
    rows = UPRIGHT.swapaxes(0, 1)
    turned = {
        1: UPRIGHT,
        2: UPRIGHT[:, ::-1],
        3: UPRIGHT[::-1, ::-1],
        4: UPRIGHT[::-1],
        5: rows,
        6: rows[:, ::-1],
        7: rows[::-1, ::-1],
        8: rows[::-1],
    }[turn]
    np.testing.assert_array_equal(judged(stream.getvalue()), turned)


@pytest.mark.parametrize(
    ("name", "entries", "tail"),
    [
        (
            "negative rational",
            [(0x112, 3, 1, b"\x06\0\0\0"), (0x11A, 10, 1, struct.pack("<I", 38))],
            struct.pack("<ii", -1, 0),
        ),
        ("pointer beyond the end", [(0x112, 3, 1, b"\x06\0\0\0"), (0x8769, 4, 1, struct.pack("<I", 0xFFFFFF))], b""),
    ],
)
def test_broken_tags_beside_the_orientation_do_no_harm(name, entries, tail):
    stream = io.BytesIO()
    Image.fromarray(tile(3, 48)[:32]).save(stream, "jpeg", exif=exif(entries, tail))
    assert judged(stream.getvalue()).shape == (48, 32, 3), name


def test_a_broken_png_is_refused_and_not_black():
    content = FILES["PNG"]
    broken = content[:60] + bytes(b ^ 255 for b in content[60:120]) + content[120:]
    assert judged(broken) is None


def saved(pixels, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(("top", "white"), [(4095, 4095.0), (1023, 1023.0), (65535, None)])
def test_deep_pictures_look_as_their_eight_bits(top, white):
    deep = (GREY.astype(np.float64) * top / 255).round().astype(np.uint16)
    for kind in ("tiff", "png"):
        shown = judged(saved(deep, kind), Decoding(white=white))[..., 0]
        assert np.abs(shown.astype(int) - GREY).max() <= 1


def test_real_numbers_from_zero_to_one_are_no_black_picture():
    shown = judged(saved((GREY / 255).astype(np.float32), "tiff"))[..., 0]
    assert np.abs(shown.astype(int) - GREY).max() <= 1


def test_brighter_than_white_is_said(tmp_path):
    deep = np.full((48, 48), 60_000, np.uint16)
    with pytest.raises(DataError, match=r"brighter than white.*data\.white"):
        decode(saved(deep, "png"), "x", Decoding(white=4095.0))
    (tmp_path / "x.png").write_bytes(saved(deep, "png"))
    assert largest(tmp_path / "x.png") == 60_000


@pytest.mark.parametrize("kind", ["tiff", "gif", "webp", "png"])
def test_several_pictures_in_a_file_are_refused(kind):
    frames = [Image.fromarray(tile(seed, 48)) for seed in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="holds 3 pictures; save each as a file of its own"):
        decode(stream.getvalue(), "x")


def test_places_that_are_no_files_are_named(tmp_path):
    (tmp_path / "x.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for name, said in (("x.png", "is a folder"), ("gone.png", "is not there, or is a link to nowhere")):
        with pytest.raises(DataError, match=said):
            decode(tmp_path / name)


def test_the_limit_of_pixels_can_be_raised_as_it_says():
    content = FILES["PNG"]
    with pytest.raises(DataError, match=r"48 x 48 are more pixels than the limit of 100.*--set data\.max_pixels"):
        decode(content, "x", Decoding(max_pixels=100))
    assert judged(content, Decoding(max_pixels=48 * 48)) is not None


def test_how_large_a_picture_is_stands_in_its_header_and_what_is_refused_has_no_pixels(tmp_path):
    good, half, absent = (tmp_path / name for name in ("good.png", "half.png", "absent.png"))
    Image.fromarray(tile(1, 48)[:30]).save(good)
    half.write_bytes(good.read_bytes()[:20])
    assert [extent(path) for path in (good, half, absent)] == [30 * 48, 0, 0]
    assert extent(good, Decoding(max_pixels=100)) == 0
