"""Adversarial phases: several players with a loss and an optimiser each, in the one training loop."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from torch import nn

from components.detectors.contract import OnePass, Optimise, Player
from components.training.checkpoint import Checkpoint
from components.training.loop import USUAL, Loop, _checked


class Rows:
    def __len__(self):
        return 12

    def take(self, indices):
        return torch.as_tensor(list(indices)).float()[:, None] / 12


class Game(nn.Module):
    """``value`` falls for one player what rises for the other; ``shared`` belongs to one player and is used by both."""

    name = "game"

    def __init__(self, rivals=True, steps=1, **phase):
        super().__init__()
        self.one, self.other, self.norm = nn.Linear(1, 1), nn.Linear(1, 1), nn.BatchNorm1d(1)
        self.rivals, self.steps, self.phase, self.seen = rivals, steps, phase, []

    def phases(self, _):
        rate = partial(torch.optim.Adam, lr=0.05)
        descent = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
        rivals = (Player(self.against, list(self.other.parameters()), descent, steps=self.steps),)
        yield Optimise(
            "game",
            Rows(),
            self.value,
            list(self.one.parameters()),
            rate,
            epochs=3,
            batch_size=4,
            rivals=rivals if self.rivals else (),
            **self.phase,
        )

    def value(self, rows):
        self.note("one")
        return (self.norm(self.one(rows)) - self.other(rows) - torch.rand(())).square().mean()

    def against(self, rows):
        self.note("other")
        return -self.value_of(rows) + self.other.weight.square().sum()

    def value_of(self, rows):
        return (self.norm(self.one(rows)) - self.other(rows)).square().mean()

    def note(self, who):
        open_now = {n.split(".")[0] for n, p in self.named_parameters() if p.requires_grad} - {"norm"}
        self.seen.append((who, open_now, self.one.weight.item(), self.other.weight.item()))


def loop(game, folder, every=1e9, select=lambda _: 0.5, plugins=None):
    fabric = Fabric(accelerator="cpu", devices=1, plugins=plugins)
    return Loop(game, select, Checkpoint(folder, "x"), 0, every, fabric)


def played(folder, **given):
    torch.manual_seed(0)
    game = Game(**given)
    made = loop(game, folder)
    made.run(None)
    return game, made


def test_the_players_take_turns_on_every_batch(tmp_path):
    game, _ = played(tmp_path)
    assert [who for who, *_ in game.seen] == ["one", "other"] * 9
    ones = [(one, other) for _, _, one, other in game.seen]
    for number, (before, after) in enumerate(pairwise(ones)):
        moved = [a != b for a, b in zip(before, after, strict=True)]
        assert moved == [number % 2 == 0, number % 2 == 1]  # each step moves the weights of its own player alone


def test_gradients_of_one_player_never_reach_the_other(tmp_path):
    game, _ = played(tmp_path)
    assert all(open_now == {who} for who, open_now, *_ in game.seen)
    assert all(p.requires_grad for p in game.parameters())


def test_parameters_stay_open_for_every_player_that_has_them(tmp_path):
    game = Game()
    phase = next(iter(game.phases(None)))
    both = Player(game.against, [*game.one.parameters(), *game.other.parameters()], phase.optimiser)
    game.phases = lambda _: [Optimise(**{**phase.__dict__, "rivals": (both,)})]
    loop(game, tmp_path).run(None)
    assert {who: open_now for who, open_now, *_ in game.seen} == {"one": {"one"}, "other": {"one", "other"}}


def test_what_a_caller_had_frozen_stays_frozen(tmp_path):
    game = Game()
    game.other.bias.requires_grad_(False)
    loop(game, tmp_path).run(None)
    assert not game.other.bias.requires_grad


def test_without_rivals_nothing_but_the_one_player_moves(tmp_path):
    game, made = played(tmp_path, rivals=False)
    assert len({other for *_, other in game.seen}) == 1
    assert not any("rival" in key for record in made.history for key in record)


def test_a_player_may_take_several_steps_on_a_batch(tmp_path):
    game, _ = played(tmp_path, steps=3)
    assert [who for who, *_ in game.seen][:8] == ["one", "other", "other", "other"] * 2
    moved = [weight for who, _, _, weight in game.seen if who == "other"]
    assert len(set(moved)) == len(moved)  # each of them moves it


def test_what_a_phase_tells_of_itself_stands_in_the_history(tmp_path):
    told = iter([1.5, 2.5, 3.5])
    _, made = played(tmp_path, told=lambda: {"ratio": next(told)})
    assert [record["ratio"] for record in made.history] == [1.5, 2.5, 3.5]


def test_history_has_the_mean_loss_of_each_player(tmp_path):
    _, made = played(tmp_path)
    assert len(made.history) == 3
    assert all({"loss", "rival_1_loss", "synthetic_auroc"} <= set(record) for record in made.history)
    assert all(record["loss"] > 0 for record in made.history)


def test_the_best_epoch_is_kept_for_all_players(tmp_path):
    scores, kept = iter([0.1, 0.9, 0.2]), []

    def select(game):
        kept.append({k: v.clone() for k, v in game.state_dict().items()})
        return next(scores)

    torch.manual_seed(0)
    game = Game()
    loop(game, tmp_path, select=select).run(None)
    for key, value in game.state_dict().items():
        torch.testing.assert_close(value, kept[1][key], rtol=0, atol=0)


def averaged(weights, decay):
    """The moving average behind each of *weights*, the first of which is where it starts."""
    found = [weights[0]]
    for weight in weights[1:]:
        found.append(decay * found[-1] + (1 - decay) * weight)
    return found


def test_the_moving_average_is_checked_and_kept(tmp_path):
    asked = []

    def select(game):
        asked.append(game.one.weight.item())
        return 0.5

    torch.manual_seed(0)
    game = Game(rivals=False, average=0.8)
    loop(game, tmp_path, select=select).run(None)
    expected = averaged([one for _, _, one, _ in game.seen], 0.8)  # weights before each of nine steps
    assert asked[:2] == pytest.approx([expected[3], expected[6]], rel=1e-5)
    assert game.one.weight.item() == asked[2]


def test_the_moving_average_is_kept_where_no_epoch_is_chosen(tmp_path):
    live, _ = played(tmp_path / "live", rivals=False, select=False)
    found, _ = played(tmp_path / "average", rivals=False, select=False, average=0.8)
    weights = [*(one for _, _, one, _ in live.seen), live.one.weight.item()]
    assert found.one.weight.item() == pytest.approx(averaged(weights, 0.8)[-1], rel=1e-5)
    assert found.one.weight.item() != pytest.approx(live.one.weight.item(), rel=1e-3)


def test_schedule_and_clip_hold_for_a_rival(tmp_path):
    still, _ = played(tmp_path / "a", schedule=lambda _: 0.0)
    assert len({other for *_, other in still.seen}) == 1
    game = Game()
    player = Player(game.against, list(game.other.parameters()), partial(torch.optim.SGD, lr=1.0), clip=1e-3)
    phase = next(iter(game.phases(None)))
    game.phases = lambda _: [Optimise(**{**phase.__dict__, "rivals": (player,)})]
    loop(game, tmp_path / "b").run(None)
    others = [other for *_, other in game.seen]
    assert max(abs(a - b) for a, b in pairwise(others)) <= 1.001e-3


def test_gradients_are_clipped_at_their_own_scale(tmp_path):
    """With 16-mixed the loss is scaled before its gradient: clipped so, next to nothing would be left."""
    moved, scaler = {}, torch.amp.GradScaler("cpu", init_scale=1024.0)
    for name, plugins in (("plain", []), ("scaled", [MixedPrecision("16-mixed", "cpu", scaler)])):
        torch.manual_seed(0)
        game = Game(rivals=False, clip=1e-3, select=False)
        phase = next(iter(game.phases(None)))
        fixed = {"optimiser": partial(torch.optim.SGD, lr=1.0), "epochs": 1}
        game.phases = lambda _, fixed=fixed, phase=phase: [Optimise(**{**phase.__dict__, **fixed})]
        before = game.one.weight.item()
        loop(game, tmp_path / name, plugins=plugins).run(None)
        moved[name] = game.one.weight.item() - before
    assert abs(moved["plain"]) > 1e-4
    assert moved["scaled"] == pytest.approx(moved["plain"], rel=0.2)


class KilledError(Exception):
    """Stands for the signal."""


@pytest.mark.parametrize("at", [1, 3, 7])
def test_a_killed_game_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, at):
    whole, unbroken = played(tmp_path / "whole", average=0.5)
    save, saved = Checkpoint.save, []

    def killing(self, *state):
        save(self, *state)
        saved.append(self)
        if len(saved) == at:
            raise KilledError

    monkeypatch.setattr(Checkpoint, "save", killing)
    torch.manual_seed(0)
    with pytest.raises(KilledError):
        loop(Game(average=0.5), tmp_path / "cut", every=0.0).run(None)
    torch.manual_seed(1)  # what it starts from must not matter
    resumed = Game(average=0.5)
    again = loop(resumed, tmp_path / "cut", every=0.0)
    again.run(None)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value, rtol=0, atol=0)
    assert again.history == unbroken.history


class Staged(Game):
    """Statistics, twelve epochs that choose among themselves, statistics."""

    def phases(self, _):
        (game,) = super().phases(None)
        yield OnePass("before", Rows(), lambda _: None, lambda: None)
        yield Optimise(**{**game.__dict__, "epochs": 12})
        yield OnePass("behind", Rows(), lambda _: None, lambda: None)


def test_a_stage_is_checked_at_a_few_epochs_and_the_model_once_at_its_end(tmp_path):
    asked = []

    def select(_):
        asked.append(len(asked))
        return float(asked[-1])

    made = loop(Staged(rivals=False), tmp_path, select=select)
    made.run(None)
    checked = [(record["phase"], record["epoch"]) for record in made.history if "synthetic_auroc" in record]
    assert checked == [*(("game", epoch) for epoch in (1, 3, 5, 7, 9, 11)), ("behind", 0)]
    assert len(asked) == len(checked)


@pytest.mark.parametrize("epochs", [1, 2, 5, 6, 7, 13, 100])
def test_the_last_epoch_always_is_checked(epochs):
    checked = [epoch for epoch in range(epochs) if _checked(epoch, epochs, USUAL.most)]
    assert checked[-1] == epochs - 1
    assert len(checked) == min(epochs, USUAL.most)


class Optional(Game):
    """Statistics that set the offset to one; kept only where the model is better with it."""

    def __init__(self):
        super().__init__(rivals=False)
        self.register_buffer("offset", torch.zeros(()))

    def phases(self, _):
        yield from super().phases(None)
        yield OnePass("offset", Rows(), lambda _: None, lambda: self.offset.fill_(1), optional=True)


@pytest.mark.parametrize(("after", "kept"), [(0.9, True), (0.5, True), (0.4, False)])
def test_an_optional_stage_is_undone_where_the_model_was_better_before(after, kept, tmp_path):
    game = Optional()
    made = loop(game, tmp_path, select=lambda g: after if g.offset else 0.5)
    made.run(None)
    assert bool(game.offset) is kept
    last = made.history[-1]
    assert (last["kept"], last["before"], last["synthetic_auroc"]) == (kept, 0.5, max(0.5, after))


def test_an_optional_stage_survives_a_restart_in_its_middle(tmp_path):
    class KilledError(RuntimeError):
        pass

    def update(batch):
        if len(seen) == 2:
            raise KilledError
        seen.append(batch)

    seen, asked = [], []

    def staged(game, update):
        game.phases = lambda _: [OnePass("offset", Rows(), update, lambda: game.offset.fill_(1), 4, optional=True)]
        return game

    def select(game):
        asked.append(bool(game.offset))
        return 0.4 if game.offset else 0.5

    with pytest.raises(KilledError):
        loop(staged(Optional(), update), tmp_path, every=0, select=select).run(None)
    again = staged(Optional(), seen.append)
    loop(again, tmp_path, every=0, select=select).run(None)
    assert asked == [False, True]
    assert len(seen) == 3
    assert not again.offset


def test_one_pass_stages_get_their_batches_on_the_device(tmp_path, monkeypatch):
    """There is one device here: what is brought to it is marked instead."""
    got = []
    game = Game()
    game.phases = lambda _: [OnePass("statistics", Rows(), got.append, lambda: None, batch_size=8)]
    made = loop(game, tmp_path)
    monkeypatch.setattr(made.fabric, "to_device", lambda rows: ("there", len(rows)))
    made.run(None)
    assert got == [("there", 8), ("there", 4)]
