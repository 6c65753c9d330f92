"""The one training loop: any detector's stages, exact resume, the epoch that synthetic anomalies prefer.

Randomness is a function of (seed, stage, epoch, step), never of what ran before, so a resumed run draws the same
batches and the same noise as an unbroken one.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from components.detectors.contract import Detector, Fit, Optimise, Stage, TrainingData
from components.progress import progress
from components.training.checkpoint import (
    Checkpoint,
    learned,
    optimiser_tensors,
    part,
    prefixed,
    restore_optimiser,
)

log = logging.getLogger("loupe")
Select = Callable[[Detector], float]


class Loop:
    """Trains *detector* in place; ``history`` holds one record per epoch or fit stage."""

    def __init__(
        self, detector: Detector, select: Select, checkpoint: Checkpoint, seed: int, every: float, fabric: Fabric
    ) -> None:
        self.detector, self.select, self.checkpoint = detector, select, checkpoint
        self.seed, self.every, self.fabric = seed, every, fabric
        self.history: list[dict[str, Any]] = []
        self.spent = {"drawing": 0.0, "steps": 0.0, "choosing": 0.0}  # seconds of this process
        self.saved_at = time.monotonic()
        self.tensors: dict[str, Tensor] = {}
        self.position: dict[str, Any] = {"stage": 0, "epoch": 0, "step": 0}
        self.best: tuple[float, dict[str, Tensor]] | None = None

    def run(self, data: TrainingData) -> None:
        """Run all stages, from the checkpoint if there is one."""
        self._resume()
        for number, stage in enumerate(self.detector.stages(data)):
            if number < self.position["stage"]:
                continue
            log.info("%s: stage %s on %d images", self.detector.name, stage.name, len(stage.table))
            self._fit(stage) if isinstance(stage, Fit) else self._optimise(stage)
            self.best, self.tensors = None, {}
            self.position = {"stage": number + 1, "epoch": 0, "step": 0}
            self._save()

    def _resume(self) -> None:
        found = self.checkpoint.load()
        if not found:
            return
        self.tensors, position = found
        self.history, best = position.pop("history"), position.pop("best")
        self.position = position
        self.detector.load_state_dict(part(self.tensors, "model."), strict=False)
        if best is not None:
            self.best = (best, part(self.tensors, "best."))
        log.info("%s: resumes at %s", self.detector.name, position)

    def _save(self, extra: dict[str, Tensor] | None = None) -> None:
        tensors = prefixed("model.", learned(self.detector)) | (extra or {})
        if self.best:
            tensors |= prefixed("best.", self.best[1])
        score = self.best[0] if self.best else None
        self.checkpoint.save(tensors, {**self.position, "history": self.history, "best": score})
        self.saved_at = time.monotonic()

    def _due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.every

    def _fit(self, stage: Fit) -> None:
        starts = range(0, len(stage.table), stage.batch_size)
        with torch.inference_mode():
            for start in progress(starts, f"{self.detector.name}: {stage.name}"):
                if start < self.position["step"]:
                    continue
                stage.update(stage.table.take(range(start, min(start + stage.batch_size, len(stage.table)))))
                self.position["step"] = start + stage.batch_size
                if self._due():
                    self._save()
            stage.finish()
        self.history.append({"stage": stage.name, "epoch": 0, "synthetic_auroc": self._chosen()})

    def _optimise(self, stage: Optimise) -> None:
        optimiser: Any = self.fabric.setup_optimizers(stage.optimiser(stage.parameters))
        average = self._average(stage)
        restore_optimiser(optimiser, part(self.tensors, "optimiser."))
        for epoch in range(self.position["epoch"], stage.epochs):
            loss = self._epoch(stage, optimiser, average, epoch)
            self._finish_epoch(stage, average, epoch, loss, optimiser)
        if stage.select and self.best:
            self.detector.load_state_dict(self.best[1], strict=False)
        elif average:
            _assign(stage.parameters, average)

    def _average(self, stage: Optimise) -> list[Tensor]:
        if not stage.average:
            return []
        saved = part(self.tensors, "average.")
        return [saved[str(i)] if saved else p.detach().clone() for i, p in enumerate(stage.parameters)]

    def _epoch(self, stage: Optimise, optimiser: Any, average: list[Tensor], epoch: int) -> float:
        order = torch.randperm(len(stage.table), generator=self._generator(stage, epoch)).tolist()
        batches = [order[i : i + stage.batch_size] for i in range(0, len(order), stage.batch_size)]
        total = self.position.pop("loss", 0.0)
        self.detector.train()
        for step in progress(range(len(batches)), f"{self.detector.name}: {stage.name} {epoch + 1}/{stage.epochs}"):
            if step < self.position["step"]:
                continue
            done = (epoch * len(batches) + step) / (stage.epochs * len(batches))
            torch.manual_seed(self._number(stage, epoch, step))
            total += self._step(stage, optimiser, average, batches[step], done)
            self.position.update(epoch=epoch, step=step + 1)
            if self._due():
                self.position["loss"] = total
                self._save(_loop_state(optimiser, average))
                del self.position["loss"]
        self.position.update(epoch=epoch + 1, step=0)
        return total / len(batches)

    def _step(self, stage: Optimise, optimiser: Any, average: list[Tensor], rows: list[int], done: float) -> float:
        for group in optimiser.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * stage.schedule(done)
        started = time.perf_counter()
        batch = self.fabric.to_device(stage.table.take(rows))
        drawn = time.perf_counter()
        with self.fabric.autocast():
            loss = stage.loss(batch)
        optimiser.zero_grad()
        self.fabric.backward(loss)
        if stage.clip:
            torch.nn.utils.clip_grad_norm_(stage.parameters, stage.clip)
        optimiser.step()
        for mean, weight in zip(average, stage.parameters, strict=False):
            mean.lerp_(weight.detach(), 1 - stage.average)
        value = float(loss.detach())  # waits for the device, so that the clock below is right there too
        self.spent["drawing"] += drawn - started
        self.spent["steps"] += time.perf_counter() - drawn
        return value

    def _finish_epoch(self, stage: Optimise, average: list[Tensor], epoch: int, loss: float, optimiser: Any) -> None:
        self.detector.eval()
        record = {"stage": stage.name, "epoch": epoch, "loss": loss, "lr": optimiser.param_groups[0]["lr"]}
        if stage.select:
            live = [p.detach().clone() for p in stage.parameters]
            _assign(stage.parameters, average)
            record["synthetic_auroc"] = score = self._chosen()
            if self.best is None or score >= self.best[0]:
                self.best = (score, {k: v.detach().clone() for k, v in learned(self.detector).items()})
            _assign(stage.parameters, live if average else [])
        self.history.append(record)
        log.info("%s: epoch %d/%d %s", self.detector.name, epoch + 1, stage.epochs, _figures(record))
        if self._due():
            self._save(_loop_state(optimiser, average))

    def _chosen(self) -> float:
        started = time.perf_counter()
        score = self.select(self.detector)
        self.spent["choosing"] += time.perf_counter() - started
        return score

    def _number(self, stage: Stage, epoch: int, step: int) -> int:
        text = f"{self.seed}/{stage.name}/{epoch}/{step}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

    def _generator(self, stage: Stage, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._number(stage, epoch, -1))


def _loop_state(optimiser: Any, average: list[Tensor]) -> dict[str, Tensor]:
    state = prefixed("optimiser.", optimiser_tensors(optimiser))
    return state | {f"average.{i}": value for i, value in enumerate(average)}


@torch.no_grad()
def _assign(parameters: Any, values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=False):
        parameter.copy_(value)


def _figures(record: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, float))
