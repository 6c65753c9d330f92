"""Any name in the inbox, as people, cameras and systems give it, ends in a source and an image that readers find."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.filenames import hidden
from components.decision.bundle import Bundle
from components.scorelog import keeping, table
from components.service import filing, inbox
from components.service.inbox import Processed
from components.service.settings import InboxSettings
from components.storage import LocalStore, open_store
from tests.unit.service.test_inbox import AT, LATER, png, process, records


@pytest.fixture(scope="module")
def opened(bundle):
    return Bundle.open(bundle)


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    return open_store(str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3"))


LEFT_ASIDE = [
    "line-1/.DS_Store",
    "line-1/._a.png",
    "line-1/Thumbs.db",
    "line-1/desktop.ini",
    "__MACOSX/line-1/a.png",
    "line-1/a.png.part",
    "line-1/a.tmp",
    "line-1/a.png.filepart",
    "line-1/a.png.crdownload",
    "line-1/a.png~",
    "line-1/.syncing/a.png",
    ".hidden.png",
]


def test_hidden_and_temporary_files_are_left_alone(store, opened):
    for name in LEFT_ASIDE:
        store.put(f"inbox/{name}", png(0))
    assert process(store, opened, AT, limit=1) == Processed(0, {})
    store.put("inbox/line-1/a.png", png(0))
    assert process(store, opened, AT, limit=1) == Processed(1, {})
    assert list(store.keys("quarantine/")) == []


@pytest.mark.parametrize(
    ("key", "source", "image"),
    [
        ("line-1/2024-05-01/a.png", "line-1", "2024-05-01/a.png"),
        ("line-1/2024/05/01/shift 2/a.png", "line-1", "2024/05/01/shift 2/a.png"),
        ("a.png", "line", "a.png"),
        ("Presse Süd/b.png", "Presse Süd", "b.png"),
        ("Linie=1 100%41/c.png", "Linie=1 100%41", "c.png"),
        ("a+b & c?#[x]/d.png", "a+b & c?#[x]", "d.png"),
        ("产线/图.png", "产线", "图.png"),
        (unicodedata.normalize("NFD", "Süd/ü.png"), "Süd", "ü.png"),
    ],
)
def test_any_folder_names_a_source_that_the_readers_find(store, opened, key, source, image):
    store.put(f"inbox/{key}", png(0))
    assert process(store, opened, AT) == Processed(1, {})
    assert table.sources(store) == [source]
    assert table.days(store, table.SCORES, source) == ["2026-01-02"]
    assert [(r["source"], r["image_id"]) for r in records(store)] == [(source, image)]
    assert store.get(records(store)[0]["image_uri"]) == png(0)
    assert keeping.compact(store, table.SCORES, source, LATER) == 0


def test_names_that_no_key_can_hold_get_one_that_stays_the_same(tmp_path, opened):
    store = LocalStore(tmp_path)
    names = [b"Presse S\xfcd", b"Presse S\xfbd", b"x" * 250, b"x" * 249 + b"y", b"new\nline"]
    for name in names:
        folder = os.fsencode(tmp_path) + b"/inbox/" + name
        os.makedirs(folder)  # noqa: PTH103  (bytes)
        Path(os.fsdecode(folder), os.fsdecode(b"bild \xfc" + b"z" * 200 + b".png")).write_bytes(png(0))
        Path(os.fsdecode(folder), os.fsdecode(b"bad \xfc" + b"z" * 200 + b".png")).write_bytes(b"bad")
    done = inbox.process(store, opened, AT, settings=InboxSettings(0, attempts=1))
    assert (done.scored, len(done.quarantined), done.waiting) == (5, 5, 0)
    found = table.sources(store)
    assert len(found) == 5
    assert all(name.isprintable() and len(name.encode()) <= filing.NAME_BYTES for name in found)
    assert all(r["image_id"].isprintable() and r["image_id"].endswith(".png") for r in records(store))
    assert len(list(store.keys("quarantine/"))) == 10
    assert list(store.keys("inbox/")) == []


def test_a_link_is_scored_and_its_file_stays(tmp_path, opened):
    store, away = LocalStore(tmp_path / "store"), tmp_path / "camera"
    (away / "day").mkdir(parents=True)
    (away / "day" / "a.png").write_bytes(png(0))
    (away / "b.png").write_bytes(png(1))
    (tmp_path / "store/inbox/line-1").mkdir(parents=True)
    (tmp_path / "store/inbox/line-1/b.png").symlink_to(away / "b.png")
    (tmp_path / "store/inbox/line-2").symlink_to(away / "day")
    (away / "day" / "round").symlink_to(away / "day")
    assert process(store, opened, AT) == Processed(2, {})
    assert [p.name for p in away.iterdir() if p.is_file()] == ["b.png"]
    assert not (tmp_path / "store/inbox/line-1/b.png").is_symlink()


def test_a_folder_marker_of_s3_is_no_picture(s3, opened):
    store = open_store(s3)
    store.put("inbox/line-1/", b"")
    store.put("inbox//line-1//a.png", png(0))
    assert process(store, opened, AT) == Processed(1, {})
    assert [(r["source"], r["image_id"]) for r in records(store)] == [("line-1", "a.png")]


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
).filter(lambda name: not hidden(name))


@given(st.lists(NAMES, min_size=1, max_size=4))
@settings(max_examples=300)
@pytest.mark.slow
def test_a_filed_name_is_stable_and_can_be_stored(names):
    source, image = filing.filed("inbox/" + "/".join(names))
    assert (source, image) == filing.filed("inbox/" + "/".join(unicodedata.normalize("NFD", name) for name in names))
    day = {"source": source, "scored_at": "2026-01-02T00:00:00"}
    assert table.partition(table.SCORES, day) == f"scores/source={source}/day=2026-01-02/"
    assert len(f"source={source}".encode()) <= 255
    assert "\n" not in source + image
    if all(name.isprintable() and len(name.encode()) < 50 for name in names) and len(names) > 1:
        assert (source, image) == (
            unicodedata.normalize("NFC", names[0]),
            unicodedata.normalize("NFC", "/".join(names[1:])),
        )


@given(st.lists(NAMES.filter(lambda name: len(name.encode()) < 250), min_size=2, max_size=3, unique=True))
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_any_name_goes_through_the_inbox(tmp_path_factory, opened, names):
    store = LocalStore(tmp_path_factory.mktemp("fuzz"))
    for name in names:
        store.put(f"inbox/{name}/{name}", png(1))
    assert process(store, opened, AT) == Processed(len(names), {})
    filed = [filing.filed(f"inbox/{name}/{name}") for name in names]
    assert sorted((r["source"], r["image_id"]) for r in records(store)) == sorted(filed)
    assert list(store.keys("inbox/")) == []
