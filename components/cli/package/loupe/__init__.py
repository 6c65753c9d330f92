"""Loupe for notebooks and other programs: ``fit``, ``load``, ``score``, ``evaluate``, ``compare``.

>>> import loupe
>>> model = loupe.load("runs/tiles")
>>> model.predict("new/000.png")
array([1])

docs/python.md tells more. An installed Loupe has everything below this name: ``loupe.components``, ``loupe.flows``.
"""

from typing import Any

from components.core.errors import LoupeError
from components.pipeline.face import Evaluation, Model, compare, evaluate, fit, load, score

__all__ = ["Evaluation", "LoupeError", "Model", "compare", "evaluate", "fit", "load", "score"]


def __getattr__(name: str) -> Any:
    """``loupe.__version__``, looked up when somebody asks."""
    if name == "__version__":
        from importlib.metadata import version

        return version("loupe")
    raise AttributeError(f"module 'loupe' has no attribute {name!r}")
