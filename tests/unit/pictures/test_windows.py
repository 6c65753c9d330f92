"""The window of a frame: the frames before it in its folder, by all ways alike."""

from pathlib import Path

import numpy as np
import pytest

from components.core.errors import DataError, SettingsError
from components.detectors.catalogue import create, settings_for
from components.pictures import clips, decoding, kept
from components.pictures.clips import frames, order, past, sides, target, window
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.rules import Decoding as Same
from components.training.clips import ClipTable, clip_table
from components.training.data import FileImages
from components.training.moves import MovedImages
from tests.clips import frame, write_clip

WINDOW = Decoding(stride=1, window=3)


@pytest.fixture
def clip(tmp_path) -> list[Path]:
    return write_clip(tmp_path / "01", 8)


def numbers(paths) -> list[int]:
    return [int(path.stem) for path in paths]


def test_the_past_of_a_frame_is_what_lies_before_it(clip):
    assert numbers(past(clip[5], 3, 1)) == [2, 3, 4]
    assert numbers(past(clip[5], 2, 2)) == [1, 3]


def test_before_the_first_frame_the_first_one_is_repeated(clip):
    assert numbers(past(clip[1], 3, 1)) == [0, 0, 0]
    assert numbers(past(clip[0], 2, 1)) == [0, 0]


def test_pictures_by_themselves_have_no_past(clip):
    assert numbers(past(clip[5], 2, 0)) == [5, 5]


def test_names_sort_as_they_were_counted(tmp_path):
    names = ["f10.png", "f9.png", "f1.png", "a2.png"]
    assert sorted(map(Path, names), key=order) == [Path(n) for n in ("a2.png", "f1.png", "f9.png", "f10.png")]
    for name in (*names, ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in frames(tmp_path)] == ["a2.png", "f1.png", "f9.png", "f10.png"]
    assert frames(tmp_path / "none") == ()


def test_a_folder_that_fills_is_listed_anew(clip):
    assert len(frames(clip[0].parent)) == 8
    write_clip(clip[0].parent, 1, first=8)
    assert len(frames(clip[0].parent)) == 9


@pytest.mark.parametrize("decode", [clips.decode, kept.decode])
def test_a_window_is_its_frames_oldest_first(clip, decode):
    seen = decode(clip[5], rules=WINDOW)
    assert seen.shape == (3, 48, 64, 3)
    assert all((seen[i] == frame(3 + i)).all() for i in range(3))
    assert (decode(clip[5], rules=WINDOW.single) == frame(5)).all()
    assert (target(seen) == frame(5)).all()
    assert sides(seen) == sides(target(seen)) == (48, 64)


def test_frames_on_the_shelf_are_decoded_once(clip, monkeypatch):
    read = []
    known = decoding.picture
    monkeypatch.setattr(decoding, "picture", lambda source, *rest: read.append(source) or known(source, *rest))
    with kept.keeping():
        windows = [kept.decode(path, rules=WINDOW) for path in clip]
    assert len(read) == 8
    assert (windows[7][0] == windows[5][2]).all()


def test_a_broken_frame_is_repeated_by_the_one_behind_it_and_is_no_target(clip):
    clip[4].write_bytes(b"none")
    seen = clips.decode(clip[5], rules=WINDOW)
    assert [(seen[i] == frame(number)).all() for i, number in enumerate((3, 5, 5))] == [True] * 3
    with pytest.raises(DataError, match=r"004\.png"):
        clips.decode(clip[4], rules=WINDOW)


def test_a_frame_of_another_size_is_repeated_too(clip):
    found = window(clip[5], WINDOW, lambda path: np.zeros((9, 9, 3)) if path == clip[4] else frame(int(path.stem)))
    assert (found[1] == found[2]).all()


@pytest.mark.parametrize("decode", [clips.decode, kept.decode])
def test_bytes_are_no_window(clip, decode):
    with pytest.raises(DataError, match=r"upload: is one picture, .* 3 frames .*loupe watch"):
        decode(clip[0].read_bytes(), "upload", WINDOW)
    assert (decode(clip[0].read_bytes(), "upload", DEFAULT) == frame(0)).all()


def test_rules_keep_what_they_say_of_clips_and_are_as_before_without():
    assert Same is Decoding
    assert WINDOW.kept == {"white": None, "max_pixels": DEFAULT.max_pixels, "stride": 1, "window": 3}
    assert Decoding(**WINDOW.kept) == WINDOW
    assert DEFAULT.kept == {"white": None, "max_pixels": DEFAULT.max_pixels}
    assert DEFAULT.content == DEFAULT.identity == [None]
    assert WINDOW.single.content == [None]
    assert len({str(r.identity) for r in (DEFAULT, WINDOW, WINDOW.single, Decoding(stride=2))}) == 4


def images(paths, rules=WINDOW.single) -> FileImages:
    return FileImages(tuple(paths), tuple(path.name for path in paths), rules)


def test_the_table_of_clips_holds_each_frame_once_and_gives_what_files_give(clip):
    table = ClipTable(images(clip[3:]), 32, 3)
    assert len(table) == 5
    assert len(table._frames) == 7, "frames 1 to 7"
    detector = create("stm_ae", settings_for("stm_ae", "tiny", {"size": 32}))
    drawn = table.take([0, 4])
    assert drawn.shape == (2, 3, 3, 32, 32)
    from components.training.model import inputs_of

    files = inputs_of(detector, [clip[3], clip[7]], WINDOW.single)
    assert float((drawn - files).abs().max()) <= 0.51 / 255


def test_the_table_repeats_broken_frames_as_files_do(clip):
    clip[4].write_bytes(b"none")
    table = ClipTable(images([clip[5]]), 32, 3)
    drawn = table.take([0])[0]
    assert (drawn[1] == drawn[2]).all()
    assert (drawn[0] != drawn[1]).any()
    with pytest.raises(DataError, match=r"004\.png"):
        ClipTable(images([clip[4]]), 32, 3)


def test_all_frames_of_a_moved_clip_are_moved_alike(clip):
    moved = MovedImages(images(clip), ("left_right",), 1)
    table = clip_table(moved, 32, 3)
    assert len(table) == 16
    plain, mirrored = table.take([5]), table.take([13])
    assert (mirrored == plain.flip(-1)).all()


def test_clips_are_made_of_files():
    with pytest.raises(SettingsError, match="clips are made of files"):
        clip_table(object(), 32, 3)  # type: ignore[arg-type]


def test_pictures_are_not_cut_for_a_detector_of_clips():
    detector = create("stm_ae", settings_for("stm_ae", "tiny"))
    assert detector.rules(DEFAULT) == Decoding(window=3)
    assert create("padim", settings_for("padim", "tiny")).rules(WINDOW) == WINDOW.single
    with pytest.raises(SettingsError, match=r"stm_ae sees frames whole: set data\.tiles 0"):
        detector.rules(Decoding(tiles=1))
