"""docs/reference is what the program says today; and nothing of it is left out."""

from dataclasses import fields

from typer.main import get_command

from components.cli import app
from components.pipeline.params import Params
from components.service.settings import ServiceSettings
from tests import reference
from tests.unit.pipeline.test_cli import COMMANDS


def test_the_reference_is_up_to_date():
    for name, text in reference.written().items():
        assert (reference.PAGES / name).read_text(encoding="utf-8") == text, "python -m tests.reference"
    assert {path.name for path in reference.PAGES.iterdir()} == reference.written().keys()


def test_every_command_and_option_stands_there():
    page = reference.commands()
    for command in COMMANDS:
        assert f"\n## loupe {' '.join(command)}\n" in page
    options = {name for command in get_command(app).commands.values() for p in command.params for name in p.opts}
    assert [name for name in options if name.startswith("--") and name not in page] == []
    assert "- `--alpha <float>`: The false-alarm rate on good images; default 0.05." in page


def test_every_section_and_key_stands_there_with_its_comment():
    page = reference.settings()
    for field in fields(Params):
        assert f"{field.name}" in page
    for field in fields(ServiceSettings):
        assert f"- `service.{field.name}`: " in page or f"\n## service.{field.name}\n" in page
    assert "- `service.body_seconds`: number, default `10.0`. a slower upload is refused" in page  # behind the key
    assert "- `train.store`: text or null, default `auto`. The user's cache folder" in page  # in the lines above it
    assert "- `train.moves`: list of text or `auto` or `none`, default `auto`." in page
    assert "- `service.shifts`: list of text, default `[06:00, 14:00, 22:00]`." in page


def test_routes_stand_there_with_parameters_and_refusals():
    page = reference.http()
    part = page.split("## POST /v1/score\n")[1].split("\n## ")[0]
    assert "- `heatmap` in the query, string (`none`, `overlay`, `map`), default `none`: A PNG overlay" in part
    assert "`multipart/form-data`" in part
    assert "| 413 | The request is too large. |" in part
