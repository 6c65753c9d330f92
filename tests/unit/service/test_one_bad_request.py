"""Whatever one upload makes the code raise, its client reads a sentence and the others are answered."""

import asyncio
import io
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from components.core.errors import StorageError
from components.decision.bundle import Bundle
from components.pictures.decoding import Decoding
from components.pictures.roi import written
from components.service import answers, recorder, routes
from components.service.batcher import Batcher
from components.service.champion import Champion
from components.service.settings import ServiceSettings
from components.storage import open_store
from tests.conftest import tile


def png(seed=1):
    stream = io.BytesIO()
    Image.fromarray(tile(seed)).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def client(bundle, tmp_path):
    settings = ServiceSettings(spool=str(tmp_path / "spool"), threads=1)
    kept = recorder.Recorder(open_store(str(tmp_path / "store")), settings)
    served = routes.create_app(Champion(str(bundle), None, tmp_path / "models", 1), kept, settings)
    with TestClient(served, raise_server_exceptions=False) as opened:
        yield opened


def ask(client):
    answer = client.post("/v1/score", content=png(), headers={"Content-Type": "image/png"})
    return answer.status_code, answer.json().get("detail", "")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("exif"), MemoryError(), RecursionError(), TypeError("odd")], ids=repr
)
def test_a_decoder_may_raise_anything(client, monkeypatch, error):
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda *_, **__: (_ for _ in ()).throw(error))
        status, said = ask(client)
    assert status == 422
    assert "memory" in said if isinstance(error, MemoryError) else f"cannot be decoded ({type(error).__name__}" in said
    assert ask(client) == (200, "")


@pytest.mark.parametrize(
    ("place", "name"), [(Bundle, "score"), (answers, "entry"), (recorder.Recorder, "append"), (answers, "_heat")]
)
def test_a_failure_behind_the_decoder_is_a_sentence_too(client, monkeypatch, place, name):
    with monkeypatch.context() as patch:
        patch.setattr(place, name, lambda *_, **__: 1 / 0)
        for _ in range(3):
            status, said = ask(client)
            assert (status, "ZeroDivisionError" in said) == (500, True)
    assert ask(client) == (200, "")


def test_a_full_disk_is_told_and_asks_for_another_try(client, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "write_flushed", full)
        status, said = ask(client)
    assert (status, "check the disk" in said) == (503, True)
    assert ask(client) == (200, "")


def test_a_page_that_fails_answers_json(client, monkeypatch):
    monkeypatch.setattr(recorder.Recorder, "latest", lambda *_: 1 / 0)
    answer = client.get("/v1/records")
    assert (answer.status_code, "ZeroDivisionError" in answer.json()["detail"]) == (500, True)


def test_the_list_can_be_asked_for_any_source_of_the_inbox(client):
    assert client.get("/v1/records", params={"source": "Presse Süd = 1"}).json()["records"] == []


def test_one_picture_of_a_batch_does_not_take_the_others_with_it(bundle):
    opened = Bundle.open(bundle, 1)
    real, broken = opened.score, np.zeros((96, 96, 3), np.uint8)

    def score(pictures, narrow=False):
        if not all(pixels.any() for pixels in pictures):
            raise ValueError("a black picture")
        return real(pictures, narrow)

    opened.score = score
    batcher = Batcher(lambda: opened, ServiceSettings(threads=1, wait_ms=50, batch=8))

    async def together():
        futures = batcher.submit([tile(1), broken, tile(2)])
        batcher.start()
        return await asyncio.gather(*futures, return_exceptions=True)

    first, second, third = asyncio.run(together())
    assert isinstance(second, ValueError)
    assert {type(first).__name__, type(third).__name__} == {"Scored"}
    batcher.stop(5)
    assert not any(thread.is_alive() for thread in batcher._threads)


@pytest.mark.parametrize("wait", [0.0, 500.0])
def test_a_scorer_outlives_a_loop_that_has_gone(bundle, wait):
    """The client's loop ends while its picture waits: the next one is answered, in the same batch or a later one."""
    opened = Bundle.open(bundle, 1)
    batcher = Batcher(lambda: opened, ServiceSettings(threads=1, wait_ms=wait, batch=2))
    asyncio.run(_leave(batcher))
    batcher.start()

    async def again():
        return await asyncio.wait_for(asyncio.gather(*batcher.submit([tile(2)])), 20)

    assert asyncio.run(again())[0].score > 0
    batcher.stop(5)


async def _leave(batcher):
    batcher.submit([tile(1)])


def test_the_page_starts_empty_when_the_store_holds_nonsense(client, monkeypatch):
    for error in (StorageError("away"), ValueError("no parquet")):
        service = client.app.state.service
        monkeypatch.setattr(service.recorder, "load", lambda error=error: (_ for _ in ()).throw(error))
        routes._remember(service)
    assert ask(client) == (200, "")


@pytest.mark.parametrize("name", ["label", "verdict"])
def test_a_label_is_taken_by_its_name_of_today_and_of_older_programs(client, name):
    (result,) = client.post("/v1/score", content=png(), headers={"Content-Type": "image/png"}).json()["results"]
    answer = client.put(f"/v1/records/{result['record_id']}/label", json={name: "defect"})
    assert (answer.status_code, answer.json()["label"]) == (200, "defect")
    (listed,) = client.get("/v1/records").json()["records"]
    assert (listed["label"], "verdict" in listed) == ("defect", False)


def test_a_reload_between_decoding_and_scoring_decodes_again():
    """The new model's region of interest is not that of the one before."""
    region = np.zeros((96, 96), bool)
    region[:, 48:] = True
    before, after, seen = Decoding(), Decoding(roi=written(region, (96, 96))), []

    class Reloading:
        """Serves the first rules until something is submitted; what is scored is scored by the last."""

        rules = before

        def submit(self, pictures):
            self.rules = after
            seen.extend(pictures)
            future = asyncio.get_running_loop().create_future()
            future.set_result(SimpleNamespace(bundle=SimpleNamespace(decoding=after)))
            return [future]

    service = Reloading()
    service.batcher = service
    (picture,), _ = asyncio.run(answers._scored(service, [(png(), "x")]))
    np.testing.assert_array_equal(seen[0], tile(1))
    assert (picture[:, :48] == 128).all()
    assert len(seen) == 2
