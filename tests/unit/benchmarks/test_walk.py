"""`loupe bench walk` copies the page's commands and times each step; here with a loupe that does nothing."""

import json
import shutil

import pytest
from PIL import Image

from benchmarks.production import walk
from components.core.errors import StageError
from tests.conftest import tile

STUB = """#!/bin/sh
echo "$@" >> "$SEEN"
[ "$1" = score ] && printf 'image_id\\n1\\n2\\n' > today.csv
[ "$1" != "$FAILS" ] || { echo "loupe: no" >&2; exit 1; }
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder with a program loupe that notes what it is asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/loupe").write_text(STUB)
    (tmp_path / "bin/loupe").chmod(0o755)
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.setenv("FAILS", "-")
    return tmp_path / "bin"


def pictures(folder):
    folder.mkdir()
    Image.fromarray(tile(1)).save(folder / "1.png")
    return folder


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_clone_is_walked_from_the_first_step_to_the_scored_folder(programs, tmp_path, capsys):
    folders = ["--camera", str(pictures(tmp_path / "a")), "--today", str(pictures(tmp_path / "b"))]
    walk.main([*folders, "--programs", str(programs)])
    *table, last = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0][2:5] for line in table[2:]] == ["1. ", "2. ", "3. ", "4. ", "all"]
    assert json.loads(last)["scored"] == 2
    asked = (tmp_path / "seen").read_text().splitlines()
    assert asked[0] == "doctor"
    assert asked[1] == "fit patchcore --data camera --good . --out runs/photos --dry-run"
    assert asked[2] == "fit patchcore --data camera --good . --out runs/photos"
    assert asked[-1].startswith("score runs/photos today")


def test_the_set_up_is_part_of_a_walk_without_an_environment():
    alone, ready = (walk.wanted(walk.parts(), setup) for setup in (True, False))
    assert alone[0].commands.startswith("make setup\n. .venv/bin/activate")
    assert alone[1:] == ready


def test_a_step_that_fails_is_named(programs, tmp_path, monkeypatch):
    monkeypatch.setenv("FAILS", "fit")
    blocks = [walk.Part("1. Look", "", "loupe doctor\n"), walk.Part("2. Train", "", "loupe fit x\n")]
    with pytest.raises(StageError, match=r"2\. Train: failed in .*loupe: no"):
        walk.walked(blocks, tmp_path, walk.environment(tmp_path, programs))


def test_folders_and_variables_last_from_block_to_block(tmp_path):
    texts = ["mkdir -p a\ncd a\nwith=here\n", "touch $with\n"]
    laps = walk.walked([walk.Part("1. One", "", text) for text in texts], tmp_path, walk.environment(tmp_path, None))
    assert (tmp_path / "a/here").exists()
    assert [lap.step for lap in laps] == ["1. One"]
