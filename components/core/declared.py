"""What a Python file declares, read without running the file: what it says of itself needs none of its imports.

``stated`` runs some statements of a file and what they name at its top (classes, functions, constants, imports), and
nothing else. A heavy import that they do name is made: that takes longer, and is right.
"""

import ast
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any


def stated(path: Path, tree: ast.Module, wanted: Sequence[ast.stmt], at_hand: Mapping[str, Any]) -> dict[str, Any]:
    """The names that are bound when *wanted* have run; those *at_hand* are taken from there, not from *path*."""
    run = ast.Module([*_named(tree, wanted, at_hand), *wanted], [])
    space = dict(at_hand)
    exec(compile(ast.fix_missing_locations(run), str(path), "exec"), space)
    return space


def bound(node: ast.stmt) -> set[str]:
    """The names that a statement binds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}


def _named(tree: ast.Module, wanted: Sequence[ast.stmt], at_hand: Collection[str]) -> list[ast.stmt]:
    """The statements at the top of the file that *wanted* name, and those that these name, in the file's order."""
    home = {name: node for node in tree.body for name in bound(node) if name not in at_hand}
    found: set[ast.stmt] = set()
    waiting = list(wanted)
    while waiting:
        read = (node for node in ast.walk(waiting.pop()) if isinstance(node, ast.Name))
        names = {node.id for node in read if isinstance(node.ctx, ast.Load)}
        new = {home[name] for name in names & home.keys()} - found
        found |= new
        waiting += new
    return [_only(node, at_hand) for node in tree.body if node in found]


def _only(node: ast.stmt, at_hand: Collection[str]) -> ast.stmt:
    """An import without the names that are at hand."""
    if not isinstance(node, ast.ImportFrom):
        return node
    return ast.ImportFrom(node.module, [alias for alias in node.names if alias.name not in at_hand], node.level)
