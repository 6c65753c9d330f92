"""Folders through an object store: the same bytes come out, once each, and nothing that somebody has put there."""

import json

import pytest

from components.core.artefacts import tree_hash
from components.core.errors import ObjectError, StorageError
from components.storage import LocalStore
from components.storage.trees import fetch, get_files, send


class Counting(LocalStore):
    """A store that counts what is written."""

    puts = 0

    def put(self, key, data):
        self.puts += 1
        super().put(key, data)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "model"
    (root / "parts").mkdir(parents=True)
    (root / "a.bin").write_bytes(b"\0weights")
    (root / "parts" / "b.json").write_text("{}")
    (root / "parts" / "c.json").write_text("[]")
    return root


def test_a_folder_comes_out_as_it_went_in_without_what_is_hidden(folder, tmp_path):
    before, store = tree_hash(folder), LocalStore(tmp_path / "store")
    (folder / ".model.checkpoint").mkdir()
    (folder / ".model.checkpoint" / "state").write_text("x")
    fetch(store, send(store, folder, "fan"), tmp_path / "out", "fan")
    assert tree_hash(tmp_path / "out") == before


def test_what_is_there_is_not_sent_again(folder, tmp_path):
    store = Counting(tmp_path / "store")
    first = send(store, folder, "fan")
    assert store.puts == 4  # three contents, and the list of names
    (folder / "d").write_text("new")
    assert send(store, folder, "fan") != first
    assert store.puts == 6


def test_a_damaged_object_is_told_and_never_used(folder, tmp_path):
    store = LocalStore(tmp_path / "store")
    tree = send(store, folder, "fan")
    for key in list(store.keys("fan/files/")):
        store.put(key, store.get(key)[:-1])
    with pytest.raises(ObjectError, match="is damaged; delete it"):
        fetch(store, tree, tmp_path / "out", "fan")


@pytest.mark.parametrize("name", ["../away", "/etc/away", "a/../../away", "..\\away"])
def test_no_name_leads_out_of_the_folder(folder, tmp_path, name):
    store = LocalStore(tmp_path / "store")
    listed = json.loads(store.get(f"fan/trees/{send(store, folder, 'fan')}.json"))
    with pytest.raises(StorageError, match="leads out of its folder"):
        get_files(store, {"a.bin": listed["a.bin"], name: listed["a.bin"]}, tmp_path / "out", "fan/files")
    assert not (tmp_path / "out").exists()
