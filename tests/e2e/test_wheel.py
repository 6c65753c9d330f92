"""The release: source archive and wheel, installed into a fresh environment, at work in an empty folder."""

import ast
import doctest
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from components.cli import release as release_step

PROJECT = Path(__file__).parents[2]
PARTS = ("components", "flows", "pyproject.toml", "README.md", "LICENSE")
VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
SMALL = ("--preset", "tiny", "--alpha", "0.2", "--set=evaluation.bootstrap=20")
LOOK = """
import importlib.util, loupe
assert [n for n in ("components", "flows") if importlib.util.find_spec(n)] == []
model = loupe.load("run")
print(loupe.__version__, loupe.__file__, type(model).__module__, model.predict("good.png"))
"""


def run(*command, cwd: Path, **more: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env={**environment, **more}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A folder with what is released; the wheel is made from the source archive."""
    pytest.importorskip("build", reason="needs build, of the extra dev")
    folder = tmp_path_factory.mktemp("release")
    for name in PARTS:
        source, ignored = PROJECT / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / "checkout" / name, ignore=ignored)
        else:
            shutil.copy(source, folder / "checkout")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", cwd=folder / "checkout")
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(release, tmp_path_factory):
    """The folder of the programs of an environment that has the wheel, and sees the packages it needs."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run(sys._base_executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    (wheel,) = release.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--no-deps", "--no-index")
    run(*pip, wheel, cwd=folder.parent)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")))
    return folder / "bin"


@pytest.mark.slow
def test_a_wheel_trains_and_scores_from_an_empty_folder(installed, product, tmp_path):
    assert run(installed / "loupe", "--version", cwd=tmp_path) == f"loupe {VERSION}\n"
    run(installed / "loupe", "fit", "padim", *SMALL, "--data", product, "--out", "run", cwd=tmp_path)
    shutil.copy(product / "test/good/000.png", tmp_path / "good.png")
    shutil.copy(product / "test/scratch/000.png", tmp_path / "scratch.png")
    pictures = ("good.png", "scratch.png")
    run(installed / "loupe", "score", "run/bundle", *pictures, "--out", "table.csv", cwd=tmp_path)
    said = [line.split(",")[7] for line in (tmp_path / "table.csv").read_text().splitlines()]
    assert said == ["decision", "normal", "anomalous"]
    version, place, module, answer = run(installed / "python", "-c", LOOK, cwd=tmp_path).split(maxsplit=3)
    assert (version, module, answer) == (VERSION, "loupe.components.pipeline.face", "[1]\n")
    assert installed.parent in Path(place).parents
    for module in ("loupe", "loupe.components.pipeline.stages", "loupe.components.decision"):
        assert "usage" in run(installed / "python", "-m", module, "--help", cwd=tmp_path).lower()
    said = run(installed / "python", "-m", "loupe", "data", "sets", cwd=tmp_path)
    assert "elpv" in said


@pytest.mark.slow
def test_a_wheel_has_one_name_and_everything_below_it(release, tmp_path):
    (wheel,) = release.glob("*.whl")
    assert wheel.name == f"loupe-{VERSION}-py3-none-any.whl"
    zipfile.ZipFile(wheel).extractall(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loupe", f"loupe-{VERSION}.dist-info"]
    assert (tmp_path / f"loupe-{VERSION}.dist-info/top_level.txt").read_text() == "loupe\n"
    assert (tmp_path / "loupe/py.typed").exists()
    for house in ("components", "flows"):
        ours = {path for path in files(PROJECT, house) if not path.is_relative_to("components/cli/package")}
        assert files(tmp_path / "loupe", house) == ours - {Path("components/cli/release.py")}
    wrong = [(path.name, left) for path in (tmp_path / "loupe").rglob("*.py") for left in old_names(path)]
    assert wrong == []


def files(root: Path, house: str) -> set[Path]:
    found = [path for path in (root / house).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(root) for path in found}


def old_names(path: Path) -> list[str]:
    """What a module still calls by the name that it has in a checkout."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return [name for name in found if re.match(r"(components|flows)(\.[a-z]|\.?$)", name) and name != "flows"]


@pytest.mark.slow
def test_a_source_archive_holds_what_a_wheel_is_made_of(release):
    (archive,) = release.glob("*.tar.gz")
    names = run("tar", "tzf", archive, cwd=release).splitlines()
    for name in ("pyproject.toml", "README.md", "components/cli/release.py", "components/environment.env"):
        assert f"loupe-{VERSION}/{name}" in names


def test_the_changelog_begins_with_the_version():
    headings = re.findall(
        r"^## (\d\S*) - \d{4}-\d\d-\d\d$", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M
    )
    assert headings[0] == VERSION


def test_names_are_changed_where_a_module_is_meant():
    assert doctest.testmod(release_step).failed == 0
    same = ["principal components. The rest", "components/core", "self.components.x", "flows = 3", "import componentsx"]
    assert [release_step.rehoused(text) for text in same] == same
    assert release_step.rehoused('f"components.{place}"') == 'f"loupe.components.{place}"'
    assert release_step.rehoused("import components  # switches") == "import loupe.components as components  # switches"
