"""The champion moves while requests come in: no request fails, and every record names the model that scored it."""

import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from components.cli import app
from components.core.errors import RegistryError
from components.decision.bundle import Bundle
from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings
from components.scorelog import table
from components.service.champion import Champion
from components.storage import LocalStore
from tests.service.conftest import png


@pytest.fixture
def registry(bundle, other_bundle, tmp_path):
    registry = Registry(RegistrySettings(str(tmp_path / "registry")))
    for folder in (bundle, other_bundle, bundle):
        registry.register("tiles", folder, {}, {}, {})
    registry.promote("tiles", "1", ("first",), {})
    return registry


class Load:
    """Clients that send one image after the other and note every answer."""

    def __init__(self, server, clients=4):
        self.server, self.answers, self.errors, self.over = server, [], [], threading.Event()
        self.threads = [threading.Thread(target=self._client, args=(i,)) for i in range(clients)]

    def _client(self, number):
        content = png(number)
        while not self.over.is_set():
            try:
                status, answer, _ = self.server.score(content, f"?source=load-{number}")
                (self.answers if status == 200 else self.errors).append(answer)
            except OSError as error:
                self.errors.append(error)


@contextmanager
def load(server):
    running = Load(server)
    for thread in running.threads:
        thread.start()
    try:
        yield running
    finally:
        running.over.set()
        for thread in running.threads:
            thread.join()


@pytest.mark.usefixtures("registry")
def test_promotion_and_rollback_under_load(serve, bundle, other_bundle, tmp_path):
    server = serve("tiles")
    names = ["tiles", "--params", str(server.params), "--reason", "test"]
    with load(server) as running:
        for _ in range(2):
            assert CliRunner().invoke(app, ["promote", "tiles", "2", *names[1:]]).exit_code == 0
            server.until_serves("2")
            assert CliRunner().invoke(app, ["rollback", *names]).exit_code == 0
            server.until_serves("1")
    assert running.errors == []
    assert len(running.answers) > 50
    served = {a["results"][0]["model_version"] for a in running.answers}
    assert served == {Bundle.open(folder).version for folder in (bundle, other_bundle)}
    assert server.stop() is not None
    store = LocalStore(tmp_path / "store")
    rows = [r for s in table.sources(store) for r in table.newest_first(store, table.SCORES, s)]
    given = {a["results"][0]["record_id"]: a["results"][0]["model_version"] for a in running.answers}
    assert {r["record_id"]: r["model_version"] for r in rows} == given


def test_a_damaged_champion_leaves_the_old_one_serving(serve, registry, other_bundle, tmp_path):
    import shutil

    broken = shutil.copytree(other_bundle, tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"damaged")
    registry.register("tiles", broken, {}, {}, {})
    server = serve("tiles")
    registry.promote("tiles", "4", ("damaged on purpose",), {})
    time.sleep(1.5)
    assert server.score(png(1))[0] == 200
    assert server.request("GET", "/v1/models/current")[1]["version"] == "1"
    assert "the champion stays version 1" in (tmp_path / "service.log").read_text()


def test_the_watch_and_a_page_at_the_same_moment_fetch_a_version_once(registry, tmp_path, monkeypatch):
    champion, fetched, first = Champion("tiles", registry, tmp_path / "models", 1), [], threading.Event()
    fetch = registry.fetch

    def slow(name, version, out):
        fetched.append(version)
        first.set()
        time.sleep(0.3)
        return fetch(name, version, out)

    monkeypatch.setattr(registry, "fetch", slow)
    registry.promote("tiles", "2", ("test",), {})
    watch = threading.Thread(target=champion.refresh)
    watch.start()
    assert first.wait(10)
    champion.renew()  # what a page's rollback does before it answers
    assert champion.served.version == "2"
    watch.join()
    assert (fetched, champion.reloads) == (["2"], 1)


def test_a_version_that_cannot_be_opened_is_not_brought_at_every_look(registry, tmp_path, monkeypatch):
    champion, tries, now = Champion("tiles", registry, tmp_path / "models", 1), [], [100.0]
    monkeypatch.setattr("components.service.champion.time", SimpleNamespace(monotonic=lambda: now[0]))

    def broken(_name, version, _out):
        tries.append(version)
        raise RegistryError("the files are gone")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "fetch", broken)
        registry.promote("tiles", "2", ("test",), {})
        assert [champion.refresh() for _ in range(3)] == [False] * 3
        assert tries == ["2"]
        registry.promote("tiles", "3", ("another is tried at once",), {})
        assert champion.refresh() is False
        assert tries == ["2", "3"]
    now[0] += 31
    assert champion.refresh() is True
    assert champion.served.version == "3"


def test_bad_uploads_while_the_champion_moves(serve, registry):
    server = serve("tiles")
    with load(server) as running:
        for version in ("2", "1", "2"):
            registry.promote("tiles", version, ("test",), {})
            for content in (b"", b"text", png(1)[:300]):
                assert server.score(content)[0] == 422
            server.until_serves(version)
    assert running.errors == []


def test_without_a_champion_it_says_what_to_do(tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text(f"data: {{}}\nviews: {{}}\nregistry: {{folder: {tmp_path / 'registry'}}}\n")
    result = CliRunner().invoke(app, ["serve", "nothing", "--params", str(params)])
    assert result.exit_code != 0
    assert "loupe models" in str(result.output) + str(result.exception)
