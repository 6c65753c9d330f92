"""What makes STM-AE what it is: shift and attention in residual branches, memories on all ways, slots kept apart."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from components.core.errors import SettingsError
from components.detectors.catalogue import create, settings_for
from components.detectors.methods.stm_ae import (
    STMAE,
    ChannelAttention,
    Predictor,
    STMAESettings,
    TemporalShift,
    compactness,
    discreteness,
    gradients_apart,
)
from components.detectors.parts.blocks import box_mean
from components.detectors.parts.clips import Contrast, moving, spread
from components.detectors.parts.memory import Memory
from tests.given import learned, passed

TINY = settings_for("stm_ae", "tiny")


def made(**changes) -> STMAE:
    torch.manual_seed(0)
    return create("stm_ae", dataclasses.replace(TINY, **changes)).eval()


def rising(batch: int, frames: int) -> torch.Tensor:
    """Clips of a bright square that moves four pixels to the right by a frame."""
    torch.manual_seed(1)
    clips = 0.3 + 0.02 * torch.rand(batch, 1, 1, 64, 64).expand(-1, frames, 3, -1, -1).clone()
    for clip in range(batch):
        row, column = 8 + 3 * (clip % 12), 4 + 2 * (clip % 9)
        for time in range(frames):
            at = column + 4 * time
            clips[clip, time, :, row : row + 10, at : at + 10] = 0.9
    return clips


class Clips:
    """Training data of clips alone."""

    def __init__(self, clips: torch.Tensor) -> None:
        self.given = clips

    def clips(self, size: int, frames: int):
        assert (size, frames) == (64, self.given.shape[1])
        return self

    def __len__(self) -> int:
        return len(self.given)

    def take(self, indices) -> torch.Tensor:
        return self.given[torch.as_tensor(list(indices))]


@pytest.mark.parametrize(("mode", "first", "second"), [("both", 0, 2), ("past", 0, 1), ("none", 1, 1)])
def test_the_first_channels_come_from_the_frame_before_and_the_next_from_the_one_behind(mode, first, second):
    shift = TemporalShift(8, dataclasses.replace(TINY, past=3, shift=mode))
    times = torch.arange(1.0, 4).view(3, 1, 1, 1).expand(3, 8, 2, 2)
    found = shift.shifted(torch.cat([times, 10 * times]))
    assert found[1, 0, 0, 0] == (1 if mode != "none" else 2)
    assert found[1, 1, 0, 0] == {0: 1, 1: 2, 2: 3}[second]
    assert (found[1, 2:] == 2).all()
    assert found[0, 0, 0, 0] == (0 if first == 0 else 1), "nothing comes in before the first frame"
    assert found[3, 0, 0, 0] == (0 if first == 0 else 10), "nor from another clip"


def test_the_shift_is_inside_the_residual_branch():
    shift = TemporalShift(8, TINY)
    for layer in shift.branch:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    x = torch.rand(4, 8, 5, 5)
    assert torch.equal(shift(x), x), "what a frame is itself is left to it"


@pytest.mark.parametrize("mode", ["both", "none"])
def test_frames_know_of_each_other_by_the_shift_alone(mode):
    torch.manual_seed(0)
    predictor = Predictor(dataclasses.replace(TINY, shift=mode)).eval()
    one, other = torch.rand(2, 1, 2, 3, 64, 64)
    other[:, 0] = one[:, 0]  # only the second frame differs
    with torch.inference_mode():
        here, there = (predictor.levels[0](predictor.take(2 * x.flatten(0, 1) - 1)) for x in (one, other))
    assert torch.equal(here[0], there[0]) == (mode == "none")
    assert not torch.equal(here[1], there[1])


def test_channels_are_weighed_by_what_all_hold_and_added_to_what_was():
    torch.manual_seed(0)
    block = ChannelAttention(16, TINY)
    x = torch.rand(2, 16, 6, 6)
    branch = block.branch(x)
    weights = block.weigh(branch.mean((2, 3), keepdim=True))
    assert weights.shape == (2, 16, 1, 1)
    assert ((weights > 0) & (weights < 1)).all()
    torch.testing.assert_close(block(x), x + branch * weights)
    last = block.weigh[-2]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, -1e9)
    torch.testing.assert_close(block(x), x, msg="a channel that weighs nothing leaves the residual")


def test_attention_stands_on_both_sides_and_can_be_left_out():
    found = [isinstance(m, ChannelAttention) for m in made().predictor.modules()]
    assert sum(found) == len(TINY.widths) + len(TINY.widths) - 1
    assert not any(isinstance(m, ChannelAttention) for m in made(attention=False).predictor.modules())


def test_a_memory_stands_on_every_way_to_the_decoder():
    """With equal slots a memory can say one thing only: whatever the frames show, the same frame is predicted."""
    clips = torch.rand(2, 2, 3, 64, 64)
    predictor = made().predictor
    assert len(predictor.memories) == len(TINY.widths)
    with torch.inference_mode():
        assert not torch.equal(*predictor(clips)[0])
        for memory in predictor.memories:
            memory.slots.copy_(memory.slots[:, :1].expand_as(memory.slots))
        one, other = predictor(clips)[0]
    torch.testing.assert_close(one, other)


def test_with_a_memory_at_the_deepest_level_alone_the_skip_stays_open():
    predictor = made(memories="deepest").predictor
    assert len(predictor.memories) == 1
    with torch.inference_mode():
        for memory in predictor.memories:
            memory.slots.copy_(memory.slots[:, :1].expand_as(memory.slots))
        one, other = predictor(torch.rand(2, 2, 3, 64, 64))[0]
    assert not torch.allclose(one, other)
    assert made(memories="none").predictor.memories == []


def test_slots_that_are_alike_cost_and_orthogonal_ones_do_not():
    memory = Memory(3, 4)
    with torch.no_grad():
        memory.slots.copy_(torch.tensor([[[1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 3.0, 0]]]))
        assert float(discreteness([memory], 0.0)) == 0
        memory.slots.copy_(torch.tensor([[[1.0, 0, 0, 0], [2.0, 0, 0, 0], [0, 1.0, 0, 0]]]))
        assert float(discreteness([memory], 0.0)) == pytest.approx(2 / 6)  # one pair of three, seen both ways
        assert float(discreteness([memory, memory], 0.4)) == pytest.approx(2 * 2 * 0.6 / 6)


def test_the_loss_holds_all_its_parts():
    clips, detector = rising(2, 3), made()
    detector.train()

    def loss(**changes) -> float:
        detector.settings = dataclasses.replace(TINY, **changes)
        with torch.no_grad():
            return float(detector.loss(clips))

    off = {"gradient": 0.0, "compactness": 0.0, "discreteness": 0.0}
    with torch.no_grad():
        seen = 2 * clips - 1
        predicted, cosines = detector.predicted(seen)
        parts = {
            "gradient": gradients_apart(predicted, seen[:, -1]),
            "compactness": torch.stack([compactness(c) for c in cosines]).mean(),
            "discreteness": discreteness(detector.predictor.memories, TINY.margin),
        }
        plain = F.mse_loss(predicted, seen[:, -1])
    assert loss(**off) == pytest.approx(float(plain), rel=1e-4)
    for name, part in parts.items():
        assert float(part) > 0
        assert loss(**{**off, name: 2.0}) == pytest.approx(float(plain) + 2 * float(part), rel=1e-4)


def test_queries_far_from_every_slot_cost():
    assert float(compactness(torch.tensor([[[1.0, 0.2], [0.5, -1.0]]]))) == pytest.approx((0 + 1) / 2)


def test_the_score_is_of_the_predicted_beside_the_true_frame():
    """The prediction never sees the true frame, and the error is where the two differ."""
    detector, clips = made(), rising(2, 3)
    with torch.inference_mode():
        before, predicted = detector(clips), (detector.predicted(2 * clips - 1)[0] + 1) / 2
        exact = torch.cat([clips[:, :-1], predicted[:, None]], 1)
        found = detector(exact)
        assert (found.image == pytest.approx(-80.0, abs=1e-3)) or (found.image < -75).all()
        assert (before.image > found.image).all()
        changed = exact.clone()
        changed[:, -1, :, 40:50, 20:30] += 0.5
        heat = detector(changed).map[:, 0]
    assert (heat[:, 45, 25] == heat.amax((1, 2))).all()
    assert (heat[:, :30] < 1e-6).all()


def test_an_error_in_one_box_counts_whole_by_the_peak_and_is_thinned_by_the_frame():
    clips = rising(1, 3)
    peak, frame = made(), made(image="frame")
    with torch.inference_mode():
        errors = peak.errors(clips)
        assert float(peak(clips).image) == pytest.approx(10 * float(torch.log10(errors.max() + 1e-8)), rel=1e-5)
        assert float(frame(clips).image) == pytest.approx(10 * float(torch.log10(errors.mean() + 1e-8)), rel=1e-5)


def test_scoring_writes_nothing():
    """No memory is updated while frames are scored: a score is a matter of its own window."""
    detector, clips = made(), rising(6, 3)
    state = {key: value.clone() for key, value in detector.state_dict().items()}
    with torch.inference_mode():
        first = detector(clips).image
        again = detector(clips.flip(0)).image.flip(0)
    torch.testing.assert_close(first, again, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, state[key]) for key, value in detector.state_dict().items())


def test_what_moves_as_it_should_scores_below_what_stops_after_training(tmp_path):
    """A tiny training learns how squares move; one that stops in the last frame is off its place."""
    clips = rising(48, 3)
    torch.manual_seed(0)
    detector = create("stm_ae", dataclasses.replace(TINY, epochs=12, batch_size=8))
    detector = learned(detector, Clips(clips[:40]), tmp_path)
    stopped = clips[40:].clone()
    stopped[:, -1] = stopped[:, -2]
    with torch.inference_mode():
        assert (detector(stopped).image > detector(clips[40:]).image).all()


def test_an_error_by_contrast_is_how_far_a_prediction_is_off():
    """A texture beside its place errs by the square of the shift, however strong it is and whatever else moves."""
    torch.manual_seed(0)
    fine = F.interpolate(torch.rand(1, 1, 16, 16), size=(64, 64), mode="bicubic").clamp(0, 1)
    contrast, found = Contrast(9), {}
    contrast.floor.fill_(1e-8)
    for strength in (0.2, 0.8):
        frame = (strength * fine).expand(-1, 3, -1, -1)
        for shift in (1, 2):
            error = (frame - frame.roll(shift, 3)).square().mean(1, keepdim=True)
            found[strength, shift] = contrast(box_mean(error, 9, 4), frame)[..., 8:-8, 8:-8].median()
    torch.testing.assert_close(found[0.2, 1], found[0.8, 1], rtol=1e-3, atol=0)
    assert 3 < found[0.8, 2] / found[0.8, 1] < 5
    two = torch.cat([frame, frame], 3)  # twice as much that is off by as much
    error = (two - two.roll(2, 3)).square().mean(1, keepdim=True)
    assert contrast(box_mean(error, 9, 4), two)[..., 8:-8, 8:-8].median() < 1.2 * found[0.8, 2]


def test_the_floor_of_the_contrast_is_what_fit_frames_show(tmp_path):
    clips = rising(8, 3)
    detector = learned(made(standardise="contrast", epochs=1), Clips(clips), tmp_path)
    medians = detector.contrast.of(clips[:, -1]).flatten(1).median(1).values
    torch.testing.assert_close(detector.contrast.floor, medians.mean(), rtol=1e-5, atol=0)
    assert [phase.name for phase in detector.phases(Clips(clips))] == ["contrast", "prediction"]
    plain = box_mean(((detector.predicted(2 * clips - 1)[0] - (2 * clips - 1)[:, -1]) / 2).square().mean(1, True), 5, 2)
    torch.testing.assert_close(detector.errors(clips), detector.contrast(plain, clips[:, -1]))


def test_clips_that_are_learned_from_are_spread_evenly():
    table = Clips(torch.arange(10.0))
    assert spread(table, 4).take(range(4)).tolist() == [0, 2, 5, 7]
    assert spread(table, 0) is table
    assert spread(table, 10) is table


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"slots": (4,)}, "slots"), ({"past": 0}, "past"), ({"size": 66}, "multiples of 4"), ({"crop": 128}, "no larger")],
)
def test_settings_that_do_not_fit_are_told(changes, said):
    with pytest.raises(SettingsError, match=said):
        STMAESettings(**{"widths": (8, 16), "slots": (4, 4), "stem": 2, "size": 64, **changes})


def test_squares_are_learned_from_where_things_move():
    torch.manual_seed(0)
    clips = rising(3, 3)
    squares = moving(clips, 16, 5)
    assert squares.shape == (15, 3, 3, 16, 16)
    moved = (squares[:, -1] != squares[:, -2]).flatten(1).any(1)
    assert moved.all()
    assert not moving(clips, 16, 200)[:, -1].eq(clips[:, -1, :, :16, :16].repeat_interleave(200, 0)).all()
    detector = made(crop=32, crops=2).train()
    asked = []
    detector.predictor.register_forward_pre_hook(lambda _, given: asked.append(given[0].shape))
    detector.loss(clips).backward()
    assert asked == [(6, 2, 3, 32, 32)]


def test_the_base_is_the_prediction_that_training_begins_with():
    clips = rising(4, 3)
    last, background = made(base="last"), made(base="background")
    with torch.inference_mode():
        assert torch.equal(last.predicted(2 * clips - 1)[0], 2 * clips[:, 1] - 1)
        passed(background, "background", clips[:3], clips[3:], data=Clips(clips))
        torch.testing.assert_close(background.base.mean[0], clips[:, 2].mean(0))
        seen = background.base.away(clips)
        torch.testing.assert_close(seen.mean(0)[2], torch.zeros(3, 64, 64), atol=1e-5, rtol=0)
        torch.testing.assert_close(background.predicted(seen)[0], torch.zeros(4, 3, 64, 64))
    assert "base.mean" in background.state_dict()
    assert not [key for key in last.state_dict() if key.startswith("base.")]


def test_errors_by_position_are_measured_on_the_fit_clips():
    detector = made(standardise="position")
    names = [phase.name for phase in detector.phases(Clips(rising(4, 3)))]
    assert names == ["prediction", "standardised positions"]
    assert len(list(made().phases(Clips(rising(4, 3))))) == 1
