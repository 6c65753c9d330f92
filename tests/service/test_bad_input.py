"""Thirty kinds of bad input: each gets a 4xx with a message, and the service answers afterwards."""

import http.client
import io
import json
import socket
import struct
import subprocess
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import BIN, png

GOOD = png(1)


def saved(pixels, kind, **more):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **more)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side, rows):
    """A PNG that claims side x side pixels and holds *rows* empty ones."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * (side + 1) * rows, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


RAW = {
    "empty body": (b"", 422, "empty"),
    "text": (b"hello, this is no image", 422, "not an image"),
    "truncated png": (GOOD[: len(GOOD) // 2], 422, "cannot be decoded"),
    "only the png header": (GOOD[:33], 422, ""),
    "flipped bytes": (GOOD[:60] + bytes(b ^ 255 for b in GOOD[60:120]) + GOOD[120:], 422, "cannot be decoded"),
    "truncated jpeg": (saved(np.zeros((96, 96, 3), np.uint8), "jpeg")[:300], 422, ""),
    "truncated bmp": (saved(np.zeros((96, 96, 3), np.uint8), "bmp")[:1000], 422, ""),
    "small bomb": (bomb(2_000, 10), 422, "more pixels than the limit"),
    "large bomb": (bomb(60_000, 1), 422, "more pixels than the limit"),
    "zero pixels": (bomb(0, 0), 422, ""),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 422, "not an image"),
    "pdf": (b"%PDF-1.4\n%%EOF", 422, "not an image"),
    "zip": (b"PK\x03\x04" + b"\0" * 100, 422, "not an image"),
    "larger than the limit": (GOOD + b"\0" * 1_000_001, 413, "larger than 1 MB"),
}


@pytest.mark.parametrize("kind", RAW)
def test_raw_bodies(server, kind):
    content, expected, said = RAW[kind]
    status, answer, _ = server.score(content)
    assert (status, said in str(answer["detail"])) == (expected, True), answer
    assert server.score(GOOD)[0] == 200


FORMS = {
    "path-like name": (b"../../etc/passwd", 422, "looks like a path"),
    "windows path": (b"images\\\\a.png", 422, "looks like a path"),
    "hidden file": (b".ssh", 422, "looks like a path"),
    "name that is not utf-8": (b"\xff\xfe\xfa.png", 422, "printable characters in UTF-8"),
    "name with a null": (b"a\0b.png", 422, "printable"),
    "name of 300 letters": (b"a" * 300, 422, "255"),
}


@pytest.mark.parametrize("kind", FORMS)
def test_names(server, kind):
    name, expected, said = FORMS[kind]
    status, answer, _ = server.form([(name, GOOD)])
    assert 400 <= status < 500
    assert (status, said in str(answer["detail"])) == (expected, True), answer
    assert server.score(GOOD)[0] == 200


def test_one_bad_file_refuses_its_request_only(server):
    status, answer, _ = server.form([(b"good.png", GOOD), (b"bad.png", GOOD[:200])])
    assert (status, "bad.png" in answer["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/json", b"{}", 415),
        ("text/html", GOOD, 415),
        ("", GOOD, 415),
        ("multipart/form-data", GOOD, 400),
        ("multipart/form-data; boundary=x", b"--y\r\nnonsense", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n',
            422,
        ),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
    ],
)
def test_content_types_and_forms(server, kind, body, expected):
    status, answer, _ = server.score(body, kind=kind)
    assert (status, bool(answer["detail"])) == (expected, True)
    assert server.score(GOOD)[0] == 200


def test_too_many_files(server):
    status, answer, _ = server.form([(b"%d.png" % i, GOOD) for i in range(5)])
    assert (status, "4" in answer["detail"]) == (400, True)


@pytest.mark.parametrize(
    "query",
    ["?source=../x", "?source=", "?source=%00", "?heatmap=yes", "?source=" + "a" * 65, "?name=..%2Fx", "?name=%ff"],
)
def test_parameters(server, query):
    status, answer, _ = server.score(GOOD, query)
    assert (status, bool(answer.get("detail"))) == (422, True)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/score", 405),
        ("DELETE", "/v1/score", 405),
        ("GET", "/v1/nothing", 404),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/v1/records/none/image", 404),
        ("GET", "/v1/records?limit=0", 422),
    ],
)
def test_methods_and_paths(server, method, path, expected):
    assert server.request(method, path)[0] == expected


def raw(server, *parts, pause=0.0):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


def test_huge_headers(server):
    status, _ = raw(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n")
    assert status in (400, 431)  # refused by the application, or by the server when it comes in pieces
    assert server.score(GOOD)[0] == 200


def test_slow_upload(server):
    head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    status, body = raw(server, head, b"a", pause=0.3)
    assert (status, "longer than 1 s" in json.loads(body)["detail"]) == (408, True)
    assert server.score(GOOD)[0] == 200


@pytest.mark.parametrize("length", [b"Content-Length: 3000000", b"Transfer-Encoding: chunked"])
def test_a_client_that_is_still_sending_too_much_reads_why(server, length):
    head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n" + length + b"\r\n\r\n"
    megabyte, end = b"\0" * 1_000_000, b""
    if b"chunked" in length:
        megabyte, end = b"f4240\r\n" + megabyte + b"\r\n", b"0\r\n\r\n"
    status, body = raw(server, head, megabyte, megabyte, megabyte + end, pause=0.15)
    assert (status, "larger than 1 MB" in json.loads(body)["detail"]) == (413, True)
    assert server.score(GOOD)[0] == 200


@pytest.mark.parametrize("length", [b"-5", b"many", b"99999999999999999999"])
def test_false_lengths(server, length):
    head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %s\r\n\r\n" % length
    status, _ = raw(server, head)
    assert 400 <= status < 500
    assert server.score(GOOD)[0] == 200


def test_not_http_at_all(server):
    status, _ = raw(server, b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    assert status == 400
    assert server.score(GOOD)[0] == 200


def test_a_client_that_hangs_up_harms_nobody(server):
    head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head + GOOD[:100])
    assert server.score(GOOD)[0] == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"label": "maybe"}', b'{"label": 3}', b"\xff"])
def test_labels(server, body):
    identity = server.score(GOOD)[1]["results"][0]["record_id"]
    path = f"/v1/records/{identity}/label"
    status, answer, _ = server.request("PUT", path, body, {"Content-Type": "application/json"})
    assert (status in (400, 422), bool(answer["detail"])) == (True, True)


def test_generated_requests_find_no_5xx(server, tmp_path):
    """Schemathesis over the service's own OpenAPI."""
    server.score(GOOD)
    command = [
        BIN / "schemathesis",
        "run",
        f"http://127.0.0.1:{server.port}/openapi.json",
        "--max-examples",
        "25",
        "--checks",
        "not_a_server_error,response_schema_conformance,content_type_conformance",
        "--seed",
        "0",
        "--suppress-health-check",
        "all",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:]
    assert server.score(GOOD)[0] == 200
