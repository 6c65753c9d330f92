"""The object stores: one set of promises, kept by a folder and by S3."""

import hashlib
import os
import threading
import time

import pytest

from components.core.errors import ObjectError, StorageError
from components.storage import open_store
from components.storage.local import LocalStore
from components.storage.s3 import S3Store
from components.storage.settling import settled, written
from tests.s3 import NOBODY


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "folder":
        return LocalStore(tmp_path / "store")
    return S3Store(request.getfixturevalue("s3"))


def test_an_address_says_which_store_it_is(s3, tmp_path):
    assert isinstance(open_store(s3), S3Store)
    assert isinstance(open_store(str(tmp_path)), LocalStore)


def test_objects_come_back_and_are_replaced(store):
    store.put("a/b.txt", b"one")
    store.put("a/b.txt", b"two")
    assert (store.get("a/b.txt"), store.exists("a/b.txt"), store.exists("a/b")) == (b"two", True, False)


def test_keys_are_sorted_and_limited_to_the_prefix(store):
    for key in ("a/2", "a/1", "ab/1", "b/c/1"):
        store.put(key, b"x")
    assert list(store.keys("a/")) == ["a/1", "a/2"]
    assert list(store.keys("a")) == ["a/1", "a/2", "ab/1"]
    assert store.folders("") == ["a", "ab", "b"]
    assert store.folders("b/") == ["c"]


def test_of_two_new_objects_one_wins(store):
    outcomes = []
    threads = [threading.Thread(target=lambda i=i: outcomes.append(store.put_new("k", b"%d" % i))) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 5 + [True]
    assert not store.put_new("k", b"later")


def test_absent_objects_say_so(store):
    store.put("there", b"x")
    store.delete("there")
    store.delete("there")
    with pytest.raises(ObjectError, match="there"):
        store.get("there")


def test_a_key_cannot_leave_the_folder(tmp_path):
    with pytest.raises(StorageError, match="keys stay below"):
        LocalStore(tmp_path / "store").put("../outside", b"x")
    assert not (tmp_path / "outside").exists()


def digest(content):
    return hashlib.sha256(content).hexdigest()


def test_only_the_bytes_that_were_meant_are_removed(store):
    for key in ("a/x", "a/y"):
        store.put(key, b"new")
    assert store.remove_unchanged("a/x", digest(b"new"))
    assert not store.remove_unchanged("a/x", digest(b"new"))
    assert not store.remove_unchanged("a/y", digest(b"old"))
    assert (list(store.keys("a/")), store.get("a/y")) == (["a/y"], b"new")


@pytest.mark.parametrize("there", [b"old", b"newer"])
def test_what_comes_in_the_middle_of_a_removal_stays(tmp_path, monkeypatch, there):
    """The file is replaced before the rename, and again behind it: both new ones stay."""
    store, real, path = LocalStore(tmp_path), os.rename, tmp_path / "a/x.png"
    store.put("a/x.png", there)

    def rename(source, target):
        real(source, target)
        path.write_bytes(b"newest")

    monkeypatch.setattr(os, "rename", rename)
    assert store.remove_unchanged("a/x.png", digest(b"old")) == (there == b"old")
    assert {store.get(key) for key in store.keys("a/")} == {b"newest"} | {there} - {b"old"}


def test_an_object_that_is_replaced_before_its_deletion_stays(s3, monkeypatch):
    store = open_store(s3)
    store.put("a/x", b"old")
    real = store._get

    def get(key):
        found = real(key)
        store.put(key, b"new")
        return found

    monkeypatch.setattr(store, "_get", get)
    assert not store.remove_unchanged("a/x", digest(b"old"))
    assert list(store.keys("a/")) == ["a/x"]


def test_a_server_without_conditions_deletes_as_before(s3, monkeypatch):
    from botocore.exceptions import ClientError

    store = open_store(s3)
    store.put("a/x", b"old")
    real = store.client.delete_object

    def delete(**given):
        if "IfMatch" in given:
            raise ClientError({"Error": {"Code": "NotImplemented"}}, "DeleteObject")
        return real(**given)

    monkeypatch.setattr(store.client, "delete_object", delete)
    assert store.remove_unchanged("a/x", digest(b"old"))
    assert list(store.keys("a/")) == []


@pytest.mark.parametrize("step", ["rename", "link", "unlink"])
@pytest.mark.parametrize("again", [True, False])
def test_a_removal_that_died_is_taken_up_where_it_was(tmp_path, monkeypatch, step, again):
    store, path = LocalStore(tmp_path), tmp_path / "a/x.png"
    store.put("a/x.png", b"new")

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, die)
    with pytest.raises(KeyboardInterrupt):
        store.remove_unchanged("a/x.png", digest(b"old"))
    monkeypatch.undo()
    if again:
        path.unlink(missing_ok=True)
        path.write_bytes(b"newest")
    store.remove_unchanged("a/x.png", digest(b"old"))
    expected = {b"new"} if not again else {b"newest"} if step == "rename" else {b"newest", b"new"}
    assert {store.get(key) for key in store.keys("a/")} == expected
    assert len(list(store.keys("a/"))) == len(expected)
    assert [p.name for p in (tmp_path / "a").iterdir() if p.suffix == ".part"] == []


def test_settled_objects_come_up_to_the_limit(store):
    for i in range(5):
        store.put(f"a/{i}", b"x")
    assert store.settled(store.keys("a/"), 0, 3) == ["a/0", "a/1", "a/2"]


def test_a_file_open_for_writing_is_seen_and_one_open_for_reading_is_not(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    inode = ((state := (tmp_path / "a").stat()).st_dev, state.st_ino)
    with (tmp_path / "a").open("rb"):
        assert inode not in written()
    with (tmp_path / "a").open("ab"):
        assert inode in written()
    assert inode not in written()


def test_files_that_grow_between_two_looks_are_not_settled(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("grows", "goes", "stays")]
    for path in paths:
        path.write_bytes(b"x")

    def sleep(_):
        paths[0].write_bytes(b"xy")
        paths[1].unlink()

    monkeypatch.setattr(time, "sleep", sleep)
    assert settled(paths, 60, 10) == [paths[2]]


def test_an_unreadable_object_is_told_from_a_store_that_is_gone(tmp_path):
    store = LocalStore(tmp_path / "store")
    with pytest.raises(StorageError) as told:
        store.get("a")
    assert not isinstance(told.value, ObjectError)
    (tmp_path / "store/a").mkdir(parents=True)
    with pytest.raises(ObjectError):
        store.get("a")
    with pytest.raises(StorageError, match="cannot be written"):
        store.put("a", b"x")
    assert list(store.keys("")) == []


def test_a_half_written_file_is_no_object(tmp_path):
    store = LocalStore(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".crashed.part").write_bytes(b"half")
    assert list(store.keys("a/")) == []


@pytest.mark.slow
def test_an_unreachable_server_is_told(monkeypatch):
    for name, value in NOBODY.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match="is the store running"):
        open_store("s3://nobody/here").put("k", b"x")
