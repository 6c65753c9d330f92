"""The documents and YAML files are facts: every one is loaded, every command in them exists."""

import itertools
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from benchmarks import questions
from components.cli import app
from components.detectors.catalogue import CATALOGUE, settings_for
from components.pipeline.params import load_params

PAGES = [Path("README.md"), *sorted(Path("docs").rglob("*.md")), *sorted(Path("benchmarks").rglob("*.md"))]
TARGETS = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(), re.MULTILINE))


def commands(page: Path) -> list[list[str]]:
    text = page.read_text()
    found = re.findall(r"`((?:loupe|make) [^`]+)`", text)
    found += [line.strip() for line in text.splitlines() if re.match(r"\s*(loupe|make) \S", line) and "|" not in line]
    return [shlex.split(line.split("#")[0]) for line in found if "[OPTIONS]" not in line]  # a usage is no command


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_of_the_documents_exist(page, capsys):
    known = get_command(app)
    for program, *words in commands(page):
        if program == "make":
            assert words[0] in TARGETS, words
            continue
        command = known
        while words and hasattr(command, "commands") and not words[0].startswith("--"):  # loupe --version
            assert words[0] in command.commands, (page, words)
            command = command.commands[words.pop(0)]
        if command is known.commands["bench"]:
            assert not words or set(re.findall(r"--\w+", " ".join(words))) <= options_of(words[0], capsys), (
                page,
                words,
            )
            continue
        options = {name for parameter in command.params for name in parameter.opts}
        assert {w for w in words if w.startswith("--")} <= options, (page, words)


def options_of(question: str, capsys) -> set[str]:
    with pytest.raises(SystemExit):
        questions.run([question, "--help"])
    return set(re.findall(r"--\w+", capsys.readouterr().out))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    for target, part in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        there = page.parent / target if target else page
        assert target.startswith("http") or there.exists(), (page, target)
        assert not part or target.startswith("http") or part in headings(there), (page, target, part)


def headings(page: Path) -> set[str]:
    """How links name the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_named_in_backticks_exist(page):
    for name in re.findall(r"`((?:components|flows|docs|benchmarks|tests)/[\w/.]+)`", page.read_text()):
        assert Path(name).exists(), (page, name)


@pytest.mark.parametrize(
    "file", ["params.yaml", "dvc.yaml", "dvc.lock", "prefect.yaml", *sorted(map(str, Path("data").glob("*.dvc")))]
)
def test_every_yaml_loads(file):
    assert yaml.safe_load(Path(file).read_text())


def test_measured_tables_are_those_that_were_written():
    page = Path("docs/drift.md").read_text()
    for line in Path("benchmarks/results/monitor.md").read_text().splitlines():
        assert line in page


def test_params_name_every_detector_and_every_preset_builds():
    params = load_params()
    assert set(params.train.detectors) == set(CATALOGUE)  # dvc.yaml asks for the key of each
    for name, overrides in params.train.detectors.items():
        settings_for(name, params.train.preset, overrides)


@pytest.mark.parametrize("name", CATALOGUE)
def test_generated_half_of_a_method_page_is_up_to_date(name):
    from benchmarks.quality.methods import MARKER, generated

    assert Path(f"docs/methods/{name}.md").read_text().split(MARKER)[1].strip() == generated(name).strip()


def test_the_readme_lists_every_method():
    from benchmarks.quality.methods import listed

    text = Path("README.md").read_text()
    assert listed(text) == text, "loupe bench methods"


def test_files_stay_below_four_hundred_lines():
    for file in (
        *Path("components").rglob("*.py"),
        *Path("flows").rglob("*.py"),
        *Path("tests").rglob("*.py"),
        *Path("benchmarks").rglob("*.py"),
    ):
        assert len(file.read_text().splitlines()) <= 400, file


@pytest.mark.parametrize("page", ["reliability", "promises"])
def test_every_trouble_and_promise_names_a_test_that_is_there(page):
    named = re.findall(r"([\w/]+\.py)::(\w+)", Path(f"docs/{page}.md").read_text())
    assert len(named) > 50
    unit = {path.name: path for path in Path("tests/unit").rglob("test_*.py")}
    for file, name in named:
        path = Path(file) if file.startswith("tests/") else unit[file]
        assert f"def {name}(" in path.read_text(), f"{file}::{name}"


def test_no_line_of_a_document_is_longer_than_a_screen():
    long = [
        f"{page}: {number}"
        for page in (*Path().glob("*.md"), *Path("docs").rglob("*.md"), *Path("benchmarks").rglob("*.md"))
        for number, line in enumerate(page.read_text().splitlines(), 1)
        if len(line) > 120
    ]
    assert long == []


def test_the_changelog_has_a_line_a_change_and_tells_none_twice():
    lines = Path("CHANGELOG.md").read_text().splitlines()
    bullets = [line for line in lines if line.startswith("- ")]
    after = [there for line, there in itertools.pairwise(lines) if line.startswith("- ")]
    assert len(bullets) > 100
    assert [line for line in after if line and not line.startswith(("- ", "#"))] == []  # a bullet goes on in no line
    assert [line for line, times in Counter(bullets).items() if times > 1] == []
