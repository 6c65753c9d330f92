"""Where the files of a version lie: whatever was stored, it is looked for below the registry of today."""

import json
import shutil
import sqlite3
from pathlib import Path, PurePosixPath

import pytest

from components.core.errors import RegistryError
from components.registry.locations import HOME, below, is_local, noted, place_of
from components.registry.mlflow import MANIFEST, Registry
from components.registry.settings import RegistrySettings

RUN = "0433a8b5ca69445abeb913a0f2cb3635"


@pytest.mark.parametrize(
    "location",
    [
        f"{HOME}{RUN}/artifacts/bundle",
        f"file:///home/me/old%20place/registry/artefacts/{RUN}/artifacts/bundle",
        f"/home/me/registry/artefacts/{RUN}/artifacts/bundle/",
    ],
)
def test_what_is_stored_of_a_local_place_is_what_begins_with_the_run(location):
    assert below(location, RUN) == PurePosixPath(RUN, "artifacts", "bundle")


def test_other_stores_keep_their_addresses():
    assert below(f"s3://plant/models/{RUN}/artifacts/bundle", RUN) is None
    assert [is_local(place) for place in (None, "kept", "file:///kept", "s3://plant/models")] == [True] * 3 + [False]


@pytest.mark.parametrize("location", ["file:///etc", f"/a/{RUN}/../../etc"])
def test_a_location_that_is_not_of_its_run_is_refused(location):
    with pytest.raises(RegistryError, match="names no files of run"):
        below(location, RUN)


def test_a_note_of_a_file_moves_with_the_project(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    pin = first / "artefacts/retrain/v/data.dvc"
    pin.parent.mkdir(parents=True)
    pin.write_text("pin")
    note = noted(pin, first / "registry")
    assert note == "../artefacts/retrain/v/data.dvc"
    old = str(pin)  # as older versions noted it
    first.rename(second)
    for said in (note, old):
        assert place_of(said, second / "registry", second / "artefacts").read_text() == "pin"


def older(folder):
    """A registry as an older version wrote it: whole addresses everywhere."""
    place = (folder / "registry/artefacts").as_uri()
    with sqlite3.connect(folder / "registry/mlflow.db") as known:
        known.execute("update experiments set artifact_location = ? where name = 'loupe'", (place,))
        for table, column in (("runs", "artifact_uri"), ("model_versions", "source")):
            change = f"update {table} set {column} = replace({column}, ?, ?)"
            known.execute(change, (HOME, f"{place}/"))
        known.execute("delete from model_version_tags where key = ?", (MANIFEST,))


def bundle_of(text, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"model": text}))
    return folder


@pytest.mark.parametrize("written", ["today", "before"])
def test_a_registry_that_was_moved_reads_and_writes_its_own_folder(tmp_path, written):
    """The first one stands there with other bytes: nothing is taken from it, nothing comes into it."""
    first, second = tmp_path / "first", tmp_path / "second"
    made = Registry(RegistrySettings(str(first / "registry")))
    made.register("cells", bundle_of("one", tmp_path / "bundle"), {}, {}, {})
    if written == "before":
        older(first)
    shutil.copytree(first, second)
    for path in (first / "registry/artefacts").rglob("manifest.json"):
        path.write_text("that of the first project")
    before = sorted((first / "registry").rglob("*"))
    copied = Registry(RegistrySettings(str(second / "registry")))
    assert json.loads((copied.fetch("cells", "1", tmp_path / "1") / "manifest.json").read_text()) == {"model": "one"}
    copied.register("cells", bundle_of("two", tmp_path / "bundle"), {}, {}, {})
    assert json.loads((copied.fetch("cells", "2", tmp_path / "2") / "manifest.json").read_text()) == {"model": "two"}
    assert sorted((first / "registry").rglob("*")) == before
    assert len(list((second / "registry/artefacts").rglob("manifest.json"))) == 2


def test_a_registry_names_no_place_of_this_machine(tmp_path):
    folder = tmp_path / "registry"
    made = Registry(RegistrySettings(str(folder)))
    made.register("cells", bundle_of("one", tmp_path / "bundle"), {}, {}, {})
    made.promote("cells", "1", (), {})
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        assert str(tmp_path).encode() not in path.read_bytes(), path


def test_a_bundle_that_is_not_the_registered_one_is_brought_anew_or_refused(tmp_path):
    """Of another registry's version 1, or changed by hand, in the cache; and damaged in the registry itself."""
    made = Registry(RegistrySettings(str(tmp_path / "registry")))
    made.register("cells", bundle_of("one", tmp_path / "bundle"), {}, {}, {})
    cached = bundle_of("of another registry", tmp_path / "1/bundle")
    assert json.loads((made.fetch("cells", "1", tmp_path / "1") / "manifest.json").read_text()) == {"model": "one"}
    (kept,) = (tmp_path / "registry/artefacts").rglob("manifest.json")
    kept.write_text("{}")
    assert made.fetch("cells", "1", tmp_path / "1") == cached  # a good copy serves on
    with pytest.raises(RegistryError, match="are not those that were registered"):
        made.fetch("cells", "1", tmp_path / "fresh")
    assert not (tmp_path / "fresh").exists()
    shutil.rmtree(kept.parent)
    with pytest.raises(RegistryError, match="copy the registry's folder as a whole"):
        made.fetch("cells", "1", tmp_path / "fresh")


def test_a_kept_copy_without_one_of_its_files_is_brought_anew(bundle, tmp_path):
    made = Registry(RegistrySettings(str(tmp_path / "registry")))
    made.register("tiles", bundle, {}, {}, {})
    for hurt in (Path.unlink, lambda path: path.write_bytes(b"half")):
        hurt(made.fetch("tiles", "1", tmp_path / "1") / "model.onnx")
        kept = made.fetch("tiles", "1", tmp_path / "1")
        assert (kept / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()


def test_a_folder_of_artefacts_may_lie_elsewhere(tmp_path):
    settings = RegistrySettings(str(tmp_path / "registry"), artefacts=str(tmp_path / "kept"))
    made = Registry(settings)
    made.register("cells", bundle_of("one", tmp_path / "bundle"), {}, {}, {})
    assert len(list((tmp_path / "kept").rglob("manifest.json"))) == 1
    assert (Registry(settings).fetch("cells", "1", tmp_path / "1") / "manifest.json").exists()
    assert made.place == Path(tmp_path / "kept")
