"""One entry to every benchmark: each has a line in the list, a help of its own and a module that can be loaded."""

import ast
import importlib
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import questions
from components.cli import app
from components.core.errors import SettingsError

MODULES = sorted(Path("benchmarks").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_module_imports_and_says_what_it_is_for(path):
    if path.name != "__main__.py":  # which runs what it is given
        importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
    assert first.endswith((".", ".)")), first


@pytest.mark.parametrize("name", questions.FILES)
def test_every_question_has_a_help_of_its_own(name, capsys):
    line = questions.about(name).splitlines()[0]
    assert f"  {name:12} {line}\n" in questions.listed()
    with pytest.raises(SystemExit) as ended:
        questions.run([name, "--help"])
    assert not ended.value.code
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in questions.FILES if name not in questions.SCRIPTS])
def test_the_help_that_is_read_from_the_file_is_that_of_its_main(name, capsys):
    module = importlib.import_module(f"benchmarks.{questions.FILES[name].removesuffix('.py').replace('/', '.')}")
    with pytest.raises(SystemExit):
        module.main(["--help"])
    assert capsys.readouterr().out == questions.parser_of(name).format_help()


def test_every_file_with_a_main_is_a_question():
    asked = {f"benchmarks/{file}" for file in questions.FILES.values()}
    found = {str(p) for p in Path("benchmarks").rglob("*.sh")}
    found |= {str(p) for p in MODULES if "\ndef main(" in p.read_text()}
    assert found == asked


def test_the_command_lists_runs_and_suggests():
    invoke = CliRunner().invoke
    assert invoke(app, ["bench"]).output == questions.listed()
    assert "--graphs" in invoke(app, ["bench", "fit", "--help"]).output
    wrong = invoke(app, ["bench", "fitt"])
    assert isinstance(wrong.exception, SettingsError)
    assert "did you mean fit?" in str(wrong.exception)


def test_without_a_checkout_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "benchmarks.questions", None)
    failed = CliRunner().invoke(app, ["bench"])
    assert isinstance(failed.exception, SettingsError)
    assert "need a checkout of Loupe" in str(failed.exception)
