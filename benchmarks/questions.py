"""The benchmarks by name, one file a question; what a question needs is loaded when it is asked."""

import argparse
import ast
import importlib
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

from components.core.checks import check_known
from components.core.declared import stated

HERE = Path(__file__).parent
NAMES = {
    "quality": (
        "fit",
        "table",
        "mended",
        "floor",
        "defects",
        "more",
        "trials",
        "unified",
        "labelled",
        "synthesis",
        "choose",
        "auto",
        "choice",
        "duplicates",
        "pose",
        "methods",
        "average",
        "video",
        "oneclass",
    ),
    "mechanisms": ("mechanisms", "cascade", "quantiser", "thresholds", "lists"),
    "production": (
        "monitor",
        "replay",
        "demo_drift",
        "power_cut",
        "load",
        "soak",
        "volume",
        "features",
        "accelerator",
        "devices",
        "sizes",
        "bulk",
        "matrix",
        "pools",
        "repro",
        "torchless",
        "walk",
        "champion",
    ),
    "speed": ("speed",),
    "report": ("report",),
    "peer": ("peer", "race"),
}
HELP = {"-h", "--help"}
SCRIPTS = ("repro", "torchless")
FILES = {
    name: f"{group}/{name}.{'sh' if name in SCRIPTS else 'py'}" for group, names in NAMES.items() for name in names
}


def run(arguments: list[str]) -> None:
    """Ask the question that the first of *arguments* names, with the others; list all without one."""
    if not arguments:
        sys.stdout.write(listed())
        return
    name, *options = arguments
    check_known(name, FILES, "loupe bench")
    ask = script if name in SCRIPTS else module
    ask(name, options)


def module(name: str, options: list[str]) -> None:
    """Ask a question whose module has a ``main``."""
    if HELP & set(options):
        parser_of(name).print_help()
        sys.exit()
    path = FILES[name].removesuffix(".py").replace("/", ".")
    importlib.import_module(f"benchmarks.{path}").main(options)


def script(name: str, options: list[str]) -> None:
    """Ask a question that a shell script answers."""
    if HELP & set(options):
        sys.stdout.write(f"{about(name)}\n")
        sys.exit()
    sys.exit(subprocess.run([HERE / FILES[name], *options]).returncode)


def parser_of(name: str) -> argparse.ArgumentParser:
    """The options of a question, read without what it needs to be asked: the call of ``options`` and what is added."""
    path = HERE / FILES[name]
    tree = ast.parse(path.read_text())
    made, added = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "options":
            made.append(ast.Assign([ast.Name("parser", ast.Store())], node))
        elif isinstance(node, ast.Expr) and ast.unparse(node).startswith("parser.add_argument("):
            added.append(node)
    found = stated(path, tree, [*made, *added], {"__doc__": ast.get_docstring(tree), "__file__": str(path)})["parser"]
    assert isinstance(found, argparse.ArgumentParser)
    return found


def listed() -> str:
    """Each group's questions with their one line."""
    parts = ["loupe bench NAME [OPTION]...; loupe bench NAME --help tells more.\n"]
    for group, names in NAMES.items():
        parts += [f"\n{group}\n", *(f"  {name:12} {about(name).splitlines()[0]}\n" for name in names)]
    return "".join(parts)


def about(name: str) -> str:
    """What the file of a question says at its top, read without running it."""
    text = (HERE / FILES[name]).read_text()
    if name in SCRIPTS:
        comments = takewhile(lambda line: line.startswith("#"), text.splitlines()[1:])
        return "\n".join(line.removeprefix("#").strip() for line in comments)
    return ast.get_docstring(ast.parse(text)) or ""
