"""What the files of infra/ say, and the tools that check them."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
INFRA = PROJECT / "infra"
BIN = Path(sys.executable).parent
KUBERNETES, SYSTEMD = INFRA / "kubernetes", INFRA / "systemd"
OVERLAYS = ("single-node", "gpu")
DOCKERFILES = sorted((INFRA / "docker").glob("*.Dockerfile"))
UNITS = sorted(SYSTEMD.glob("*.service"))


def tool(name: str, *places: str) -> str:
    """The path of a program of the extra dev or of Debian; the test is skipped without it, and fails in .ci/run."""
    found = shutil.which(name, path=os.pathsep.join([str(BIN), *places, os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"needs {name}, which .ci/run and `make setup` install")
    return str(found)


def call(name: str, *words: object, **more: Any) -> str:
    """What the program says; the test fails where it is not content."""
    done = subprocess.run([tool(name), *map(str, words)], capture_output=True, text=True, timeout=120, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((INFRA / "compose" / "compose.yaml").read_text()))


def built(overlay: str) -> list[dict[str, Any]]:
    """The manifests that an overlay makes."""
    text = call("kubectl", "kustomize", KUBERNETES / "overlays" / overlay)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def pods(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and template of everything that makes pods."""
    for manifest in manifests:
        if "template" in manifest.get("spec", {}):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]


def template(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "work-pool.json").read_text()))


def told(unit: Path, key: str) -> list[str]:
    """All values of a key of a unit, in order."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


def instructions(dockerfile: Path, name: str) -> list[str]:
    """What follows each *name* of a Dockerfile, with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", dockerfile.read_text())
    return re.findall(rf"^(?:HEALTHCHECK .*)?\b{name} (.*)$", text, re.MULTILINE)


def variables() -> dict[str, set[str]]:
    """Every environment variable that infra/ sets, with the places that do."""
    found: dict[str, set[str]] = {}

    def note(place: object, names: Any) -> None:
        for name in names:
            found.setdefault(name, set()).add(str(place))

    for name, service in compose()["services"].items():
        note(name, service.get("environment", {}))
        secrets = [s.get("target", "") for s in service.get("secrets", []) if isinstance(s, dict)]
        note(name, [target for target in secrets if target.isupper()])
    for manifest in built("gpu"):
        if manifest["metadata"]["name"] == "loupe-environment":
            note("loupe-environment", manifest["data"])
    for name, pod in pods(built("gpu")):
        note(name, [variable["name"] for c in pod["spec"]["containers"] for variable in c.get("env", [])])
    for unit in UNITS:
        note(unit.name, [word.split("=")[0] for line in told(unit, "Environment") for word in line.split()])
    example = (SYSTEMD / "environment.example").read_text()
    note("environment.example", re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", example, re.MULTILINE))
    for dockerfile in DOCKERFILES:
        note(dockerfile.name, [w.split("=")[0] for line in instructions(dockerfile, "ENV") for w in shlex.split(line)])
    for name in re.findall(r"name: ([A-Z_]+)[,\n]", (KUBERNETES / "helm" / "prefect-server.yaml").read_text()):
        note("prefect-server.yaml", [name])
    return found


def commands() -> list[tuple[str, list[str]]]:
    """Every command that infra/ starts, with the place that does, as words; `&&` divides."""
    found: list[tuple[str, Any]] = [(n, s["command"]) for n, s in compose()["services"].items() if "command" in s]
    found += [(n, c["args"]) for n, pod in pods(built("gpu")) for c in pod["spec"]["containers"] if "args" in c]
    found += [(u.name, shlex.split(line)) for u in UNITS for line in told(u, "ExecStart")]
    for dockerfile in DOCKERFILES:
        given = [yaml.safe_load(line) for line in instructions(dockerfile, "CMD")]
        found += [(dockerfile.name, words) for words in given if words[:2] != ["python", "-c"]]  # health checks
    return [(place, words) for place, given in found for words in _divided(list(map(str, given)))]


def _divided(words: list[str]) -> list[list[str]]:
    if words[:2] == ["sh", "-c"]:
        return [shlex.split(part) for part in words[2].split("&&")]
    if words[0] == "serve":  # behind the entry point of the scorer's image
        words = ["loupe", *words]
    return [[Path(words[0]).name if words[0].startswith("/") else words[0], *words[1:]]]
