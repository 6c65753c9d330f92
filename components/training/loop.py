"""The one training loop: any detector's stages, exact resume, the epoch that synthetic anomalies prefer.

Randomness is a function of (seed, stage, epoch, step), never of what ran before, so a resumed run draws the same
batches and the same noise as an unbroken one.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from components.core.progress import progress
from components.detectors.contract import Detector, Fit, Optimise, Player, Stage, TrainingData
from components.training.checkpoint import Checkpoint, learned, optimiser_tensors, part, prefixed, restore_optimiser

log = logging.getLogger("loupe")
Select = Callable[[Detector], float]
CHECKS = 6  # of a stage by synthetic anomalies, at most; a check may cost as much as half an epoch


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
        if self.history and "synthetic_auroc" not in self.history[-1]:
            self.history[-1]["synthetic_auroc"] = self._chosen()  # chooses nothing: what the model is worth as it ended

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
        if stage.optional and not self.best:
            self.best = (self._chosen(), _copied(self.detector))
        starts = range(0, len(stage.table), stage.batch_size)
        with torch.inference_mode():
            for start in progress(starts, f"{self.detector.name}: {stage.name}"):
                if start < self.position["step"]:
                    continue
                rows = range(start, min(start + stage.batch_size, len(stage.table)))
                stage.update(self.fabric.to_device(stage.table.take(rows)))
                self.position["step"] = start + stage.batch_size
                if self._due():
                    self._save()
            stage.finish()
        self.history.append({"stage": stage.name, "epoch": 0, **self._kept(stage)})

    def _kept(self, stage: Fit) -> dict[str, Any]:
        """Of an optional stage: undo it where the model was better before; what it then is worth, and before."""
        if not stage.optional or not self.best:
            return {}
        (before, state), after = self.best, self._chosen()
        if after < before:
            self.detector.load_state_dict(state, strict=False)
        log.info("%s: %s %s, %.4g before, %.4g with it", self.detector.name, stage.name,
                 "undone" if after < before else "kept", before, after)  # fmt: skip
        return {"synthetic_auroc": max(before, after), "before": before, "kept": after >= before}

    def _optimise(self, stage: Optimise) -> None:
        optimisers = self._optimisers(stage)
        average = self._average(stage)
        for epoch in range(self.position["epoch"], stage.epochs):
            losses = self._epoch(stage, optimisers, average, epoch)
            self._finish_epoch(stage, average, epoch, losses, optimisers)
        if stage.select and self.best:
            self.detector.load_state_dict(self.best[1], strict=False)
        elif average:
            _assign(stage.parameters, average)

    def _optimisers(self, stage: Optimise) -> list[Any]:
        """One per player, as they were when the checkpoint was written."""
        found = []
        for number, player in enumerate(stage.players):
            optimiser: Any = self.fabric.setup_optimizers(player.optimiser(player.parameters))
            restore_optimiser(optimiser, part(self.tensors, _prefix(number)))
            found.append(optimiser)
        return found

    def _average(self, stage: Optimise) -> list[Tensor]:
        if not stage.average:
            return []
        saved = part(self.tensors, "average.")
        return [saved[str(i)].to(p.device) if saved else p.detach().clone() for i, p in enumerate(stage.parameters)]

    def _epoch(self, stage: Optimise, optimisers: list[Any], average: list[Tensor], epoch: int) -> list[float]:
        """One pass over the table; the mean loss of each player."""
        order = torch.randperm(len(stage.table), generator=self._generator(stage, epoch)).tolist()
        batches = [order[i : i + stage.batch_size] for i in range(0, len(order), stage.batch_size)]
        totals = self.position.pop("losses", [0.0] * len(optimisers))
        self.detector.train()
        for step in progress(range(len(batches)), f"{self.detector.name}: {stage.name} {epoch + 1}/{stage.epochs}"):
            if step < self.position["step"]:
                continue
            done = (epoch * len(batches) + step) / (stage.epochs * len(batches))
            torch.manual_seed(self._number(stage, epoch, step))
            losses = self._step(stage, optimisers, average, batches[step], done)
            totals = [total + loss for total, loss in zip(totals, losses, strict=True)]
            self.position.update(epoch=epoch, step=step + 1)
            if self._due():
                self.position["losses"] = totals
                self._save(_loop_state(optimisers, average))
                del self.position["losses"]
        self.position.update(epoch=epoch + 1, step=0)
        return [total / len(batches) for total in totals]

    def _step(
        self, stage: Optimise, optimisers: list[Any], average: list[Tensor], rows: list[int], done: float
    ) -> list[float]:
        started = time.perf_counter()
        batch = self.fabric.to_device(stage.table.take(rows))
        drawn = time.perf_counter()
        losses = []
        for player, optimiser in zip(stage.players, optimisers, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * stage.schedule(done)
            with _others_frozen(player, stage.players):
                losses.append(self._move(player, optimiser, batch))
        for mean, weight in zip(average, stage.parameters, strict=False):
            mean.lerp_(weight.detach(), 1 - stage.average)
        values = [float(loss) for loss in losses]  # waits for the device, so that the clock below is right there too
        self.spent["drawing"] += drawn - started
        self.spent["steps"] += time.perf_counter() - drawn
        return values

    def _move(self, player: Player, optimiser: Any, batch: Any) -> Tensor:
        """One step of one player; its loss."""
        with self.fabric.autocast():
            loss = player.loss(batch)
        optimiser.zero_grad()
        self.fabric.backward(loss)
        if player.clip:
            torch.nn.utils.clip_grad_norm_(player.parameters, player.clip)
        optimiser.step()
        return loss.detach()

    def _finish_epoch(
        self, stage: Optimise, average: list[Tensor], epoch: int, losses: list[float], optimisers: list[Any]
    ) -> None:
        self.detector.eval()
        record = {"stage": stage.name, "epoch": epoch, "loss": losses[0], "lr": optimisers[0].param_groups[0]["lr"]}
        record |= {f"rival_{number}_loss": loss for number, loss in enumerate(losses[1:], 1)}
        if stage.select and _checked(epoch, stage.epochs):
            live = [p.detach().clone() for p in stage.parameters]
            _assign(stage.parameters, average)
            record["synthetic_auroc"] = score = self._chosen()
            if self.best is None or score >= self.best[0]:
                self.best = (score, _copied(self.detector))
            _assign(stage.parameters, live if average else [])
        self.history.append(record)
        log.info("%s: epoch %d/%d %s", self.detector.name, epoch + 1, stage.epochs, _figures(record))
        if self._due():
            self._save(_loop_state(optimisers, average))

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


def _copied(detector: Detector) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in learned(detector).items()}


def _checked(epoch: int, epochs: int) -> bool:
    """True for CHECKS epochs spread evenly, the last among them; for every epoch of a short stage."""
    return (epoch + 1) * CHECKS // epochs > epoch * CHECKS // epochs


def _prefix(number: int) -> str:
    """Where a checkpoint keeps the optimiser of player *number*."""
    return f"optimiser{number or ''}."


def _loop_state(optimisers: list[Any], average: list[Tensor]) -> dict[str, Tensor]:
    state = {f"average.{i}": value for i, value in enumerate(average)}
    for number, optimiser in enumerate(optimisers):
        state |= prefixed(_prefix(number), optimiser_tensors(optimiser))
    return state


@contextmanager
def _others_frozen(player: Player, players: Sequence[Player]) -> Iterator[None]:
    """Parameters that only others of *players* have need no gradient meanwhile, so that none is left for their turn."""
    own = {id(p) for p in player.parameters}
    others = {id(p): p for other in players for p in other.parameters if p.requires_grad and id(p) not in own}
    for parameter in others.values():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others.values():
            parameter.requires_grad_(True)


@torch.no_grad()
def _assign(parameters: Any, values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=False):
        parameter.copy_(value)


def _figures(record: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, float))
