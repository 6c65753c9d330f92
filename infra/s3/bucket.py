"""Make the bucket, and lay the policy on it: `python infra/s3/bucket.py loupe [--policy FILE] [--account NUMBER]`.

Endpoint and keys come from the AWS_* variables and are those of the bucket's owner. Without --account the principals
are those of Ceph, `arn:aws:iam:::user/NAME`; AWS wants the account's number in them.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError


def policy_for(text: str, bucket: str, account: str) -> dict[str, Any]:
    """The policy of the file, of which *text* is the content, for this bucket and account."""
    named = text.replace("arn:aws:s3:::loupe", f"arn:aws:s3:::{bucket}")
    return dict(json.loads(named.replace("arn:aws:iam:::", f"arn:aws:iam::{account}:")))


def make(client: Any, bucket: str, policy: dict[str, Any] | None) -> None:
    """Create *bucket* unless it is there, and replace its policy by *policy* where one is given."""
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        client.create_bucket(Bucket=bucket)
    if policy:
        client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bucket")
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--account", default="")
    asked = parser.parse_args()
    found = asked.policy and policy_for(asked.policy.read_text(), asked.bucket, asked.account)
    make(boto3.client("s3"), asked.bucket, found)
