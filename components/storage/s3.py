"""boto3, and nothing else of Loupe, is spoken to here."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from components.core.errors import ObjectError, StorageError
from components.core.secret import FILE, secret

T = TypeVar("T")
TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
ABSENT = {"404", "NoSuchKey", "NotFound"}
ONE_OBJECT = {"NoSuchKey", "AccessDenied", "InvalidObjectState"}
UNCONDITIONAL = {"NotImplemented", "InvalidArgument", "InvalidRequest", "MethodNotAllowed", "501"}


KEYS = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}


def _keys() -> dict[str, str]:
    """Keys from files that the environment names; boto3 itself knows the other places."""
    return {key: secret(name) for key, name in KEYS.items() if os.environ.get(name + FILE)}


class S3Store:
    """Objects below ``s3://bucket/prefix``; the bucket is made when it is absent."""

    def __init__(self, address: str) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise StorageError(f"{address}: needs boto3; install the extra with `pip install 'loupe[s3]'`") from None
        self.address = address.rstrip("/")
        self.bucket, _, prefix = self.address.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix}/" if prefix else ""
        timeouts = Config(connect_timeout=3, read_timeout=20, retries={"max_attempts": 2})
        # A session of its own: the default one would keep the keys of the first store opened in this process.
        self.client: Any = boto3.Session(**_keys()).client("s3", config=timeouts)
        self._ready = False

    def _call(self, what: str, call: Callable[[], T]) -> T:
        """Run *call* with errors in our words; the bucket is made on first use."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if not self._ready:
                self._ensure_bucket()
            return call()
        except ClientError as error:
            if _code(error) in TAKEN:
                raise
            raise StorageError(f"{self.address}: {what}: {error}; check the endpoint, bucket and keys") from error
        except BotoCoreError as error:
            raise StorageError(f"{self.address}: {what}: {error}; is the store running?") from error

    def _ensure_bucket(self) -> None:
        from botocore.exceptions import ClientError

        try:
            self.client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            if _code(error) not in ABSENT:
                raise
            self.client.create_bucket(Bucket=self.bucket)
        self._ready = True

    def put(self, key: str, data: bytes) -> None:
        self._call(f"put {key}", lambda: self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data))

    def put_new(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        place = {"Bucket": self.bucket, "Key": self.prefix + key}
        try:
            self._call(f"put {key}", lambda: self.client.put_object(**place, Body=data, IfNoneMatch="*"))
        except ClientError:
            return False
        return True

    def get(self, key: str) -> bytes:
        return self._get(key)[0]

    def _get(self, key: str) -> tuple[bytes, str]:
        """The bytes and the ETag."""
        from botocore.exceptions import ClientError

        def read() -> tuple[bytes, str]:
            try:
                found = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            except ClientError as error:
                if _code(error) in ONE_OBJECT:
                    raise ObjectError(f"{self.address}: no readable object {key} ({error})") from error
                raise
            return bytes(found["Body"].read()), str(found["ETag"])

        return self._call(f"get {key}", read)

    def exists(self, key: str) -> bool:
        return any(found == key for found in self.keys(key))

    def keys(self, prefix: str = "") -> Iterator[str]:
        for page in self._pages(prefix):
            yield from (entry["Key"].removeprefix(self.prefix) for entry in page.get("Contents", []))

    def folders(self, prefix: str) -> list[str]:
        found = [entry["Prefix"] for page in self._pages(prefix, "/") for entry in page.get("CommonPrefixes", [])]
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def _pages(self, prefix: str, delimiter: str = "") -> list[dict[str, Any]]:
        def read() -> list[dict[str, Any]]:
            pages = self.client.get_paginator("list_objects_v2")
            return list(pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix, Delimiter=delimiter))

        return self._call(f"list {prefix}", read)

    def delete(self, key: str) -> None:
        self._call(f"delete {key}", lambda: self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key))

    def settled(self, keys: Iterable[str], seconds: float, limit: int) -> list[str]:  # noqa: ARG002
        return list(islice(keys, limit))  # an object is seen when all of it is there

    def remove_unchanged(self, key: str, sha256: str) -> bool:
        from botocore.exceptions import ClientError

        place = {"Bucket": self.bucket, "Key": self.prefix + key}

        def delete(tag: str) -> None:
            try:
                self.client.delete_object(**place, IfMatch=tag)
            except ClientError as error:
                if _code(error) not in UNCONDITIONAL:
                    raise
                self.client.delete_object(**place)  # a server that knows no conditions

        try:
            content, tag = self._get(key)
            if hashlib.sha256(content).hexdigest() != sha256:
                return False
            self._call(f"delete {key}", lambda: delete(tag))
        except (ObjectError, ClientError):  # gone, or replaced a moment ago
            return False
        return True


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
