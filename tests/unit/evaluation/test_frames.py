"""Figures of frames: unnormalised, per clip, and where a clip holds one class alone."""

import numpy as np
import pytest

from components.evaluation.clips import BLOCK, blocks, difference, frame_figures, interval, within_clips

CLIPS = ["a"] * 4 + ["b"] * 4 + ["c"] * 2
LABELS = np.array([0, 0, 1, 1, 0, 0, 1, 1, 1, 1], bool)


def test_the_three_figures_differ_where_clips_are_of_other_scales():
    scores = np.array([1, 2, 3, 4, 11, 12, 13, 14, 5, 6.0])
    found = frame_figures(LABELS, scores, CLIPS)
    wins = sum((s > scores[~LABELS]).sum() for s in scores[LABELS]) / (LABELS.sum() * (~LABELS).sum())
    assert found["auroc"] == pytest.approx(wins)
    assert found["auroc"] < 1
    assert found["macro"] == 1
    assert (found["macro_clips"], found["clips"], found["frames"]) == (2, 3, 10), "clip c is anomalous throughout"
    scaled = within_clips(scores, np.asarray(CLIPS))
    assert scaled.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 0, 1 / 3, 2 / 3, 1, 0, 1])
    assert found["micro"] == pytest.approx(
        np.mean([(s > scaled[~LABELS]).mean() + 0.5 * (s == scaled[~LABELS]).mean() for s in scaled[LABELS]])
    )


def test_a_clip_whose_scores_never_change_is_zero():
    assert within_clips(np.array([3.0, 3.0, 1.0, 2.0]), np.array(["a", "a", "b", "b"])).tolist() == [0, 0, 0, 1]


def test_without_both_classes_there_is_no_figure():
    found = frame_figures(np.ones(3, bool), np.arange(3.0), ["a"] * 3)
    assert "not_available" in found
    assert "macro" not in found
    assert found["macro_clips"] == 0


def test_blocks_are_consecutive_frames_of_one_clip():
    clips = np.array(["a"] * (BLOCK + 5) + ["b"] * 3)
    assert [len(rows) for rows in blocks(clips)] == [BLOCK, 5, 3]
    assert np.concatenate(blocks(clips)).tolist() == list(range(BLOCK + 8))


def test_frames_that_are_near_copies_do_not_narrow_the_interval():
    """Every frame thirty times over: a bootstrap over frames would see thirty times as much."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.random(20) < 0.5, BLOCK)
    scores = np.repeat(rng.random(20), BLOCK) + 0.3 * labels
    clips = np.array(["a"] * len(labels))
    low, high = interval(labels, scores, clips)
    alone = np.array([f"{i}" for i in range(len(labels))])
    narrow = interval(labels, scores, alone, 200)
    assert high - low > 3 * (narrow[1] - narrow[0])


def test_the_difference_is_of_the_same_frames():
    rng = np.random.default_rng(0)
    labels, clips = rng.random(300) < 0.4, ["a"] * 150 + ["b"] * 150
    good, poor = labels + rng.random(300), rng.random(300)
    assert difference(labels, good, good, clips, 50) == [0, 0]
    low, high = difference(labels, good, poor, clips, 200)
    assert 0 < low < high
