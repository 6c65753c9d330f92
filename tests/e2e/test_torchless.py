"""``loupe bench torchless`` as it stands, in an environment that holds what it asks pip for and nothing else."""

import os
import subprocess
import sys
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
