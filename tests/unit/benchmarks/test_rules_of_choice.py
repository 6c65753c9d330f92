"""Rules of choice, on figures that are made up."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks.common.evidence import auroc_of, table_of, told
from benchmarks.quality import auto, choice
from components.core.records import NORMAL, NUISANCE
from components.pipeline.sizing import Sized
from tests import figures

KINDS = [NORMAL] * 40 + [NUISANCE + "gain"] * 20 + ["graded_small"] * 40


def checked(found=1.0, nuisance=0.0, seed=0):
    return figures.checked(KINDS, {"graded_small": found, NUISANCE + "gain": nuisance}, seed)


def entry(folder, auroc, anomalous=(2.0, 3.0, 4.0), **how):
    """What is kept of a detector; of six test pictures, three are anomalous and one may be."""
    for name in ("model", "evaluation"):
        (folder / name).mkdir(exist_ok=True)
    checked(**how).to_parquet(folder / "model/check.parquet")
    scores = [-1.0, 0.0, 1.0, *anomalous, 9.0]
    labels = ["normal"] * 3 + ["anomalous"] * 3 + ["uncertain"]
    rows = pd.DataFrame({"image_id": list("abcdefg"), "label": labels, "score": scores})
    rows.sample(frac=1, random_state=0).to_parquet(folder / "evaluation/scores.parquet")
    return told(folder, auroc, "0123abc")


def test_scores_come_back_as_they_were_kept(tmp_path):
    kept = entry(tmp_path, 0.9)
    table = table_of(kept)
    assert table["kind"].value_counts().to_dict() == {NORMAL: 40, "graded_small": 40, NUISANCE + "gain": 20}
    np.testing.assert_allclose(np.sort(table["score"]), np.sort(checked()["score"]), rtol=1e-4)
    assert kept["tested"] == {"normal": "-1 0 1", "anomalous": "2 3 4", "uncertain": "9"}


def test_two_detectors_that_miss_different_pictures_find_more_as_one(tmp_path):
    """Each takes an anomaly of its own for normal; their mean is above the normals for both."""
    one, other = entry(tmp_path, 0.8, (0.5, 5.0, 5.0)), entry(tmp_path, 0.8, (5.0, 0.5, 5.0), seed=1)
    assert auroc_of([one]) == pytest.approx(8 / 9)
    assert auroc_of([one, other]) == 1.0


def test_a_member_weighs_by_its_spread_on_normals(tmp_path):
    """Scores ten times as large say nothing more."""
    small, large = entry(tmp_path, 0.8, (0.5, 5.0, 5.0)), entry(tmp_path, 0.8, (5.0, 0.5, 5.0), seed=1)
    for part in ("scores", "tested"):
        large[part] = {k: " ".join(str(10 * float(s)) for s in text.split()) for k, text in large[part].items()}
    assert auroc_of([small, large]) == 1.0


@pytest.fixture
def found(tmp_path):
    """On one view the loud detector finds most anomalies and is worst; on the other a quiet one is best for certain."""
    return {
        "one/patchcore": entry(tmp_path, 0.92, found=1.5),
        "one/loud": entry(tmp_path, 0.71, found=2.0, nuisance=3.0, seed=1),
        "two/patchcore": entry(tmp_path, 0.8, found=0.5),
        "two/sharp": entry(tmp_path, 0.95, found=3.0, seed=2),
        "two/sharp@1": entry(tmp_path, 0.99, found=9.0, seed=2),
    }


def test_regret_is_what_the_best_of_the_view_has_more(found):
    views = choice.views_of(found)
    assert choice.regret(views["one"], choice.RULES["always patchcore"]) == (("patchcore",), 0)
    assert choice.regret(views["two"], choice.RULES["always patchcore"])[1] == pytest.approx(0.15)
    assert choice.regret(views["one"], choice.RULES["highest AUROC of graded anomalies"])[0] == ("loud",)
    assert choice.regret(views["one"], choice.RULES["the same against nuisances too"])[0] == ("patchcore",)
    assert choice.regret(views["one"], choice.RULES["fewest alarms at nuisances"])[0] == ("patchcore",)
    assert choice.regret(views["two"], choice.RULES["reference unless certain"])[0] == ("sharp",)


def test_an_ensemble_loses_what_its_mean_loses(found):
    taken, lost = choice.regret(choice.views_of(found)["two"], choice.RULES["all as one"])
    assert taken == ("patchcore", "sharp")
    assert lost == pytest.approx(0.95 - 1.0)


@pytest.fixture
def sized(found, tmp_path):
    """The view ``one`` with the reference at the sizes of auto, and two sizes of it; the mean of both is the best."""
    known = {"auto": (0.96, 1.6), "256": (0.9, 1.2), "384": (0.93, 1.4)}
    rows = {f"one/patchcore-{name}": entry(tmp_path, auroc, found=worth) for name, (auroc, worth) in known.items()}
    return choice.views_of(found | rows)["one"]


def test_where_auto_is_measured_it_is_the_reference_and_plain_patchcore_no_candidate(sized):
    assert choice.regret(sized, choice.RULES["always patchcore"]) == (("patchcore-auto",), 0)
    assert choice.regret(sized, choice.RULES["reference unless certain"])[0] == ("patchcore-auto",)
    checks = {name: table_of(kept) for name, kept in sized.items()}
    assert choice.reference(checks) == "patchcore-auto"
    seen = []
    choice.regret(sized, lambda given: (seen.append(set(given)), ("loud",))[1])
    assert seen == [{"loud", "patchcore-256", "patchcore-384", "patchcore-auto"}]


def test_sizes_are_candidates_alone_and_no_company_of_their_own_whole(sized, monkeypatch):
    assert choice.regret(sized, choice.RULES["all as one"])[0] == ("loud", "patchcore-auto")
    seen = []
    monkeypatch.setattr(choice, "grown", lambda checks, first: (seen.append((sorted(checks), first)), ("loud",))[1])
    choice.regret(sized, choice.RULES["reference unless certain, and whose company is certain"])
    assert seen == [(["loud", "patchcore-auto"], "patchcore-auto")]


def test_a_view_of_one_detector_is_left_out(found):
    alone = found | {"alone/patchcore": next(iter(found.values()))}
    assert choice.views_of(alone).keys() == choice.views_of(found).keys()
    assert choice.page(alone) == choice.page(found)


def test_the_page_has_the_worth_of_each_detector_where_it_was_trained(found):
    rows = {name: of for name, *of in choice.worths(choice.views_of(found))}
    assert rows.keys() == {"loud", "patchcore", "sharp"}
    assert rows["loud"][1] == rows["sharp"][0] == "-"
    assert float(rows["sharp"][1]) > float(rows["patchcore"][1])
    assert "| sharp | - | " in choice.page(found).partition("## Worth")[2]


def test_auto_keeps_a_row_for_each_size_and_one_for_all(monkeypatch, tmp_path):
    """Of a view that auto sees at one size nothing is trained."""
    sized = Sized("patchcore", ("patchcore@256", "patchcore@384"), "by the pictures", {})
    ran, rows = [], {}
    stages = SimpleNamespace(view="one", of=lambda name: tmp_path / name)
    monkeypatch.setattr(auto, "prepare", lambda view: ran.append(view))
    monkeypatch.setattr(auto, "stages_of", lambda _: stages)
    monkeypatch.setattr(auto, "members_file", lambda *_: tmp_path / "params.yaml")
    monkeypatch.setattr(auto, "params_file", lambda _: tmp_path / "params.yaml")
    monkeypatch.setattr(auto, "staged", lambda step, view, name, _: ran.append((step, view, name)))
    monkeypatch.setattr(auto, "auroc_at", lambda at: {"patchcore@256": 0.8}.get(at.name, 0.9))
    monkeypatch.setattr(auto, "told", lambda at, auroc, _: {"at": at.name, "auroc": auroc})
    monkeypatch.setattr(auto, "add", lambda _, entries: rows.update(entries))
    monkeypatch.setattr(auto, "plan", lambda *_: sized)
    auto.main(["one"])
    whole = "patchcore@256-patchcore@384"
    assert [words[0] for words in ran[1:4]] == ["train", "calibrate_member", "evaluate"]
    assert ran[-3:] == [(step, "one", whole) for step in ("combine", "calibrate", "evaluate")]
    assert rows == {
        "one/patchcore-256": {"at": "patchcore@256", "auroc": 0.8},
        "one/patchcore-384": {"at": "patchcore@384", "auroc": 0.9},
        "one/patchcore-auto": {"at": whole, "auroc": 0.9},
    }
    monkeypatch.setattr(auto, "plan", lambda *_: Sized("patchcore", ("patchcore",), "small", {}))
    rows.clear()
    auto.main(["one"])
    assert ran[-1] == "one"
    assert rows == {}


def test_the_page_names_every_rule_its_choices_and_the_best(found):
    text = choice.page(found)
    for rule in (*choice.RULES, "the same, certainty of the other views"):
        assert text.count(f"| {rule} |") == (1 if rule.startswith("always") else 2)
    assert "| two | sharp | 0.950 |" in text
    assert "0123abc" in text


def test_the_certainty_of_a_view_comes_from_the_other_views(monkeypatch):
    """Where the others lose less by 0.5, that is taken, though the view itself would rather have 0.99."""
    lost = {("a", 0.5): 0.3, ("a", 0.99): 0.0, ("b", 0.5): 0.0, ("b", 0.99): 0.2}
    monkeypatch.setattr(choice, "CERTAINTIES", (0.5, 0.99))
    monkeypatch.setattr(choice, "certain", lambda share: share)
    monkeypatch.setattr(choice, "regret", lambda entries, share: (f"{share}", lost[entries, share]))
    assert choice.left_out({"a": "a", "b": "b"}) == {"a": ("0.5", 0.3), "b": ("0.99", 0.2)}
