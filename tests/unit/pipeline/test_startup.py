"""Commands that compute nothing load nothing that takes seconds: measured in modules, which no busy machine moves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.questions import FILES
from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings
from tests.unit.pipeline.test_cli import COMMANDS

pytestmark = pytest.mark.slow
HEAVY = [
    "torch",
    "torchvision",
    "timm",
    "kornia",
    "lightning_fabric",
    "mlflow",
    "prefect",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "skimage",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "great_expectations",
    "evidently",
    "fastapi",
    "sqlalchemy",
    "boto3",
    "dvc",
]
# One process asks all commands in turn and says which of them brought what.
ASKER = """
import json, sys
from typer.testing import CliRunner
from components.cli import app
commands, heavy = json.load(sys.stdin)
found, seen = {}, set()
for words in commands:
    result = CliRunner().invoke(app, words)
    new = {name for name in heavy if name in sys.modules} - seen
    seen |= new
    found[" ".join(words)] = [sorted(new), result.exit_code, str(result.exception)]
json.dump(found, sys.stdout)
"""
RUN = {  # what else computes nothing, with its exit status
    "--help": 0,
    "--version": 0,
    "detectors": 0,
    "detectors --json": 0,
    "doctor --json": 0,
    "cache": 0,
    "data sets": 0,
    "data sets visa": 0,
    "bench": 0,
    "models": 0,
    "models --json": 0,
    "models elpv-mono": 1,
    "dashboard": 1,  # there is no workspace yet
    "frames nothing.avi frames": 1,
    "fit patchcor --data data --out runs/x": 1,
    "data add x --source nowhere": 1,
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """For each command what it was the first to load, its exit status and what it ended with."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text("data: {}\nviews: {}\n")
    Registry(RegistrySettings(str(folder / "registry")))  # tables to read
    helped = [[*command, "--help"] for command in COMMANDS] + [["bench", name, "--help"] for name in FILES]
    commands = [*(words.split() for words in RUN), *helped]
    given = json.dumps([commands, HEAVY])
    done = subprocess.run(
        [sys.executable, "-c", ASKER],
        input=given,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_heavy_is_loaded(asked):
    assert {words: brought for words, (brought, _, _) in asked.items() if brought} == {}


def test_and_the_commands_did_what_they_are_for(asked):
    wrong = {w: said for w, (_, status, said) in asked.items() if status != RUN.get(w, 0) and w != "doctor --json"}
    assert wrong == {}
