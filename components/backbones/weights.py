"""Pre-trained weights: where they come from, their hash and licence; nothing is ever downloaded by a run.

A site with other weights puts a ``.safetensors`` or ``.pth`` file named after the timm model into the folder that the
environment variable ``LOUPE_WEIGHTS`` names, with an entry of the same form in ``manifest.json`` beside it.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.artefacts import file_hash, read_json
from components.core.errors import WeightsError

if TYPE_CHECKING:  # `loupe doctor` looks for the files without torch
    from torch import Tensor, nn

PACKAGED = Path(__file__).parent / "manifest.json"


def entry(name: str) -> dict[str, Any]:
    """The manifest's entry of a backbone, with ``path`` added. Raises WeightsError when there is none."""
    folder = os.environ.get("LOUPE_WEIGHTS")
    site = Path(folder) / "manifest.json" if folder else None
    if site and site.exists() and name in (known := read_json(site)):
        return {**known[name], "path": site.parent / known[name]["file"]}
    known = read_json(PACKAGED)
    if name not in known:
        raise WeightsError(
            f"backbone {name}: no weights in the manifest; put them into the folder LOUPE_WEIGHTS with a "
            f"manifest.json, or choose one of {', '.join(sorted(known))}"
        )
    return {**known[name], "path": _package_folder(known[name]) / known[name]["file"]}


def _package_folder(item: dict[str, Any]) -> Path:
    spec = importlib.util.find_spec(item["module"])
    if spec is None or spec.origin is None:
        raise WeightsError(f"{item['source']} is not installed; run `make setup` or pip install 'loupe[samples]'")
    return Path(spec.origin).parent


def load_into(model: nn.Module, name: str) -> None:
    """Copy the weights of *name* into the timm *model*, tensor by tensor in order. Raises WeightsError."""
    item = entry(name)
    if not item["path"].exists():
        raise WeightsError(f"{item['path']}: weights of {name} are missing; copy the file there")
    if (found := file_hash(item["path"])) != item["sha256"]:
        raise WeightsError(f"{item['path']}: SHA-256 is {found}, the manifest says {item['sha256']}; fetch it again")
    source = _read(item["path"])
    target = model.state_dict()
    if set(source) != set(target):
        source = _in_order(source, target, name)
    model.load_state_dict(source)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _in_order(source: dict[str, Tensor], target: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    # The Lite checkpoints use other names than timm but keep its order; shapes are checked one by one.
    matched = dict(zip(target, source.values(), strict=False))
    wrong = [key for key, value in matched.items() if value.shape != target[key].shape]
    if len(source) != len(target) or wrong:
        raise WeightsError(f"weights of {name} do not fit the timm model ({len(source)} tensors, {wrong[:3]})")
    return matched
