"""Names from outside never lead outside: the rows of docs/security.md that no other test had. Links as well."""

import json
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from components.cli import app
from components.core.errors import DataError, LoupeError, MonitorError, ObjectError, SettingsError
from components.core.filenames import inside
from components.core.secret import public
from components.datasets.adapters import collected_rows, elpv_rows
from components.monitoring.kept import find
from components.registry.mlflow import Registry, decisions_in
from components.registry.settings import RegistrySettings
from components.retraining.dataset import _candidate
from components.scorelog.shipper import clip_key, image_key
from components.service import bulk
from components.storage import open_store
from tests.service_pages import Line

OUTSIDE = ["../x", "a/../../x", "/etc/passwd", "..", ".", "", "a//b", "a/./b", "a\0b"]


@pytest.fixture
def outside(tmp_path):
    """A secret beside the folders of a test; none of them may hold it in the end."""
    (tmp_path / "secret.txt").write_text("s3cret")
    return tmp_path / "secret.txt"


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_stays_below_its_folder(tmp_path, name):
    with pytest.raises(DataError, match="would lie outside"):
        inside(tmp_path, name)
    assert inside(tmp_path, "a/b..c/d.png") == tmp_path / "a/b..c/d.png"


@pytest.mark.parametrize("name", [name for name in OUTSIDE if name not in (".", "..")] + ["a/b", "a b", "é", "x" * 101])
def test_names_of_models_are_names_of_folders(tmp_path, bundle, name):
    registry = Registry(RegistrySettings(str(tmp_path / "registry")))
    for ask in (
        lambda: registry.register(name, bundle, {}, {}, {}),
        lambda: registry.promote(name, "1", ("x",), {}),
        lambda: registry.rollback(name),
        lambda: decisions_in(tmp_path / "registry", name),
    ):
        with pytest.raises(LoupeError):
            ask()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("sha256", ["../../../secret.txt", "/etc/passwd", "", "a/b", "..", "0" * 200])
def test_a_record_that_somebody_put_into_the_store_reads_no_file_of_the_service(bundle, tmp_path, sha256, outside):
    line = Line(bundle, tmp_path / "line")
    shutil.copy(outside, tmp_path / "line")
    identity = line.put("a", alarm=True, sha256=sha256)
    for what in ("image", "clip", "overlay"):
        answer = line.http.get(f"/v1/records/{identity}/{what}")
        assert (answer.status_code, "s3cret" in answer.text) == (422, False)
    for key in (image_key, clip_key):
        with pytest.raises(DataError, match="which is none"):
            key(sha256)


def test_ids_and_static_files_lead_nowhere(bundle, tmp_path, outside):
    line = Line(bundle, tmp_path / "line")
    for path in ("/static/..%2f..%2fsecret.txt", "/static/%2e%2e/secret.txt", "/v1/records/..%2f..%2fsecret.txt/image"):
        answer = line.http.get(path)
        assert (answer.status_code, "s3cret" in answer.text) == (404, False), path
    assert line.http.put("/v1/records/..%2f..%2fx/label", json={"label": "defect"}).status_code == 404
    assert outside.read_text() == "s3cret"


@pytest.mark.parametrize("key", ["../../x.py", "/tmp/x.py", "a//b"])
def test_a_bundle_that_comes_by_the_store_writes_into_its_own_folder_only(monkeypatch, key):
    """S3 takes any key; a local store has none of these."""

    class Store:
        def keys(self, prefix):
            return iter([prefix + key])

        def get(self, _):
            raise AssertionError("it was read, and would be written")

    monkeypatch.setattr(bulk, "open_store", lambda _: Store())
    with pytest.raises(DataError, match="would lie outside"):
        bulk._bundle.__wrapped__("s3://a/b", "model")


def test_a_shard_that_names_places_outside_costs_that_line_only(tmp_path, outside):
    """LocalStore refuses the key as one object, so no worker waits for a store that is there."""
    store = open_store(str(tmp_path / "store"))
    for name in ("../secret.txt", str(outside), "a/../../secret.txt"):
        with pytest.raises(ObjectError, match="is not a key"):
            store.get(name)


def test_a_verdict_goes_by_the_name_under_which_it_is_stored(tmp_path):
    store = open_store(str(tmp_path / "store"))
    for name in ("../../x-1-00001", "a/b-1-00001", "x", "", "..-..-.."):
        with pytest.raises((MonitorError, ObjectError)):
            find(store, name)
    known = {"id": "../../x", "model": "tiles"}
    store.put("monitoring/verdicts/line/abc/00001.json", json.dumps(known).encode())
    with pytest.raises(LoupeError):
        find(store, "line-abc-00001")


@pytest.mark.parametrize("source", ["../../x", "/x", "..", "a/../../b"])
def test_a_candidate_is_written_into_the_new_version_only(tmp_path, source):
    (tmp_path / "candidates" / "images").mkdir(parents=True)
    (tmp_path / "candidates" / "images" / "a.png").write_bytes(b"")
    row = {"part": "train", "source": source, "file": "images/a.png"}
    with pytest.raises(DataError, match="would lie outside"):
        _candidate(row, tmp_path / "candidates", tmp_path / "out")


def test_tables_of_data_sets_name_pictures_of_their_own_folder(tmp_path):
    for name in ("../secret.txt", "/etc/passwd"):
        pd.DataFrame(
            [{"image_id": name, "group": "g", "label": "normal", "defect": "", "role": "train", "mask": ""}]
        ).to_csv(tmp_path / "images.csv")
        (tmp_path / "labels.csv").write_text(f"{name} 1.0 mono\n")
        for read in (collected_rows, elpv_rows):
            with pytest.raises(DataError, match="would lie outside"):
                read(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["users", "add", "../x", "--role", "viewer"],
        ["retrain", "../../x-1-00001"],
        ["promote", "../x", "1", "--reason", "x"],
        ["rollback", "../x"],
        ["models", "../x"],
        ["serve", "../x"],
    ],
)
def test_commands_refuse_names_that_are_places(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOUPE_USERS", "users.json")
    (tmp_path / "params.yaml").write_text("data: {}\nviews: {}\n")
    before = sorted(tmp_path.parent.iterdir())
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, LoupeError), result.output
    assert sorted(tmp_path.parent.iterdir()) == before


def test_a_link_in_place_of_a_key_is_not_written_through(tmp_path, outside):
    """Whoever may write into a folder of keys could lead the private half elsewhere, or read what is there."""
    from components.core.signing import new_keys

    (tmp_path / "sign.key").symlink_to(outside)
    (tmp_path / "other.key.pub").symlink_to(tmp_path / "nowhere")
    for name in ("sign.key", "other.key"):
        with pytest.raises(SettingsError, match="is there already"):
            new_keys(tmp_path / name)
    assert (outside.read_text(), (tmp_path / "nowhere").exists()) == ("s3cret", False)


def test_addresses_in_messages_have_no_passwords():
    assert public("rtsp://ada:s3cret@camera/1 refused") == "rtsp://camera/1 refused"
    assert public("http://a:b@mlflow:5001 and s3://bucket/x@y") == "http://mlflow:5001 and s3://bucket/x@y"
