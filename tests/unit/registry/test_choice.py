"""Which of several detectors is taken, without a label."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from components.core.records import NORMAL, NUISANCE
from components.decision.paired import auroc, share_better, worth
from components.registry import choice
from components.registry.choice import agreement, averaged, by_evidence, choose, grown
from tests import figures

KINDS = [NORMAL] * 60 + [NUISANCE + "blur"] * 20 + ["graded_small"] * 40 + ["graded_wide"] * 40


def checked(small=1.0, wide=1.0, nuisance=0.0, seed=0, kinds=KINDS):
    moved = {"graded_small": small, "graded_wide": wide, NUISANCE + "blur": nuisance}
    return figures.checked(kinds, moved, seed)


def test_auroc_counts_equal_scores_half():
    rng = np.random.default_rng(0)
    good, made = rng.integers(0, 6, 50), rng.integers(2, 9, 30)
    assert auroc(good, made) == pytest.approx(roc_auc_score([0] * 50 + [1] * 30, np.concatenate([good, made])))


def test_worth_is_the_mean_over_kinds_however_many_there_are_of_each():
    many = ["graded_wide"] * 400
    assert worth(checked(0.0, 9.0, kinds=KINDS + many)) == pytest.approx(0.75, abs=0.05)


def test_a_detector_that_alarms_at_blur_is_worth_less():
    assert worth(checked(nuisance=4.0)) < worth(checked()) - 0.1


def test_the_reference_is_taken_unless_another_one_is_better_for_certain():
    """Nearly as good by luck of the pictures does not do; better by far does."""
    reference, lucky, better = checked(1.0, 1.0), checked(1.1, 1.1, seed=1), checked(2.5, 2.5, seed=2)
    kept = by_evidence({"patchcore": reference, "lucky": lucky})
    assert kept.worths["lucky"] > kept.worths["patchcore"]
    assert kept.detector == "patchcore"
    assert "better than patchcore on" in " ".join(kept.reasons)
    assert by_evidence({"patchcore": reference, "lucky": lucky, "better": better}).detector == "better"
    assert by_evidence({"lucky": lucky, "better": better}).detector == "better"


def test_one_that_was_checked_with_other_pictures_does_not_replace_the_reference():
    other = checked(2.5, 2.5, seed=2)
    assert by_evidence({"patchcore": checked(), "other": other}).detector == "other"
    assert by_evidence({"patchcore": checked(), "other": other.assign(image_id="x")}).detector == "patchcore"


def test_agreement_is_told_of_three_and_more_and_chooses_nothing():
    one = checked(2.0, 2.0)
    like = one.assign(score=one["score"] ** 3)  # another scale, the same order
    other = one.assign(score=-one["score"])
    found = {"patchcore": one, "like": like, "other": other}
    assert agreement(found) == pytest.approx({"like": 0.0, "other": -1.0, "patchcore": 0.0})
    told = by_evidence(found)
    assert told.detector == "patchcore"
    assert "other: graded anomalies" in " ".join(told.reasons)
    assert "agrees with the others' by -1.00" in " ".join(told.reasons)
    assert agreement({"patchcore": one, "like": like}) == {}
    assert agreement({"patchcore": one, "like": like, "far": other.assign(image_id="x")}) == {}


def trained(folder, table=None, score=0.9):
    (folder / "model").mkdir(parents=True)
    if table is not None:
        table.to_parquet(folder / "model/check.parquet")
    (folder / "model/history.json").write_text(json.dumps([{"phase": "one", "synthetic_auroc": score}]))
    return folder


def test_models_of_before_there_was_evidence_are_compared_by_their_histories(tmp_path):
    old, new = trained(tmp_path / "old", score=0.95), trained(tmp_path / "new", checked(), score=0.9)
    assert choose({"old": old, "patchcore": new}).detector == "old"
    assert choose({"patchcore": new, "fastflow": trained(tmp_path / "f", checked(0.1, 0.1))}).detector == "patchcore"


def test_half_of_the_resamplings_are_better_where_two_are_equal():
    one, other = checked(seed=3), checked(seed=4)
    low, high = sorted([share_better(one, other, 0), share_better(other, one, 0)])
    assert low + high == pytest.approx(1.0)
    assert 0.0 <= low <= 0.5


def test_the_mean_of_detectors_has_each_on_one_scale():
    one, other = checked(seed=3), checked(seed=4)
    mean = averaged([one, other.assign(score=50 + 7 * other["score"])])
    normal = [table[table["kind"] == NORMAL]["score"] for table in (one, other)]
    scales = [1.4826 * (part - part.median()).abs().median() for part in normal]
    parts = [(table["score"] - part.median()) / s for table, part, s in zip((one, other), normal, scales, strict=True)]
    np.testing.assert_allclose(mean["score"], (parts[0] + parts[1]) / 2)
    assert mean["kind"].equals(one["kind"])


def test_company_is_taken_where_it_is_better_for_certain():
    """Two that see different kinds are more together; one that sees nothing joins nobody."""
    left, right, blind = checked(0.3, 4.0), checked(4.0, 0.3, seed=1), checked(0.0, 0.0, seed=2)
    assert grown({"patchcore": left, "right": right, "blind": blind}) == ("patchcore", "right")
    assert grown({"patchcore": left, "blind": blind}) == ("patchcore",)
    assert grown({"patchcore": left, "right": right.assign(image_id="x")}) == ("patchcore",)


def test_company_ends_with_three():
    many = {f"d{seed}": checked(1.0, 1.0, seed=seed) for seed in range(6)}
    assert len(grown(many | {"patchcore": checked(1.0, 1.0, seed=9)})) == choice.MOST
