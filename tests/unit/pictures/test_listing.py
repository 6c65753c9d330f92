"""One listing for data sets, scoring and copying."""

import os

import pytest

from components.core.filenames import hidden, normal, printable
from components.pictures.listing import Listing, pictures


def touched(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_pictures_are_found_at_any_depth_and_the_rest_is_told(tmp_path):
    wanted = [touched(tmp_path / name) for name in ("a.png", "day 1/b.JPG", "day 1/cam/c.jp2")]
    (tmp_path / "export.png").mkdir()
    for name in (".hidden.png", "._a.png", "Thumbs.db", "__MACOSX/a.png", "@eaDir/b.png", "notes.txt", "c.png.part"):
        touched(tmp_path / name)
    (tmp_path / "gone.png").symlink_to("/nowhere.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = pictures(tmp_path)
    assert found.taken == tuple(sorted(wanted))
    assert {reason: len(paths) for reason, paths in found.skipped.items()} == {
        "hidden or of the system": 6,
        ".txt": 1,
        "broken link": 1,
        "folder linked again": 1,
    }
    assert found.summary() == (
        "taken 3 pictures; skipped 9: 6 hidden or of the system, 1 .txt, 1 broken link, 1 folder linked again"
    )


def test_nothing_passed_over_needs_no_words():
    assert Listing((), {}).summary() == "taken 0 pictures"


@pytest.mark.parametrize("name", [".DS_Store", "._x.png", "Thumbs.db", "desktop.ini", "x.png.tmp", "~x.png"])
def test_names_of_systems_and_copy_tools_are_hidden(name):
    assert hidden(name)
    assert not hidden("x.png")


def test_names_are_told_in_one_way():
    assert normal("Pru\u0308fling") == "Prüfling"
    odd = os.fsdecode(b"bild \xfc.png")
    assert printable(odd) == "bild \\xfc.png"
    assert printable("bild \\xfc.png") != printable(odd)
    assert printable("Prüfling.png") == "Prüfling.png"
