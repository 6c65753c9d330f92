"""Streams of frames: folders that fill, videos and cameras, back-pressure, and events of alarms."""

import io
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError, RequestError, SettingsError
from components.pictures.clips import decode, frames
from components.pictures.decoding import Decoding
from components.pipeline.watching import unpacked
from components.scorelog.shipper import clip_key
from components.service import streams, watch
from components.service.pump import Pump, Ring
from components.service.recorder import Recorder
from components.service.settings import ServiceSettings, WatchSettings
from components.service.streams import Camera, Folder, Frame, Video, public, stream_of
from components.service.watch import SIDE, Event, Watch, logged, shrunk, source_of, webp
from components.storage import open_store
from tests.clips import frame, write_clip

RULES = Decoding()


def until(true, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


class Listed:
    """A stream of numbered frames; *free* lets one go at a time."""

    def __init__(self, count: int, live: bool, firsts=(0,), told=None) -> None:
        self.count, self.live, self.firsts, self.told = count, live, firsts, told or {}

    def frames(self, stop):
        for i in range(self.count):
            if stop.is_set():
                return
            yield Frame(str(i), np.full((2, 2, 3), i, np.uint8), i in self.firsts)


def test_a_folder_that_fills_gives_each_frame_once_in_order(tmp_path):
    write_clip(tmp_path, 3)
    stop, found = threading.Event(), []
    stream = Folder(tmp_path, RULES, every=0.01)

    def read():
        for one in stream.frames(stop):
            found.append(one)

    thread = threading.Thread(target=read)
    thread.start()
    until(lambda: len(found) == 3)
    write_clip(tmp_path, 2, first=3)
    until(lambda: len(found) == 5)
    Image.fromarray(frame(0)).save(tmp_path / "000a.png")  # sorts before what was taken
    until(lambda: stream.told["late"] == 1)
    stop.set()
    thread.join(5)
    assert [one.name for one in found] == [f"{i:03}.png" for i in range(5)]
    assert [one.first for one in found] == [True] + [False] * 4
    assert (found[4].pixels == frame(1)).all()


def test_a_frame_that_is_half_written_is_waited_for(tmp_path, monkeypatch):
    whole = io.BytesIO()
    Image.fromarray(frame(1)).save(whole, "png")
    write_clip(tmp_path, 1)
    half = tmp_path / "001.png"
    half.write_bytes(whole.getvalue()[:60])
    stop, stream = threading.Event(), Folder(tmp_path, RULES, every=0.01)
    given = stream.frames(stop)
    assert next(given).name == "000.png"
    threading.Timer(0.1, lambda: half.write_bytes(whole.getvalue())).start()
    found = next(given)
    assert (found.name, found.first) == ("001.png", False)
    monkeypatch.setattr(streams, "GIVEN_UP", 0.05)
    (tmp_path / "002.png").write_bytes(b"never")
    write_clip(tmp_path, 1, first=3)
    behind = next(given)
    assert (behind.name, behind.first) == ("003.png", True), "a window does not reach over a gap"
    assert stream.told["broken"] == 1


def test_what_is_there_is_taken_once(tmp_path):
    write_clip(tmp_path, 4)
    (tmp_path / "001.png").write_bytes(b"broken")
    stream = Folder(tmp_path, RULES, once=True)
    found = list(stream.frames(threading.Event()))
    assert [(one.name, one.first) for one in found] == [("000.png", True), ("002.png", True), ("003.png", False)]
    assert not stream.live
    assert Folder(tmp_path).live


class Container:
    """Of PyAV: *count* frames, then an error or the end."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error = count, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def decode(self, video):
        assert video == 0
        for i in range(self.count):
            pixels = frame(i)
            yield SimpleNamespace(
                time=i / 25,
                width=64,
                height=48,
                to_ndarray=lambda format, pixels=pixels: pixels,  # noqa: ARG005
            )
        if self.error:
            raise self.error


def test_a_video_is_read_to_its_end_and_frames_are_left_out_by_its_clock():
    found = list(Video(Path("walk.mp4"), RULES, lambda _: Container(10)).frames(threading.Event()))
    assert len(found) == 10
    assert (found[0].name, found[0].first, found[9].first) == ("walk-00000000", True, False)
    assert (found[3].pixels == frame(3)).all()
    fewer = list(Video(Path("w"), RULES, lambda _: Container(10), fps=5.0).frames(threading.Event()))
    assert [(one.pixels == frame(i)).all() for one, i in zip(fewer, (0, 5), strict=True)] == [True, True]


def test_a_video_that_breaks_off_or_is_none_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be decoded any further \\(torn\\)"):
        list(Video(Path("w"), RULES, lambda _: Container(2, ValueError("torn"))).frames(threading.Event()))

    def refused(_):
        raise OSError("no such stream")

    with pytest.raises(DataError, match="cannot be opened as video \\(no such stream\\)"):
        list(Video(tmp_path, RULES, refused).frames(threading.Event()))
    with pytest.raises(DataError, match="more pixels than the limit of 100"):
        list(Video(tmp_path, Decoding(max_pixels=100), lambda _: Container(1)).frames(threading.Event()))


def test_a_camera_is_opened_again_and_a_new_clip_begins():
    containers = iter([Container(2, ValueError("lost")), None, Container(3)])
    stop, asked = threading.Event(), []

    def opened(url):
        asked.append(url)
        found = next(containers)
        if found is None:
            raise OSError("refused")
        return found

    camera = Camera("rtsp://me:secret@gate/stream", RULES, opened, waits=(0.01,))
    found = []
    for one in camera.frames(stop):
        found.append(one)
        if len(found) == 5:
            stop.set()
    assert [one.first for one in found] == [True, False, True, False, False]
    assert camera.told["reconnects"] == 2
    assert asked == ["rtsp://me:secret@gate/stream"] * 3
    assert camera.live


def test_a_stream_is_told_by_its_place(tmp_path, monkeypatch):
    assert isinstance(stream_of(str(tmp_path), RULES), Folder)
    assert isinstance(stream_of("rtsp://gate/1", RULES), Camera)
    write_clip(tmp_path, 1)
    assert isinstance(stream_of(str(tmp_path / "000.png"), RULES), Video)
    with pytest.raises(DataError, match="is no folder, no video file and no URL"):
        stream_of(str(tmp_path / "none"), RULES)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(SettingsError, match="extra `video`"):
        streams.opened("x.mp4")


def test_real_video_by_pyav(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "w.mp4"), "w") as out:
        kept = out.add_stream("mpeg4", rate=25)
        kept.width, kept.height, kept.pix_fmt = 64, 48, "yuv420p"
        for i in range(12):
            out.mux(kept.encode(av.VideoFrame.from_ndarray(frame(i), format="rgb24")))
        out.mux(kept.encode())
    found = list(stream_of(str(tmp_path / "w.mp4"), RULES).frames(threading.Event()))
    assert len(found) == 12
    assert np.abs(found[5].pixels.astype(int) - frame(5)).mean() < 12
    assert len(list(stream_of(str(tmp_path / "w.mp4"), RULES, fps=12.5).frames(threading.Event()))) == 6


def test_a_video_is_unpacked_into_frames_or_not_at_all(tmp_path, monkeypatch):
    video = tmp_path / "w.mp4"
    video.touch()
    monkeypatch.setattr(streams, "opened", lambda _: Container(4))
    assert unpacked(video, tmp_path / "frames", None) == 4
    assert [p.name for p in frames(tmp_path / "frames")] == [f"{i:06}.png" for i in range(4)]
    assert (decode(tmp_path / "frames/000003.png") == frame(3)).all()
    with pytest.raises(DataError, match="exists"):
        unpacked(video, tmp_path / "frames", None)
    with pytest.raises(DataError, match="is no file"):
        unpacked(tmp_path / "none.mp4", tmp_path / "other", None)
    monkeypatch.setattr(streams, "opened", lambda _: Container(2, ValueError("torn")))
    with pytest.raises(DataError, match="torn"):
        unpacked(video, tmp_path / "other", None)
    assert not (tmp_path / "other").exists()


def test_a_password_is_in_no_name():
    assert public("rtsp://me:secret@gate:554/stream?token=x") == "rtsp://gate:554/stream"
    assert public("/data/walk.mp4") == "/data/walk.mp4"
    name = source_of("rtsp://me:secret@gate/stream1")
    assert name.startswith("watch-stream1-")
    assert "secret" not in name
    assert source_of("x", "gate") == "watch-gate"


def test_a_stream_that_is_not_live_waits_and_loses_nothing():
    with Pump(Listed(50, live=False), 4, threading.Event()) as pump:
        found = []
        for one in pump:
            assert len(pump._frames) <= 4
            found.append(one.name)
    assert found == [str(i) for i in range(50)]
    assert pump.dropped == 0


def test_a_live_stream_drops_whole_stretches_and_counts_them():
    stop = threading.Event()
    with Pump(Listed(50, live=True), 4, stop) as pump:
        until(lambda: pump._ended)
        found = list(pump)
    assert pump.dropped + len(found) == 50
    assert [one.name for one in found] == ["48", "49"], "what is left are the last frames, one behind the other"
    assert [one.first for one in found] == [True, False]


def test_what_the_reader_raises_reaches_who_takes_frames():
    class Broken(Listed):
        def frames(self, stop):
            yield from super().frames(stop)
            raise DataError("torn")

    with Pump(Broken(2, live=False), 4, threading.Event()) as pump:
        found = iter(pump)
        assert [next(found).name, next(found).name] == ["0", "1"]
        with pytest.raises(DataError, match="torn"):
            next(found)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_ring_gives_the_windows_of_files(tmp_path, stride):
    paths, rules = write_clip(tmp_path / "01", 9), Decoding(stride=stride, window=3)
    ring = Ring(3, stride)
    for i, path in enumerate(paths):
        assert (ring.add(Frame(path.name, frame(i), i == 0)) == decode(path, rules=rules)).all()
    assert len(ring._frames) == 1 + 2 * stride
    again = ring.add(Frame("x", frame(9), True))
    assert (again == frame(9)).all(), "a new clip begins with its first frame repeated"
    assert (Ring(0, 0).add(Frame("x", frame(4), True)) == frame(4)).all()


class Says:
    """In place of a bundle: frames whose names are in *alarms* are anomalous, with their number as the score."""

    decoding = Decoding()

    def __init__(self, alarms) -> None:
        self.alarms = set(alarms)


@pytest.fixture
def recorded(monkeypatch):
    def record_of(bundle, _, name, source):
        decision = "anomalous" if int(name) in bundle.alarms else "normal"
        return {"decision": decision, "score": float(name), "image_id": name, "source": source}

    monkeypatch.setattr(watch, "record_of", record_of)


def watched(stream, alarms, **settings):
    events = []
    seen = Watch(Says(alarms), "watch-x", events.append, WatchSettings(**settings))
    return seen.run(stream, threading.Event()), events


@pytest.mark.usefixtures("recorded")
def test_alarms_behind_each_other_are_one_event_with_the_frames_around_it():
    counts, events = watched(Listed(40, live=False), [10, 11, 13, 30], before=3, behind=4)
    assert (counts.frames, counts.alarms, counts.events) == (40, 4, 2)
    first, second = events
    assert [int(f[0, 0, 0]) for f in first.frames] == [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]
    assert (first.alarms, first.record["image_id"], int(first.pixels[0, 0, 0])) == (3, "13", 13)
    assert (second.alarms, second.record["image_id"]) == (1, "30")


@pytest.mark.usefixtures("recorded")
def test_an_event_is_no_longer_than_it_may_be_and_ends_with_its_clip():
    _, events = watched(Listed(30, live=False), range(30), before=2, longest=10)
    assert [len(event.frames) for event in events] == [10, 10, 10, 6]
    _, events = watched(Listed(10, live=False, firsts=(0, 5)), range(10), before=2)
    assert [[int(f[0, 0, 0]) for f in event.frames] for event in events] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


@pytest.mark.usefixtures("recorded")
def test_what_was_dropped_and_lost_is_told():
    counts, _ = watched(Listed(3, live=False, told={"reconnects": 2, "late": 0}), [])
    assert str(counts).endswith("0 dropped, 2 reconnects; 0 alarmed in 0 events")


def test_small_frames_are_kept_for_clips():
    assert shrunk(np.zeros((480, 960, 3), np.uint8)).shape == (160, SIDE, 3)
    assert shrunk(frame(0)) is not None
    content = webp([frame(i) for i in range(5)], 25.0)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 5


def test_an_event_is_a_record_with_its_picture_and_its_clip(tmp_path):
    recorder = Recorder(open_store(str(tmp_path / "store")), ServiceSettings(spool=str(tmp_path / "spool")))
    record = {"decision": "anomalous", "score": 1.0, "image_id": "7", "source": "watch-x", "embedding": [0.0]}
    logged(recorder, 25.0)(Event(record, frame(7), [frame(6), frame(7)]))
    (found,) = recorder.latest()
    assert recorder.image(found).startswith(b"\x89PNG")
    assert recorder.clip(found)[8:12] == b"WEBP"
    assert recorder.store.exists(clip_key(found["sha256"]))
    recorder.append([{**found, "record_id": "other", "sha256": "0" * 64}])
    with pytest.raises(RequestError, match="no alarm of a stream"):
        recorder.clip(recorder.find("other"))
