"""Passwords and keys for compose.yaml, drawn anew: `python infra/compose/keys.py`, once per installation.

They go to `secrets/` beside this file, which git does not see. The folder is its owner's alone; the files in it can be
read, since each container has another user and sees only those that it is given. Nothing is overwritten.
"""

import json
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).parent
# Who speaks to the object store, and what SeaweedFS lets them do; finer rules: infra/s3/bucket-policy.json.
IDENTITIES = {
    "admin": ["Admin"],
    "scorer": ["Read:loupe", "Write:loupe", "List:loupe"],
    "worker": ["Read:loupe", "Write:loupe", "List:loupe"],
    "mlflow": ["Read:loupe", "List:loupe"],
}


def drawn() -> dict[str, str]:
    """The content of each file by its name."""
    prefect, mlflow = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    files = {
        "prefect_db_password": prefect,
        "prefect_db_url": f"postgresql+asyncpg://prefect:{prefect}@prefect-db:5432/prefect",
        "mlflow_db_password": mlflow,
        "mlflow_db_url": f"postgresql+psycopg://mlflow:{mlflow}@mlflow-db:5432/mlflow",
        "grafana_password": secrets.token_urlsafe(24),
        "loupe_token": secrets.token_urlsafe(32),
        "loupe_operator_token": secrets.token_urlsafe(32),
    }
    keys = {name: (secrets.token_hex(10).upper(), secrets.token_urlsafe(30)) for name in IDENTITIES}
    for name, (key, secret) in keys.items():
        files |= {f"{name}_key_id": key, f"{name}_key_secret": secret}
    identities = [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": IDENTITIES[name]}
        for name, (key, secret) in keys.items()
    ]
    return files | {"s3.json": json.dumps({"identities": identities}, indent=1)}


def write(folder: Path) -> None:
    """Write all files into *folder*. Raises FileExistsError where it is there already."""
    folder.mkdir(mode=0o700)
    for name, content in drawn().items():
        path = folder / name
        path.write_text(content)
        path.chmod(0o444)


if __name__ == "__main__":
    try:
        write(HERE / "secrets")
    except FileExistsError:
        sys.exit(f"{HERE / 'secrets'}: there already; remove it to draw all keys anew, and the volumes with it")
