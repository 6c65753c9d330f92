"""The whole stack of one machine, spoken to as an operator does: by the commands of infra/stack.py."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(ROOT / "infra" / "stack.py")]


class Stack:
    """The processes of one project, their ports moved by *shift*."""

    def __init__(self, project: Path, shift: int) -> None:
        self.project, self.shift = project.resolve(), shift

    def up(self, model: str, seconds: dict[str, float], store: Path | None = None) -> None:
        """Start everything, and go on in the project with what commands need to speak to it.

        *seconds* replaces intervals of deployments by name.
        """
        words = ["--model", model, "--shift", str(self.shift), *(("--store", str(store)) if store else ())]
        words += [word for name, every in seconds.items() for word in ("--every", f"{name}={every}")]
        self._ask("up", *words)
        lines = (self.project / ".stack" / "environment").read_text().splitlines()
        os.environ.update(dict(line.removeprefix("export ").split("=", 1) for line in lines))
        os.chdir(self.project)

    def down(self) -> None:
        self._ask("down")

    def processes(self) -> dict[str, Any]:
        """What runs, by its name: process id, start time and command."""
        return dict(json.loads((self.project / ".stack" / "processes.json").read_text()))

    def service_port(self) -> int:
        return int(self.processes()["service"]["command"][-1])

    def _ask(self, action: str, *words: str) -> None:
        subprocess.run([*COMMAND, action, "--project", str(self.project), *words], check=True)
