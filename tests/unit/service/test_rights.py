"""Users with roles: over every route, what each may and may not; what is written down of it; what is never said."""

import json
import logging
import re

import pytest
from fastapi.routing import APIRoute
from typer.testing import CliRunner

from components.cli import app as commands
from components.core import audit
from components.core.errors import RequestError, SettingsError
from components.pipeline.params import load_params
from components.pipeline.serving import desk_of
from components.registry.mlflow import Registry
from components.service.champion import Champion
from components.service.desk import Desk
from components.service.users import ROLES, Users, add_user, read_users, remove_user
from tests.service_pages import Line

# What a route asks for; one that is not listed here fails the test, and so does one that asks for less.
OPEN = {"/healthz", "/readyz", "/metrics"}
NEEDED = {
    ("POST", "/v1/score"): "operator",
    ("PUT", "/v1/records/{record_id}/label"): "operator",
    ("POST", "/v1/threshold"): "engineer",
    ("POST", "/v1/models/rollback"): "engineer",
}
GIVEN = {
    ("PUT", "/v1/records/{record_id}/label"): {"json": {"label": "defect"}},
    ("POST", "/v1/threshold"): {"json": {"alpha": 0.3, "seen": 0.2, "reason": "too many"}},
    ("POST", "/v1/models/rollback"): {"json": {"seen": "1", "reason": "too many"}},
    ("POST", "/v1/score"): {"content": b"", "headers": {"Content-Type": "image/png"}},
}


MOVED = Desk(repoint=lambda alpha, reasons: {"alpha": alpha, "reasons": reasons})


@pytest.fixture(autouse=True)
def _no_tokens(monkeypatch):
    for name in ("LOUPE_TOKEN", "LOUPE_OPERATOR_TOKEN", "LOUPE_USERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tokens(tmp_path):
    """A token of each role, by role; the user has the role's name."""
    return {role: add_user(tmp_path / "users.json", f"{role}-1", role) for role in ROLES}


@pytest.fixture
def line(bundle, tmp_path, tokens):  # noqa: ARG001
    line = Line(bundle, tmp_path, MOVED, users=str(tmp_path / "users.json"))
    line.put("a", alarm=True)
    return line


def ask(line, route, token):
    method, path = route
    more = {key: dict(value) if key == "headers" else value for key, value in GIVEN.get(route, {}).items()}
    more["headers"] = more.get("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
    return line.http.request(method, path.replace("{record_id}", "id-a"), **more)


def routes(line):
    """All of OpenAPI's, as (method, path)."""
    paths = line.http.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, known in paths.items() for method in known]


def test_each_route_refuses_every_role_that_may_not_and_lets_in_every_one_that_may(line, tokens):
    found = routes(line)
    assert len(found) > 12
    for route in found:
        method, path = route
        if path in OPEN:
            assert ask(line, route, None).status_code == 200, route
            continue
        assert method == "GET" or route in NEEDED, f"{route} changes something: which role may?"
        needed = NEEDED.get(route, "viewer")
        for stranger in (None, "wrong", "loupe-", tokens["viewer"][:-1]):
            assert ask(line, route, stranger).status_code in (401, 403), (route, stranger)
        for role in ROLES:
            status = ask(line, route, tokens[role]).status_code
            assert (status in (401, 403)) is (ROLES.index(role) < ROLES.index(needed)), (route, role, status)


def test_a_route_that_is_in_no_document_is_a_page_without_data(line):
    hidden = {r.path for r in line.http.app.routes if isinstance(r, APIRoute) and not r.include_in_schema}
    assert hidden == {"/", "/review", "/threshold", "/models", "/docs", "/static/{name}"}


def test_the_services_own_tokens_go_on_to_open_what_they_did(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("LOUPE_TOKEN", "open")
    monkeypatch.setenv("LOUPE_OPERATOR_TOKEN", "master")
    line = Line(bundle, tmp_path, MOVED)
    line.put("a", alarm=True)
    for route in routes(line):
        if route[1] in OPEN:
            continue
        engineer = NEEDED.get(route) == "engineer"
        assert (ask(line, route, "open").status_code in (401, 403)) is engineer, route
        assert ask(line, route, "master").status_code not in (401, 403), route
        assert ask(line, route, None).status_code == (403 if engineer else 401), route


def test_tokens_from_files_open_the_service_too(bundle, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("open\n")
    monkeypatch.setenv("LOUPE_TOKEN_FILE", str(tmp_path / "token"))
    line = Line(bundle, tmp_path)
    assert ask(line, ("GET", "/v1/records"), "open").status_code == 200
    assert ask(line, ("GET", "/v1/records"), None).status_code == 401


def test_without_tokens_all_may_label_and_nobody_changes_what_is_served(bundle, tmp_path):
    line = Line(bundle, tmp_path)
    line.put("a", alarm=True)
    for route in routes(line):
        assert (ask(line, route, None).status_code == 403) is (NEEDED.get(route) == "engineer"), route


def test_a_label_is_written_down_with_who_from_where_before_and_after(line, tokens, tmp_path):
    route = ("PUT", "/v1/records/{record_id}/label")
    for _ in range(2):
        assert ask(line, route, tokens["operator"]).status_code == 200
    found = audit.read(tmp_path / "spool" / audit.NAME)
    assert found.wrong == []
    assert [entry["state"] for entry in found.lines] == ["asked", "done"] * 2
    last = found.lines[-1]
    assert (last["who"], last["from"], last["what"], last["about"]) == ("operator-1", "testclient", "label", "id-a")
    assert (last["before"]["label"], last["after"]["reviewer"]) == ("defect", "operator-1")
    assert "before" not in found.lines[0]


def test_what_somebody_known_was_refused_is_written_down_and_strangers_are_not(line, tokens, tmp_path):
    ask(line, ("POST", "/v1/threshold"), tokens["viewer"])
    ask(line, ("POST", "/v1/threshold"), "wrong")
    (entry,) = audit.read(tmp_path / "spool" / audit.NAME).lines
    assert (entry["who"], entry["state"], entry["role"]) == ("viewer-1", "refused", "viewer")
    assert entry["what"] == "POST /v1/threshold"


def test_without_its_record_no_label_is_taken(line, tokens, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit.system, "flush", full)
    assert ask(line, ("PUT", "/v1/records/{record_id}/label"), tokens["operator"]).status_code == 503
    assert line.recorder.labels == {}


@pytest.mark.slow
def test_a_threshold_and_a_way_back_are_in_the_services_record_and_the_registrys(bundle, tokens, tmp_path):
    path = tmp_path / "params.yaml"
    places = {"store": str(tmp_path / "store"), "registry": {"folder": str(tmp_path / "registry")}}
    path.write_text(json.dumps({"data": {}, "views": {}} | places))
    params = load_params(path)
    registry = Registry(params.registry)
    registry.register("tiles", bundle, {}, {}, {})
    registry.promote("tiles", "1", ("first",), {})
    champion = Champion("tiles", registry, tmp_path / "models", 1)
    line = Line(bundle, tmp_path, desk_of(params, "tiles"), champion, users=str(tmp_path / "users.json"))
    assert ask(line, ("POST", "/v1/threshold"), tokens["engineer"]).status_code == 200
    back = line.http.post(
        "/v1/models/rollback",
        json={"seen": "2", "reason": "no good", "who": "somebody else"},
        headers={"Authorization": f"Bearer {tokens['engineer']}"},
    )
    assert back.status_code == 200, back.text
    told = [(e["what"], e["state"]) for e in audit.read(tmp_path / "spool" / audit.NAME).lines]
    assert told == [("threshold", "asked"), ("threshold", "done"), ("rollback", "asked"), ("rollback", "done")]
    lines = audit.read(tmp_path / "registry" / audit.NAME).lines
    done = [(e["what"], e["who"], e["before"]["champion"]) for e in lines if e["state"] == "done" and "before" in e]
    assert done[1:] == [("promote", "engineer-1", "1"), ("rollback", "engineer-1", "2")]
    assert registry.decisions("tiles")[-1].reasons == ("by hand, engineer-1: no good",)


def test_a_token_taken_away_opens_nothing_at_the_next_request(line, tokens, tmp_path):
    route = ("GET", "/v1/records")
    assert ask(line, route, tokens["viewer"]).status_code == 200
    remove_user(tmp_path / "users.json", "viewer-1")
    assert ask(line, route, tokens["viewer"]).status_code == 401
    again = add_user(tmp_path / "users.json", "viewer-1", "operator")
    assert ask(line, route, tokens["viewer"]).status_code == 401
    assert ask(line, route, again).status_code == 200
    (tmp_path / "users.json").write_text("{")
    assert ask(line, route, again).status_code == 503  # nobody is let in on what cannot be read
    (tmp_path / "users.json").unlink()
    assert ask(line, route, again).status_code == 503


def test_tokens_are_kept_as_hashes_and_compared_in_constant_time(tmp_path, tokens, monkeypatch):
    text = (tmp_path / "users.json").read_text()
    assert not [token for token in tokens.values() if token in text]
    assert (tmp_path / "users.json").stat().st_mode & 0o777 == 0o600
    compared = []
    from components.service import users

    real = users.hmac.compare_digest
    monkeypatch.setattr(users.hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    assert Users(tmp_path / "users.json").find(tokens["viewer"]) == ("viewer-1", "viewer")
    assert len(compared) == len(tokens)  # the one that fits does not end the search


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"users": []}',
        '{"users": {"a": 1}}',
        '{"users": {"a": {"role": "king", "token": "x", "added": ""}}}',
    ],
)
def test_a_file_that_holds_no_users_is_told_before_the_start(tmp_path, text):
    (tmp_path / "users.json").write_text(text)
    with pytest.raises(SettingsError, match=re.escape(str(tmp_path / "users.json"))):
        Users(tmp_path / "users.json")


def test_commands_add_list_and_remove_users_and_write_that_down(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOUPE_USERS", "users.json")
    said = CliRunner().invoke(commands, ["users", "add", "ada", "--role", "engineer"])
    assert said.exit_code == 0, said.output
    token = said.output.split()[-1]
    assert Users(tmp_path / "users.json").find(token) == ("ada", "engineer")
    listed = CliRunner().invoke(commands, ["users", "list"]).output
    assert ("engineer  ada" in listed, token in listed) == (True, False)
    assert json.loads(CliRunner().invoke(commands, ["users", "list", "--json"]).output)["ada"]["role"] == "engineer"
    assert CliRunner().invoke(commands, ["users", "remove", "ada", "--file", "users.json"]).exit_code == 0
    assert read_users(tmp_path / "users.json") == {}
    found = audit.read(tmp_path / "spool" / audit.NAME)
    assert [(e["what"], e["state"]) for e in found.lines][1::2] == [("users add", "done"), ("users remove", "done")]
    assert isinstance(
        CliRunner().invoke(commands, ["users", "add", "../x", "--role", "viewer"]).exception, SettingsError
    )


def test_no_secret_is_in_a_log_a_record_or_an_answer(bundle, tmp_path, monkeypatch, caplog):
    """Every token, sent to every route, right or wrong; then everything that was written is read."""
    caplog.set_level(logging.DEBUG)
    secrets = {"LOUPE_TOKEN": "s3cret-reader", "LOUPE_OPERATOR_TOKEN": "s3cret-operator"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    named = {role: add_user(tmp_path / "users.json", role, role) for role in ROLES}
    line = Line(bundle, tmp_path, users=str(tmp_path / "users.json"))
    line.put("a", alarm=True)
    every = [*secrets.values(), *named.values(), "s3cret-wrong"]
    told = [ask(line, route, token).text for route in routes(line) for token in every]
    line.ship()
    told += [caplog.text, *(p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file())]
    assert len(told) > 60
    assert [token for token in every for text in told if token in text] == []


def test_a_page_that_is_slow_to_come_does_not_lose_who_asked(line, tokens):
    """Who acts is told by a context, which each request has for itself."""
    with pytest.raises(RequestError), audit.acting("other", "elsewhere"):
        line.service.recorder.label(line.recorder.latest()[0], "nonsense", "", line.service.clock())
    ask(line, ("PUT", "/v1/records/{record_id}/label"), tokens["operator"])
    assert audit.actor().name not in ("other", "operator-1")
