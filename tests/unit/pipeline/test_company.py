"""The ensemble that the evidence asks for, and the time of a run."""

from types import SimpleNamespace

import pytest

from components.core.records import NORMAL
from components.detectors.catalogue import CATALOGUE, every
from components.pipeline import company as room
from components.pipeline.company import Time, company
from components.pipeline.sizing import Sized
from tests import figures

KINDS = [NORMAL] * 60 + ["graded_small"] * 40 + ["graded_wide"] * 40


@pytest.fixture
def stages(tmp_path):
    """Two detectors that see different kinds of anomaly, and one that sees none."""
    seen = {"patchcore@64-patchcore@96": (0.3, 4.0), "padim": (4.0, 0.3), "nln": (0.0, 0.0)}
    for seed, (name, (small, wide)) in enumerate(seen.items()):
        (tmp_path / name / "model").mkdir(parents=True)
        table = figures.checked(KINDS, {"graded_small": small, "graded_wide": wide}, seed)
        table.to_parquet(tmp_path / name / "model/check.parquet")
    return SimpleNamespace(folder=tmp_path, of=lambda name: tmp_path / name, params=SimpleNamespace(seed=0))


def sized(detector, *members, ms=0.0):
    return Sized(detector, members or (detector,), "", ms=ms)


PATCHCORE = sized("patchcore", "patchcore@64", "patchcore@96", ms=40.0)


def test_detectors_that_find_different_anomalies_are_put_together(stages):
    """The sizes of one detector are one member; the reference comes first."""
    found = [sized("padim", ms=20.0), PATCHCORE, sized("nln", ms=5.0)]
    assert company(stages, found) == "patchcore@64-patchcore@96+padim"
    assert company(stages, [PATCHCORE, sized("nln")]) is None
    assert company(stages, [PATCHCORE]) is None


def test_an_ensemble_keeps_to_the_time_of_one_picture(stages):
    found = [sized("padim", ms=20.0), PATCHCORE]
    assert company(stages, found, latency_ms=59.0) is None
    assert company(stages, found, latency_ms=60.0) is not None


def test_what_left_no_evidence_joins_nobody(stages):
    (stages.folder / "padim/model/check.parquet").unlink()
    assert company(stages, [sized("padim"), PATCHCORE]) is None


def test_a_detector_begins_where_the_longest_one_would_end_in_time():
    now = [0.0]
    time = Time(2.0, lambda: now[0])
    assert time.room("a")
    now[0] = 50.0
    time.done("a")
    now[0] = 70.0  # 20 seconds of something else
    assert time.room("b")
    now[0] = 71.0
    assert not time.room("c")
    assert time.room("b")  # it has begun
    endless = Time(None, lambda: now[0])
    assert endless.room("a")
    now[0] = 1e6
    assert endless.room("b")


def test_of_a_detector_that_is_not_done_counts_what_it_has_taken_so_far():
    now = [0.0]
    time = Time(2.0, lambda: now[0])
    assert time.room("a")
    now[0] = 60.0
    assert time.room("b")  # 60 seconds more would be in time
    now[0] = 61.0
    assert not time.room("c")


def test_a_short_one_begins_where_a_long_one_would_not_end_in_time():
    """One took 10 seconds more than was foreseen, as the others would: 90 and 40 seconds, where 50 are left."""
    now, foreseen = [0.0], {"a": 60.0, "b": 80.0, "c": 30.0}
    time = Time(2.0, lambda: now[0], foreseen.__getitem__)
    assert time.room("a")
    now[0] = 70.0
    time.done("a")
    assert not time.room("b")
    assert time.room("c")
    assert Time(1.0, lambda: now[0], foreseen.__getitem__).room("b")  # the first always may


def test_nothing_is_foreseen_where_the_time_has_no_end():
    time = Time(None, lambda: 0.0, {}.__getitem__)
    assert time.room("a")
    assert time.room("b")


def test_all_is_the_catalogue_with_what_is_trained_soonest_first():
    order = every(["all"])
    assert set(order[:2]) == {"padim", "patchcore"}
    assert max(order.index(name) for name in ("uniad", "rstpm", "fastflow")) < min(map(order.index, ("alps", "nln")))
    whole = every(["prn", "all"])
    assert whole[:3] == ("prn", "padim", "patchcore")
    assert set(whole) == set(CATALOGUE)
    assert len(whole) == len(CATALOGUE)
    assert every(["patchcore@384"]) == ("patchcore@384",)
    assert room.JOINT not in "".join(CATALOGUE)
