"""Anomalies in clips: in every frame, moving where they are local; and clips that are played fast."""

import numpy as np
import pandas as pd
import pytest

from components.pictures.clips import decode, past
from components.pictures.decoding import Decoding
from components.synthesis.blending import Synthetic, made
from components.synthesis.clips import FAST, NOTICED, PAST, TIMES, carried, fast
from components.synthesis.settings import SynthesisSettings
from components.synthesis.synthesise import synthesise
from tests.clips import SIDES, frame, write_clip, write_set

RULES = Decoding(stride=1)


def spot(picture: np.ndarray) -> Synthetic:
    changed = picture.copy()
    changed[20:26, 30:36] = 255
    return made(picture, changed, 0.5)


def still(count: int = PAST + 1) -> np.ndarray:
    return np.repeat(np.full((1, *SIDES, 3), 90, np.uint8), count, 0)


def middle(picture: np.ndarray) -> np.ndarray:
    return np.argwhere(picture[..., 0] > 200).mean(0)


def test_a_local_anomaly_travels_evenly_and_ends_where_it_was_drawn():
    frames = still()
    clip = carried(frames, spot(frames[-1]), "graded_small", np.random.default_rng(3))
    assert (clip.frames[-1] == clip.made.image).all()
    places = np.stack([middle(f) for f in clip.frames])
    steps = np.diff(places, axis=0)
    assert (np.abs(steps - steps.mean(0)) <= 1).all(), "to a pixel"
    assert np.abs(steps).sum() > 0
    assert (frames == 90).all(), "what was read is left as it is"


def test_a_wide_anomaly_stands_and_the_past_keeps_what_moves_below_it():
    frames = np.stack([frame(time) for time in range(PAST + 1)])
    clip = carried(frames, spot(frames[-1]), "graded_wide", np.random.default_rng(0))
    change = clip.frames.astype(int) - frames
    assert [bool(c.any()) for c in change] == [True] * (PAST + 1)
    outside = np.ones(SIDES, bool)
    outside[20:26, 30:36] = False
    assert not change[:, outside].any()


@pytest.mark.parametrize("seed", range(6))
def test_a_fast_clip_ends_with_the_frame_and_comes_from_further_back(tmp_path, seed):
    paths = write_clip(tmp_path / "01", 20)
    clip = fast(paths[18], RULES, np.random.default_rng(seed), decode)
    assert (clip.frames[-1] == frame(18)).all()
    times = int(clip.made.strength)
    assert times in TIMES
    assert all((clip.frames[k] == frame(18 - times * (PAST - k))).all() for k in range(PAST))
    step = np.abs(frame(18).astype(int) - frame(18 - times)).max(-1) > NOTICED
    assert (clip.made.mask == step).all()


def test_at_the_start_of_a_clip_and_where_nothing_moves_there_is_no_fast_one(tmp_path):
    paths = write_clip(tmp_path / "01", 20)
    assert fast(paths[5], RULES, np.random.default_rng(0), decode) is None
    stills = write_clip(tmp_path / "02", 20, speed=0)
    assert fast(stills[19], RULES, np.random.default_rng(0), decode) is None


@pytest.mark.parametrize("stride", [1, 2])
def test_synthesis_of_clips_leaves_folders_that_are_read_as_clips(tmp_path, stride):
    root = write_set(tmp_path / "walk", train=(40,), test=4, anomalous=(2,))
    names = [f"training/frames/01/{i:03}.png" for i in range(40)]
    (tmp_path / "split").mkdir()
    pd.DataFrame({"image_id": names, "split": "calibrate", "label": "normal"}).to_parquet(
        tmp_path / "split/split.parquet"
    )
    (tmp_path / "split/decoding.json").write_text(f'{{"white": null, "max_pixels": 100000, "stride": {stride}}}')
    settings = SynthesisSettings(strategies=("graded_small",))
    out = synthesise(tmp_path / "split", root, tmp_path / "synthetic", settings, 0)
    table = pd.read_parquet(out / "synthetic.parquet")
    assert set(table["strategy"]) == {"graded_small", FAST}
    assert (table["strategy"] == "graded_small").sum() == 20
    rules = Decoding(stride=stride, window=PAST + 1)
    for row in table.itertuples():
        last = out / row.image_id
        before = past(last, PAST, stride)
        assert len({*before, last}) == PAST + 1
        seen, own = decode(last, rules=rules), decode(root / row.origin, rules=rules)
        assert ((seen[-1] == own[-1]).all()) == (row.strategy == FAST)
        assert (seen[:-1] != own[:-1]).any(), "its past is another one too"
