"""Pictures that are alike within a clip or a group: how many of these calibrate, and what is not promised of them."""

import logging
from types import SimpleNamespace

import pandas as pd
import pytest

from components.calibration.calibrate import kept
from components.calibration.point import moved
from components.calibration.settings import CalibrationSettings
from components.core.artefacts import write_json
from components.core.records import SPLIT_COLUMNS
from components.datasets.loading import DECODING
from components.datasets.settings import SplitSettings
from components.decision.calibration import Alike, Calibration
from components.pipeline import crossing
from components.pipeline.operating import Moved
from components.report import told

VALUES = {
    **{"alpha": 0.1, "threshold": 18.0, "confidence": 0.95, "n": 19, "false_alarm_interval": [0.0155, 0.21]},
    "scores": [float(n) for n in range(1, 20)],
}


def stages(folder, stride=0, together="picture", members=()):
    """A view of three clips, of which one calibrates, in two groups."""
    names = [f"training/frames/{clip}/{at}.png" for clip in "abc" for at in range(8)]
    table = pd.DataFrame({"image_id": names}).reindex(columns=list(SPLIT_COLUMNS))
    table["split"] = ["calibrate" if "/c/" in name else "fit" for name in names]
    table["group"], table["label"] = ["left" if "/a/" in name else "right" for name in names], "normal"
    (folder / "split").mkdir()
    table.to_parquet(folder / "split/split.parquet", index=False)
    write_json(folder / "split" / DECODING, {"stride": stride})
    params = SimpleNamespace(calibration=CalibrationSettings(0.05))
    settings = SplitSettings(together=together)
    return SimpleNamespace(folder=folder, members=members, split_settings=settings, params=params)


@pytest.mark.parametrize(
    ("changes", "folds", "found"),
    [
        ({"stride": 1}, 0, Alike("clips", 1)),
        ({"stride": 1}, 3, Alike("clips", 3)),
        ({"together": "group"}, 0, Alike("groups", 1)),
        ({"together": "group"}, 3, Alike("groups", 2)),
        ({}, 0, None),
        ({"together": "group", "members": ("one", "two")}, 0, None),  # groups of a joined view are its views
    ],
)
def test_clips_and_groups_that_calibrate_are_counted(tmp_path, changes, folds, found):
    assert crossing.alike(stages(tmp_path, **changes), folds) == found


def test_what_one_clip_cannot_promise_is_told_with_the_number_that_is_needed(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "loupe"):
        crossing.tell_alike(stages(tmp_path, stride=1), 0)
    (said,) = (record.getMessage() for record in caplog.records)
    assert "lie in 1 clip, alike within each" in said
    assert "a false-alarm rate of 0.05" in said
    assert "for that 19 have to calibrate, and split.calibrate_share" in said


def test_nothing_is_told_of_pictures_that_stand_for_themselves_or_of_clips_enough(tmp_path, caplog):
    one = stages(tmp_path, stride=1)
    one.params.calibration = CalibrationSettings(0.5)  # one is enough for that
    with caplog.at_level(logging.WARNING, "loupe"):
        crossing.tell_alike(one, 0)
        one.params.calibration = CalibrationSettings(0.05)
        write_json(one.folder / "split" / DECODING, {"stride": 0})
        crossing.tell_alike(one, 0)
    assert not caplog.records


def test_the_interval_is_nominal_wherever_it_is_told():
    known = Calibration.of(VALUES | kept(Alike("clips", 2)))
    assert known.nominal == "pictures of 2 clips, alike within each"
    assert Calibration.of(VALUES | {"folds": 5} | kept(Alike("groups", 7))).nominal == (
        "calibrated by folds; pictures of 7 groups, alike within each"
    )
    assert "lies, nominally, between" in told.promises(known)
    assert "only more clips make the promise firm" in told.promises(known)
    (line,) = (line for line in Moved(None, known, known).lines() if line.startswith("true false-alarm rate"))
    assert "95% interval, nominal (pictures of 2 clips, alike within each): 0.0155 to 0.2100" in line


def test_pictures_that_stand_for_themselves_are_as_before():
    known = Calibration.of(VALUES | kept(None))
    assert known.nominal == ""
    assert "lies between" in told.promises(known)
    assert told.promises(known).endswith("while production looks like them.")


def test_another_alpha_keeps_it():
    assert moved(VALUES | kept(Alike("clips", 2)) | {"groups": {}}, 0.2)["alike"] == {"of": "clips", "n": 2}
