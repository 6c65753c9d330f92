"""Names with an input size: where they are taken, what they mean, and how a wrong one is told."""

import pytest

from components.core.errors import SettingsError
from components.detectors.catalogue import (
    CATALOGUE,
    check_detector,
    create,
    detector_class,
    parted,
    require,
    require_size,
    settings_for,
    size_in,
    sizes_of,
)
from components.training.settings import TrainSettings


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_method_takes_its_size_from_its_name(name):
    settings = settings_for(f"{name}@96", "tiny")
    made = create(f"{name}@96", settings, pretrained=False)
    assert (made.size, made.name) == (96, name)  # a saved model knows its method, and the size by its settings
    assert detector_class(f"{name}@96") is type(made)


def test_the_size_in_a_name_is_on_top():
    train = TrainSettings(
        detectors={"patchcore": {"backbone.size": 320, "bank_size": 9, "blur": 1.0}, "patchcore@384": {"blur": 2.0}}
    )
    plain, sized, other = (train.method(name) for name in ("patchcore", "patchcore@384", "patchcore@512"))
    assert [s.backbone.size for s in (plain, sized, other)] == [320, 384, 512]
    assert [s.blur for s in (plain, sized, other)] == [1.0, 2.0, 1.0]
    assert {s.bank_size for s in (plain, sized, other)} == {9}
    with pytest.raises(SettingsError, match=r"its size is 384 by its name and 320 by its settings"):
        TrainSettings(detectors={"patchcore@384": {"backbone": {"size": 320}}})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("patchcore@abc", "'abc' is no size; write pixels behind @, such as patchcore@384"),
        ("patchcore@", "'' is no size"),
        ("patchcore@0384", "'0384' is no size"),
        ("patchcore@-384", "'-384' is no size"),
        ("patchcore@384@2", "'384@2' is no size"),
        ("patchcore@٣٨٤", "is no size"),
        ("patchcore@16", "16 pixels are too few for a detector; give 32 or more"),
        ("patchcor@384", "patchcor@384 is not a detector; did you mean patchcore@384?"),
        ("x@384", "known are adtr"),
        ("ensemble@384", "ensemble is not trained but made of trained runs; type `loupe ensemble RUN RUN`"),
    ],
)
def test_a_wrong_name_is_told_with_what_to_write(name, said):
    with pytest.raises(SettingsError) as refused:
        require(name)
    assert said in str(refused.value)


def test_a_key_of_params_yaml_is_named():
    check_detector("padim@224", "pipeline.detectors")
    with pytest.raises(SettingsError, match=r"pipeline.detectors: patchcor does not exist; did you mean patchcore\?"):
        check_detector("patchcor@384", "pipeline.detectors")
    with pytest.raises(SettingsError, match=r"retrain\.detectors: patchcore@9: 9 pixels are too few"):
        check_detector("patchcore@9", "retrain.detectors")


@pytest.mark.parametrize("name", ["padim@100", "fastflow@100", "alps@100"])
def test_a_size_that_the_method_cannot_take_is_told_before_the_training(name):
    with pytest.raises(SettingsError, match=f"{name}: {parted(name)[0]} cannot take pictures of this size"):
        require_size(name, settings_for(name, "tiny"))
    require_size("patchcore@100", settings_for("patchcore@100", "tiny"))


@pytest.mark.parametrize(
    ("typed", "sizes"),
    [("auto", None), ("384", (384,)), (384, (384,)), ("512, 256", (256, 512)), ((256, 384), (256, 384))],
)
def test_sizes_are_typed_in_several_ways(typed, sizes):
    assert sizes_of(typed, "--size") == sizes


@pytest.mark.parametrize("typed", ["", "big", "16", 0, "256,256", "256,", (), (256, 8), True])
def test_what_is_no_size_is_told(typed):
    with pytest.raises(SettingsError, match=r"--size is .*; give auto, or different sizes from 32 pixels"):
        sizes_of(typed, "--size")


def test_a_size_among_settings_is_found_however_it_is_spelled():
    assert [size_in(given) for given in ({"size": 96}, {"backbone": {"size": 96}}, {"backbone.size": 96})] == [96] * 3
    assert size_in({"backbone": {"name": "resnet18"}, "blur": 1.0}) is None
