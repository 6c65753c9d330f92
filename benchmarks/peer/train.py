"""One of anomalib's models, trained and scored in the peer's environment: a file of raw scores, no metric.

Run by peer.py and race.py as ``PYTHON train.py REQUEST.json``; nothing of Loupe is imported. Models, losses,
optimisers and their rates are anomalib's; what drives them is the plain loop below, not its Engine: no validation, no
early stopping, no normalisation of scores. Every backbone is the one of the request, with its weights. A request may
name a file for the trained model's graph (``graph``).
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

LAYERS = ["blocks.1", "blocks.2", "blocks.4"]  # strides 4, 8 and 16 of tf_efficientnet_lite0: taps 1 to 3
BATCH = 16


def answer(path: Path) -> None:
    """Train what the request asks for; writes ``scores`` (N,), ``maps`` (N, H, W) and the seconds beside them.

    ``seconds`` are those of the clock, ``processor`` those of the processor.
    """
    asked = json.loads(path.read_text())
    torch.set_num_threads(asked["threads"])
    torch.manual_seed(asked["seed"])
    use_backbone(asked["backbone"], Path(asked["weights"]))
    clock = Clock()
    model = MODELS[asked["model"]](asked).eval()
    clock.told("fit")
    if "graph" in asked:
        exported(model, asked)
        clock.told("graph")
    found = [scored(model, batch) for batch in batches(asked, "test")]
    clock.told("score")
    scores, maps = (np.concatenate(part) for part in zip(*found, strict=True)) if found else (np.zeros(0),) * 2
    seconds, processor = json.dumps(clock.seconds), json.dumps(clock.processor)
    np.savez(asked["out"], scores=scores, maps=maps, seconds=seconds, processor=processor)


class Clock:
    """Seconds from one mark to the next."""

    def __init__(self) -> None:
        self.seconds, self.processor = dict[str, float](), dict[str, float]()
        self._now = time.perf_counter(), time.process_time()

    def told(self, what: str) -> None:
        now = time.perf_counter(), time.process_time()
        self.seconds[what], self.processor[what] = (round(b - a, 2) for a, b in zip(self._now, now, strict=True))
        self._now = now


def exported(model: torch.nn.Module, asked: dict[str, Any]) -> None:
    """The model as an ONNX file for pictures of the asked size, by the exporter that anomalib calls."""
    example = torch.rand(1, 3, asked["size"], asked["size"])
    torch.onnx.export(model, (example,), asked["graph"], input_names=["input"], dynamo=True, verbose=False)


def use_backbone(name: str, weights: Path) -> None:
    """Make timm give the backbone *name* whatever is asked for, with *weights* in place of a download."""
    import timm

    make, state = timm.create_model, torch.load(weights, map_location="cpu", weights_only=True)
    whole = make(name, pretrained=False).state_dict()
    if [value.shape for value in whole.values()] != [value.shape for value in state.values()]:
        raise SystemExit(f"{weights}: does not fit {name}")
    known = dict(zip(whole, state.values(), strict=True))  # other names, the same order

    def ours(_: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        made = make(name, pretrained=False, **{k: v for k, v in options.items() if k != "pretrained_cfg"})
        if pretrained:
            made.load_state_dict({key: known[key] for key in made.state_dict()})
        return made

    vars(timm)["create_model"] = ours


def batches(asked: dict[str, Any], side: str, order: list[int] | None = None) -> Iterator[torch.Tensor]:
    """Pictures of one side, resized and standardised: (B, 3, size, size)."""
    paths = asked[side]
    rows = order if order is not None else list(range(len(paths)))
    for start in range(0, len(rows), BATCH):
        yield torch.stack([shown(paths[i], asked) for i in rows[start : start + BATCH]])


def shown(path: str, asked: dict[str, Any]) -> torch.Tensor:
    from torchvision.transforms.v2.functional import resize

    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 255
    small = resize(pixels, [asked["size"]] * 2, antialias=True)
    mean, deviation = (torch.tensor(asked[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (small - mean) / deviation


@torch.inference_mode()
def scored(model: torch.nn.Module, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Raw image scores (B,) and maps (B, H, W) float32."""
    found = model(images)
    return found.pred_score.flatten().float().numpy(), found.anomaly_map[:, 0].float().numpy()


def patchcore(asked: dict[str, Any]) -> torch.nn.Module:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers=LAYERS[1:], backbone=asked["backbone"]).train()
    for images in batches(asked, "train"):
        model(images)
    patches = sum(len(part) for part in model.embedding_store)
    model.subsample_embedding(min(1.0, asked["patches"] / patches))
    return model


def padim(asked: dict[str, Any]) -> torch.nn.Module:
    from anomalib.models.image.padim.torch_model import PadimModel

    model = PadimModel(backbone=asked["backbone"], layers=LAYERS, n_features=100).train()
    for images in batches(asked, "train"):
        model(images)
    model.fit()
    return model


def dfm(asked: dict[str, Any]) -> torch.nn.Module:
    from anomalib.models.image.dfm.torch_model import DFMModel

    model = DFMModel(backbone=asked["backbone"], layer=LAYERS[2], pooling_kernel_size=4, n_comps=0.97, score_type="fre")
    model.train()
    for images in batches(asked, "train"):
        model(images)
    model.fit()
    return model


def fastflow(asked: dict[str, Any]) -> torch.nn.Module:
    from anomalib.models.image.fastflow.loss import FastflowLoss
    from anomalib.models.image.fastflow.torch_model import FastflowModel

    # It knows two networks by name and asks timm for taps 1 to 3 of either: it gets those of ours.
    model, loss = FastflowModel((asked["size"], asked["size"]), "resnet18"), FastflowLoss()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)  # anomalib's
    return learned(model, optimiser, lambda images: loss(*model(images)), asked)


def stfpm(asked: dict[str, Any]) -> torch.nn.Module:
    from anomalib.models.image.stfpm.loss import STFPMLoss
    from anomalib.models.image.stfpm.torch_model import STFPMModel

    model, loss = STFPMModel(layers=LAYERS, backbone=asked["backbone"]), STFPMLoss()
    student = model.student_model.parameters()
    optimiser = torch.optim.SGD(student, lr=0.4, momentum=0.9, weight_decay=0.001)  # anomalib's
    return learned(model, optimiser, lambda images: loss(*model(images)), asked)


def learned(model: torch.nn.Module, optimiser: Any, loss: Any, asked: dict[str, Any]) -> torch.nn.Module:
    for epoch in range(asked["epochs"]):
        model.train()
        order = torch.randperm(len(asked["train"]), generator=torch.Generator().manual_seed(epoch)).tolist()
        for images in batches(asked, "train", order):
            value = loss(images)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    return model


MODELS = {"patchcore": patchcore, "padim": padim, "dfm": dfm, "fastflow": fastflow, "stfpm": stfpm}

if __name__ == "__main__":
    answer(Path(sys.argv[1]))
