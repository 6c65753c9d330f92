"""What each role of infra/s3/bucket-policy.json does with the bucket, and what it must be refused."""

import json
import uuid
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from components.core.errors import StorageError
from components.scorelog.shipper import clip_key, image_key
from components.scorelog.table import LABELS, SCORES
from components.storage import open_store
from tests.infra.reading import INFRA
from tests.s3 import keys

POLICY = INFRA / "s3" / "bucket-policy.json"
ROLES = ("loupe-scorer", "loupe-worker", "loupe-mlflow")
STORE, ARTEFACTS, DATA = "s3://loupe/store", "s3://loupe/artefacts", "s3://loupe/dvc"
SHA = "ab" * 32


def statements(role: str) -> list[dict[str, Any]]:
    """Those of the policy that are for *role*."""
    found = json.loads(POLICY.read_text())["Statement"]
    return [s for s in found if f"arn:aws:iam:::user/{role}" in s["Principal"]["AWS"]]


class Role:
    """Acts with the keys of one role, through the store that the programs use."""

    def __init__(self, endpoint: str, key: str, secret: str) -> None:
        self.values = keys(endpoint, key, secret)
        self.stores: dict[str, Any] = {}

    def store(self, address: str) -> Any:
        if address not in self.stores:
            self.stores[address] = self._opened(address)
        return self.stores[address]

    def _opened(self, address: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.values.items():
                patch.setenv(name, value)
            return open_store(address)

    def client(self) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.values.items():
                patch.setenv(name, value)
            return boto3.Session().client("s3")


def check_roles(scorer: Role, worker: Role, mlflow: Role) -> None:
    """Raises AssertionError where a role may do less or more than the policy says."""
    worker_keeps_store_and_models(worker)
    scorer_writes_its_log_and_reads_models(scorer)
    mlflow_reads_models(mlflow)
    for role in (scorer, worker, mlflow):
        nobody_touches_the_bucket_itself(role)


def worker_keeps_store_and_models(worker: Role) -> None:
    store = worker.store(STORE)
    key = f"inbox/line-1/{uuid.uuid4()}.png"
    store.put(key, b"x")
    assert store.get(key) == b"x"
    assert key in list(store.keys("inbox/"))
    store.delete(key)
    assert not store.exists(key)
    for address in (ARTEFACTS, DATA):
        place = worker.store(address)
        place.put("1/bundle/manifest.json", b"{}")
        assert place.get("1/bundle/manifest.json") == b"{}"
        refused(lambda place=place: place.delete("1/bundle/manifest.json"))
    refused(lambda: worker.store("s3://loupe/elsewhere").put("x", b"x"))


def scorer_writes_its_log_and_reads_models(scorer: Role) -> None:
    store = scorer.store(STORE)
    for key in (f"{SCORES}/source=line/a.parquet", f"{LABELS}/a.parquet", image_key(SHA), clip_key(SHA)):
        store.put(key, b"x")
        assert store.get(key) == b"x"
        refused(lambda key=key: store.delete(key))
    assert not store.put_new(image_key(SHA), b"y")
    assert scorer.store(ARTEFACTS).get("1/bundle/manifest.json") == b"{}"
    refused(lambda: scorer.store(ARTEFACTS).put("1/bundle/manifest.json", b"evil"))
    refused(lambda: store.put("verdicts/line.json", b"{}"))
    refused(lambda: scorer.store(DATA).get("1/bundle/manifest.json"))


def mlflow_reads_models(mlflow: Role) -> None:
    assert mlflow.store(ARTEFACTS).get("1/bundle/manifest.json") == b"{}"
    refused(lambda: mlflow.store(ARTEFACTS).put("x", b"x"))
    refused(lambda: mlflow.store(STORE).get(image_key(SHA)))


def nobody_touches_the_bucket_itself(role: Role) -> None:
    client = role.client()
    for act in (
        lambda: client.put_bucket_policy(Bucket="loupe", Policy=json.dumps({"Version": "2012-10-17", "Statement": []})),
        lambda: client.delete_bucket_policy(Bucket="loupe"),
        lambda: client.list_objects_v2(Bucket="others"),
        lambda: client.delete_bucket(Bucket="loupe"),
    ):
        with pytest.raises(ClientError) as caught:
            act()
        assert caught.value.response["Error"]["Code"] in ("AccessDenied", "403"), caught.value


def refused(act: Any) -> None:
    with pytest.raises(StorageError, match=r"AccessDenied|Forbidden|403"):
        act()
