"""From a request to named bytes, without a server: what is refused and in which words; and what is counted."""

import asyncio
import uuid
from types import SimpleNamespace

import pytest
from starlette.requests import Request

from components.core.errors import DataError, RequestError
from components.service.documents import REFUSALS, error
from components.service.line.outputs import Standing
from components.service.measures import Measures
from components.service.settings import ServiceSettings
from components.service.uploads import HEADER_BYTES, BoundedHeaders, Upload, checked_name, checked_source, read_uploads

SETTINGS = ServiceSettings(max_upload_mb=0.001, max_files=2, body_seconds=0.2)


def request(parts, kind, query=b"", **headers):
    """A request whose body comes in *parts*; None: nothing comes any more."""
    waiting = iter(parts)

    async def receive():
        part = next(waiting, b"")
        if part is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": part, "more_body": part != b""}

    given = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    return Request({"type": "http", "method": "POST", "query_string": query, "headers": raw}, receive)


def read(*given, **headers):
    return asyncio.run(read_uploads(request(*given, **headers), SETTINGS)).uploads


def refused(*given, **headers):
    with pytest.raises(RequestError) as told:
        read(*given, **headers)
    return told.value.status, str(told.value)


def form(*parts):
    mark = uuid.uuid4().hex
    body = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (mark.encode(), head, content)
        for head, content in parts
    )
    return [body + b"--%s--\r\n" % mark.encode()], f"multipart/form-data; boundary={mark}"


def test_a_raw_body_is_one_image_with_the_name_of_the_query():
    assert read([b"a", b"b"], "image/png", b"name=x.png") == [Upload("x.png", b"ab")]
    assert read([b"a"], "application/octet-stream") == [Upload("image", b"a")]


def test_a_form_is_as_many_images_as_it_has_files():
    files = form((b'name="images"; filename="a.png"', b"1"), (b'name="images"; filename="\xc3\xa4.png"', b"2"))
    assert read(*files) == [Upload("a.png", b"1"), Upload("ä.png", b"2")]


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        (([b"a"], "text/plain"), 415, "content type text/plain"),
        (([b"a"], ""), 415, "content type missing"),
        (([b""], "image/png"), 422, "the body is empty"),
        (([b"a", None], "image/png"), 408, "took longer than 0.2 s"),
        (([b"a" * 1500, b"b"], "image/png"), 413, "larger than 0.001 MB"),
        (([b"a" * 9000, None], "image/png"), 413, "larger than 0.001 MB"),  # not read to its end
        (([b"a" * 1500, None], "image/png"), 413, "larger than 0.001 MB"),
        (([b"a"], "image/png", b"name=a%2Fb.png"), 422, "looks like a path"),
        (([b"a"], "multipart/form-data"), 400, "the multipart form is broken"),
        (form((b'name="threshold"', b"1")), 422, "'threshold' is no file"),
        (form((b'name="images"; filename="\xff.png"', b"1")), 422, "printable characters in UTF-8"),
        (form((b'name="images"; filename="a.png"', b"")), 422, "a.png is empty"),
        (form(*[(b'name="images"; filename="a.png"', b"1")] * 3), 400, "the multipart form is broken: Too many files"),
        (form(), 422, "the form holds no file"),
    ],
)
def test_refusals_say_what_is_wrong(given, status, said):
    found, sentence = refused(*given)
    assert found == status
    assert said in sentence


def test_a_declared_length_is_believed_before_the_body_has_come():
    assert refused([b"a"], "image/png", content_length="2000")[0] == 413


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", ".a", "a\n", "\ufffd.png", "x" * 256])
def test_names_that_could_be_paths_or_cannot_be_shown(name):
    assert checked_name("x" * 255) == "x" * 255
    with pytest.raises(RequestError, match="file name"):
        checked_name(name)


@pytest.mark.parametrize("source", ["", "-a", "a/b", "ä", "x" * 65])
def test_sources_that_name_no_partition(source):
    assert checked_source("A.b_c-1") == "A.b_c-1"
    with pytest.raises(RequestError, match="use 1 to 64 letters"):
        checked_source(source)


@pytest.mark.parametrize(("length", "status"), [(HEADER_BYTES - 1, 200), (HEADER_BYTES, 431)])
def test_headers_are_bounded_together(length, status):
    sent = []

    async def inner(_, __, send):
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(b"x", b"a" * length)]}
    asyncio.run(BoundedHeaders(inner)(scope, None, send))
    assert sent[0]["status"] == status


def test_what_was_scored_and_refused_is_counted_and_gauges_are_read_when_asked():
    counted = Measures()
    one = {"decision": "normal", "source": "line-1", "latency_ms": 15.0}
    counted.scored([one, one, one | {"decision": "anomalous"}])
    counted.refused(DataError("x"))
    shipper = SimpleNamespace(shipped=4, failing=True)
    service = SimpleNamespace(
        batcher=SimpleNamespace(waiting=3, batches=2),
        recorder=SimpleNamespace(shipper=shipper),
        champion=SimpleNamespace(reloads=1),
        shadow=SimpleNamespace(dropped=6),
        line=SimpleNamespace(outputs=SimpleNamespace(standing=lambda: [Standing("mes", 7, 5, 2, 1, True)], dropped=3)),
    )
    text = counted.render(service).decode()
    for line in (
        'loupe_images_total{decision="normal",source="line-1"} 2.0',
        'loupe_images_total{decision="anomalous",source="line-1"} 1.0',
        'loupe_refusals_total{kind="DataError"} 1.0',
        'loupe_latency_seconds_bucket{le="0.02"} 3.0',
        'loupe_latency_seconds_bucket{le="0.01"} 0.0',
        "loupe_waiting 3.0",
        "loupe_store_failing 1.0",
        "loupe_reloads 1.0",
        'loupe_output_queued{output="mes"} 7.0',
        'loupe_output_sent{output="mes"} 5.0',
        'loupe_output_failed{output="mes"} 2.0',
        'loupe_output_refused{output="mes"} 1.0',
        "loupe_output_dropped 3.0",
        "loupe_shadow_dropped 6.0",
    ):
        assert line in text
    shipper.failing = False
    assert "loupe_store_failing 0.0" in counted.render(service).decode()


def test_every_refusal_is_documented_with_its_message():
    assert set(REFUSALS) == {400, 401, 403, 404, 408, 409, 413, 415, 422, 431, 500, 503}
    assert error("gone")["content"]["application/json"]["example"] == {"detail": "gone"}
