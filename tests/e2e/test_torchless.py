"""``loupe bench torchless`` as it stands, in an environment that holds what it asks pip for and nothing else."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
# In place of pip, which would need the network: links to the packages that are here, and to those that they need.
PIP = """\
import importlib.metadata, os, re, site, sys
from pathlib import Path

here = Path(site.getsitepackages()[0])
if sys.argv[1] == "list":
    names = sorted(path.name for path in here.iterdir())
    print("\\n".join(names))
    sys.exit()
given = sys.argv[sys.argv.index("requirements.lock") + 1 :]
known, wanted, there = set(), list(given), Path(os.environ["PACKAGES"])
sys.path.insert(0, str(there))
while wanted:
    if (name := wanted.pop()) in known:
        continue
    known.add(name)
    found = importlib.metadata.distribution(name)
    wanted += [re.split(r"[^\\w.-]", need)[0] for need in found.requires or () if "extra ==" not in need]
    for top in {file.parts[0] for file in found.files if ".." not in file.parts}:
        if not (here / top).exists():
            (here / top).symlink_to(there / top)
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder that the script takes for its checkout: the code, and an environment with everything in .venv."""
    root = tmp_path / "checkout"
    (root / ".venv/bin").mkdir(parents=True)
    for name in ("components", "requirements.lock"):
        (root / name).symlink_to(PROJECT / name)
    for name, words in {"python": "", "loupe": " -m components.cli"}.items():
        executable(root / ".venv/bin" / name, f'exec {sys.executable}{words} "$@"')
    (root / "pip.py").write_text(PIP)
    make = f'"{sys._base_executable}" -m venv --without-pip "$3"'
    pip = f'printf \'#!/bin/sh\\nexec "%s" {root}/pip.py "$@"\\n\' "$3/bin/python" > "$3/bin/pip"'
    executable(root / "bin/python3", f'{make}\n{pip}\nchmod +x "$3/bin/pip"')
    return root


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.slow
def test_an_environment_without_torch_scores_the_same(checkout, bundle, product):
    images = [product / "test" / kind / f"{number:03d}.png" for kind in ("good", "scratch") for number in range(2)]
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"PATH": f"{checkout}/bin:{os.environ['PATH']}", "PACKAGES": packages}
    script = PROJECT / "benchmarks/production/torchless.sh"
    done = subprocess.run(
        ["bash", script, bundle, *images], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    installed = done.stdout.split()
    assert {"onnxruntime", "numpy", "PIL", "pyarrow"} <= set(installed)
    assert not {"torch", "torchvision", "timm", "pandas", "typer"} & set(installed)
    assert done.stdout.endswith("4 images, scores and decisions identical: True\n")


# Runs the command as if nothing were installed but the packages that are named, and what these need.
ALONE = """
import importlib.metadata, re, sys
wanted, known = sys.argv.pop(1).split(","), set()
while wanted:
    name = re.sub("[_.]", "-", wanted.pop().lower())
    if name not in known:
        known.add(name)
        needs = [need for need in importlib.metadata.requires(name) or () if "extra ==" not in need]
        wanted += [re.split(r"[^\\w.-]", need)[0] for need in needs if "python_version" not in need]
owners = importlib.metadata.packages_distributions()

class Closed:
    def find_spec(self, name, path=None, target=None):
        owner = {re.sub("[_.]", "-", one.lower()) for one in owners.get(name.partition(".")[0], ())}
        if owner and not owner & (known | {"loupe"}):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Closed())
"""
COMMAND = "from components.cli import main\nmain()"
FACE = (
    "import loupe\nmodel = loupe.load(sys.argv[1])\nprint(model.predict(sys.argv[2]), model.maps(sys.argv[2])[0].ndim)"
)


def base() -> list[str]:
    """The packages that every installation has."""
    known = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [re.split(r"[^\w.-]", need)[0] for need in known]


@pytest.mark.slow
def test_the_packages_for_scoring_are_enough_for_loupe_score(bundle, product, tmp_path):
    image, out = product / "test" / "good" / "000.png", tmp_path / "scores.csv"
    words = ["score", bundle, image, "--out", out, "--overlays", tmp_path / "heat"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE + COMMAND, ",".join(base()), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stderr
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.slow
def test_they_are_enough_for_a_model_in_python(bundle, product):
    words = [sys.executable, "-c", ALONE + FACE, ",".join(base()), bundle, product / "test" / "scratch" / "000.png"]
    paths = os.pathsep.join(map(str, (PROJECT / "components/cli/package", PROJECT)))
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.stdout == "[-1] 2\n", done.stderr


def test_the_list_for_a_line_is_what_loupe_itself_asks_for():
    lines = (PROJECT / "requirements-score.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == base()


def test_versions_for_machines_without_a_gpu_are_those_of_the_lock():
    locked = (PROJECT / "requirements.lock").read_text().splitlines()
    pinned = [line for line in (PROJECT / "constraints-cpu.txt").read_text().splitlines() if "==" in line]
    assert pinned
    assert [line.removesuffix("+cpu") for line in pinned if line.removesuffix("+cpu") not in locked] == []
