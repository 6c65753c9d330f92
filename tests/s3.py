"""Where tests find an S3 server and with which keys, as the environment variables that boto3 and the programs read."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def keys(endpoint: str, key: str = "x", secret: str = "x") -> dict[str, str]:
    """The variables of one server and user."""
    return {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


NOBODY = keys("http://127.0.0.1:9")  # no server listens there


@contextmanager
def moto(port: int, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """moto's server in a process of its own, ended at the end even where it was stopped half way."""
    program = Path(sys.executable).with_name("moto_server")
    with log.open("w") as stream:
        process = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=stream, stderr=stream)
    try:
        yield process
    finally:
        process.kill()  # a stopped process would not hear a milder word, and its store is in memory alone
        process.wait(20)
