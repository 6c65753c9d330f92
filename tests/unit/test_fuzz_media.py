"""Fuzzing of what is decoded: masks, beginnings of pictures, graphs, videos; 20 cases of each, LOUPE_FUZZ / 10."""

import io
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from components.core.errors import DataError
from components.core.runtime import session
from components.pictures.decoding import Decoding, decode
from components.pictures.masks import truth
from components.service.streams import stream_of
from tests.conftest import tile
from tests.fuzz import SLOW, bounded, damaged


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


MASKS = {}
for kind, mode in (
    ("PNG", "L"),
    ("PNG", "1"),
    ("PNG", "P"),
    ("PNG", "RGBA"),
    ("PNG", "I;16"),
    ("BMP", "L"),
    ("TIFF", "F"),
    ("TIFF", "I"),
    ("GIF", "P"),
    ("WEBP", "RGBA"),
    ("JPEG", "L"),
):
    stream, drawn = io.BytesIO(), np.zeros((24, 32), np.uint8)
    drawn[5:10, 5:12] = 255
    source = Image.fromarray(drawn.astype(np.uint16)) if mode == "I;16" else Image.fromarray(drawn).convert(mode)
    source.save(stream, kind)
    MASKS[kind, mode] = stream.getvalue()


@pytest.mark.parametrize("kind", MASKS, ids="-".join)
@SLOW
@given(data=st.data())
def test_mask_files(place, kind, data):
    put(place / "mask", data.draw(damaged(MASKS[kind])))
    rule = data.draw(st.sampled_from(["as is", "turn=6", "inverted turn=3", "", "unknown: x", None]))
    with bounded():
        found = truth(place, "mask", rule, Decoding(max_pixels=1_000_000))
        assert found is None or found.dtype == bool


@SLOW
@given(
    content=st.binary(max_size=200),
    kind=st.sampled_from(
        ["\x89PNG\r\n\x1a\n", "II*\0", "MM\0*", "BM", "RIFF", "\xff\xd8\xff", "P6\n", "\0\0\0 ftypavif"]
    ),
)
def test_beginnings_of_pictures(content, kind):
    with bounded():
        decode(kind.encode("latin-1") + content, "x", Decoding(max_pixels=100_000))


def test_a_small_file_that_unpacks_to_a_large_picture_is_refused_by_its_header():
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    head = (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
        + chunk(b"IEND", b"")
    )
    with bounded(), pytest.raises(DataError, match="more pixels than the limit"):
        decode(bomb, "x", Decoding())


def graph() -> bytes:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("image", "score")]
    nodes = [helper.make_node("Relu", ["image"], ["score"])]
    made = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)]
    )
    made.ir_version = 8
    return bytes(made.SerializeToString())


@SLOW
@given(content=damaged(graph(), 3))
def test_graphs(content):
    with bounded():
        session(content, 1)


def video() -> bytes:
    av = pytest.importorskip("av", reason="needs PyAV")
    stream = io.BytesIO()
    with av.open(stream, "w", format="avi") as container:
        track = container.add_stream("mjpeg", rate=5)
        track.width, track.height, track.pix_fmt = 64, 48, "yuvj420p"
        for number in range(4):
            for packet in track.encode(av.VideoFrame.from_ndarray(tile(number, 64)[:48], format="rgb24")):
                container.mux(packet)
        for packet in track.encode(None):
            container.mux(packet)
    return stream.getvalue()


@SLOW
@given(data=st.data())
def test_videos(place, data):
    path = put(place / "clip.avi", data.draw(damaged(VIDEO, 10)))
    with bounded():
        for frame in stream_of(str(path), Decoding(max_pixels=100_000)).frames(threading.Event()):
            assert frame.pixels.dtype == np.uint8


VIDEO = video()
