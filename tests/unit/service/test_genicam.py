"""A GenICam camera in front of a stand-in for harvesters, whose calls are those of its documented examples."""

import sys
import threading
import types
from contextlib import contextmanager

import numpy as np
import pytest

from components.core.errors import SettingsError
from components.pictures.decoding import DEFAULT
from components.service import genicam
from components.service.genicam import opened, pixels_of
from components.service.streams import Camera, stream_of

PLACE = "genicam:///opt/vendor/producer.cti?serial=H1"


class Acquirer:
    """Pictures of one value each; the third one of a camera fails as where a cable is pulled."""

    def __init__(self, log):
        self.log, self.taken, self.buffer = log, 0, np.zeros(4 * 6, np.uint8)

    def start(self):
        self.log.append("start")

    def stop(self):
        self.log.append("stop")

    def destroy(self):
        self.log.append("destroy")

    @contextmanager
    def fetch(self, *, timeout):
        assert timeout > 0  # 0 would wait for ever
        self.taken += 1
        if self.taken == 3:
            raise TimeoutError("GenTL timeout")
        self.buffer[:] = self.taken
        part = types.SimpleNamespace(data=self.buffer, height=4, width=6, data_format="Mono8")
        yield types.SimpleNamespace(payload=types.SimpleNamespace(components=[part]))
        self.buffer[:] = 255  # it is filled again


@pytest.fixture
def log(monkeypatch):
    told = []

    class Harvester:
        def add_file(self, path):
            told.append(path)

        def update(self):
            told.append("update")

        def create(self, which):
            told.append(which)
            return Acquirer(told)

        def reset(self):
            told.append("reset")

    monkeypatch.setitem(sys.modules, "harvesters", types.ModuleType("harvesters"))
    monkeypatch.setitem(sys.modules, "harvesters.core", types.SimpleNamespace(Harvester=Harvester))
    return told


def test_frames_come_and_a_camera_that_fails_is_opened_again(log):
    camera, stop, found = stream_of(PLACE, DEFAULT), threading.Event(), []
    assert isinstance(camera, Camera)
    camera.waits = (0.01,)
    for frame in camera.frames(stop):
        found.append(frame)
        if len(found) == 3:
            stop.set()
    assert [(one.first, int(one.pixels[0, 0, 2])) for one in found] == [(True, 1), (False, 2), (True, 1)]
    assert found[0].pixels.shape == (4, 6, 3)
    assert camera.told["reconnects"] == 1
    once = ["/opt/vendor/producer.cti", "update", {"serial_number": "H1"}, "start", "stop", "destroy", "reset"]
    assert log == once * 2


def test_formats_become_rgb_and_others_are_told():
    values = np.arange(2 * 3 * 3, dtype=np.uint8)
    part = types.SimpleNamespace(data=values, height=2, width=3, data_format="RGB8")
    assert (pixels_of(part) == values.reshape(2, 3, 3)).all()
    part.data_format = "BGR8"
    assert (pixels_of(part) == values.reshape(2, 3, 3)[..., ::-1]).all()
    part.data_format = "BayerRG8"
    with pytest.raises(ValueError, match="set its PixelFormat to one of Mono8, RGB8, BGR8"):
        pixels_of(part)


def test_what_is_missing_is_one_sentence(monkeypatch, log):
    with pytest.raises(SettingsError, match="names no GenTL producer"):
        opened("genicam://camera")
    assert log == []
    monkeypatch.setitem(sys.modules, "harvesters.core", None)
    with pytest.raises(SettingsError, match=r"pip install 'loupe\[genicam\]'"):
        opened(PLACE)
    assert genicam.SCHEME in PLACE
