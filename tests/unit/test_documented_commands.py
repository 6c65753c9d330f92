"""Every command of the documents is run by a test with each of its options, or it stands below why none runs it."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from components.cli import app

REFERENCE = Path("docs/reference")  # every command with every option; tests/unit/test_reference.py
PAGES = [Path("README.md"), Path("CONTRIBUTING.md"), *sorted(Path("docs").rglob("*.md"))]
PAGES = [page for page in PAGES if REFERENCE not in page.parents]
WITHOUT = ("test_documented_commands.py", "test_slips.py", "test_cli.py")  # they run commands that are wrong, or --help
TESTS = {path: path.read_text(encoding="utf-8") for path in Path("tests").rglob("*.py") if path.name not in WITHOUT}
# tests/e2e/test_tutorial.py runs its blocks.
TUTORIAL = "\n".join(
    re.findall(r"^```sh(?: background)?\n(.*?)^```", Path("docs/tutorial.md").read_text(), re.MULTILINE | re.DOTALL)
)
NOT_RUN = {  # command and option: the test that stands for it, or why it is not run here
    ("bench", "--rank"): "tests/unit/benchmarks/test_rules_of_choice.py ranks stored results",
    ("dashboard", "--port"): "Evidently's own server; tests/unit/monitoring/test_monitoring.py reads its workspace",
    ("doctor", "--load"): "tests/unit/pipeline/test_startup.py and the doctor's own tests look with and without torch",
    ("fit", "--adapter"): "tests/e2e/test_video_run.py fits clips by the same request",
    ("fit", "--latency-ms"): "tests/unit/pipeline/test_sizing.py leaves out sizes by it; it is measured on a machine",
    ("fit", "--minutes"): "tests/unit/training/test_long.py cuts epochs by it; it is measured on a machine",
    ("fit", "--tiles"): "tests/e2e/test_square_by_square.py fits by the setting data.tiles, which it is",
    ("labels", ""): "tests/unit/pipeline/test_labelling.py writes every form by the same function",
    ("labels", "--model"): "the same",
    ("parts", "--since"): "tests/unit/pipeline/test_parts_of_log.py writes the file by the same function",
    ("pipeline", "--detectors"): "minutes; tests/flows/test_both_ways.py gives them to the flow",
    ("pipeline", "--views"): "the same",
    ("score", "--group"): "tests/unit/pipeline/test_joined_views.py scores by group in the same function",
    ("watch", "--source"): "tests/unit/service/test_streams.py names sources by the same function",
    (
        "make",
        "check",
    ): "four tools run before each commit; tests/unit/test_documents.py has the fifth, test_advisories.py the sixth",
    ("make", "demo-drift"): "a quarter of an hour; tests/loop/test_loop.py is the same loop in small",
    ("make", "docs"): "tests/e2e/test_site.py builds the site and opens it",
    ("make", "help"): "tests/unit/test_make_setup.py",
    ("make", "pipeline"): "minutes; tests/flows/test_bodies.py and tests/flows/test_both_ways.py run the flow",
    ("make", "quick"): "it runs tests",
    ("make", "setup"): "tests/unit/test_make_setup.py, without the network",
    ("make", "stack"): "five servers; tests/service and tests/loop start them one by one",
    ("make", "stack-down"): "the same",
    ("make", "test"): "it runs this",
}


def commands(page: Path) -> set[tuple[str, str]]:
    """Command and option, for each that a page names; without options the command and an empty word; make's targets."""
    text = page.read_text(encoding="utf-8")
    lines = [" ".join(line.split()) for line in re.findall(r"`((?:loupe|make) [^`]+)`", text)]
    lines += [line.strip() for line in text.splitlines() if re.match(r"\s*(loupe|make) \S", line) and "|" not in line]
    found = set()
    for line in lines:
        program, *words = shlex.split(line.split(" #")[0])
        if program == "make":
            found.add(("make", words[0]))
            continue
        command, name = get_command(app), []
        while words and hasattr(command, "commands") and words[0] in command.commands:
            name.append(words.pop(0))
            command = command.commands[name[-1]]
        options = {word.partition("=")[0] for word in words if word.startswith("--")} or {""}
        found |= {(" ".join(name), option) for option in options}
    return found


def runs(text: str, name: str, option: str) -> bool:
    """Whether the text of a test, or a page whose blocks a test runs, gives the command with the option."""
    last = name.rpartition(" ")[2]
    given = f'"{last}"' in text or f"loupe {name}" in text or f"make {option}" in text
    return given and (name == "make" or not option or bool(re.search(rf"{re.escape(option)}\b", text)))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_command_of_a_page_is_run_or_it_says_why_not(page):
    told = [*TESTS.values(), TUTORIAL]
    left = {command for command in commands(page) if not any(runs(text, *command) for text in told)}
    assert sorted(left - NOT_RUN.keys()) == []


def test_reasons_are_of_commands_that_are_there_and_of_tests_that_are_there():
    known = {command for page in PAGES for command in commands(page)}
    assert sorted(NOT_RUN.keys() - known) == []
    for why in NOT_RUN.values():
        assert [file for file in re.findall(r"tests/[\w/.]+", why) if not Path(file.rstrip(".")).exists()] == []
