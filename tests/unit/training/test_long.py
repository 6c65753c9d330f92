"""The preset long, the end of a phase whose signal is flat, and epochs that are cut to a limit of minutes."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from components.core.errors import SettingsError
from components.detectors.catalogue import CATALOGUE, describe, settings_for
from components.detectors.contract import OnePass, Optimise
from components.detectors.presets import counts, lengthened
from components.pipeline import crossing
from components.pipeline.fit import FitRequest, stages_of
from components.pipeline.params import Params, Pipeline
from components.pipeline.stages import Stages
from components.training.checkpoint import Checkpoint
from components.training.loop import UNTIL_FLAT, USUAL, Checks, Loop
from components.training.rehearsal import STEPS, Rehearsal, times_in, within
from components.training.settings import TrainSettings


@dataclass(frozen=True)
class Schedule:
    epochs: tuple[int, ...] = (4, 12)
    push_epochs: int = 0
    draws: int = 100
    steps: int = 8


class Rows:
    def __len__(self):
        return 40

    def take(self, indices):
        return torch.as_tensor(list(indices)).float()[:, None] / 40


class Line(nn.Module):
    """A weight that learns in 40 epochs, behind a phase in closed form."""

    name, epochs, select = "line", 40, True

    def __init__(self):
        super().__init__()
        self.weight, self.steps, self.rows = nn.Linear(1, 1), 0, 0

    def phases(self, _):
        rate = partial(torch.optim.SGD, lr=0.01)
        yield OnePass("count", Rows(), self.counted, lambda: None, batch_size=10)
        parameters = list(self.weight.parameters())
        yield Optimise("learn", Rows(), self.value, parameters, rate, self.epochs, 4, select=self.select)

    def counted(self, rows):
        self.rows += len(rows)

    def value(self, rows):
        self.steps += 1
        return self.weight(rows).square().mean()


def loop(select, folder, checks=UNTIL_FLAT, every=1e9):
    line, fabric = Line(), Fabric(accelerator="cpu", devices=1)
    return line, Loop(line, select, Checkpoint(folder, "x"), 0, every, fabric, checks=checks)


def rising(until: int):
    """A signal that rises for so many checks."""
    asked = iter(range(1000))
    return lambda _: min(next(asked), until) / 100


def test_every_method_has_the_preset_long_with_more_epochs_in_each_phase():
    for name in CATALOGUE:
        assert "long" in describe(name)["presets"]
        short, long = settings_for(name, "cpu"), settings_for(name, "long")
        for count in counts(short):
            few, many = (torch.as_tensor(getattr(settings, count)) for settings in (short, long))
            assert (many >= 5 * few).all(), (name, count)
    assert settings_for("patchcore", "long") == settings_for("patchcore", "cpu")
    assert settings_for("uniad", "long", {"epochs": 3}).epochs == 3


def test_epochs_are_counted_by_name_and_a_phase_of_none_stays_out():
    assert counts(Schedule()) == ("epochs", "push_epochs", "draws")
    assert lengthened(Schedule(), 12) == Schedule((48, 144), 0, 1200)
    assert lengthened(Schedule(), 0.2) == Schedule((1, 2), 0, 20)


def test_a_phase_ends_where_the_signal_no_longer_rises(tmp_path):
    _, made = loop(rising(until=3), tmp_path)
    made.run(None)
    judged = [record["epoch"] for record in made.history if "synthetic_auroc" in record]
    assert judged == list(range(1, 18, 2))  # checks 0 to 3 rise, five more do not
    assert made.history[-1]["epoch"] == 17


@pytest.mark.parametrize("checks", [USUAL, Checks(20)])
def test_other_presets_run_all_their_epochs(tmp_path, checks):
    _, made = loop(rising(until=0), tmp_path, checks)
    made.run(None)
    assert made.history[-1]["epoch"] == Line.epochs - 1


def test_a_signal_that_goes_on_rising_is_followed_to_the_last_epoch(tmp_path):
    _, made = loop(rising(until=100), tmp_path)
    made.run(None)
    assert made.history[-1]["epoch"] == Line.epochs - 1


def test_a_training_killed_where_it_would_have_ended_trains_no_more(tmp_path):
    _, made = loop(rising(until=3), tmp_path, every=0)

    def killed(*_):
        if len(made.history) > 18:  # the closed form, and as many epochs as it takes
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_flat", killed)
        with pytest.raises(KeyboardInterrupt):
            made.run(None)
    line, again = loop(rising(until=3), tmp_path, every=0)
    again.run(None)
    assert line.steps == 0
    assert again.history == made.history


@pytest.mark.parametrize(
    ("minutes", "times"), [(10, 1.0), (2, 1.0), (1, 0.49), (0.1, 0.004)]
)  # of 100 s of steps and 5 s of all else, a tenth left over
def test_epochs_are_cut_to_what_minutes_have_room_for(minutes, times):
    assert times_in(minutes, moving=100.0, fixed=5.0) == pytest.approx(times)
    assert times_in(minutes, moving=0.0, fixed=5.0) == 1.0


def test_a_rehearsal_runs_some_steps_and_reckons_with_all_of_them(tmp_path, monkeypatch):
    line = Line()

    def two_seconds(call):
        call()
        return 2.0

    monkeypatch.setattr("components.training.rehearsal.timed", two_seconds)
    played = Rehearsal(line, lambda _: 0.5, tmp_path / "x", Fabric(accelerator="cpu", devices=1), USUAL)
    played.run(None)
    assert (line.steps, line.rows) == (STEPS, 40)
    assert played.moving == 40 * 10 * 2.0
    assert played.fixed == 2.0 + 6 * 2.0  # the closed form, and six checks


def test_what_was_measured_once_holds_for_the_same_request(tmp_path):
    class Played:
        moving, fixed = 540.0, 0.0

    known, asked = tmp_path / "kept.json", []

    def rehearse():
        asked.append(len(asked))
        return Played()

    for request in ("one", "one", "other"):
        assert within(5.0, Schedule(), rehearse, known, request) == Schedule((2, 6), 0, 50)
    assert asked == [0, 1]
    assert within(10.0, Schedule(), Played, known, "one") == Schedule()
    assert within(0.1, settings_for("patchcore"), None, known, "one") == settings_for("patchcore")


def test_minutes_that_nothing_can_keep_are_refused():
    with pytest.raises(SettingsError, match=r"train\.minutes is 0"):
        TrainSettings(minutes=0)


def test_all_folds_have_the_epochs_that_the_first_was_given(tmp_path):
    (tmp_path / "settings.json").write_text('{"detector": "uniad", "settings": {"epochs": 9, "draws": 50, "width": 3}}')
    asked = TrainSettings(minutes=2.0, detectors={"uniad": {"jitter": 1.0}})
    found = crossing._as_long(asked, "uniad", tmp_path)
    assert found == TrainSettings(detectors={"uniad": {"jitter": 1.0, "epochs": 9, "draws": 50}})
    assert crossing._as_long(found, "uniad", tmp_path / "none") == found


@pytest.mark.parametrize(("own", "pipeline", "taken"), [(None, 5.0, 5.0), (2.0, 5.0, 2.0), (None, None, None)])
def test_minutes_of_the_pipeline_hold_where_training_names_none(own, pipeline, taken):
    params = Params({}, {}, train=TrainSettings(minutes=own), pipeline=Pipeline(minutes=pipeline))
    assert Stages(params, "elpv-mono").training.minutes == taken


def test_minutes_of_a_fit_are_shared_by_the_sizes_that_are_typed(tmp_path):
    request = FitRequest("uniad", tmp_path, size="64,128", minutes=10.0)
    assert stages_of(request, tmp_path).training.minutes == 5.0
