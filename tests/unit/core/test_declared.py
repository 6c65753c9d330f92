"""What a file says of itself is read without running the rest of it."""

import ast

import pytest

from components.core.declared import bound, stated

FILE = """
import nowhere_heavy
from nowhere_light import Known, missing
from math import tau

SIDE = 3
SIDES: tuple[int, ...] = (SIDE, 2 * SIDE)

class Settings:
    missing = SIDES  # a name that is bound here is not asked for

class Method(nowhere_heavy.Base):
    info = Known(Settings.missing)
    other = missing
    far = tau
"""


def wanted(tree, *names):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and set(names) & bound(node)]


def test_only_what_is_named_runs(tmp_path):
    tree = ast.parse(FILE)
    found = stated(tmp_path, tree, wanted(tree, "info", "far"), {"Known": list})
    assert found["info"] == [3, 6]
    assert found["far"] == pytest.approx(6.283, abs=1e-3)
    assert "Method" not in found


def test_an_import_that_is_named_is_made(tmp_path):
    tree = ast.parse(FILE)
    with pytest.raises(ModuleNotFoundError, match="nowhere_light"):
        stated(tmp_path, tree, wanted(tree, "other"), {"Known": list})
