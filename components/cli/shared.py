"""What the commands share: the Typer app, options that several take, and how a line is printed."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from components.core.boundary import DEBUG
from components.detectors.catalogue import CATALOGUE, WHEN

app = typer.Typer(
    help="Visual inspection without defect labels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ParamsFile = Annotated[Path, typer.Option("--params", help="The file with every knob.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value: a setting of the detector, or of params.yaml such as validation.max_side."),
]
Goods = Annotated[
    list[str] | None, typer.Option("--good", help="A folder of good pictures of this name, too; `.`: all are good.")
]
Defects = Annotated[list[str] | None, typer.Option("--defect", help="A folder of this name holds defects.")]
Groups = Annotated[str | None, typer.Option("--groups", help="folder: the first folder below good is the group.")]
DEFAULT_PARAMS = Path("params.yaml")


def fit_help() -> str:
    """An example, and when to take which detector."""
    lines = [f"  {name:10} {WHEN.get(name, f'docs/methods/{name}.md')}" for name in sorted(CATALOGUE, key=_known_first)]
    example = "Example: loupe fit patchcore --data photos --out runs/photos --set bank_size=5000"
    return "\n\n".join([example, "\n".join(["\b", "Detectors, and when to take them:", *lines])])


def _known_first(name: str) -> int:
    return list(WHEN).index(name) if name in WHEN else len(WHEN)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(f"loupe {version('loupe')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback where a command fails.")] = False,
    version: Annotated[  # noqa: ARG001  # answered by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ[DEBUG] = "1"


def say(text: str) -> None:
    """Print a line of the command's own output; bytes of a file name that are no UTF-8 as escapes."""
    typer.echo(text.encode("utf-8", "backslashreplace").decode())


def naming_of(good: list[str] | None, defect: list[str] | None, groups: str | None) -> Any:
    """What the options --good, --defect and --groups say of a data set's folders. Raises SettingsError."""
    from components.core.settings import build
    from components.datasets.rows import Naming

    return build(Naming, declared(good, defect, groups), "data")


def folders_of(good: list[str] | None) -> list[str]:
    """Of --good what a copy of the folder needs: good pictures alone lie below train/good there."""
    from components.datasets.rows import WHOLE

    return [name for name in good or () if name != WHOLE]


def declared(good: list[str] | None, defect: list[str] | None, groups: str | None) -> dict[str, Any]:
    """Of these options what is given, as keys of the section data."""
    values = {"good": ["good", *good] if good else None, "defect": defect, "groups": groups}
    return {key: value for key, value in values.items() if value}
