"""Secrets come from the environment or a file that it names."""

import pytest

from components.core.errors import SettingsError
from components.core.secret import secret


def test_from_the_environment_or_from_a_file(tmp_path, monkeypatch):
    monkeypatch.delenv("LOUPE_TOKEN", raising=False)
    assert secret("LOUPE_TOKEN") == ""
    monkeypatch.setenv("LOUPE_TOKEN", "a b\n")
    assert secret("LOUPE_TOKEN") == "a b\n"
    monkeypatch.delenv("LOUPE_TOKEN")
    (tmp_path / "token").write_text("from a file \n")
    monkeypatch.setenv("LOUPE_TOKEN_FILE", str(tmp_path / "token"))
    assert secret("LOUPE_TOKEN") == "from a file "


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "is no text"),
        (b"x" * 70_000, "too large"),
    ],
)
def test_what_is_no_secret_is_told_without_its_content(tmp_path, monkeypatch, content, said):
    monkeypatch.delenv("LOUPE_TOKEN", raising=False)
    monkeypatch.setenv("LOUPE_TOKEN_FILE", str(tmp_path / "token"))
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingsError, match=said) as told:
        secret("LOUPE_TOKEN")
    assert "xxx" not in str(told.value)


def test_one_place_says_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LOUPE_TOKEN", "hidden")
    monkeypatch.setenv("LOUPE_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(SettingsError, match="both set") as told:
        secret("LOUPE_TOKEN")
    assert "hidden" not in str(told.value)


def test_keys_of_the_object_store_come_from_files_too(s3, tmp_path, monkeypatch):
    from components.storage import open_store

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (tmp_path / name).write_text("loupe\n")
        monkeypatch.delenv(name)
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    store = open_store(s3)
    store.put("a", b"1")
    assert (store.get("a"), store.client._request_signer._credentials.access_key) == (b"1", "loupe")
