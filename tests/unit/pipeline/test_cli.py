"""The command line: help with examples, and one clear sentence on error."""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from components.cli import app
from components.cli.shared import declared, naming_of, say
from components.core.errors import LoupeError, SettingsError
from components.detectors.catalogue import CATALOGUE, WHEN
from components.pipeline.params import load_params

COMMANDS = [
    ["doctor"],
    ["cache"],
    ["bench"],
    ["new-detector"],
    ["detectors"],
    ["data", "add"],
    ["data", "check"],
    ["data", "sets"],
    ["fit"],
    ["ensemble"],
    ["evaluate"],
    ["score"],
    ["shards"],
    ["calibrate"],
    ["init"],
    ["compare"],
    ["parts"],
    ["pipeline"],
    ["serve"],
    ["monitor"],
    ["dashboard"],
    ["retrain"],
    ["labels"],
    ["models"],
    ["register"],
    ["promote"],
    ["rollback"],
    ["inbox"],
    ["watch"],
    ["frames"],
    ["keys", "new"],
    ["sign"],
    ["verify"],
    ["users", "add"],
    ["users", "remove"],
    ["users", "list"],
    ["audit"],
]


def loupe(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "components.cli", *map(str, arguments)], capture_output=True, text=True
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"Example: loupe {' '.join(command)}" in result.output


def test_the_list_above_is_complete():
    root = get_command(app)
    names = [[n] for n, c in root.commands.items() if not hasattr(c, "commands")]
    names += [[n, m] for n, c in root.commands.items() if hasattr(c, "commands") for m in c.commands]
    assert sorted(names) == sorted(COMMANDS)


def test_options_of_folders_are_the_keys_of_their_section():
    assert declared(None, None, None) == {}
    assert declared(["OK"], ["hole"], "folder") == {"good": ["good", "OK"], "defect": ["hole"], "groups": "folder"}
    assert naming_of(["OK"], None, None).good == ("good", "OK")
    with pytest.raises(SettingsError, match=r"data\.groups is 'day'"):
        naming_of(None, None, "day")


def test_names_that_are_no_text_can_be_printed(capsys):
    say(b"a\xff.png".decode("utf-8", "surrogateescape"))
    assert capsys.readouterr().out == "a\\udcff.png\n"


@pytest.mark.parametrize("load", [[], ["--load"]], ids=["read", "loaded"])
def test_doctor_is_content_here(load):
    result = CliRunner().invoke(app, ["doctor", "--json", *load])
    assert result.exit_code == 0, result.output
    assert all(finding["ok"] for finding in json.loads(result.output))


def test_doctor_tells_of_a_torch_that_cannot_be_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(app, ["doctor", "--load"])
    assert result.exit_code == 1
    assert "BAD torch: cannot be loaded" in result.output


def test_detectors_as_json():
    entries = json.loads(CliRunner().invoke(app, ["detectors", "--json"]).output)
    assert {entry["name"] for entry in entries} >= {"fastflow", "patchcore"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("fit", "patchcor", "--data", ".", "--out", "x"), "did you mean patchcore?"),
        (("fit", "patchcore", "--data", "nowhere", "--out", "x"), "nowhere: is not a folder"),
        (("fit", "patchcore", "--data", ".", "--out", "x", "--set", "bank"), "write key=value"),
        pytest.param(
            ("fit", "patchcore", "--data", ".", "--out", "x", "--set", "bank_sise=3"),
            "did you mean bank_size?",
            marks=pytest.mark.slow,  # a method's settings are read with torch
        ),
        (
            ("fit", "patchcore", "--data", ".", "--out", "x", "--set", "split.calibrate_shar=1"),
            "did you mean calibrate_s",
        ),
        (("fit", "patchcore", "--data", ".", "--out", "x", "--groups", "day"), "data.groups is 'day'; choose one of"),
        (("fit", "patchcore", "--data", ".", "--out", "x", "--params", "none.yaml"), "none.yaml: not found"),
        (("fit", "ensemble", "--data", ".", "--out", "x"), "type `loupe ensemble RUN RUN`"),
        (("ensemble", ".", "..", "--data", ".", "--out", "x"), "holds no finished run"),
        (("ensemble", ".", ".", "--data", ".", "--out", "x"), "two or more different runs"),
        (("evaluate", ".", "--data", "."), "holds no run.json"),
        (
            ("evaluate", ".", "--labelled", ".", "--masks", "black"),
            "--masks is 'black'; choose one of 'auto', 'marked'",
        ),
        (("new-detector", "spade"), "is no checkout of Loupe"),
        (("score", "nowhere", "a.png", "--out", "x.parquet"), "holds no manifest.json"),
        (("data", "add", "x", "--adapter", "mvtec"), "choose one of elpv, mtd, folder"),
    ],
)
def test_errors_are_one_sentence_and_leave_nothing(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(pytest.importorskip("components").__path__[0] + "/.."))
    result = loupe(*arguments)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("retrain", "nope"), "nope: there is no such verdict; `loupe monitor NAME` prints those"),
        (("retrain", "line-1-25f41524d13e-00003"), "there is no such verdict"),
        (("models", "nope"), "nope: no model of this name is registered; known are none"),
        (("pipeline", "--detectors", "patchore"), "patchore is not a detector; did you mean patchcore?"),
        (("pipeline", "--views", "nope"), "views.nope does not exist"),
    ],
)
def test_a_name_that_does_not_exist_is_told_before_any_work(arguments, sentence, tmp_path, monkeypatch):
    """Before a server is started, too."""
    monkeypatch.setattr("flows.train.train", lambda *_: pytest.fail("the flow has begun"))
    (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text())
    monkeypatch.chdir(tmp_path)  # store and registry are below it
    with pytest.raises(LoupeError, match=re.escape(sentence)):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_version_is_that_of_the_package():
    result = CliRunner().invoke(app, ["--version"])
    assert result.output.strip() == f"loupe {importlib.metadata.version('loupe')}"
    assert result.exit_code == 0


def test_help_of_fit_says_when_to_take_which_detector():
    lines = CliRunner().invoke(app, ["fit", "--help"]).output.splitlines()
    for name, when in WHEN.items():
        assert any(line.split()[:1] == [name] and when in line for line in lines), name
    assert WHEN.keys() <= CATALOGUE.keys()
    assert next(line.split()[0] for line in lines if line.split()[:1] in ([n] for n in CATALOGUE)) == "patchcore"


def test_misspelt_key_of_params_gets_a_suggestion(tmp_path):
    file = tmp_path / "params.yaml"
    values = yaml.safe_load(open("params.yaml")) | {"calibration": {"alhpa": 0.1}}  # noqa: PTH123, SIM115
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(SettingsError, match="alhpa is not a setting; did you mean alpha"):
        load_params(file)


def test_a_fit_that_names_no_detector_takes_the_one_to_begin_with(tmp_path, monkeypatch):
    asked = []

    def fitted(request, _):
        asked.append(request.detector)
        raise SettingsError("that is all")

    monkeypatch.setattr("components.pipeline.fit.fit_folder", fitted)
    for named in ([], ["padim"]):
        CliRunner().invoke(app, ["fit", *named, "--data", str(tmp_path), "--out", str(tmp_path / "run")])
    assert asked == ["patchcore", "padim"]


def test_a_stream_is_watched_by_the_bundle_of_a_run_and_other_names_stay_names(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("components.pipeline.watching.watched", lambda _, name, *_rest: seen.append(name))
    (tmp_path / "run/bundle").mkdir(parents=True)
    (tmp_path / "run/bundle/manifest.json").touch()
    for name in (tmp_path / "run", tmp_path / "run/bundle", "tiles"):
        result = CliRunner().invoke(app, ["watch", str(name), "0"])
        assert result.exit_code == 0, result.output
    assert seen == [str(tmp_path / "run/bundle"), str(tmp_path / "run/bundle"), "tiles"]
