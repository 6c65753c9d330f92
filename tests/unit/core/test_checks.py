"""Checks of settings that do not stand alone: the key, what it is and what it may be, in one sentence."""

import pytest

from components.core.checks import check_known, check_name, check_seed, check_training
from components.core.errors import SettingsError


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_generators_refuse_is_told_before_the_run(seed):
    for good in (0, 2**32 - 1):
        check_seed(good)
    with pytest.raises(SettingsError, match=f"seed is {seed}; give a whole number from 0 to 4294967295"):
        check_seed(seed)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("32", 60.0, 1.0), "train.precision is 32; choose one of 32-true"),
        (("32-true", 0.0, 1.0), "train.checkpoint_every is 0; give seconds above 0"),
        (("32-true", float("nan"), 1.0), "train.checkpoint_every is nan"),
        (("32-true", 60.0, -1.0), "train.store_limit_gb is -1; give gigabytes, 0 or more"),
        (("32-true", 60.0, float("nan")), "train.store_limit_gb is nan"),
    ],
)
def test_what_would_stop_a_training_once_it_runs_is_told_before(given, sentence):
    check_training("bf16-mixed", 0.01, 0.0)
    with pytest.raises(SettingsError, match=sentence):
        check_training(*given)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "ä", "a.", "a" * 101])
def test_a_name_that_cannot_be_a_folder_and_a_model_is_refused(name):
    check_name("A.b_c-1", "views")
    check_name("a" * 100, "views")
    with pytest.raises(SettingsError, match=r"views: .* would name a folder and a model"):
        check_name(name, "views")


def test_a_taken_name_is_refused():
    with pytest.raises(SettingsError, match="views: store is the name of a folder that is not a view's"):
        check_name("store", "views", ("store", "runs"))


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all():
    check_known("patchcore", ("patchcore", "padim"), "detectors")
    with pytest.raises(SettingsError, match=r"detectors: patchcor does not exist; did you mean patchcore\?"):
        check_known("patchcor", ("patchcore", "padim"), "detectors")
    with pytest.raises(SettingsError, match="xyz does not exist; known are patchcore, padim"):
        check_known("xyz", ("patchcore", "padim"), "detectors")
