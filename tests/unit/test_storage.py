"""The object stores: one set of promises, kept by a folder and by S3."""

import threading

import pytest

from components.errors import StorageError
from components.storage import LocalStore, open_store


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    return open_store(str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3"))


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
    with pytest.raises(StorageError, match="there"):
        store.get("there")


def test_a_key_cannot_leave_the_folder(tmp_path):
    with pytest.raises(StorageError, match="keys stay below"):
        LocalStore(tmp_path / "store").put("../outside", b"x")
    assert not (tmp_path / "outside").exists()


def test_a_half_written_file_is_no_object(tmp_path):
    store = LocalStore(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".crashed.part").write_bytes(b"half")
    assert list(store.keys("a/")) == []


def test_an_unreachable_server_is_told(monkeypatch):
    for name, value in {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x",
                        "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match="is the store running"):
        open_store("s3://nobody/here").put("k", b"x")
