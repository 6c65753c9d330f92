"""What the file of a method says of it, read without running it: a list of detectors needs no torch.

``info`` and ``presets`` stand in the class of a method, once; only these two and what they name is run.
"""

import ast
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.backbones.settings import BackboneSettings
from components.core.declared import bound, stated

DECLARED = {"info", "presets"}


@dataclass(frozen=True)
class MethodInfo:
    """The publication behind a detector. *published* are the authors' numbers under their own protocol."""

    title: str
    paper: str
    year: int
    venue: str
    family: str
    needs: tuple[str, ...]
    reconstructed: tuple[str, ...] = ()
    published: dict[str, float] = field(default_factory=dict)


# Methods import these from modules that load torch; here they are at hand.
AT_HAND = {"MethodInfo": MethodInfo, "BackboneSettings": BackboneSettings}


def facts(module: str, attribute: str) -> tuple[MethodInfo, dict[str, Any]]:
    """Info and presets of the class *attribute* of *module*, as its source declares them."""
    path = Path(str(getattr(importlib.util.find_spec(module), "origin", None)))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (kind,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == attribute)
    said = stated(path, tree, [node for node in kind.body if DECLARED & bound(node)], {"__name__": module, **AT_HAND})
    return said["info"], said["presets"]
