"""A model that is replaced gives its memory back: a service that reloads for months takes no more than on day one."""

import time
from types import SimpleNamespace

import pytest

from components.core import runtime
from components.service import champion
from components.service.champion import Champion
from components.service.shadow import CHALLENGER, Shadow


@pytest.fixture
def returned(monkeypatch):
    """How often freed memory went back; models are names here."""
    times = []
    monkeypatch.setattr(champion, "SETTLED_S", 0.01)
    monkeypatch.setattr(champion, "return_freed_memory", lambda: times.append(time.monotonic()))
    monkeypatch.setattr(champion, "warmed", lambda folder, *_: SimpleNamespace(folder=folder))
    monkeypatch.setattr("components.service.shadow.warmed", lambda folder, *_: SimpleNamespace(folder=folder))
    return times


def until(returned, count):
    end = time.monotonic() + 10
    while len(returned) < count:
        assert time.monotonic() < end, f"given back {len(returned)} times"
        time.sleep(0.01)


class Registry:
    """A registry whose aliases a test moves."""

    version, other = "1", "2"

    def champion(self, _):
        return self.version

    def challenger(self, _):
        return self.other

    def fetch(self, _, version, out):
        assert out.name == version
        return out


def test_memory_goes_back_behind_each_swap_and_not_without_one(returned, tmp_path):
    registry = Registry()
    served = Champion("tiles", registry, tmp_path)
    assert not served.refresh()
    time.sleep(0.05)
    assert returned == []
    registry.version = "2"
    assert served.refresh()
    until(returned, 1)
    assert (served.reloads, served.served.version) == (1, "2")
    of_folder = Champion(str(tmp_path), None, tmp_path)
    of_folder.renew()
    until(returned, 2)


def test_a_challenger_that_goes_gives_its_memory_back(returned, tmp_path):
    registry = Registry()
    shadow = Shadow(CHALLENGER, Champion("tiles", registry, tmp_path), None, lambda: False, 1, 0.0)
    assert shadow.bundle().folder.name == "2"
    assert shadow.bundle().folder.name == "2"
    time.sleep(0.05)
    assert returned == []
    registry.other = "3"
    assert shadow.bundle().folder.name == "3"
    until(returned, 1)
    registry.other = None
    assert shadow.bundle() is None
    until(returned, 2)


def test_memory_goes_back_where_the_allocator_knows_how(monkeypatch):
    asked = []
    monkeypatch.setattr(runtime, "libc", lambda: SimpleNamespace(malloc_trim=asked.append))
    runtime.return_freed_memory()
    assert asked == [0]
    monkeypatch.setattr(runtime, "libc", lambda: None)  # Windows, macOS
    runtime.return_freed_memory()
