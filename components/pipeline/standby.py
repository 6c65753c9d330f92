"""A process that has loaded what stages load before it is told which one to run.

Loading takes as long as checking small data does, and so does the graph of the network that the probe looks through.
Whoever began the process does the one while this process does the other.
"""

import json
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from components.core.cache import features_folder
from components.pipeline.params import load_params

LOADED = ("components.training.train", "sklearn.metrics", "timm")  # the slow ones of every training


def awaited(params: Path) -> list[str]:
    """The command line of the stage that is to run here, from standard input; *params* are those it will have.

    Ends the process where there is none: its beginner has ended, or needed no stage.
    """
    with suppress(Exception):  # the stage that is told to run says what is wrong with weights, settings or the disk
        _load(params)
    told = sys.stdin.readline()
    if not told:
        sys.exit()
    words: list[str] = json.loads(told)
    return words


def _load(params: Path) -> None:
    for name in LOADED:
        import_module(name)
    train = load_params(params).train
    if folder := features_folder(train.store):
        from components.training.probe import keep_graph

        keep_graph(folder, train.preset)
