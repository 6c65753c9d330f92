"""The adapters against the real thing: a mosquitto, an HTTP server, an OPC-UA client, and the whole service behind."""

import asyncio
import hashlib
import hmac
import http.server
import json
import shutil
import subprocess
import threading
import time
from datetime import UTC, datetime

import pytest

from benchmarks.common.site import free_port
from components.core.errors import CalibrationError
from components.scorelog import table
from components.service.line import mqtt
from components.service.line import sender as module
from components.service.line.line import Line as Plant
from components.service.line.opcua import NAMESPACE
from components.service.line.settings import LineSettings, OutputSettings, PartSettings, RecipeSettings
from components.service.line.sinks import OutOfReachError, RefusedError, sink_of
from components.service.line.webhook import SIGNATURE, STAMP, signed
from tests.service.conftest import listening, png, scratched
from tests.service_pages import Line

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/opt/homebrew/sbin")
KEY = "between us"


def until(found, seconds=60.0):
    end = time.monotonic() + seconds
    while not (got := found()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)
    return got


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.05)
    monkeypatch.setenv("LOUPE_HOOK_KEY", KEY)


class Broker:
    """A mosquitto on a free port of loopback, and what one client of it hears."""

    def __init__(self, root):
        self.port, self.root, self.heard = free_port(), root, []
        # What comes before the client is back waits for it: the broker keeps its session over a restart.
        kept = f"persistence true\npersistence_location {root}/\nuser root\n"
        (root / "mosquitto.conf").write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n{kept}")
        self.start()

    def start(self):
        import paho.mqtt.client as paho

        self.process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self.root / "mosquitto.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        listening(self.port, self.process)
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="watcher", clean_session=False)
        self.client.on_connect = lambda client, *_: client.subscribe("plant/#", qos=1)
        ready = threading.Event()
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = lambda _, __, m: self.heard.append((m.topic, m.payload.decode()))
        self.client.connect("127.0.0.1", self.port)
        self.client.loop_start()
        assert ready.wait(20)

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()
        self.process.terminate()
        self.process.wait(20)

    def of(self, topic):
        return [payload for name, payload in list(self.heard) if name == topic]

    def set(self, name, value):
        self.client.publish(f"plant/handshake/set/{name}", value, qos=1).wait_for_publish(10)

    def state(self):
        return json.loads(self.of("plant/handshake/state")[-1])


@pytest.fixture
def broker(tmp_path):
    pytest.importorskip("paho.mqtt.client", reason="needs the extra `line`")
    if MOSQUITTO is None:
        pytest.skip("needs mosquitto, e.g. Debian's package mosquitto")
    made = Broker(tmp_path)
    yield made
    made.stop()


class Hook(http.server.ThreadingHTTPServer):
    """Answers POSTs with the next of *answers*, 200 when there is none left."""

    def __init__(self):
        self.got, self.answers = [], []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = hook.answers.pop(0) if hook.answers else 200
                if status < 300:
                    hook.got.append((dict(self.headers), body))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


@pytest.fixture
def hook():
    made = Hook()
    yield made
    made.shutdown()
    made.server_close()


def line_of(bundle, root, **given):
    return Line(bundle, root, line=LineSettings(**given))


def asked(line, content, query="", **headers):
    answer = line.http.post(f"/v1/score?{query}", content=content, headers={"Content-Type": "image/png"} | headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_webhook_gets_signed_decisions_in_order_through_errors(bundle, tmp_path, hook):
    hook.answers = [503, 429, 500]
    out = OutputSettings("webhook", hook.url, secret_variable="LOUPE_HOOK_KEY", timeout_s=5.0)
    line = line_of(bundle, tmp_path, outputs={"mes": out})
    with line.http:
        sent = [asked(line, scratched(1), "source=line-1&part=P1&lot=L1"), asked(line, png(2), "source=line-1")]
        until(lambda: len(hook.got) == 2)
        metrics = line.http.get("/metrics").text
        assert line.get("/readyz")["outputs"] == {"mes": "ok"}
    messages = [json.loads(body) for _, body in hook.got]
    assert [m["id"] for m in messages] == [a["results"][0]["record_id"] for a in sent]
    assert messages[0]["decision"] == "anomalous"
    assert messages[0]["regions"] == sent[0]["results"][0]["regions"] != []
    assert (messages[0]["part"], messages[0]["lot"], messages[0]["kind"]) == ("P1", "L1", "picture")
    headers, body = hook.got[0]
    wanted = hmac.new(KEY.encode(), headers[STAMP].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers[SIGNATURE] == f"sha256={wanted}"
    assert headers["Idempotency-Key"] == messages[0]["id"]
    assert 'loupe_output_sent{output="mes"} 2.0' in metrics
    assert 'loupe_output_failed{output="mes"} 3.0' in metrics
    assert 'loupe_output_queued{output="mes"} 0.0' in metrics
    assert signed(b"x", "") == {}


@pytest.mark.parametrize(("status", "error"), [(400, RefusedError), (302, RefusedError), (503, OutOfReachError)])
def test_a_webhook_tells_refusals_from_outages(hook, status, error):
    sink = sink_of("mes", OutputSettings("webhook", hook.url, timeout_s=5.0))
    hook.answers = [status]
    with pytest.raises(error):
        sink.send({"id": "r1"})
    assert hook.got == []


def test_a_webhook_that_nobody_answers_blocks_no_picture(bundle, tmp_path):
    out = OutputSettings("webhook", f"http://127.0.0.1:{free_port()}/", timeout_s=1.0)
    line = line_of(bundle, tmp_path, outputs={"mes": out})
    with line.http:
        for seed in range(3):
            asked(line, png(seed))
        until(lambda: line.get("/readyz").get("outputs") == {"mes": "waiting"})
        assert 'loupe_output_queued{output="mes"} 3.0' in line.http.get("/metrics").text


def test_mqtt_has_every_decision_once_the_broker_is_back(bundle, tmp_path, broker):
    out = OutputSettings("mqtt", f"mqtt://127.0.0.1:{broker.port}", topic="plant", timeout_s=5.0)
    line = line_of(bundle, tmp_path / "line", outputs={"broker": out})
    with line.http:
        first = asked(line, scratched(1), "source=line-1&part=P1")["results"][0]["record_id"]
        until(lambda: broker.of("plant/picture/line-1"))
        broker.stop()
        later = [asked(line, png(seed), "source=line-1")["results"][0]["record_id"] for seed in (2, 3)]
        until(lambda: line.service.line.outputs.standing()[0].failing)
        broker.start()
        until(lambda: len(broker.of("plant/picture/line-1")) >= 3)
    messages = [json.loads(text) for text in broker.of("plant/picture/line-1")]
    assert list(dict.fromkeys(m["id"] for m in messages)) == [first, *later]
    assert (messages[0]["decision"], messages[0]["part"]) == ("anomalous", "P1")
    until(lambda: broker.of("plant/status")[-1] == "offline")


def test_a_controller_may_speak_mqtt(bundle, tmp_path, broker):
    out = OutputSettings("mqtt", f"mqtt://127.0.0.1:{broker.port}", topic="plant", timeout_s=5.0)
    line = line_of(bundle, tmp_path / "line", outputs={"broker": out}, recipes={3: RecipeSettings("line-1")})
    with line.http:
        until(lambda: broker.of("plant/handshake/state") and broker.state()["ready"])
        broker.set("recipe", "3")
        broker.set("part", "P9")
        broker.set("trigger", "1")
        until(lambda: broker.state()["busy"])
        result = asked(line, scratched(1), "source=line-1")["results"][0]
        assert (result["part"], result["recipe"]) == ("P9", "3")
        state = until(lambda: broker.state()["ng"] and broker.state())
        assert (state["id"], state["ok"]) == (result["record_id"], False)
        broker.set("acknowledge", "true")
        until(lambda: broker.state()["state"] == "clearing")
        broker.set("trigger", "0")
        broker.set("acknowledge", "0")
        until(lambda: broker.state()["ready"])


def test_a_change_while_the_way_to_the_controller_is_opened_is_told(bundle, tmp_path, broker, monkeypatch):
    """It was greeted with the state of before, and nothing would tell it of the new one."""
    made = mqtt.Mqtt._made
    monkeypatch.setattr(
        mqtt.Mqtt, "_made", lambda sink: (made(sink), until(lambda: sink.handshake.outputs["ready"]))[0]
    )
    out = OutputSettings("mqtt", f"mqtt://127.0.0.1:{broker.port}", topic="plant", timeout_s=5.0)
    with line_of(bundle, tmp_path / "line", outputs={"broker": out}, recipes={3: RecipeSettings("line-1")}).http:
        assert until(lambda: broker.of("plant/handshake/state") and broker.state()["ready"], 20)


@pytest.mark.parametrize(
    ("name", "payload", "value"),
    [("trigger", b"ON", True), ("trigger", b"0", False), ("trigger", b"2", None), ("recipe", b"7", 7),
     ("recipe", b"-1", None), ("recipe", b"x", None), ("part", b" P1 ", "P1"), ("shutdown", b"1", None)],
)  # fmt: skip
def test_texts_of_controllers_mean_what_they_say(name, payload, value):
    assert mqtt.value_of(name, payload) == value


class Plc:
    """A client of the node set, as a controller is one; each call is a session of its own."""

    def __init__(self, port):
        self.url = f"opc.tcp://127.0.0.1:{port}"

    def _asked(self, work):
        from asyncua import Client

        async def within():
            async with Client(self.url, timeout=10) as client:
                space = await client.get_namespace_index(NAMESPACE)
                return await work(client, space)

        return asyncio.run(within())

    def read(self, *names):
        async def work(client, space):
            return [await client.get_node(f"ns={space};s=Loupe.{name}").read_value() for name in names]

        return self._asked(work)

    def write(self, **values):
        from asyncua import ua

        kinds = {bool: ua.VariantType.Boolean, int: ua.VariantType.UInt32, str: ua.VariantType.String}

        async def work(client, space):
            for name, value in values.items():
                node = client.get_node(f"ns={space};s=Loupe.Handshake.{name}")
                await node.write_value(ua.Variant(value, kinds[type(value)]))

        self._asked(work)

    def reaches(self, name):
        def there():
            try:
                return self.read(f"Handshake.{name}")[0]
            except OSError:  # it does not listen yet
                return False

        return until(there)


def test_a_controller_over_opcua_triggers_reads_ng_and_acknowledges(bundle, tmp_path):
    pytest.importorskip("asyncua", reason="needs the extra `line`")
    port = free_port()
    out = OutputSettings("opcua", f"opc.tcp://127.0.0.1:{port}", timeout_s=10.0)
    line, plc = line_of(bundle, tmp_path, outputs={"plc": out}, recipes={1: RecipeSettings("line-1")}), Plc(port)
    with line.http:
        plc.reaches("Ready")
        plc.write(RecipeIndex=1, Part="P1", Lot="L1", Trigger=True)
        plc.reaches("Busy")
        result = asked(line, scratched(1), "source=line-1")["results"][0]
        plc.reaches("ResultReady")
        names = ("Handshake.OK", "Handshake.NG", "Handshake.Error", "Handshake.ResultId")
        assert plc.read(*names) == [False, True, False, result["record_id"]]
        until(lambda: plc.read("Decision.Count")[0] == 1)
        shown = plc.read("Decision.Id", "Decision.Decision", "Decision.PValue", "Decision.Part", "Decision.Lot",
                         "Decision.Regions")  # fmt: skip
        assert shown[:5] == [result["record_id"], "anomalous", pytest.approx(result["p_value"]), "P1", "L1"]
        assert json.loads(shown[5]) == result["regions"]
        plc.write(Acknowledge=True)
        until(lambda: not plc.read("Handshake.ResultReady")[0])
        plc.write(Trigger=False, Acknowledge=False)
        plc.reaches("Ready")
        plc.write(RecipeIndex=9, Trigger=True)
        plc.reaches("Error")
        assert plc.read("Handshake.ErrorReason", "Handshake.OK") == [
            "recipe 9 is not configured; known are 1", False,
        ]  # fmt: skip
        with pytest.raises(Exception, match=r"BadUserAccessDenied|BadNotWritable"):
            plc.write(OK=True)


def test_a_password_is_asked_for_where_one_is_set(monkeypatch):
    ua = pytest.importorskip("asyncua", reason="needs the extra `line`")
    monkeypatch.setenv("LOUPE_PLC_USER", "plc")
    monkeypatch.setenv("LOUPE_PLC_PASSWORD", "p")
    url = f"opc.tcp://127.0.0.1:{free_port()}"
    out = OutputSettings("opcua", url, user_variable="LOUPE_PLC_USER", password_variable="LOUPE_PLC_PASSWORD")
    sink = sink_of("plc", out)
    sink.start(None)
    sink._beginning.result(120)

    async def tried(user=None, password=None):
        client = ua.Client(url, timeout=10)
        if user:
            client.set_user(user)
            client.set_password(password)
        async with client:
            return await client.get_namespace_index(NAMESPACE)

    try:
        assert asyncio.run(tried("plc", "p")) >= 2
        for wrong in ((), ("plc", "q")):
            with pytest.raises(Exception, match=r".*"):
                asyncio.run(tried(*wrong))
    finally:
        sink.close()


def test_two_cameras_are_one_decision_and_one_alone_is_an_error(bundle, tmp_path, hook):
    part = PartSettings(("top", "side"), vote=2, timeout_s=1.5)
    line = line_of(bundle, tmp_path, part=part, outputs={"mes": OutputSettings("webhook", hook.url, send=("part",))})
    with line.http:
        assert asked(line, png(1), "source=top&part=P1")["parts"] == []
        (both,) = asked(line, png(2), "source=side&part=P1")["parts"]
        assert both["decision"] in ("normal", "anomalous")
        asked(line, png(3), "source=top&part=P2")
        until(lambda: len(hook.got) == 2)
    one, two = [json.loads(body) for _, body in hook.got]
    assert (one["id"], one["kind"], one["part"], len(one["views"])) == (both["id"], "part", "P1", 2)
    assert (two["part"], two["decision"], two["p_value"]) == ("P2", "error", None)
    assert two["reason"] == "no picture of side within 1.5 s of the first"
    line.recorder.shipper.ship()
    rows = list(table.newest_first(line.recorder.store, table.PARTS, "top+side"))
    assert {row["part"]: row["decision"] for row in rows} == {"P1": one["decision"], "P2": "error"}
    assert datetime.fromisoformat(rows[0]["scored_at"]) <= datetime.now(UTC)


def test_more_views_than_the_calibration_can_decide_are_told_at_the_start(bundle, tmp_path):
    views = tuple(f"camera-{number}" for number in range(12))
    with pytest.raises(CalibrationError, match="12 views with vote 1 need"):
        line_of(bundle, tmp_path, part=PartSettings(views))


def test_several_pictures_of_one_request_are_ok_only_together(bundle, tmp_path):
    away = OutputSettings("mqtt", f"mqtt://127.0.0.1:{free_port()}", timeout_s=1.0)
    pytest.importorskip("paho.mqtt.client", reason="needs the extra `line`")
    line = line_of(bundle, tmp_path, outputs={"away": away}, recipes={1: RecipeSettings("line-1")})
    with line.http:
        cell = line.service.line.handshake
        cell.put({"recipe": 1, "trigger": True})
        files = [("images", ("a.png", png(101))), ("images", ("b.png", scratched(1)))]
        answer = line.http.post("/v1/score?source=line-1", files=files).json()["results"]
        assert [one["decision"] for one in answer][1] == "anomalous"
        assert cell.outputs["ng"]
        assert cell.outputs["id"] in {one["record_id"] for one in answer if one["decision"] == "anomalous"}
    assert cell.outputs["state"] == "off"


def test_a_recipe_of_another_model_or_group_is_a_reason(bundle, tmp_path):
    line = line_of(bundle, tmp_path)
    told = Plant(line.champion, line.recorder, line.settings)
    name = line.champion.served.name
    assert told.problem(RecipeSettings("line-1", model=name)) == ""
    other = told.problem(RecipeSettings("line-1", model="housings"))
    assert other == f"the recipe is of model housings, and this service serves {name}"
    assert "group 'poly' is none of this model's" in told.problem(RecipeSettings("line-1", "poly"))
    assert told.arrives("line-1", {}) is None
    assert told.tell([]) == []
    told.stop(1)
