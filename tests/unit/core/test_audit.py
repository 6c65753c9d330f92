"""The audit record: nothing changes without a line, and what was changed in the file shows."""

import json
import multiprocessing

import pytest
from typer.testing import CliRunner

from components.cli import app
from components.core import audit
from components.core.errors import DataError, PlaceError


@pytest.fixture
def log(tmp_path):
    place = tmp_path / "audit.jsonl"
    for number in range(4):
        with (
            audit.acting("ada", "10.0.0.7"),
            audit.audited(place, "threshold", "tiles", {"alpha": 0.1 * number}, {"alpha": 0.2}),
        ):
            pass
    return place


def test_a_change_is_written_down_before_it_is_made_and_when_it_is(log):
    found = audit.read(log)
    assert (len(found.lines), found.wrong) == (8, [])
    asked, done = found.lines[:2]
    assert {k: asked[k] for k in ("who", "from", "what", "about", "state", "before", "after")} == {
        **{"who": "ada", "from": "10.0.0.7", "what": "threshold", "about": "tiles", "state": "asked"},
        **{"before": {"alpha": 0.0}, "after": {"alpha": 0.2}},
    }
    assert (done["state"], done["n"], found.lines[-1]["n"]) == ("done", 2, 8)


def test_without_a_name_it_is_the_user_of_this_process(monkeypatch):
    monkeypatch.setattr(audit.getpass, "getuser", lambda: "bo")
    monkeypatch.setenv("SUDO_USER", "ada")
    assert audit.actor().name == "bo (sudo by ada)"
    monkeypatch.setattr(audit.getpass, "getuser", lambda: (_ for _ in ()).throw(KeyError("no such number")))
    assert audit.actor().name == "a user without a name (sudo by ada)"


def test_what_fails_is_written_down_as_failed(tmp_path):
    with pytest.raises(ValueError, match="no"), audit.audited(tmp_path / "a.jsonl", "promote", "tiles"):
        raise ValueError("no")
    assert [line["state"] for line in audit.read(tmp_path / "a.jsonl").lines] == ["asked", "failed"]
    assert audit.read(tmp_path / "a.jsonl").lines[1]["why"] == "ValueError: no"


def test_nothing_is_changed_where_nothing_can_be_written_down(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit.system, "flush", full)
    made = []
    with pytest.raises(PlaceError, match="disk is full"), audit.audited(tmp_path / "a.jsonl", "promote", "tiles"):
        made.append(1)
    assert made == []


@pytest.mark.parametrize("how", ["changed", "taken out", "put in", "swapped", "damaged", "forged"])
def test_what_was_done_to_the_file_shows(log, how):
    lines = log.read_bytes().splitlines(keepends=True)
    if how == "changed":
        lines[3] = lines[3].replace(b"ada", b"eve")
    elif how == "taken out":
        del lines[3]
    elif how == "put in":
        lines.insert(3, lines[2])
    elif how == "swapped":
        lines[3], lines[4] = lines[4], lines[3]
    elif how == "damaged":
        lines[3] = b"\0\0\0\0\n"
    else:  # a line of one's own with a hash that fits what stands before it, but not what comes after
        said = json.loads(lines[3]) | {"who": "eve"}
        said["chain"] = audit._chained(json.loads(lines[2])["chain"], audit._without(said))
        lines[3] = json.dumps(said, sort_keys=True).encode() + b"\n"
    log.write_bytes(b"".join(lines))
    assert audit.read(log).wrong
    audit.note(log, "label", "a", "done")  # and the record goes on, the damage in it
    assert audit.read(log).wrong
    assert audit.read(log).lines[-1]["about"] == "a"


def test_a_torn_line_is_kept_in_the_next_one_and_nothing_else_is_lost(log):
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"what": "thresh')
    assert "which has no end" in audit.read(log).wrong[0]
    audit.note(log, "label", "a", "done")
    found = audit.read(log)
    assert (found.wrong, found.lines[-1]["torn"], log.read_bytes().startswith(whole)) == ([], '{"what": "thresh', True)


def test_long_texts_do_not_make_lines_that_cannot_be_found_again(tmp_path):
    for _ in range(2):
        audit.note(tmp_path / "a.jsonl", "label", "x" * 1_000_000, "done", before={"k": ["y" * 1_000_000] * 99})
    assert audit.read(tmp_path / "a.jsonl").wrong == []
    assert all(len(line) < audit.TAIL for line in (tmp_path / "a.jsonl").read_bytes().splitlines())


def _write(log, name):
    for number in range(25):
        audit.note(log, "label", f"{name}-{number}", "done")


def test_several_processes_write_one_chain(tmp_path):
    log = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=_write, args=(log, name)) for name in "ab"]
    for one in others:
        one.start()
    for one in others:
        one.join(60)
    found = audit.read(log)
    assert (len(found.lines), found.wrong) == (50, [])


def test_the_command_shows_both_records_and_fails_where_one_was_changed(tmp_path, monkeypatch, log):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "registry").mkdir()
    (tmp_path / "spool").mkdir()
    log.rename(tmp_path / "registry" / "audit.jsonl")
    audit.note(tmp_path / "spool" / "audit.jsonl", "label", "id-1", "done")
    said = CliRunner().invoke(app, ["audit"])
    assert said.exit_code == 0, said.output
    assert "ada" in said.output
    assert "id-1" in said.output
    head = audit.read(tmp_path / "registry" / "audit.jsonl").head
    assert head in said.output
    assert len(CliRunner().invoke(app, ["audit", "--json", "--head", head]).output.splitlines()) == 9
    whole = (tmp_path / "registry" / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "registry" / "audit.jsonl").write_bytes(b"".join(whole[:-2]))  # the end cut off
    assert CliRunner().invoke(app, ["audit"]).exit_code == 0
    assert isinstance(CliRunner().invoke(app, ["audit", "--head", head]).exception, DataError)
    (tmp_path / "registry" / "audit.jsonl").write_bytes(b"".join(whole[1:]))
    assert "line 1" in str(CliRunner().invoke(app, ["audit"]).exception)
