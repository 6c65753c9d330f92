"""A PostgreSQL of Debian's on loopback, in a folder of its own, ended with the test."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.common.site import free_port
from tests.infra.reading import tool

# Debian keeps the server's programs off the path; the newest first.
PLACES = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)


class Postgres:
    """A cluster with passwords, which root may not run: then it is the user postgres who does."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="loupe-postgres-"))
        self.data, self.port, self.password = self.root / "data", free_port(), secrets.token_hex(12)
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            os.chown(self.root, pwd.getpwnam(self.user).pw_uid, -1)

    def call(self, name: str, *words: object, **more: str) -> str:
        done = subprocess.run(
            [tool(name, *PLACES), *map(str, words)],
            user=self.user,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"} | more,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self) -> None:
        word = self.root / "word"
        word.write_text(self.password)
        word.chmod(0o644)
        quick = ("--no-sync", "--encoding=UTF8", "--auth=scram-sha-256", "--username=owner", f"--pwfile={word}")
        self.call("initdb", "-D", self.data, *quick)
        word.unlink()
        options = f"-h 127.0.0.1 -p {self.port} -k {self.root} -F"
        self.call("pg_ctl", "-D", self.data, "-w", "-t", "60", "-l", self.root / "log", "-o", options, "start")

    def down(self) -> None:
        try:
            self.call("pg_ctl", "-D", self.data, "-m", "immediate", "stop")
        finally:
            shutil.rmtree(self.root)

    def ask(self, sql: str, database: str = "postgres") -> str:
        """What psql prints, without frames."""
        where = ("-h", "127.0.0.1", "-p", self.port, "-U", "owner", "-d", database)
        return self.call("psql", *where, "-v", "ON_ERROR_STOP=1", "-Atc", sql, PGPASSWORD=self.password).strip()

    def add(self, name: str) -> None:
        """A database with an owner of the same name and the cluster's password."""
        self.ask(f"CREATE ROLE {name} LOGIN PASSWORD '{self.password}'")
        self.ask(f"CREATE DATABASE {name} OWNER {name}")

    def address(self, name: str, driver: str) -> str:
        return f"postgresql+{driver}://{name}:{self.password}@127.0.0.1:{self.port}/{name}"
