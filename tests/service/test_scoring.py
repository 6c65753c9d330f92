"""What the service answers, records and counts."""

import base64
import io
import time

import numpy as np
import pytest
from PIL import Image

from components.decision.batch import record
from components.decision.bundle import Bundle
from components.scorelog import table
from components.storage import LocalStore
from tests.s3 import NOBODY
from tests.service.conftest import ENDED, png


def shipped(root, source="line"):
    return list(table.newest_first(LocalStore(root / "store"), table.SCORES, source))


def until(found, limit=20.0):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError("not in time")


def test_one_image_as_raw_bytes(server, bundle):
    status, answer, _ = server.score(png(3), "?source=line-1&name=cell.png")
    assert status == 200
    (result,) = answer["results"]
    expected = record(Bundle.open(bundle), png(3), "cell.png", "line-1")
    assert result["score"] == pytest.approx(expected["score"], rel=1e-5)
    for key in ("image_id", "decision", "threshold", "model_version", "width", "height"):
        assert result[key] == expected[key]
    assert result["p_value"] == pytest.approx(expected["p_value"])


def test_many_images_of_any_size_in_order(server, bundle):
    files = [(b"a.png", png(1)), (b"b.png", png(2, 64)), (b"c.png", png(3))]
    status, answer, _ = server.form(files)
    assert status == 200
    alone = [record(Bundle.open(bundle), content, "x", "line")["score"] for _, content in files]
    assert [r["image_id"] for r in answer["results"]] == ["a.png", "b.png", "c.png"]
    assert [r["score"] for r in answer["results"]] == pytest.approx(alone, rel=1e-5)


def test_heat_maps_come_as_picture_or_numbers(server):
    overlay = server.score(png(3), "?heatmap=overlay")[1]["results"][0]["overlay_png"]
    assert Image.open(io.BytesIO(base64.b64decode(overlay))).size == (96, 96)
    raw = server.score(png(3), "?heatmap=map")[1]["results"][0]["map_npy"]
    heat = np.load(io.BytesIO(base64.b64decode(raw)))
    assert (heat.dtype, heat.ndim) == (np.float32, 2)


def test_identity_health_metrics_and_openapi(server, bundle):
    status, model, _ = server.request("GET", "/v1/models/current")
    assert (status, model["model_version"]) == (200, Bundle.open(bundle).version)
    assert {"alpha", "threshold", "n"} <= set(model["calibration"])
    assert server.request("GET", "/healthz")[1] == {"status": "ok"}
    assert server.request("GET", "/readyz")[1]["status"] == "ready"
    server.score(png(1), "?source=counted")
    text = server.request("GET", "/metrics")[1].decode()
    assert "loupe_images_total{" in text
    assert 'source="counted"' in text
    schema = server.request("GET", "/openapi.json")[1]
    example = schema["paths"]["/v1/score"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    assert example["results"][0]["decision"] == "normal"


def test_every_answer_is_in_the_store_with_its_image(serve, bundle, tmp_path):
    server = serve(bundle)
    answers = [server.score(png(i), f"?source=line&name={i}.png")[1]["results"][0] for i in range(5)]
    rows = until(lambda: len(rows := shipped(tmp_path)) == 5 and rows)
    assert {r["record_id"]: r["score"] for r in rows} == {a["record_id"]: a["score"] for a in answers}
    store = LocalStore(tmp_path / "store")
    assert {store.get(r["image_uri"]) for r in rows} == {png(i) for i in range(5)}
    assert all(len(r["embedding"]) == 16 and r["scored_at"] for r in rows)


def test_shutdown_answers_what_waits_and_ships_the_log(serve, bundle, tmp_path):
    server = serve(bundle, settings={"ship_seconds": 1000.0})
    identity = server.score(png(1))[1]["results"][0]["record_id"]
    assert shipped(tmp_path) == []
    assert server.stop() in ENDED
    assert [r["record_id"] for r in shipped(tmp_path)] == [identity]


def test_a_token_is_asked_for_when_one_is_set(serve, bundle):
    server = serve(bundle, env={"LOUPE_TOKEN": "s3cret-ä"})
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret-ä".encode()}):
        assert server.score(png(1), **given)[0] == 401
    assert server.request("GET", "/v1/records")[0] == 401
    assert server.request("GET", "/healthz")[0] == 200
    good = {"Authorization": "Bearer s3cret-ä".encode()}
    status, answer, _ = server.score(png(1), **good)
    assert status == 200, answer


def test_a_full_queue_says_when_to_come_back(serve, bundle):
    server = serve(bundle, settings={"queue": 2, "max_files": 8})
    status, answer, headers = server.form([(b"%d.png" % i, png(i)) for i in range(3)])
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "try again" in answer["detail"]
    assert server.score(png(1))[0] == 200


def test_an_unwritable_log_is_no_answer(serve, bundle, tmp_path):
    server = serve(bundle, settings={"ship_seconds": 1000.0})
    (tmp_path / "spool" / "scores").rename(tmp_path / "spool" / "away")
    status, answer, _ = server.score(png(1))
    assert status == 503
    assert "score log cannot be written" in answer["detail"]
    (tmp_path / "spool" / "away").rename(tmp_path / "spool" / "scores")
    assert server.score(png(1))[0] == 200


def test_an_unreachable_store_stops_nothing(serve, bundle):
    server = serve(bundle, store="s3://nobody/here", env=NOBODY)
    assert server.score(png(1))[0] == 200
    assert until(lambda: server.request("GET", "/readyz")[1]["store"] == "waiting")
    assert server.score(png(1))[0] == 200
