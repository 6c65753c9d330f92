"""Where trusted keys are named, a bundle that is not whole and signed by one of them is refused before it is loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import components
from components.calibration.point import moved
from components.cli import app
from components.core.artefacts import read_json, tree_hash
from components.core.errors import BundleError, SettingsError
from components.core.signing import SIGN, TRUST, new_keys, sign, sign_where_asked, verify
from components.decision import bundle as opening
from components.decision.batch import score
from components.decision.bundle import Bundle
from components.export.repoint import repoint
from components.pipeline.operating import PointRequest, set_point
from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings
from components.service.champion import Champion


@pytest.fixture
def key(tmp_path):
    """A private key; its public half is trusted by nobody yet."""
    new_keys(tmp_path / "keys" / "sign.key")
    return tmp_path / "keys" / "sign.key"


@pytest.fixture
def signed(bundle, tmp_path, key, monkeypatch):
    """A copy of the bundle, signed by the trusted key."""
    own = shutil.copytree(bundle, tmp_path / "signed")
    sign(own, key)
    monkeypatch.setenv(TRUST, f"{key}.pub")
    return own


@pytest.fixture
def unloaded(monkeypatch):
    """A session that is opened all the same fails the test."""

    def loaded(*_):
        raise AssertionError("a graph was loaded")

    monkeypatch.setattr(opening, "session", loaded)


def test_a_signed_bundle_scores_and_is_still_the_same_artefact(signed, bundle, product, tmp_path):
    table = score(signed, [product / "test/good/000.png"], tmp_path / "out.csv")
    assert table.exists()
    assert verify(signed) == read_json(signed / "signature.json")["key"]
    assert tree_hash(signed) == tree_hash(bundle)


@pytest.mark.usefixtures("unloaded")
def test_every_file_altered_in_turn_is_refused(signed):
    names = [path.name for path in sorted(signed.iterdir())]
    assert {"model.onnx", "calibration.json", "manifest.json", "run.json", "timing.json", "signature.json"} <= set(
        names
    )
    for name in names:
        whole = (signed / name).read_bytes()
        (signed / name).write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        with pytest.raises(BundleError, match=name):
            Bundle.open(signed)
        (signed / name).write_bytes(whole)
        assert verify(signed)


@pytest.mark.usefixtures("unloaded")
def test_a_bundle_made_anew_with_fitting_hashes_is_refused(signed):
    """manifest.json alone protects against accidents: who changes the graph changes it, too."""
    from components.core.artefacts import file_hash, write_json

    (signed / "model.onnx").write_bytes(b"another graph")
    manifest = read_json(signed / "manifest.json")
    manifest["files"]["model.onnx"] = file_hash(signed / "model.onnx")
    write_json(signed / "manifest.json", manifest)
    assert opening.whole(signed)
    with pytest.raises(BundleError, match="was changed since the bundle was signed"):
        Bundle.open(signed)


@pytest.mark.usefixtures("unloaded")
def test_the_list_of_a_signature_cannot_be_changed(signed):
    from components.core.artefacts import file_hash

    (signed / "calibration.json").write_bytes((signed / "calibration.json").read_bytes() + b" ")
    said = read_json(signed / "signature.json")
    said["files"]["calibration.json"] = file_hash(signed / "calibration.json")
    (signed / "signature.json").write_text(json.dumps(said))
    with pytest.raises(BundleError, match="is no signature of this list"):
        Bundle.open(signed)


@pytest.mark.usefixtures("unloaded")
def test_files_added_removed_linked_or_unsigned_are_refused(signed):
    (signed / "more.py").write_text("")
    with pytest.raises(BundleError, match=r"more\.py: was added since"):
        Bundle.open(signed)
    (signed / "more.py").unlink()
    (signed / "below").mkdir()
    (signed / "below" / "more.py").write_text("")
    with pytest.raises(BundleError, match=r"more\.py: was added since"):
        Bundle.open(signed)
    shutil.rmtree(signed / "below")
    (signed / "runner.py").rename(signed.parent / "runner.py")
    with pytest.raises(BundleError, match=r"runner\.py: is missing since"):
        Bundle.open(signed)
    (signed / "runner.py").symlink_to(signed.parent / "runner.py")  # the bytes fit, today
    with pytest.raises(BundleError, match=r"runner\.py: is a link"):
        Bundle.open(signed)
    (signed / "signature.json").unlink()
    with pytest.raises(BundleError, match="is not signed"):
        Bundle.open(signed)


def test_a_foreign_key_is_refused_and_two_keys_are_trusted_while_they_rotate(signed, key, tmp_path, monkeypatch):
    public, _ = new_keys(tmp_path / "keys" / "next.key")
    monkeypatch.setenv(TRUST, str(public))
    with pytest.raises(BundleError, match=r"is signed by key .* does not name"):
        Bundle.open(signed)
    monkeypatch.setenv(TRUST, os.pathsep.join([f"{key}.pub", str(public)]))
    assert Bundle.open(signed)
    sign(signed, tmp_path / "keys" / "next.key")
    assert Bundle.open(signed)
    monkeypatch.setenv(TRUST, str(tmp_path / "keys"))  # a folder of keys
    assert Bundle.open(signed)
    monkeypatch.setenv(TRUST, f"{key}.pub")  # the old one alone
    with pytest.raises(BundleError, match="is signed by key"):
        Bundle.open(signed)


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"files": {}, "key": 1}', '{"files": [], "key": "a", "signature": "AA=="}', "[" * 100_000]
)
def test_what_is_no_signature_is_told(signed, text):
    (signed / "signature.json").write_text(text)
    with pytest.raises(BundleError, match="is no signature"):
        Bundle.open(signed)


def test_keys_that_are_none_are_told(signed, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for place, said in ((tmp_path / "empty", "holds no public key"), (tmp_path / "nowhere", "cannot be read")):
        monkeypatch.setenv(TRUST, str(place))
        with pytest.raises(SettingsError, match=said):
            Bundle.open(signed)
    monkeypatch.setenv(TRUST, str(signed / "model.onnx"))
    with pytest.raises(SettingsError, match="is no public ed25519 key"):
        Bundle.open(signed)
    with pytest.raises(SettingsError, match="is no private ed25519 key"):
        sign(signed, Path(f"{tmp_path}/keys/sign.key.pub"))


def test_without_the_package_the_line_is_told_what_to_install(signed, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(SettingsError, match="pip install cryptography"):
        Bundle.open(signed)


def test_a_private_key_is_its_owners_alone_and_never_overwritten(key):
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SettingsError, match="is there already"):
        new_keys(key)


def test_another_threshold_is_signed_anew_or_refused_where_no_key_is(signed, key, monkeypatch):
    before = tree_hash(signed)
    with pytest.raises(SettingsError, match=SIGN):
        set_point(PointRequest(signed, alpha=0.3))
    assert (tree_hash(signed), bool(verify(signed))) == (before, True)  # the old one stays, whole and signed
    monkeypatch.setenv(SIGN, str(key))
    set_point(PointRequest(signed, alpha=0.3))
    assert Bundle.open(signed).calibration.alpha == 0.3


def test_without_keys_a_signature_that_no_longer_fits_goes(signed, monkeypatch):
    monkeypatch.delenv(TRUST)
    repoint(signed, moved(read_json(signed / "calibration.json"), 0.3))
    assert not (signed / "signature.json").exists()


def test_registration_signs_and_promotion_wants_a_signature(bundle, key, tmp_path, monkeypatch):
    registry = Registry(RegistrySettings(str(tmp_path / "registry")))
    registry.register("tiles", bundle, {}, {}, {})
    monkeypatch.setenv(SIGN, str(key))
    registry.register("tiles", bundle, {}, {}, {})
    assert not (bundle / "signature.json").exists()  # the registry's copy is signed
    monkeypatch.setenv(TRUST, f"{key}.pub")
    with pytest.raises(BundleError, match="is not signed"):
        registry.promote("tiles", "1", ("first",), {})
    assert (registry.champion("tiles"), registry.decisions("tiles")) == (None, [])
    registry.promote("tiles", "2", ("signed",), {})
    assert Champion("tiles", registry, tmp_path / "models", 1).served.version == "2"


def test_a_service_does_not_start_on_and_does_not_swap_to_what_is_unsigned(bundle, key, tmp_path, monkeypatch):
    registry = Registry(RegistrySettings(str(tmp_path / "registry")))
    monkeypatch.setenv(SIGN, str(key))
    registry.register("tiles", bundle, {}, {}, {})
    monkeypatch.delenv(SIGN)
    registry.register("tiles", bundle, {}, {}, {})
    registry.promote("tiles", "1", ("signed",), {})
    monkeypatch.setenv(TRUST, f"{key}.pub")
    champion = Champion("tiles", registry, tmp_path / "models", 1)
    registry.client.set_registered_model_alias("tiles", "champion", "2")  # by somebody past Loupe
    assert champion.refresh() is False
    assert champion.served.version == "1"
    with pytest.raises(BundleError, match="is not signed"):
        Champion("tiles", registry, tmp_path / "others", 1)


def test_a_kept_copy_that_was_changed_is_brought_anew(bundle, key, tmp_path, monkeypatch):
    registry = Registry(RegistrySettings(str(tmp_path / "registry")))
    monkeypatch.setenv(SIGN, str(key))
    registry.register("tiles", bundle, {}, {}, {})
    monkeypatch.setenv(TRUST, f"{key}.pub")
    kept = registry.fetch("tiles", "1", tmp_path / "kept")
    (kept / "more.py").write_text("import os")
    assert Bundle.open(registry.fetch("tiles", "1", tmp_path / "kept"))
    assert not (kept / "more.py").exists()


def test_commands_make_keys_sign_and_verify(bundle, tmp_path, monkeypatch):
    own, place = shutil.copytree(bundle, tmp_path / "own"), tmp_path / "sign.key"
    said = CliRunner().invoke(app, ["keys", "new", str(place)]).output
    assert "BEGIN" not in said
    name = said.split()[1].rstrip(":")
    assert CliRunner().invoke(app, ["sign", str(own), "--key", str(place)]).exit_code == 0
    told = CliRunner().invoke(app, ["verify", str(own), "--keys", f"{place}.pub"])
    assert f"signed by key {name}" in told.output
    monkeypatch.delenv(TRUST, raising=False)
    (own / "model.onnx").write_bytes(b"")
    assert isinstance(CliRunner().invoke(app, ["sign", str(own), "--key", str(place)]).exception, BundleError)


def test_a_run_is_signed_and_verified_by_the_bundle_in_it(bundle, tmp_path):
    own, place = shutil.copytree(bundle, tmp_path / "run/bundle"), tmp_path / "sign.key"
    for words in (["keys", "new", place], ["sign", own.parent, "--key", place]):
        assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0
    told = CliRunner().invoke(app, ["verify", str(own.parent), "--keys", f"{place}.pub"])
    assert told.output.startswith(f"{own}: signed by key")


def test_the_bundles_own_runner_says_that_it_cannot_vouch(signed):
    done = subprocess.run([sys.executable, signed / "runner.py", "a.png"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "its own runner cannot vouch for it" in done.stderr


def test_the_scorer_without_typer_refuses_too(signed, product, tmp_path):
    (signed / "MODEL_CARD.md").write_text("better than ever")
    command = [sys.executable, "-m", "components.decision", signed, product / "test/good/000.png", "--out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(components.__file__).parents[1])}
    done = subprocess.run([*command, tmp_path / "o.csv"], capture_output=True, text=True, env=environment)
    assert (done.returncode, "MODEL_CARD.md: was changed since the bundle was signed" in done.stderr) == (1, True)


def test_an_export_signs_where_a_key_is_named(signed, key, monkeypatch):
    """``export`` gives this to ``recorded`` as its seal; training one takes longer than a test of this may."""
    from components.core.artefacts import recorded

    monkeypatch.setenv(SIGN, str(key))
    out = signed.parent / "made"
    with recorded(out, "export", {}, {}, seal=sign_where_asked) as scratch:
        (scratch / "manifest.json").write_text("{}")
    assert verify(out)
    assert set(read_json(out / "signature.json")["files"]) == {"manifest.json", "run.json", "timing.json"}


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("name", ["../other.onnx", "/etc/passwd", "..", "a/b", "a\\b", ""])
def test_a_manifest_names_files_of_its_own_folder_only(bundle, tmp_path, name):
    own = shutil.copytree(bundle, tmp_path / "own")
    manifest = read_json(own / "manifest.json")
    (own / "manifest.json").write_text(json.dumps(manifest | {"files": {name: "0" * 64}}))
    with pytest.raises(BundleError, match="is none in the bundle"):
        Bundle.open(own)
