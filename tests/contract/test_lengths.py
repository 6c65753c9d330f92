"""Lengths in pixels are of the working size: a preset at half the size has half of them."""

import dataclasses

import pytest

from components.detectors.catalogue import CATALOGUE, create, settings_for

LENGTHS = ("blur", "pool", "box", "block_side")  # names of settings that are lengths in pixels; none: in proportion
CHOSEN = {  # not in proportion to the `paper` preset, on purpose
    ("cma_ae", "cpu", "blur"): "narrow: wider ones were tried (docs/methods/cma_ae.md)",
    ("nln", "cpu", "blur"): "ours, and none in the paper",
}


def sizes() -> list[tuple[str, str, str]]:
    return [
        (name, preset, length)
        for name in sorted(CATALOGUE)
        for preset in ("cpu", "tiny")
        for length in LENGTHS
        if getattr(settings_for(name, preset), length, None)
    ]


def working_size(name: str, preset: str) -> int:
    settings = settings_for(name, preset)
    return settings.size if hasattr(settings, "size") else settings.backbone.size


@pytest.mark.parametrize(("name", "preset", "length"), sizes())
def test_lengths_of_a_preset_are_in_proportion_to_its_size(name, preset, length):
    if (name, preset, length) in CHOSEN:
        return
    published, here = (getattr(settings_for(name, p), length) for p in ("paper", preset))
    expected = published * working_size(name, preset) / working_size(name, "paper")
    assert here == pytest.approx(expected, rel=0.15)  # 4 pixels at 224 and at 256


@pytest.mark.parametrize("name", ["dsr", "sgsf", "paedid", "stm_ae"])
def test_boxes_are_in_proportion_unless_they_are_given(name):
    length = next(f.name for f in dataclasses.fields(settings_for(name, "cpu")) if f.name in LENGTHS)
    assert all(getattr(settings_for(name, preset), length) is None for preset in ("paper", "cpu", "tiny"))
    assert getattr(settings_for(name, "cpu", {length: 9}), length) == 9
    assert create(name, settings_for(name, "tiny", {length: 9})).settings is not None
