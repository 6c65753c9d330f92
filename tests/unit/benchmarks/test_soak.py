"""The soak for a few seconds: a real service, killed twice, with reloads and a store that stands still."""

from types import SimpleNamespace

import pytest

from benchmarks.production import soak
from components.core.artefacts import read_json
from components.core.errors import SettingsError
from components.scorelog import table
from tests.s3 import NOBODY


@pytest.mark.slow
def test_a_short_soak_loses_nothing_and_tells_all_that_befell_it(patchcore, product, tmp_path, capsys, monkeypatch):
    for name, value in NOBODY.items():
        monkeypatch.setenv(name, value)  # the soak sets its own; behind the test they are as before
    pictures, out = sorted((product / "test/good").iterdir()), tmp_path / "soak.json"
    soak.main([str(patchcore), *map(str, pictures), "--minutes", "0.2", "--rate", "4", "--out", str(out)])
    found = read_json(out)["soak"]
    assert (found["reloads"], found["outages"], found["kills"]) == (11, 3, 2)
    assert found["answered"] == 48
    assert found["lost"] == found["stored_twice"] == 0
    assert found["stored_without_an_answer"] <= 2 * soak.CLIENTS  # recorded, and killed before the answer left
    assert found["sent_again"] >= 1  # what was due while nothing listened
    assert len(found["memory_mb_by_life"]) == 3
    assert found["ms"]["kill"]["p99"] > found["ms"]["nothing"]["p50"]
    assert '"answered": 48' in capsys.readouterr().out


def test_an_answer_that_is_not_in_the_store_is_told_at_the_end(monkeypatch, tmp_path):
    """The results are written all the same: an hour was spent on them."""
    answers = [soak.Answer(0.0, 0.1, "a", 1), soak.Answer(0.2, 0.1, "b", 2)]
    clients = SimpleNamespace(answers=answers, refused=0)
    monkeypatch.setattr(soak, "open_store", lambda _: None)
    monkeypatch.setattr(table, "newest_first", lambda *_: [{"record_id": r} for r in ("a", "a", "c")])
    kept = soak._kept(clients)
    assert (kept["lost"], kept["stored_twice"], kept["stored_without_an_answer"], kept["sent_again"]) == (1, 1, 1, 1)
    monkeypatch.setattr(soak, "measured", lambda _: kept)
    with pytest.raises(SystemExit, match="1 answers are not in the store, 1 are in it more than once"):
        soak.main([str(tmp_path), "x.png", "--out", str(tmp_path / "out.json"), "--name", "hour"])
    assert read_json(tmp_path / "out.json")["hour"].items() >= kept.items()


@pytest.mark.parametrize("words", [["--minutes", "0"], ["--rate", "-1"]])
def test_no_time_and_no_rate_are_refused_before_anything_starts(words):
    with pytest.raises(SettingsError, match=f"{words[0]} is {words[1]}; give a number above 0"):
        soak.main(["run", "x.png", *words])
