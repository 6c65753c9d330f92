"""The policy of the bucket on moto, which judges what a user may do when it is told to; on Ceph: test_ceph.py."""

import json
import urllib.request

import boto3
import pytest
from botocore.exceptions import ClientError

from benchmarks.common.site import free_port
from infra.s3.bucket import make, policy_for
from tests.infra.roles import POLICY, ROLES, Role, check_roles, statements
from tests.s3 import moto
from tests.service.conftest import listening

# moto asks for an action named after the request; with AWS it is that of s3:ListBucket.
OF_MOTO = {"s3:ListBucket": ["s3:ListBucket", "s3:HeadBucket", "s3:ListObjects", "s3:ListObjectsV2"]}


def arm(endpoint, count):
    """From the request of this number on, moto asks whether its user may."""
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", str(count).encode())
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request, timeout=5).close()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    port = free_port()
    with moto(port, tmp_path_factory.mktemp("moto") / "log") as process:
        listening(port, process)
        yield f"http://127.0.0.1:{port}"


def client(endpoint, service):
    return boto3.client(
        service, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


@pytest.fixture(scope="module")
def roles(endpoint):
    """One user per role, with what the bucket's policy says of it as a policy of its own: moto knows no principals."""
    iam, s3 = client(endpoint, "iam"), client(endpoint, "s3")
    make(s3, "loupe", json.loads(POLICY.read_text()))
    s3.create_bucket(Bucket="others")
    found = []
    for name in ROLES:
        own = [{key: s[key] for key in ("Effect", "Action", "Resource")} for s in statements(name)]
        for statement in own:
            statement["Action"] = [each for action in statement["Action"] for each in OF_MOTO.get(action, [action])]
        document = json.dumps({"Version": "2012-10-17", "Statement": own})
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        found.append(Role(endpoint, key["AccessKeyId"], key["SecretAccessKey"]))
    arm(endpoint, 0)
    yield found
    arm(endpoint, "inf")


def test_each_role_may_do_its_work_and_no_more(roles):
    check_roles(*roles)


def test_a_wrong_key_is_refused(roles):
    role = Role(roles[0].values["AWS_ENDPOINT_URL_S3"], "AKIAIOSFODNN7EXAMPLE", "wrong")
    with pytest.raises(ClientError):
        role.client().list_objects_v2(Bucket="loupe")


def test_no_statement_opens_the_bucket_to_everybody_or_for_everything():
    for statement in json.loads(POLICY.read_text())["Statement"]:
        assert statement["Effect"] == "Allow"
        assert all(":user/loupe-" in who for who in statement["Principal"]["AWS"])
        assert all("*" not in action for action in statement["Action"])
        assert all("loupe" in resource.split(":::")[1].split("/")[0] for resource in statement["Resource"])


def test_bucket_and_account_are_filled_in():
    policy = json.dumps(policy_for(POLICY.read_text(), "plant-7", "123456789012"))
    assert "arn:aws:iam::123456789012:user/loupe-scorer" in policy
    assert "arn:aws:s3:::plant-7/store/scores/*" in policy
    assert "arn:aws:s3:::loupe" not in policy


def test_the_bucket_is_made_once_and_its_policy_replaced(endpoint):
    arm(endpoint, "inf")
    s3 = client(endpoint, "s3")
    for policy in (None, policy_for(POLICY.read_text(), "twice", "")):
        make(s3, "twice", policy)
    assert "loupe-worker" in s3.get_bucket_policy(Bucket="twice")["Policy"]
