"""The object store: a local folder or S3 behind one small interface of keys and bytes."""

from components.storage.base import Store
from components.storage.local import LocalStore

__all__ = ["LocalStore", "Store", "open_store"]


def open_store(address: str) -> Store:
    """``s3://bucket/prefix`` or a folder. S3 takes its endpoint and keys from the AWS_* environment variables."""
    if address.startswith("s3://"):
        from components.storage.s3 import S3Store

        return S3Store(address)
    return LocalStore(address)
