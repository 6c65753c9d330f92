"""Signed bundles: ed25519 over the hash of every file, checked against the public keys that the environment names.

Trust comes from the environment of the process and not from params.yaml, which lies beside the bundles and is written
by whoever may write these. RFC 8032 through ``cryptography``, which is imported only where a key is used.
"""

import base64
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.core.artefacts import SIGNATURE, file_hash, read_json, write_json
from components.core.errors import BundleError, DataError, SettingsError
from components.core.places import writing

SIGN, TRUST = "LOUPE_SIGN_KEY", "LOUPE_VERIFY_KEYS"
PUBLIC = ".pub"
LARGEST = 10_000_000  # bytes of a signature.json; it names some twenty files
MESSAGE = b"loupe bundle 1\n"  # what is signed begins with it, so that no signature of another thing fits


def new_keys(place: Path) -> tuple[Path, str]:
    """A private key at *place*, for its owner alone, and its public half beside it; that file and the key's name.

    Raises SettingsError where one of them is there already: a key that is overwritten is lost.
    """
    private, public = _ed25519().Ed25519PrivateKey.generate(), place.with_name(place.name + PUBLIC)
    coding = _serialization()
    secret = private.private_bytes(coding.Encoding.PEM, coding.PrivateFormat.PKCS8, coding.NoEncryption())
    open_half = private.public_key().public_bytes(coding.Encoding.PEM, coding.PublicFormat.SubjectPublicKeyInfo)
    for path in (place, public):
        if os.path.lexists(path):
            raise SettingsError(f"{path}: is there already; give another name, an overwritten key is lost")
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        for path, content, mode in ((place, secret, 0o600), (public, open_half, 0o644)):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
                stream.write(content)
    return public, _name(private.public_key())


def sign(folder: Path, key: Path) -> str:
    """Write signature.json into the bundle *folder*; returns the key's name. Raises BundleError, SettingsError."""
    private, files = _private(key), _hashes(folder)
    name, signature = _name(private.public_key()), base64.b64encode(private.sign(_message(files))).decode()
    write_json(folder / SIGNATURE, {"files": files, "key": name, "signature": signature})
    return name


@contextmanager
def signed(bundle: Path) -> Iterator[Path]:
    """*bundle*, or a copy that is signed by the key that the environment names."""
    if not os.environ.get(SIGN) or not (bundle / "manifest.json").exists():
        yield bundle
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(bundle, Path(scratch) / "bundle")
        sign_where_asked(copy)
        yield copy


def sign_where_asked(folder: Path) -> None:
    """Sign *folder* with the key that the environment names; without one a signature that no longer fits is removed.

    Then the result is held against the trusted keys, where these are named: what this very process would refuse to
    open must not take the place of what it serves. Raises BundleError, SettingsError.
    """
    if key := os.environ.get(SIGN):
        sign(folder, Path(key))
    else:
        (folder / SIGNATURE).unlink(missing_ok=True)
        if os.environ.get(TRUST):
            raise SettingsError(
                f"{TRUST} asks for signed bundles, and {SIGN} names no key to sign this one with; set it, or work "
                "where the key is"
            )
    verify(folder)


def verify(folder: Path, named: str | None = None) -> str | None:
    """The name of the trusted key that signed the bundle *folder*; None where the environment names no keys.

    *named* are the trusted keys in place of the environment's.

    Nothing of the bundle is loaded for it. Raises BundleError for one that is unsigned, signed by another key or not as
    it was signed, SettingsError where a key cannot be read.
    """
    if not (named := named or os.environ.get(TRUST)):
        return None
    keys, (files, name, signature) = trusted(named), _said(folder / SIGNATURE)
    if name not in keys:
        raise BundleError(f"{folder}: is signed by key {name}, which {TRUST} does not name; have it signed again")
    _require_signed(keys[name], signature, files, folder)
    found = _hashes(folder)
    wrong = sorted(path for path in {*files, *found} if files.get(path) != found.get(path))
    if wrong:
        what = "is missing" if wrong[0] not in found else "was added" if wrong[0] not in files else "was changed"
        raise BundleError(f"{folder / wrong[0]}: {what} since the bundle was signed; take the bundle anew")
    return name


def trusted(named: str) -> Mapping[str, Any]:
    """The public keys that *named* names, by name: files, or folders with *.pub files. Raises SettingsError.

    Several are divided as in PATH; a new key is trusted beside the old one until every bundle is signed by it.
    """
    places = [Path(part) for part in named.split(os.pathsep) if part]
    paths = [path for place in places for path in (sorted(place.glob(f"*{PUBLIC}")) if place.is_dir() else [place])]
    keys = {_name(key): key for key in map(_public, paths)}
    if not keys:
        raise SettingsError(f"{named}: holds no public key; give {TRUST} files, or folders with *{PUBLIC} files")
    return keys


def _require_signed(key: Any, signature: bytes, files: Mapping[str, str], folder: Path) -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, _message(files))
    except InvalidSignature:
        raise BundleError(
            f"{folder / SIGNATURE}: is no signature of this list of files; take the bundle anew"
        ) from None


def _said(path: Path) -> tuple[dict[str, str], str, bytes]:
    """Hash by file, name of the key and signature of a signature.json; whatever is in there."""
    if not path.is_file() or path.is_symlink():
        raise BundleError(f"{path.parent}: is not signed, and {TRUST} asks for it; sign it with `loupe sign`")
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        said = read_json(path)
        files = {str(name): str(digest) for name, digest in said["files"].items()}
        return files, str(said["key"]), base64.b64decode(said["signature"], validate=True)
    except (DataError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path}: is no signature ({error}); sign the bundle with `loupe sign`") from error


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below *folder* but the signature itself. Raises BundleError for what is no plain file."""
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"{path}: is a link or no plain file, which a signature cannot vouch for; remove it")
        if path.is_file() and path != folder / SIGNATURE:
            yield path


def _message(files: Mapping[str, str]) -> bytes:
    return MESSAGE + json.dumps(files, sort_keys=True, separators=(",", ":")).encode()


def _name(public: Any) -> str:
    """The name of a key: the start of the hash of its 32 bytes."""
    coding = _serialization()
    raw = public.public_bytes(coding.Encoding.Raw, coding.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _private(path: Path) -> Any:
    content = _read(path, f"the private key that {SIGN} or --key names")
    try:
        key = _serialization().load_pem_private_key(content, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, _ed25519().Ed25519PrivateKey):
        raise SettingsError(f"{path}: is no private ed25519 key without a password; make one with `loupe keys new`")
    return key


def _public(path: Path) -> Any:
    content = _read(path, f"a public key that {TRUST} names")
    try:
        key = _serialization().load_pem_public_key(content)
    except ValueError:
        key = None
    if not isinstance(key, _ed25519().Ed25519PublicKey):
        raise SettingsError(f"{path}: is no public ed25519 key in PEM; give the file with the ending {PUBLIC}")
    return key


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); it is {what}") from None


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise SettingsError("signed bundles need the package cryptography: pip install cryptography") from None
    return ed25519


def _serialization() -> Any:
    _ed25519()
    from cryptography.hazmat.primitives import serialization

    return serialization
