"""The whole stack on one machine, without containers: `python infra/stack.py up|down|status [--project DIR]`.

Prefect server and worker with all deployments of prefect.yaml, MLflow, an S3 endpoint and the scoring service. What was
started is noted with process id and start time in DIR/.stack; `down` ends exactly those. The S3 endpoint is moto: a
stand-in that lives in memory, written to DIR/.stack/s3 by `down` and read back by `up`. A plant that has a store of its
own names it with --store, and no endpoint is started.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

import components  # noqa: F401
from components.pipeline.params import load_params
from components.registry.mlflow import Registry
from components.storage import LocalStore, open_store

HERE = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
POOL = "loupe"
PORTS = {"prefect": 4200, "mlflow": 5001, "s3": 5005, "service": 8000, "pages": 8002}
BUCKET = "s3://loupe/store"


class Stack:
    """One project's processes; ports are PORTS moved by *shift*."""

    def __init__(self, project: Path, shift: int = 0) -> None:
        self.project, self.folder = project.resolve(), project.resolve() / ".stack"
        self.notes = self.folder / "processes.json"
        self.ports = {name: port + shift for name, port in PORTS.items()}

    def environment(self, store: str | None) -> dict[str, str]:
        """What commands need to speak to this stack."""
        address = "http://127.0.0.1:{}"
        values = {
            "LOUPE_PROJECT": str(self.project),
            "LOUPE_STORE": store or BUCKET,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": address.format(self.ports["prefect"]) + "/api",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_V2_ENABLED": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "LOUPE_PAGES": address.format(self.ports["pages"]),
        }
        if store is None:
            keys = {"AWS_ACCESS_KEY_ID": "loupe", "AWS_SECRET_ACCESS_KEY": "loupe", "AWS_DEFAULT_REGION": "us-east-1"}
            values |= keys | {"AWS_ENDPOINT_URL_S3": address.format(self.ports["s3"])}
        return values

    def up(self, model: str | None, store: str | None, seconds: dict[str, float]) -> None:
        """Start everything and wait until it answers; *seconds* replaces intervals of deployments by name."""
        if any(self.alive(note) for note in self.read().values()):
            sys.exit(f"{self.project}: its stack is running; end it with `make stack-down`")
        self.require_free()
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = self.environment(store)
        os.environ.update(environment)
        lines = "".join(f"export {key}={value}\n" for key, value in environment.items())
        (self.folder / "environment").write_text(lines)
        (self.folder / "shift").write_text(str(self.ports["prefect"] - PORTS["prefect"]))
        if store is None:
            self.start_s3()
        self.start("prefect", ["prefect", "server", "start", "--host", "127.0.0.1", "--port", self.port("prefect")])
        self.wait("prefect", "/api/health")
        self.deploy(seconds)
        self.start(
            "worker", ["prefect", "worker", "start", "--pool", POOL, "--install-policy", "never", "--limit", "2"]
        )
        self.start_registry_and_service(model)
        sys.stdout.write("\n".join(self.told()) + "\n")

    def told(self) -> list[str]:
        """Where everything is, and what to do next."""
        notes, at = self.read(), {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        pages = {
            "service": ("/", "overview of the line; review, threshold, models, API"),
            "prefect": ("/", "runs of flows, with the data check and links to reports as artefacts"),
            "mlflow": ("/#/models", "models with their versions; runs with curves under Experiments"),
            "pages": ("/", "reports, galleries and data checks of the folder of artefacts"),
        }
        lines = [f"  {name:8} {at[name] + path:34} {what}" for name, (path, what) in pages.items() if name in notes]
        missing = (
            [] if "service" in notes else ["  make pipeline                      train and register a first model"]
        )
        return [
            f"the stack of {self.project} runs:",
            *lines,
            "next:",
            f"  . {self.folder / 'environment'}   so that commands of this shell speak to it",
            *missing,
            "  prefect deployment run train/train   train again; every line: prefect deployment ls",
            "  loupe dashboard                      Evidently's dashboard, after the first `loupe monitor`",
            "  make stack-down                      end it",
        ]

    def require_free(self) -> None:
        """What listens on a port already would be taken for the process that is started here, with another's data."""
        for name, port in self.ports.items():
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    sys.exit(f"port {port} ({name}): another program listens there; end it, or move all ports: --shift")

    def start_s3(self) -> None:
        self.start("s3", ["moto_server", "-H", "127.0.0.1", "-p", self.port("s3")])
        self.wait("s3", "/moto-api/")
        kept, store = LocalStore(self.folder / "s3"), open_store(BUCKET)
        for key in kept.keys():  # noqa: SIM118  (a store is no mapping)
            store.put(key, kept.get(key))

    def start_pages(self, artefacts: Path) -> None:
        """The folder of artefacts, for this machine's browsers alone: Prefect's pages link to what lies in it."""
        artefacts.mkdir(parents=True, exist_ok=True)
        where = ["--bind", "127.0.0.1", "--directory", str(artefacts)]
        self.start("pages", ["python", "-m", "http.server", *where, self.port("pages")])
        self.wait("pages", "/")

    def start_registry_and_service(self, model: str | None) -> None:
        params = load_params(self.project / "params.yaml")
        os.chdir(self.project)
        self.start_pages((self.project / params.artefacts).resolve())
        registry, name = Registry(params.registry), model or params.pipeline.views[0]
        self.start(
            "mlflow",
            [
                "python",
                str(HERE / "infra" / "mlflow_pages.py"),
                "--backend-store-uri",
                registry.uri,
                "--artifacts-destination",
                str(registry.place),
                "--host",
                "127.0.0.1",
                "--port",
                self.port("mlflow"),
                "--workers",
                "1",
            ],
            # Else seven processes wait for jobs that nothing here sends: half a minute of a core, a gigabyte and more.
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        )
        if registry.champion(name) is None:
            sys.stderr.write(f"{name} has no champion, so nothing is served; train one: make pipeline\n")
        else:
            self.start("service", ["loupe", "serve", name, "--port", self.port("service")])
            self.wait("service", "/readyz")
        self.wait("mlflow", "/health")

    def deploy(self, seconds: dict[str, float]) -> None:
        """prefect.yaml, with the intervals that were asked for, to the server."""
        values = yaml.safe_load((HERE / "prefect.yaml").read_text())
        for item in values["deployments"]:
            if item["name"] in seconds:
                item["schedules"] = [{"interval": seconds[item["name"]]}]
        path = self.folder / "prefect.yaml"
        path.write_text(yaml.safe_dump(values))
        for command in (
            ["work-pool", "create", POOL, "--type", "process", "--overwrite"],
            ["deploy", "--all", "--prefect-file", str(path)],
        ):
            done = subprocess.run([BIN / "prefect", "--no-prompt", *command], cwd=HERE, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"prefect {' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def start(self, name: str, command: list[str], **more: str) -> None:
        """Start a process in a group of its own, with *more* in its environment, and note it."""
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [BIN / command[0], *command[1:]],
                cwd=self.project,
                env=os.environ | more,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = psutil.Process(process.pid).create_time()
        note = {"project": str(self.project), "pid": process.pid, "started": started, "command": command}
        self.notes.write_text(json.dumps(self.read() | {name: note}, indent=1))
        sys.stderr.write(f"started {name}, process {process.pid}\n")

    def wait(self, name: str, path: str, limit: float = 120) -> None:
        """Until the process answers; stops with its log when it ends or takes too long."""
        until = time.monotonic() + limit
        while time.monotonic() < until and self.alive(self.read()[name]):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port(name)}{path}", timeout=2).close()
                return
            except OSError:
                time.sleep(0.2)
        sys.exit(f"{name} does not answer; see {self.folder / name}.log")

    def port(self, name: str) -> str:
        return str(self.ports[name])

    def read(self) -> dict[str, Any]:
        """The notes of this project's processes; those that a copied project brought along are of the first one's."""
        notes = dict(json.loads(self.notes.read_text())) if self.notes.exists() else {}
        return {name: note for name, note in notes.items() if self.own(note)}

    def own(self, note: dict[str, Any]) -> bool:
        return bool(note.get("project", str(self.project)) == str(self.project))

    @staticmethod
    def alive(note: dict[str, Any]) -> bool:
        """The very process that was started, not a later one with its number."""
        try:
            process = psutil.Process(note["pid"])
            return process.create_time() == note["started"] and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def down(self) -> None:
        """End what `up` started, in the reverse order, the service with time to ship its log."""
        notes = self.read()
        for name in ("service", "worker", "prefect", "mlflow", "pages"):
            self.end(name, notes)
        if "s3" in notes and self.alive(notes["s3"]):
            self.keep_s3()
        self.end("s3", notes)
        self.notes.unlink(missing_ok=True)

    def keep_s3(self) -> None:
        os.environ.update(self.environment(None))
        kept, store = LocalStore(self.folder / "s3"), open_store(BUCKET)
        present = set(store.keys())
        for key in present:
            kept.put(key, store.get(key))
        for key in set(kept.keys()) - present:
            kept.delete(key)

    def end(self, name: str, notes: dict[str, Any]) -> None:
        if name not in notes or not self.alive(notes[name]):
            return
        group = psutil.Process(notes[name]["pid"])
        members = [group, *group.children(recursive=True)]
        os.killpg(notes[name]["pid"], signal.SIGTERM)
        _, left = psutil.wait_procs(members, timeout=25)
        for process in left:
            process.kill()
        sys.stderr.write(f"ended {name}\n")

    def status(self) -> None:
        for name, note in self.read().items():
            sys.stdout.write(f"{name:8} {'running' if self.alive(note) else 'ended':8} {note['pid']}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["up", "down", "status"])
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--model", help="the registered name to serve; default: the pipeline's first view")
    parser.add_argument("--store", help="a folder or s3:// address of your own in place of the S3 endpoint")
    parser.add_argument("--shift", type=int, default=0, help="added to every port")
    parser.add_argument("--every", action="append", default=[], metavar="NAME=SECONDS", help="a deployment's interval")
    asked = parser.parse_args()
    known = asked.project / ".stack" / "shift"
    shift = int(known.read_text()) if asked.action != "up" and known.exists() else asked.shift
    stack = Stack(asked.project, shift)
    intervals = {name: float(seconds) for name, _, seconds in (text.partition("=") for text in asked.every)}
    actions: dict[str, Callable[[], None]] = {
        "up": lambda: stack.up(asked.model, asked.store, intervals),
        "down": stack.down,
        "status": stack.status,
    }
    actions[asked.action]()


if __name__ == "__main__":
    main()
