"""Every command with what people get wrong: one sentence that names it, an exit status that is not 0, no traceback.

The slips follow from the commands' own parameters, so a new command and a new option are tried as well.
"""

import logging
import re
import shutil
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from components.cli import app, main
from components.core.signing import new_keys
from components.pipeline.project import init
from components.service.users import add_user

log = logging.getLogger("loupe")
LOG = re.compile(r"\d\d:\d\d:\d\d ")
# Any text will do, or the data tell later.
FREE = {"good", "defect", "host", "reason", "fit group", "watch source", "bench question"}
NEW = {
    "init name",
    "data add name",
    "new-detector name",
    "register name",
    "users add name",
}  # names of what is to be made
OUTPUTS = {"out", "maps", "overlays", "users add file"}
RIGHT = {  # what a parameter is when it is right; another one gets an empty folder or a word
    "adapter": "folder",
    "bundle": "run/bundle",
    "data": "product",
    "detector": "patchcore",
    "file": "users.json",
    "key": "sign.key",
    "keys": "sign.key.pub",
    "name": "housings",
    "form": "coco",
    "images": "product/test/good/000.png",
    "out": "new",
    "place": "product/train/good",
    "question": "nope",
    "reason": "because",
    "role": "viewer",
    "run": "run",
    "runs": "run other",
    "source": "product",
    "target": "run",
    "version": "1",
    "verdict": "line-1-25f41524d13e-00003",
    "video": "product/test/good/000.png",
}
OF_COMMAND = {
    "compare": {"out": "new.html"},
    "data add": {"name": "others"},
    "evaluate": {"data": "product"},
    "init": {"name": "others"},
    "new-detector": {"name": "Patch Core"},
    "score": {"out": "new.csv"},
    "serve": {"name": "run/bundle"},
    "watch": {"name": "run/bundle"},
}
HEAVY = {  # where the work begins that a slip must not reach
    "components.evaluation.evaluate.evaluate_rows",
    "components.pipeline.ensemble._combined",
    "components.pipeline.registering.register_run",
    "components.pipeline.stages.Stages.validate",
    "components.service.watch.Watch.run",
    "flows.batch.batch_scoring",
    "flows.retrain.retrain",
    "flows.train.train",
    "uvicorn.run",
}


def leaves(command, *words):
    """Each command of the tree with its words."""
    if not hasattr(command, "commands"):
        return [(" ".join(words), command)]
    return [leaf for name, below in command.commands.items() for leaf in leaves(below, *words, name)]


LEAVES = dict(leaves(get_command(app)))


def kind(parameter) -> str:
    """path, number, word or switch."""
    if getattr(parameter, "is_flag", False):
        return "switch"
    told = str(parameter.bare_type())
    return "path" if "Path" in told else "number" if "int" in told or "float" in told else "word"


def slips(command: str, parameter) -> list[str]:
    """What is typed in its place."""
    if kind(parameter) == "switch":
        return []
    if {parameter.name, f"{command} {parameter.name}"} & OUTPUTS:
        return ["file/new.csv", "file"]
    if kind(parameter) == "number":
        return ["-1", "nan", "many"] + (["5", "0"] if parameter.name in ("alpha", "defect_rate") else [])
    if kind(parameter) == "word":
        if {parameter.name, f"{command} {parameter.name}"} & FREE:
            return []
        return ["../nope"] if f"{command} {parameter.name}" in NEW else ["nope"]
    if parameter.name == "params":
        return ["nowhere", "empty", "file", "broken/manifest.json", "foreign.yaml"]
    return ["nowhere", "empty", "file", "broken", "foreign"]


def words(command: str, slipped, value: str) -> list[str]:
    """The command with everything right but *slipped*, which is *value*."""
    known, said = RIGHT | OF_COMMAND.get(command, {}), command.split()
    for parameter in LEAVES[command].params:
        if not (parameter.required or parameter is slipped or with_it(command, slipped, parameter)):
            continue
        right = known.get(parameter.name, "0.2" if kind(parameter) == "number" else "empty").split()
        if parameter is slipped:
            right = [*right[: parameter.name == "runs"], value]  # one run alone is another slip
        option = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
        said += right if not option else [word for one in right for word in (*option, one)]
    return said


def with_it(command: str, slipped, parameter) -> bool:
    """Options that are not required but go with it."""
    costs = {"cost_miss", "cost_alarm", "defect_rate"}
    if command == "calibrate":
        return parameter.name in (costs if slipped.name in {*costs, "labelled", "params"} else {"alpha"})
    if (command, parameter.name) in (("data add", "source"), ("init", "source"), ("sign", "key"), ("verify", "keys")):
        return True
    if command.startswith("users ") and parameter.name == "file":
        return True
    if (command, parameter.name) == ("score", "images"):
        return bool(slipped.name != "manifest")
    return (command, parameter.name) == ("evaluate", "data") and slipped.name != "labelled"


@pytest.fixture(scope="module")
def plant(patchcore, other_bundle, product, tmp_path_factory):
    """A project with a data set, two runs, and what slips lead to."""
    here = tmp_path_factory.mktemp("plant")
    for name, place in (("run", patchcore), ("other", other_bundle.parent), ("product", product)):
        shutil.copytree(place, here / name)
    shutil.copytree(patchcore / "bundle", here / "broken")
    shutil.copy(patchcore / "run.json", here / "broken")
    for name in ("manifest.json", "run.json", "model.onnx"):
        whole = (here / "broken" / name).read_bytes()
        (here / "broken" / name).write_bytes(whole[: len(whole) // 2])
    (here / "empty").mkdir()
    (here / "file").write_text("this is neither a picture nor a table")
    (here / "foreign/src").mkdir(parents=True)
    (here / "foreign/pyproject.toml").write_text("[project]\nname = 'other'\n")
    (here / "foreign/src/main.py").write_text("print('hello')\n")
    new_keys(here / "sign.key")
    add_user(here / "users.json", "housings", "viewer")
    (here / "foreign.yaml").write_text("model: {layers: 3}\ntrain: {epochs: 10}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        init("housings", "folder", here / "product")
    return here


@pytest.fixture
def loupe(plant, monkeypatch, capfd):
    """Run a command as a user does, up to where the work begins; its exit status and what it says on standard error."""

    def begun(*_, **__):
        raise SystemExit(0)

    for place in HEAVY:
        monkeypatch.setattr(place, begun)
    monkeypatch.chdir(plant)

    def run(*typed: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["loupe", *typed])
        capfd.readouterr()
        log.handlers = []  # each run sends its lines to the standard error of now
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capfd.readouterr().err

    return run


def fault(status: int, said: str, parameter, value: str) -> str:
    """What is wrong with how a command ended; empty where nothing is."""
    own = [line for line in said.splitlines() if not LOG.match(line)]
    if status in (0, 70):
        return f"status {status}"
    if "Traceback" in said:
        return "a traceback"
    if status == 2:  # Typer's own form: usage, a hint, the error
        own = [line for line in own if line.startswith("Error: ")]
    if len(own) != 1:
        return f"{len(own)} lines"
    names = {value, Path(value).parts[0], "train.epochs", parameter.name, *parameter.opts}
    return "" if any(name in said for name in names) else "it does not say what is wrong"


def found(loupe, command: str) -> list[str]:
    """The slips of a command that are not told as they should be."""
    wrong = []
    if command == "init":  # it wants a folder that is no project yet
        for name in ("params.yaml", "data"):
            Path(name).rename(f"other.{name}")
    for parameter in LEAVES[command].params:
        for value in slips(command, parameter):
            typed = words(command, parameter, value)
            status, said = loupe(*typed)
            for left in Path().glob("new*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            if what := fault(status, said, parameter, value):
                wrong.append(f"{what}: loupe {' '.join(typed)}\n{said}")
    if command == "init":
        for name in ("params.yaml", "data"):
            Path(f"other.{name}").rename(name)
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("command", LEAVES)
def test_slips_are_told_in_one_sentence(command, loupe):
    wrong = found(loupe, command)
    assert not wrong, "\n".join(wrong)
