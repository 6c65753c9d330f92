"""What must be present for a detector to be RSTPM; each point fails without it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from components.core.errors import SettingsError
from components.detectors.catalogue import settings_for
from components.detectors.methods.rstpm import RSTPM, Decoder, Gate

TINY = settings_for("rstpm", "tiny")


def made(**changes) -> RSTPM:
    torch.manual_seed(0)
    return RSTPM(dataclasses.replace(TINY, **changes), pretrained=False).eval()


@pytest.fixture(scope="module")
def detector():
    return made()


@pytest.fixture(scope="module")
def inputs(detector):
    torch.manual_seed(1)
    with torch.no_grad():
        return detector.prepared(torch.rand(2, 3, 64, 64))


def test_the_teachers_are_two_different_networks(detector):
    assert detector.backbone.settings.name != detector.second.settings.name
    with pytest.raises(SettingsError, match="name another network"):
        dataclasses.replace(TINY, second=TINY.backbone.name)


def test_the_first_pair_is_plain_imitation_from_the_pixels(detector, inputs):
    (taught, imitated), _ = detector.pairs(inputs)
    assert [t.shape for t in taught] == [s.shape for s in imitated]
    other = detector.pairs((1 - inputs[0], *inputs[1:]))[0][1]
    assert not torch.allclose(other[0], imitated[0])
    assert {type(m) for m in detector.student.modules()} == {type(m) for m in detector.backbone.net.modules()}


def test_the_second_student_rebuilds_the_second_teacher_from_the_deepest_code_of_the_first(inputs):
    plain = made(attention=False)
    _, first, second = inputs
    rebuilt = plain.decoder(first[-1], second)
    assert [r.shape for r in rebuilt] == [t.shape for t in second]
    assert first[-1].shape[-1] * 2 == second[-1].shape[-1]
    nothing = [torch.zeros_like(t) for t in second]
    for one, two in zip(rebuilt, plain.decoder(first[-1], nothing), strict=True):
        torch.testing.assert_close(one, two)  # without gates the teacher is not seen
    assert not torch.allclose(plain.decoder(1 + first[-1], second)[0], rebuilt[0])


def test_the_decoder_goes_from_deep_to_shallow():
    decoder = Decoder(8, (4, 6, 8), dataclasses.replace(TINY, width=1.0)).eval()
    teacher = [torch.rand(1, c, g, g) for c, g in ((4, 16), (6, 8), (8, 4))]
    code = torch.rand(1, 8, 2, 2)
    before = decoder(code, teacher)
    with torch.no_grad():
        decoder.rises[1].up[0].weight.add_(1)
    after = decoder(code, teacher)
    changed = [not torch.allclose(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [True, True, False]


def test_gates_are_one_channel_from_the_second_teacher(detector, inputs):
    gates = [g for g in detector.decoder.gates if isinstance(g, Gate)]
    assert len(gates) == 2
    gate = gates[0](inputs[2][-1])
    assert gate.shape[1] == 1
    assert ((gate > 0) & (gate < 1)).all()
    moved = [*inputs[2][:-1], inputs[2][-1] + 1]
    one, two = detector.decoder(inputs[1][-1], inputs[2]), detector.decoder(inputs[1][-1], moved)
    assert not torch.allclose(one[0], two[0])


def test_each_pair_has_a_teacher_of_its_own(detector, inputs):
    (first, _), (second, rebuilt) = detector.pairs(inputs)
    assert all(a is b for a, b in zip(first, inputs[1][:-1], strict=True))
    assert all(a is b for a, b in zip(second, inputs[2], strict=True))
    for found, expected in zip(rebuilt, detector.decoder(inputs[1][-1], inputs[2]), strict=True):
        torch.testing.assert_close(found, expected)


def test_six_maps_are_fused_by_sum_and_product(detector, inputs):
    maps = detector.maps(inputs)
    assert [len(pair) for pair in maps] == [3, 3]
    expected = 1.0
    for first, second in zip(*maps, strict=True):
        expected = expected * F.interpolate(first + second, (64, 64), mode="bilinear", align_corners=False)
    scores = detector.score(inputs, (64, 64))
    torch.testing.assert_close(scores.map, expected)
    torch.testing.assert_close(scores.image, expected.flatten(1).max(1).values)


def test_without_reconstruction_the_first_pair_is_left(inputs):
    plain = made(reconstruction=False)
    first = plain.maps(inputs)[0]
    expected = 1.0
    for scale in first:
        expected = expected * F.interpolate(scale, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(plain.score(inputs, (64, 64)).map, expected)


def test_loss_is_half_the_squared_distance_of_normalised_features(detector, inputs):
    expected = sum(
        0.5 * (F.normalize(t, dim=1) - F.normalize(s, dim=1)).square().sum(1).mean()
        for pair in detector.pairs(inputs)
        for t, s in zip(*pair, strict=True)
    )
    torch.testing.assert_close(detector.loss(inputs), expected)


def test_teachers_do_not_learn_and_students_do(detector):
    learned = {n.split(".")[0] for n, p in detector.named_parameters() if p.requires_grad}
    assert learned == {"student", "decoder"}
