"""`python -m tests.reference`: docs/reference, written from commands, settings classes and routes; a test holds it."""

import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from typer.main import get_command

from benchmarks.common.tables import joined, markdown, wrapped
from components.cli import app
from components.pipeline.params import Params
from components.service.routes import create_app
from components.service.settings import ServiceSettings

PAGES = Path("docs/reference")
NOTE = "<!-- Written by python -m tests.reference -->"


def written() -> dict[str, str]:
    """Each page by the name of its file."""
    return {"commands.md": commands(), "settings.md": settings(), "http.md": http()}


# Commands: as a manual page has them.


def commands() -> str:
    known = get_command(app)
    about = "Every command with its options; `--help` behind a command says the same. `python -m loupe` is `loupe`."
    shared = _given(known, "option")
    ends = "What exit statuses mean stands in [operating](../operating.md#a-plants-own-images)."
    return joined("# Commands", NOTE, about, ends, "## Options of every command", shared, *map(_command, _all(known)))


def _all(group: Any, before: str = "loupe") -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _all(command, f"{before} {name}")
        else:
            yield f"{before} {name}", command


def _command(named: tuple[str, Any]) -> str:
    name, command = named
    usage = " ".join([name, *command.collect_usage_pieces(command.context_class(command, info_name=name))])
    said = _plain(inspect.cleandoc(command.help or "").replace("\b", ""))
    given, chosen = _given(command, "argument"), _given(command, "option")
    example = (command.epilog or "").replace("\b\n", "")
    parts = [f"## {name}", said, f"```text\n{usage}\n```", given, chosen]
    first, _, rest = example.partition("\n\n")
    parts += [
        f"```text\n{first.removeprefix('Example: ')}\n```" if first else "",
        f"```text\n{rest}\n```" if rest else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _given(command: Any, kind: str) -> str:
    """The arguments or the options of a command, a line each, as its help has them."""
    context = command.context_class(command)
    found = [p.get_help_record(context) for p in command.params if p.param_type_name == kind]
    said = [
        (names, " ".join(about.replace("\\[", "[").replace("<", "&lt;").split()))
        for names, about in filter(None, found)
    ]
    return "\n".join(wrapped(f"- `{names}`: {about}".rstrip(": "), "  ") for names, about in said)


def _plain(text: str) -> str:
    text = text.replace("``", "`")
    return "\n\n".join(wrapped(" ".join(part.split())) for part in text.split("\n\n"))


# Settings: a section of params.yaml each, with the comments that stand beside them in the code.


def settings() -> str:
    about = (
        "The sections of `params.yaml` and their keys. What is not named there has its default. `loupe fit --set "
        "train.moves=none` sets one for a run. Settings of a detector, `train.detectors`, stand on "
        "[its page](../methods)."
    )
    return joined("# Settings", NOTE, wrapped(about), *_sections(Params, ""))


def _sections(kind: Any, before: str) -> Iterator[str]:
    hints, own, below = get_type_hints(kind), [], []
    for field in fields(kind):
        part, named = _class_in(hints[field.name])
        (below if part else own).append((field, part, named))
    if before == "":
        yield "## Top of the file"
    yield _keys(kind, [field for field, _, _ in own], hints, before)
    for field, part, named in below:
        key = f"{before}{field.name}{'.NAME' if named else ''}"
        yield f"## {key}\n\n{_plain(inspect.getdoc(part) or '')}"
        yield from _sections(part, f"{key}.")


def _class_in(hint: Any) -> tuple[Any, bool]:
    """The settings class that a field holds, and whether it holds several by name."""
    if is_dataclass(hint):
        return hint, False
    if get_origin(hint) is dict and is_dataclass(get_args(hint)[1]):
        return get_args(hint)[1], True
    return None, False


def _keys(kind: Any, own: list[Any], hints: dict[str, Any], before: str) -> str:
    notes = comments(kind)
    lines = [
        f"- `{before}{f.name}`: {_type(hints[f.name])}{_default(f)}. {notes.get(f.name, '')}".rstrip() for f in own
    ]
    return "\n".join(wrapped(line, "  ") for line in lines)


def _default(field: Field[Any]) -> str:
    if field.default is MISSING and field.default_factory is MISSING:
        return ", required"
    value = field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]
    shown = {"None": "null", "True": "true", "False": "false"}.get(str(value))
    if isinstance(value, tuple):
        shown = f"[{', '.join(map(str, value))}]"
    return f", default `{shown or value}`" if value != "" else ', default `""`'


def _type(hint: Any) -> str:
    """An annotation in the words of somebody who writes YAML."""
    names = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        NoneType: "null",
        Any: "anything",
    }
    if hint in names:
        return names[hint]
    kind, inside = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(map(_type, inside))
    if kind is Literal:
        return " or ".join(f"`{word}`" for word in inside)
    if kind is tuple:
        return f"list of {_type(inside[0])}" if inside[-1] is ... else f"list of {len(inside)}: {_type(inside[0])}"
    return f"{_type(inside[1])} by name" if kind is dict and inside else "mapping" if hint is dict else str(hint)


def comments(kind: type) -> dict[str, str]:
    """The comment of each field: behind it, or in the lines right above."""
    found, above, field = {}, [], re.compile(r"\s+(\w+): ")
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(kind)).readline):
        if token.type == tokenize.COMMENT:
            said = token.string.removeprefix("#").strip()
            beside = field.match(token.line)
            if beside:
                found[beside[1]], above = said, []
            else:
                above.append(said)
        elif token.type == tokenize.NAME and (begun := field.match(token.line)) and above:
            found[begun[1]], above = " ".join(above), []
    return found


# HTTP: what the service tells at /openapi.json.


def http() -> str:
    nobody: Any = SimpleNamespace(current=None, store=None)
    schema = create_app(nobody, nobody, ServiceSettings()).openapi()
    about = "The service tells this itself, as OpenAPI at `/openapi.json` and as a page at `/docs`."
    parts = [
        _route(path, verb, said) for path, verbs in sorted(schema["paths"].items()) for verb, said in verbs.items()
    ]
    return joined("# HTTP interface", NOTE, schema["info"]["description"], about, *parts)


def _route(path: str, verb: str, said: dict[str, Any]) -> str:
    given = "\n".join(map(_parameter, said.get("parameters", [])))
    bodies = said.get("requestBody", {}).get("content", {})
    body = f"Body: {', '.join(f'`{kind}`' for kind in bodies)}." if bodies else ""
    answers = [(status, _line(a.get("description", ""))) for status, a in sorted(said["responses"].items())]
    table = markdown(("status", "meaning"), answers)
    parts = [f"## {verb.upper()} {path}", _plain(said.get("description", "")), given, body, table]
    return "\n\n".join(part for part in parts if part)


def _parameter(said: dict[str, Any]) -> str:
    schema = said["schema"]
    kinds = [one.get("type", "") for one in schema.get("anyOf", [schema])]
    chosen = f" ({', '.join(f'`{word}`' for word in schema['enum'])})" if "enum" in schema else ""
    default = f", default `{schema['default']}`" if schema.get("default") is not None else ""
    need = ", required" if said.get("required") else ""
    told = f": {said['description']}" if said.get("description") else ""
    return wrapped(f"- `{said['name']}` in the {said['in']}, {' or '.join(kinds)}{chosen}{default}{need}{told}", "  ")


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for name, text in written().items():
        (PAGES / name).write_text(text, encoding="utf-8")
