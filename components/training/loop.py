"""The one training loop: any detector's phases, exact resume, the epoch that synthetic anomalies prefer.

Randomness is a function of (seed, phase, epoch, step), never of what ran before, so a resumed run draws the same
batches and the same noise as an unbroken one. So is the mode: a detector is in eval mode, and what an Optimise phase
moves is in training mode while it steps. Several processes (``ranks``) run it side by side (docs/adr/0054).
"""

import copy
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from components.core.progress import CURVES, progress
from components.detectors.contract import Detector, OnePass, Optimise, Phase, Player, Table, TrainingData, pictures_of
from components.detectors.parts.together import sharing
from components.training.checkpoint import Checkpoint, learned, optimiser_tensors, part, prefixed, restore_optimiser
from components.training.grown import Grown
from components.training.ranks import ALONE, Ranks, sums_of

log, curves = logging.getLogger("loupe"), logging.getLogger(CURVES)
Select = Callable[[Detector], float]


class Checks(NamedTuple):
    """When a phase is asked what it is worth, and when it ends before its last epoch."""

    most: int = 6  # of a phase, at most, evenly spread; a check may cost as much as half an epoch
    patience: int | None = None  # checks in a row without a rise, behind which the phase ends
    rise: float = 0.001  # of AUROC; less is none


USUAL = Checks()
UNTIL_FLAT = Checks(most=20, patience=5)  # of the preset long


class Loop:
    """Trains *detector* in place; ``history`` holds one record per epoch or fit phase."""

    def __init__(
        self,
        detector: Detector,
        select: Select,
        checkpoint: Checkpoint,
        seed: int,
        every: float,
        fabric: Fabric,
        grown: Grown | None = None,
        checks: Checks = USUAL,
        ranks: Ranks = ALONE,
    ) -> None:
        self.detector, self.select, self.checkpoint = detector, select, checkpoint
        self.seed, self.every, self.fabric, self.grown, self.checks = seed, every, fabric, grown, checks
        self.ranks = ranks
        self.history: list[dict[str, Any]] = []
        self.spent = {"drawing": 0.0, "steps": 0.0, "choosing": 0.0}  # seconds of this process
        self.saved_at = time.monotonic()
        self.tensors: dict[str, Tensor] = {}
        self.position: dict[str, Any] = {"phase": 0, "epoch": 0, "step": 0}
        self.best: tuple[float, dict[str, Tensor]] | None = None

    def run(self, data: TrainingData) -> None:
        """Run all phases, from the checkpoint if there is one, else from the state of an earlier fit."""
        self.detector.eval()
        self._resume()
        for number, phase in enumerate(self.detector.phases(data)):
            if number < self.position["phase"]:
                continue
            log.info("%s: phase %s on %d images", self.detector.name, phase.name, len(phase.table))
            self._fit(phase) if isinstance(phase, OnePass) else self._optimise(phase)
            self.ranks.align(self.detector)
            self.best, self.tensors = None, {}
            self.position = {"phase": number + 1, "epoch": 0, "step": 0}
            self._save()
        if self.history and "synthetic_auroc" not in self.history[-1]:
            self.history[-1]["synthetic_auroc"] = self._chosen()  # chooses nothing: what the model is worth as it ended

    def _resume(self) -> None:
        found = self.checkpoint.load() or (self.grown and self.grown.load())
        self.ranks.first(None)  # nobody writes before all have read
        if not found or not self._fits(*found):
            return
        self.tensors, position = found
        self.history, best = position.pop("history"), position.pop("best")
        for step in range(len(self.history)):
            self._tell(step)
        self.position = position
        self.detector.load_state_dict(part(self.tensors, "model."), strict=False)
        if best is not None:
            self.best = (best, part(self.tensors, "best."))
        log.info("%s: resumes at %s", self.detector.name, position)

    def _fits(self, tensors: dict[str, Tensor], position: dict[str, Any]) -> bool:
        """False of a checkpoint that another version of Loupe wrote: its places or its weights are other ones."""
        kept = part(tensors, "model.")
        fits = "phase" in position and kept.keys() == learned(self.detector).keys()
        try:  # on a copy: what is refused half way leaves the detector as it was
            copy.deepcopy(self.detector).load_state_dict(kept, strict=False)
        except RuntimeError:  # other shapes than those that it takes
            fits = False
        if not fits:
            log.info("%s: the checkpoint is of another version of the detector; starts anew", self.detector.name)
        return fits

    def _save(self, extra: dict[str, Tensor] | None = None) -> None:
        if self.ranks.writes:
            tensors = prefixed("model.", learned(self.detector)) | (extra or {})
            if self.best:
                tensors |= prefixed("best.", self.best[1])
            score = self.best[0] if self.best else None
            self.checkpoint.save(tensors, {**self.position, "history": self.history, "best": score})
        self.saved_at = time.monotonic()

    def _due(self) -> bool:
        return self.ranks.first(time.monotonic() - self.saved_at >= self.every)

    def _fit(self, phase: OnePass) -> None:
        if phase.optional and not self.best:
            self.best = (self._chosen(), _copied(self.detector))
        with torch.inference_mode():
            self._pass(phase)
            torch.manual_seed(self._number(phase, 0, len(phase.table)))
            phase.finish()
        self._note({"phase": phase.name, "epoch": 0, **self._kept(phase)})

    def _pass(self, phase: OnePass) -> None:
        """All batches in order. Of a phase of sums each process takes every so many, and the sums are added."""
        shared, step = phase.sums and self.ranks.count > 1, phase.batch_size
        starts = range(self.position["step"], len(phase.table), step)
        before = _copies(sums_of(self.detector)) if shared else {}
        turns = self.ranks.count if shared else 1
        for turn in progress(range(0, len(starts), turns), f"{self.detector.name}: {phase.name}"):
            own = starts[turn : turn + turns][self.ranks.rank :][:1] if shared else starts[turn : turn + 1]
            for start in own:
                torch.manual_seed(self._number(phase, 0, start))
                rows = range(start, min(start + step, len(phase.table)))
                phase.update(self.fabric.to_device(phase.table.take(rows)))
            self.position["step"] = starts[turn : turn + turns][-1] + step
            self._grow(phase)
            if self._due():
                before = self.ranks.added(self.detector, before) if shared else before
                self._save()
        if shared:
            self.ranks.added(self.detector, before)

    def _note(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        self._tell(len(self.history) - 1)

    def _tell(self, step: int) -> None:
        """To whoever follows the training."""
        if curves.isEnabledFor(logging.DEBUG):
            curves.debug("%s", json.dumps([step, self.history[step]]))

    def _grow(self, phase: OnePass) -> None:
        """Keep the state behind the last whole batch: a fit of more pictures has the same batches up to there."""
        step, rows = self.position["step"], len(phase.table)
        last, grown = step <= rows < step + phase.batch_size, self.grown if self.ranks.writes else None
        if grown and phase.grows and last and self.position["phase"] == 0 and rows == len(grown.pictures):
            grown.save(prefixed("model.", learned(self.detector)), step)

    def _kept(self, phase: OnePass) -> dict[str, Any]:
        """Of an optional phase: undo it where the model was better before; what it then is worth, and before."""
        if not phase.optional or not self.best:
            return {}
        (before, state), after = self.best, self._chosen()
        if after < before:
            self.detector.load_state_dict(state, strict=False)
        log.info(
            "%s: %s %s, %.4g before, %.4g with it",
            self.detector.name,
            phase.name,
            "undone" if after < before else "kept",
            before,
            after,
        )
        return {"synthetic_auroc": max(before, after), "before": before, "kept": after >= before}

    def _optimise(self, phase: Optimise) -> None:
        optimisers = self._optimisers(phase)
        average = self._average(phase)
        for epoch in range(self.position["epoch"], phase.epochs):
            if self._flat(phase):
                log.info("%s: %s ends here, as the signal no longer rises", self.detector.name, phase.name)
                break
            with learning(self.detector, phase):
                losses = self._epoch(phase, optimisers, average, epoch)
            self._finish_epoch(phase, average, epoch, losses, optimisers)
        if phase.select and self.best:
            self.detector.load_state_dict(self.best[1], strict=False)
        elif average:
            _assign(phase.parameters, average)

    def _flat(self, phase: Optimise) -> bool:
        """Whether the last checks of *phase* found nothing better; told by the history, which a resume has too."""
        told = [record for record in self.history if record["phase"] == phase.name]
        worth = [record["synthetic_auroc"] for record in told if "synthetic_auroc" in record]
        patience = self.checks.patience
        if patience is None or len(worth) <= patience:
            return False
        return max(worth[-patience:]) < max(worth[:-patience]) + self.checks.rise

    def _optimisers(self, phase: Optimise) -> list[Any]:
        """One per player, as they were when the checkpoint was written."""
        found = []
        for number, player in enumerate(phase.players):
            optimiser: Any = self.fabric.setup_optimizers(player.optimiser(player.parameters))
            restore_optimiser(optimiser, part(self.tensors, _prefix(number)))
            found.append(optimiser)
        return found

    def _average(self, phase: Optimise) -> list[Tensor]:
        if not phase.average:
            return []
        saved = part(self.tensors, "average.")
        return [saved[str(i)].to(p.device) if saved else p.detach().clone() for i, p in enumerate(phase.parameters)]

    def _epoch(self, phase: Optimise, optimisers: list[Any], average: list[Tensor], epoch: int) -> list[float]:
        """One pass over the pictures of the table; the mean loss of each player."""
        order = drawn_order(phase.table, self._generator(phase, epoch))
        batches = [order[i : i + phase.batch_size] for i in range(0, len(order), phase.batch_size)]
        totals = self.position.pop("losses", [0.0] * len(optimisers))
        for step in progress(range(len(batches)), f"{self.detector.name}: {phase.name} {epoch + 1}/{phase.epochs}"):
            if step < self.position["step"]:
                continue
            done = (epoch * len(batches) + step) / (phase.epochs * len(batches))
            torch.manual_seed(self._number(phase, epoch, step))
            losses = self._step(phase, optimisers, average, batches[step], done)
            totals = [total + loss for total, loss in zip(totals, losses, strict=True)]
            self.position.update(epoch=epoch, step=step + 1)
            if self._due():
                self.position["losses"] = totals
                self._save(_loop_state(optimisers, average))
                del self.position["losses"]
        self.position.update(epoch=epoch + 1, step=0)
        return [total / len(batches) for total in totals]

    def _step(
        self, phase: Optimise, optimisers: list[Any], average: list[Tensor], rows: list[int], done: float
    ) -> list[float]:
        started, part = time.perf_counter(), self.ranks.part(len(rows))
        own = rows[part.start : part.end] if part else rows
        batch = self.fabric.to_device(phase.table.take(own))
        drawn = time.perf_counter()
        losses = []
        for player, optimiser in zip(phase.players, optimisers, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * phase.schedule(done)
            with _others_frozen(player, phase.players), sharing(part):
                share = len(own) / len(rows)
                moves = [self._move(player, optimiser, batch, share) for _ in range(player.steps)]
            losses.append(moves[-1])
        for mean, weight in zip(average, phase.parameters, strict=False):
            mean.lerp_(weight.detach(), 1 - phase.average)
        values = [float(loss) for loss in losses]  # waits for the device, so that the clock below is right there too
        self.spent["drawing"] += drawn - started
        self.spent["steps"] += time.perf_counter() - drawn
        return values

    def _move(self, player: Player, optimiser: Any, batch: Any, share: float = 1.0) -> Tensor:
        """One step of one player on its *share* of a batch; its loss of all of it."""
        with self.fabric.autocast():
            loss = player.loss(batch)
        optimiser.zero_grad()
        if share < 1:
            self.fabric.backward(loss * share)
            loss = self.ranks.together(player.parameters, loss * share)
        else:
            self.fabric.backward(loss)
        if player.clip:
            # What a scaler of 16-mixed has scaled is unscaled first; where it is infinite, the step is skipped.
            self.fabric.clip_gradients(self.detector, optimiser, max_norm=player.clip, error_if_nonfinite=False)
        optimiser.step()
        return loss.detach()

    def _finish_epoch(
        self, phase: Optimise, average: list[Tensor], epoch: int, losses: list[float], optimisers: list[Any]
    ) -> None:
        record = {"phase": phase.name, "epoch": epoch, "loss": losses[0], "lr": optimisers[0].param_groups[0]["lr"]}
        record |= {f"rival_{number}_loss": loss for number, loss in enumerate(losses[1:], 1)} | phase.told()
        if phase.select and _checked(epoch, phase.epochs, self.checks.most):
            live = [p.detach().clone() for p in phase.parameters]
            _assign(phase.parameters, average)
            self.ranks.align(self.detector)
            record["synthetic_auroc"] = score = self._chosen()
            if self.best is None or score >= self.best[0]:
                self.best = (score, _copied(self.detector))
            _assign(phase.parameters, live if average else [])
        self._note(record)
        log.info("%s: epoch %d/%d %s", self.detector.name, epoch + 1, phase.epochs, _figures(record))
        if self._due():
            self._save(_loop_state(optimisers, average))

    def _chosen(self) -> float:
        started = time.perf_counter()
        score = self.ranks.first(self.select(self.detector))
        self.spent["choosing"] += time.perf_counter() - started
        return score

    def _number(self, phase: Phase, epoch: int, step: int) -> int:
        text = f"{self.seed}/{phase.name}/{epoch}/{step}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

    def _generator(self, phase: Phase, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._number(phase, epoch, -1))


def drawn_order(table: Table, generator: torch.Generator) -> list[int]:
    """The rows of one epoch: each picture once, in the pose that it is drawn in."""
    count = pictures_of(table)
    order = torch.randperm(count, generator=generator)
    if count < len(table):
        order += count * torch.randint(len(table) // count, (count,), generator=generator)
    return order.tolist()  # type: ignore[no-any-return]


def _copied(detector: Detector) -> dict[str, Tensor]:
    return _copies(learned(detector))


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in tensors.items()}


def _checked(epoch: int, epochs: int, checks: int) -> bool:
    """True for *checks* epochs spread evenly, the last among them; for every epoch of a short phase."""
    return (epoch + 1) * checks // epochs > epoch * checks // epochs


def _prefix(number: int) -> str:
    """Where a checkpoint keeps the optimiser of player *number*."""
    return f"optimiser{number or ''}."


def _loop_state(optimisers: list[Any], average: list[Tensor]) -> dict[str, Tensor]:
    state = {f"average.{i}": value for i, value in enumerate(average)}
    for number, optimiser in enumerate(optimisers):
        state |= prefixed(_prefix(number), optimiser_tensors(optimiser))
    return state


@contextmanager
def learning(detector: nn.Module, phase: Optimise) -> Iterator[None]:
    """Training mode for the blocks of *detector* that *phase* moves a parameter of; eval mode for others, and behind.

    A block that rests keeps its running statistics and drops nothing. A layer without parameters, such as dropout, goes
    with the nearest module around it that has some.
    """
    moved = {id(p) for player in phase.players for p in player.parameters if p.requires_grad}
    detector.train()
    for block in detector.modules():
        own = [id(p) for p in block.parameters()]
        if own and moved.isdisjoint(own):
            block.eval()
    try:
        yield
    finally:
        detector.eval()


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
