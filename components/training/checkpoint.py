"""Checkpoints without pickle: tensors in safetensors, the rest in JSON, written aside and renamed together."""

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.backbones.extractor import Backbone
from components.core.artefacts import atomic_dir, read_json, write_json
from components.core.errors import DataError

log = logging.getLogger("loupe")


class Checkpoint:
    """The state of an unfinished training at *folder*, valid only for the same *fingerprint* of all inputs."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and position, or None when there is nothing to resume."""
        if not (self.folder / "position.json").exists():
            return None
        try:
            position = read_json(self.folder / "position.json")
            if position.pop("fingerprint") != self.fingerprint:
                return None
            return load_file(self.folder / "state.safetensors"), position
        except (OSError, DataError, KeyError, SafetensorError) as error:
            log.warning("%s: cannot be resumed (%s); training begins anew", self.folder, error)
            return None

    def save(self, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
        with atomic_dir(self.folder) as scratch:
            save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, scratch / "state.safetensors")
            write_json(scratch / "position.json", {**position, "fingerprint": self.fingerprint})

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def learned(module: nn.Module) -> dict[str, Tensor]:
    """The state that training changes: everything but frozen backbones."""
    frozen = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, Backbone))
    return {k: v for k, v in module.state_dict().items() if not k.startswith(frozen)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat named tensors."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(v) for i, values in state.items() for name, v in values.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what ``optimiser_tensors`` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below *prefix*, with it removed."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{k}": v for k, v in tensors.items()}
