"""The Dockerfiles, without building one: lint, pins, users, and that what they copy and install is right."""

import fnmatch
import importlib.metadata
import re
import subprocess
import sys
import tomllib

import pytest

from infra.docker.wanted import wanted
from tests.infra.reading import DOCKERFILES, INFRA, PROJECT, call, instructions

LOCK = dict(line.split("==") for line in (PROJECT / "requirements.lock").read_text().split() if "==" in line)
SCORER = [line for line in (INFRA / "docker/scorer.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_is_content(dockerfile):
    call("hadolint", dockerfile)


def stages(dockerfile):
    """The stages by name, in order, each with its text; the last one may have none."""
    parts = re.split(r"^FROM ", dockerfile.read_text(), flags=re.MULTILINE)[1:]
    names = [found[1] if (found := re.match(r"\S+ AS (\S+)", part)) else "" for part in parts]
    return dict(zip(names, parts, strict=True))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_what_runs_has_several_stages_a_user_and_a_health_check(dockerfile):
    found = stages(dockerfile)
    assert len(found) >= 2
    based_on = {part.split()[0] for part in found.values()}
    taken = {*based_on, *re.findall(r"--from=(\S+)", dockerfile.read_text())}
    ends = found.keys() - taken
    assert ends
    for name in ends:
        whole = text = found[name]
        while (parent := text.split()[0]) in found:
            text = found[parent]
            whole = text + whole
        assert re.findall(r"^USER (.*)$", whole, re.MULTILINE)[-1] == "10001:10001", name
        assert "HEALTHCHECK" in whole, name
        assert "pip install" not in whole, "compilers and caches stay in the stage that builds"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_bases_are_pinned_to_a_patch_release_that_the_project_runs_on(dockerfile):
    names = set(stages(dockerfile))
    bases = {part.split()[0] for part in stages(dockerfile).values()} - names
    for base in bases:
        found = re.fullmatch(r"python:(3)\.(\d+)\.(\d+)-slim-bookworm", base)
        assert found, base
        assert 11 <= int(found[2]) < 13  # requires-python
    assert 'requires-python = ">=3.11,<3.13"' in (PROJECT / "pyproject.toml").read_text()


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_what_is_copied_is_in_the_context(dockerfile):
    copied = [words.split() for words in instructions(dockerfile, "COPY") if "--from" not in words]
    sources = [source for words in copied for source in words[:-1]]
    assert sources
    let_in = re.findall(r"^!(\S+)$", (PROJECT / ".dockerignore").read_text(), re.MULTILINE)
    for source in sources:
        assert (PROJECT / source).exists(), source
        assert any(source == name or source.startswith(f"{name}/") for name in let_in), source


def test_the_context_leaves_out_data_secrets_and_history():
    lines = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    for name in (".git", "data", "registry", "infra/compose/secrets", ".stack"):
        assert not [line for line in lines if line.startswith("!") and fnmatch.fnmatch(name, line[1:] + "*")], name


def test_versions_in_dockerfiles_are_those_of_the_lock():
    found = [pair for path in DOCKERFILES for pair in re.findall(r"\b([a-z][\w-]+)==([\d.]+)", path.read_text())]
    assert {"torch", "torchvision"} == {name for name, _ in found}
    assert all(LOCK[name] == version for name, version in found)


def test_every_install_obeys_the_lock():
    for path in DOCKERFILES:
        for line in instructions(path, "RUN"):
            for install in re.findall(r"pip install ([^&]*)", line):
                pinned = "-c requirements.lock" in install or "--no-deps" in install
                assert pinned, (path.name, install)
                assert "--no-cache-dir" in install


def test_extras_of_the_trainer_exist_and_hold_all_but_tools_and_the_service():
    (line,) = [w for w in instructions(INFRA / "docker/trainer.Dockerfile", "RUN") if "wanted.py" in w]
    extras = re.search(r"pyproject.toml ([\w ]+) >", line)[1].split()
    known = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(known) - set(extras) <= {"all", "dev", "docs", "genicam", "line", "score", "serve"}
    assert set(extras) <= set(known)


def test_entry_points_of_the_image_are_those_of_an_installed_loupe():
    (line,) = [words for words in instructions(INFRA / "docker/trainer.Dockerfile", "RUN") if words.startswith("sed")]
    script = re.search(r"'(.+)'", line)[1]
    done = subprocess.run(["sed", script, PROJECT / "prefect.yaml"], capture_output=True, text=True, check=True)
    points = re.findall(r"entrypoint: (\S+)", done.stdout)
    assert points
    for point in points:
        house, _, rest = point.partition(".")
        assert house == "loupe"
        assert (PROJECT / f"{rest.rpartition('.')[0].replace('.', '/')}.py").exists(), point


def test_everything_is_all_extras():
    known = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = known["all"]
    named = re.fullmatch(r"loupe\[(.*)\]", everything)[1].split(",")
    assert sorted(known.keys() - {*named}) == ["all", "dev", "docs", "genicam", "score"], "name a new extra in all"
    assert set(named) <= known.keys()


def test_images_are_named_by_the_version():
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    files = [path for path in INFRA.rglob("*") if path.suffix in (".yaml", ".json", ".Dockerfile")]
    found = {tag for path in files for tag in re.findall(r"\bloupe-[a-z]+:(\d[\d.]*\d)", path.read_text())}
    assert found == {version}


def test_the_service_installs_what_its_image_has():
    known = {re.split(r"[^\w.-]", need)[0] for need in wanted(PROJECT / "pyproject.toml", ["serve", "s3"])}
    assert set(SCORER) <= known


def test_wanted_lists_dependencies_and_extras():
    found = wanted(PROJECT / "pyproject.toml", ["train", "s3"])
    assert "boto3>=1.40" in found
    assert any(need.startswith("torch>=") for need in found)
    assert not any(need.startswith("moto") for need in found)
    with pytest.raises(KeyError):
        wanted(PROJECT / "pyproject.toml", ["nonsense"])


# The scorer's packages: enough, and no torch.


def closure(names):
    """The distributions that pip installs for *names*."""
    known, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in known:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system
        known.add(name)
        waiting += [re.split(r"[^\w.-]", need)[0] for need in needs if "extra ==" not in need]
    return known


def test_the_scorer_installs_what_the_lock_knows_and_no_torch():
    assert set(SCORER) <= set(LOCK)
    assert not closure(SCORER) & {"torch", "torchvision", "timm", "kornia", "lightning-fabric", "prefect", "dvc"}


ONLY = """
import importlib.abc, importlib.metadata, re, sys

allowed = set(sys.argv[1].split(","))
owners = importlib.metadata.packages_distributions()


class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        found = {re.sub("[-_.]+", "-", one).lower() for one in owners.get(name.partition(".")[0], [])}
        if found and not found & allowed:
            raise ModuleNotFoundError(f"{name} is of {found}, which the image does not have", name=name)


sys.meta_path.insert(0, Only())
sys.argv = ["loupe", *sys.argv[2:]]
from components.cli import main

main()
"""


@pytest.mark.slow
def test_the_service_runs_with_the_packages_of_its_image(bundle, tmp_path):
    """``loupe serve``, in a process that finds the packages of scorer.txt and none besides, answers with a score."""
    from tests.service.conftest import Server, png

    class Image(Server):
        def start(self):
            real, runner = subprocess.Popen, tmp_path / "only.py"
            runner.write_text(ONLY)
            allowed = ",".join(closure(SCORER) | {"loupe"})

            def begin(command, **more):
                return real([sys.executable, runner, allowed, *command[3:]], **more)  # behind python -m components.cli

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(subprocess, "Popen", begin)
                return super().start()

    server = Image(tmp_path, str(bundle), str(tmp_path / "store"), env={"PYTHONPATH": str(PROJECT)}).start()
    try:
        status, answer, _ = server.score(png(0))
        assert status == 200, answer
        assert server.request("GET", "/metrics")[0] == 200
    finally:
        server.stop()
