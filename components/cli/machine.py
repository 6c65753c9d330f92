"""Commands about the installation: this machine, kept features, the catalogue, benchmarks."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from components.cli.shared import DEFAULT_PARAMS, AsJson, ParamsFile, app, say
from components.core.errors import SettingsError


@app.command(epilog="Example: loupe doctor")
def doctor(
    as_json: AsJson = False,
    load: Annotated[bool, typer.Option("--load", help="Load torch, too, and say on what it computes.")] = False,
) -> None:
    """Check Python, torch, device, weights, disk and tools; say what to do about each problem."""
    from components.pipeline.doctor import examine

    findings = examine(load)
    if as_json:
        say(json.dumps(findings, indent=1))
    else:
        for finding in findings:
            advice = "" if finding["ok"] else f" -> {finding['advice']}"
            say(f"{'ok ' if finding['ok'] else 'BAD'} {finding['what']}: {finding['found']}{advice}")
    if not all(finding["ok"] for finding in findings):
        raise typer.Exit(1)


@app.command(epilog="Example: loupe cache --clear")
def cache(
    as_json: AsJson = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove features and graphs; a later training makes them.")
    ] = False,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Say where computed features are kept, how much they take and how much they may."""
    from components.core import cache as kept
    from components.pipeline.params import train_settings

    train = train_settings(params)
    folder = kept.features_folder(train.store)
    if folder is None:
        raise SettingsError(f"{params}: train.store is null, so features are not kept")
    if clear:
        kept.clear(folder)
        kept.clear_graphs()
    found = {"folder": str(folder), **kept.contents(folder), "limit_gb": train.store_limit_gb}
    size = f"{found['entries']} entries, {found['bytes'] / 1e9:.2f} GB of at most {train.store_limit_gb:g} GB"
    say(json.dumps(found, indent=1) if as_json else f"{folder}: {size}")


@app.command(epilog="Example: loupe detectors --json")
def detectors(as_json: AsJson = False) -> None:
    """List the catalogue: name, paper, family, needs, presets."""
    from components.detectors.catalogue import CATALOGUE, describe

    entries = [describe(name) for name in CATALOGUE]
    if as_json:
        say(json.dumps(entries, indent=1))
        return
    for entry in entries:
        say(f"{entry['name']:12} {entry['family']:18} {entry['venue']} {entry['year']}  {entry['paper']}")


@app.command("new-detector", epilog="Example: loupe new-detector spade")
def new_detector(name: str) -> None:
    """Begin a method of your own in this checkout: its file, catalogue line, test and page (CONTRIBUTING.md)."""
    from datetime import UTC, datetime

    from components.detectors.skeleton import new_detector as write

    for path in write(name, Path(), datetime.now(UTC).year):
        say(str(path))
    say(f"next: make golden NAME={name}, then fill in; CONTRIBUTING.md says how")


@app.command(context_settings={"allow_interspersed_args": False}, epilog="Example: loupe bench fit mtd/patchcore")
def bench(question: Annotated[list[str] | None, typer.Argument(metavar="NAME [WORD]")] = None) -> None:
    """List the benchmarks, or run the one of this name with the words behind it: NAME --help tells which."""
    sys.path.insert(0, str(Path().resolve()))  # the folder of the benchmarks is no part of the installed program
    try:
        from benchmarks.questions import run
    except ModuleNotFoundError as error:
        raise SettingsError("benchmarks need a checkout of Loupe; run this in the folder of its README") from error
    run(question or [])
