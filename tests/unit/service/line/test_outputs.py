"""Messages are queued on disk, sent in order, at least once, through outages, refusals and crashes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from components.core.errors import SettingsError, StorageError
from components.service.line import sender as module
from components.service.line.aside import heard, nobody
from components.service.line.journal import Journal, Place
from components.service.line.messages import of_record
from components.service.line.outputs import Outputs, without_servers
from components.service.line.sender import Sender, forget_others
from components.service.line.settings import LineSettings, OutputSettings, RecipeSettings
from components.service.line.sinks import OutOfReachError, RefusedError, secret, sink_of
from components.service.settings import ServiceSettings

HOOK = OutputSettings("webhook", "http://127.0.0.1:9/hook", attempts=2, timeout_s=1.0)


def said(number, kind="picture"):
    return {"id": f"r{number}", "kind": kind, "source": "line-1"}


def until(found, seconds=20.0):
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


class Receiver:
    """A sink that fails while *down*, and refuses the ids in *bad*."""

    def __init__(self):
        self.got, self.down, self.bad = [], False, set()

    def start(self, handshake):
        pass

    def send(self, message):
        if self.down:
            raise OutOfReachError("away")
        if message["id"] in self.bad:
            raise RefusedError("HTTP 400")
        self.got.append(message["id"])

    def close(self):
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)


def test_messages_come_in_order_through_an_outage(tmp_path):
    journal, sink = Journal(tmp_path, 1e9, segment=300), Receiver()
    one = Sender("mes", sink, journal, HOOK)
    one.start()
    journal.append([said(i) for i in range(3)])
    until(lambda: one.sent == 3)
    sink.down = True
    started = time.monotonic()
    for i in range(3, 40):
        journal.append([said(i)])
    assert time.monotonic() - started < 10  # nobody waits for a receiver
    until(lambda: one.failed > 2)
    assert (one.failing, one.queued) == (True, 37)
    sink.down = False
    until(lambda: one.sent == 40)
    assert sink.got == [f"r{i}" for i in range(40)]
    assert (one.failing, one.queued, one.refused) == (False, 0, 0)
    one.stop(5)
    journal.trim([one.place])
    assert len(list(tmp_path.glob("*.jsonl"))) <= 1
    journal.close()


def test_what_was_not_sent_is_sent_by_the_next_service_and_nothing_twice(tmp_path):
    journal, sink = Journal(tmp_path, 1e9), Receiver()
    one = Sender("mes", sink, journal, HOOK)
    one.start()
    journal.append([said(0)])
    until(lambda: one.sent == 1)
    sink.down = True
    journal.append([said(1), said(2)])
    until(lambda: one.failing)
    one.stop(0.1)
    journal.close()
    journal, after = Journal(tmp_path, 1e9), Receiver()
    two = Sender("mes", after, journal, HOOK)
    assert two.queued == 2
    two.start()
    until(lambda: two.sent == 2)
    assert (sink.got, after.got) == (["r0"], ["r1", "r2"])
    two.stop(5)
    journal.close()


def test_a_killed_service_loses_nothing_that_was_appended(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from components.service.line.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), 1e9)\n"
        "for i in range(50): journal.append([{'id': f'r{i}', 'kind': 'picture'}])\n"
        'journal._stream.write(b\'{"id": "torn\'); journal._stream.flush(); os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    journal, sink = Journal(tmp_path, 1e9), Receiver()
    (tmp_path / "mes.place.json").write_text("[0, 0]")
    one = Sender("mes", sink, journal, HOOK)
    journal.append([said(50)])
    one.start()
    until(lambda: one.sent == 51)
    assert sink.got == [f"r{i}" for i in range(51)]
    one.stop(5)
    journal.close()


def test_a_refused_message_is_kept_aside_and_the_next_ones_go_on(tmp_path):
    journal, sink = Journal(tmp_path, 1e9), Receiver()
    sink.bad = {"r1"}
    one = Sender("mes", sink, journal, HOOK)
    one.start()
    journal.append([said(i) for i in range(3)])
    until(lambda: one.sent == 2)
    assert sink.got == ["r0", "r2"]
    assert (one.refused, one.failed) == (1, 2)
    assert json.loads((tmp_path / "mes.refused").read_text())["id"] == "r1"
    one.stop(5)
    journal.close()


def test_each_output_hears_what_it_asked_for_at_its_own_pace(tmp_path):
    journal, quick_one, slow = Journal(tmp_path, 1e9), Receiver(), Receiver()
    slow.down = True
    parts = OutputSettings("webhook", "http://127.0.0.1:9", send=("part",))
    senders = [Sender("parts", quick_one, journal, parts), Sender("all", slow, journal, HOOK)]
    for one in senders:
        one.start()
    journal.append([said(0), said(1, "part")])
    until(lambda: senders[0].sent == 1 and senders[1].failing)
    assert quick_one.got == ["r1"]
    assert [one.queued for one in senders] == [0, 2]
    journal.trim(one.place for one in senders)
    slow.down = False
    until(lambda: slow.got == ["r0", "r1"])
    for one in senders:
        one.stop(5)
    journal.close()


def test_the_disk_that_messages_take_is_bounded_and_the_oldest_go(tmp_path):
    journal, sink = Journal(tmp_path, 2000, segment=500), Receiver()
    one = Sender("mes", sink, journal, HOOK)
    for i in range(200):
        journal.append([said(i)])
    size = sum(path.stat().st_size for path in tmp_path.glob("*.jsonl"))
    assert size <= 2500
    assert journal.dropped > 100
    assert one.queued == 200 - journal.dropped
    one.start()
    until(lambda: sink.got and sink.got[-1] == "r199")
    assert sink.got == [f"r{i}" for i in range(journal.dropped, 200)]
    one.stop(5)
    journal.close()


def test_a_full_disk_is_told_and_the_next_message_is_whole(tmp_path, monkeypatch):
    journal = Journal(tmp_path, 1e9)
    with monkeypatch.context() as patch:
        patch.setattr("components.core.system.flush", lambda _: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(StorageError, match="a message cannot be written"):
            journal.append([said(0)])
    journal.append([said(1)])
    assert [m["id"] for m, _ in journal.read(Place())][-1:] == ["r0"]
    assert journal.count(Place()) == 2
    journal.close()


def test_an_output_that_has_read_all_sleeps(tmp_path):
    """Also behind the end of a segment, where the journal's end is another place than its own."""
    journal, sink = Journal(tmp_path, 1e9, segment=10), Receiver()
    looks = []
    read, journal.read = journal.read, lambda place: looks.append(place) or read(place)
    one = Sender("mes", sink, journal, HOOK)
    one.start()
    journal.append([said(0)])
    until(lambda: one.sent == 1)
    time.sleep(0.3)
    assert len(looks) <= 4
    one.stop(5)
    journal.close()


def test_one_process_at_a_time(tmp_path):
    journal = Journal(tmp_path, 1e9)
    with pytest.raises(StorageError, match="another service sends from there"):
        Journal(tmp_path, 1e9)
    journal.close()
    Journal(tmp_path, 1e9).close()


def test_a_waiting_reader_is_woken(tmp_path):
    journal = Journal(tmp_path, 1e9)
    woken = threading.Event()
    threading.Thread(target=lambda: (journal.wait(0, 30), woken.set()), daemon=True).start()
    assert not woken.wait(0.05)
    journal.append([said(0)])
    assert woken.wait(5)
    journal.close()


def test_an_output_that_is_configured_no_more_is_forgotten(tmp_path):
    for name in ("old", "new"):
        (tmp_path / f"{name}.place.json").write_text("[1, 0]")
    forget_others(tmp_path, {"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["new.place.json"]


def test_nothing_is_written_without_an_output(tmp_path):
    none = Outputs({}, tmp_path / "line", 1.0)
    none.append([said(0)])
    assert (none.standing(), none.dropped) == ([], 0)
    assert not (tmp_path / "line").exists()
    none.stop(1)


def test_settings_say_what_is_wrong():
    for bad in (
        {"kind": "mqtt", "url": "http://x"},
        {"kind": "webhook", "url": "https://"},
        {"kind": "mqtt", "url": "mqtt://x", "topic": "a/#"},
        {"kind": "mqtt", "url": "mqtt://x", "attempts": 0},
    ):
        with pytest.raises(SettingsError):
            OutputSettings(**bad)
    plc = OutputSettings("opcua", "opc.tcp://127.0.0.1:4840")
    with pytest.raises(SettingsError, match="two of opcua"):
        LineSettings({"a": plc, "b": plc})
    with pytest.raises(SettingsError, match="no controller can reach them"):
        LineSettings({"mes": HOOK}, recipes={1: RecipeSettings("line-1")})
    with pytest.raises(SettingsError, match="whole number"):
        LineSettings({"a": plc}, recipes={-1: RecipeSettings("line-1")})
    assert list(without_servers(LineSettings({"a": plc, "mes": HOOK}))) == ["mes"]


def test_a_secret_that_is_not_set_is_told_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("LOUPE_NO_SECRET", raising=False)
    with pytest.raises(SettingsError, match="LOUPE_NO_SECRET is not set"):
        secret("LOUPE_NO_SECRET", "mes")
    with pytest.raises(SettingsError, match="is not set"):
        sink_of("mes", OutputSettings("webhook", "http://127.0.0.1:9", secret_variable="LOUPE_NO_SECRET"))


@pytest.mark.parametrize(
    ("kind", "url", "tool"), [("mqtt", "mqtt://x", "paho.mqtt.client"), ("opcua", "opc.tcp://x", "asyncua")]
)
def test_a_missing_extra_is_one_sentence(monkeypatch, kind, url, tool):
    monkeypatch.setitem(sys.modules, tool, None)
    with pytest.raises(SettingsError, match=r"outputs\.plc needs the extra `line`: pip install 'loupe\[line\]'"):
        sink_of("plc", OutputSettings(kind, url))


def test_a_message_says_what_the_record_says():
    record = {
        "record_id": "r", "scored_at": "2026-11-28T00:00:00+00:00", "decision": "anomalous", "p_value": 0.01,
        "score": 2.0, "threshold": 1.0, "source": "line-1", "image_id": "a.png", "part": "P1", "model_version": "abc",
        "regions": '[{"box": [1, 2, 3, 4], "area": 12, "centroid": [2.0, 3.5], "peak": 2.0}]',
    }  # fmt: skip
    message = of_record(record, "elpv-mono")
    assert (message["id"], message["kind"], message["part"], message["lot"]) == ("r", "picture", "P1", None)
    assert message["regions"][0]["box"] == [1, 2, 3, 4]
    assert message["model"] == {"name": "elpv-mono", "version": "abc"}


def test_a_process_beside_the_service_sends_what_it_can_and_keeps_the_rest(tmp_path, monkeypatch):
    sink = Receiver()
    monkeypatch.setattr("components.service.line.outputs.sink_of", lambda *_: sink)
    record = {"record_id": "r1", "scored_at": "2026-11-28T00:00:00+00:00", "model_version": "v"}
    made = ServiceSettings(spool=str(tmp_path), drain_seconds=10.0, line=LineSettings({"mes": HOOK}))
    with heard(made, "watch-gate", "elpv-mono") as tell:
        tell([record])
    assert sink.got == ["r1"]
    sink.down = True
    with heard(made, "watch-gate", "elpv-mono") as tell:
        tell([record | {"record_id": "r2"}])
    sink.down = False
    with heard(made, "watch-gate", "elpv-mono"):
        until(lambda: sink.got == ["r1", "r2"])
    with heard(ServiceSettings(spool=str(tmp_path / "none")), "inbox", "x") as tell:
        tell([record])
    assert not (tmp_path / "none").exists()
    nobody([record])
