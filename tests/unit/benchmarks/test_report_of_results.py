"""The benchmark report: ranks against a published example, rules on made-up results, and the committed page."""

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report import claims, datasets, gallery, markdown, plots, sections, situations, taxonomy
from benchmarks.report.gather import Results, parsed
from benchmarks.report.ranks import critical_difference, ranking
from benchmarks.report.report import line, table
from components.core.errors import SettingsError
from components.detectors.catalogue import CATALOGUE
from components.report import figures
from components.report.figures import svg

MAIN = ("mtd", "screw", "elpv-mono", "elpv-poly")


def entry(auroc, half=0.01, ap=0.3, ratio=2.0, commit="a" * 40, pixel_auroc=0.8):
    image = {"auroc": auroc, "ap": auroc, "f1_max": auroc, "interval": {"auroc": [auroc - half, auroc + half]}}
    pixel = {"auroc": pixel_auroc, "ap": ap, "aupro": 0.5}
    rates = {"false_alarm_rate": {"rate": 0.05}, "miss_rate": {"rate": 1 - auroc}}
    return {
        "commit": commit,
        "metric_version": "2",
        "overall": {"image": image, "pixel": pixel, **rates},
        "seconds": {"train": 10, "train CPU": 9},
        "peak_memory_mb": 100,
        "onnx": {"ms": 10 * ratio, "ratio": ratio},
        "parameters": {"learned": 0.1},
        "state_mb": 1.0,
    }


def results(fit, **more):
    files = {"fit": fit, "floor": {}, "mechanisms": {}, "labelled": {}, "average": {}, "pose": {}} | more
    return Results(files)


@pytest.fixture(scope="module")
def stored():
    return Results.read()


@pytest.mark.parametrize(("methods", "views", "expected"), [(4, 14, 1.25), (5, 30, 1.11)])
def test_the_critical_difference_is_that_of_demsar(methods, views, expected):
    assert critical_difference(methods, views) == pytest.approx(expected, abs=0.01)


def test_ties_share_their_ranks_and_friedman_is_that_of_a_hand_count():
    scores = {
        "one": {"a": 0.9, "b": 0.8, "c": 0.7},
        "two": {"a": 0.9, "b": 0.9, "c": 0.7},
        "three": {"a": 0.6, "b": 0.5, "c": 0.4},
        "four": {"a": 0.9, "b": 0.7, "c": 0.8},
    }
    known = ranking(scores, list(scores))
    assert known.means == {"a": 1.125, "b": 2.125, "c": 2.75}
    assert known.ranks["b"] == (2, 1.5, 2, 3)
    # Rank sums 4.5, 8.5, 11: 12 / (4 * 3 * 4) * 213.5 - 48 = 5.375, divided by 1 - 6 / (4 * 24) for the tie.
    assert known.p == pytest.approx(np.exp(-(5.375 / (1 - 6 / 96)) / 2), abs=1e-6)


def test_only_methods_of_every_view_are_ranked_and_far_ones_are_told_apart():
    scores = {str(view): {f"m{i}": 1 - i / 10 for i in range(4)} | ({"x": 1.0} if view else {}) for view in range(30)}
    known = ranking(scores, list(scores))
    assert list(known.ranks) == ["m0", "m1", "m2", "m3"]
    assert ("m0", "m3") in known.apart
    assert ("m0", "m1") not in ranking(scores, ["0", "1"]).apart


def test_every_method_stands_in_both_surveys():
    assert taxonomy.unplaced() == [], "; ".join(
        f"add {name} to PLACES of benchmarks/report/taxonomy.py" for name in taxonomy.unplaced()
    )
    for name in CATALOGUE:
        own = taxonomy.place(name)
        assert own.cui in taxonomy.CUI, name
        assert own.tao.partition(":")[0] in taxonomy.TAO, name
        assert own.idea, name
        assert taxonomy.why(name) or taxonomy.published(name) == taxonomy.NONE, name
    assert set(taxonomy.PLACES) <= set(CATALOGUE)


def test_a_method_without_a_place_is_told_what_to_fill_in():
    with pytest.raises(SettingsError, match=r"PLACES says nothing of stub; add a Place with its category of Cui"):
        taxonomy.place("stub")


def test_published_figures_are_those_that_stand_with_the_method():
    assert "MVTec AD image AUROC 99.56" in taxonomy.published("pni")
    assert "18.6 % more F1" in taxonomy.published("cma_ae")
    assert taxonomy.published("rstpm") == taxonomy.NONE
    assert "10 real anomalies" in taxonomy.why("prn")
    assert taxonomy.why("rstpm") == ""


def test_candidates_reach_into_the_interval_of_the_best_on_every_view():
    fit = {"mtd/patchcore": entry(0.90, 0.02), "mtd/pni": entry(0.89), "mtd/padim": entry(0.80)}
    fit |= {"screw/patchcore": entry(0.90), "screw/pni": entry(0.95, 0.06), "screw/padim": entry(0.95)}
    found = results(fit)
    assert situations.candidates(found, ("mtd",)) == ["patchcore", "pni"]
    assert situations.candidates(found, ("mtd", "screw")) == ["pni"]  # the others are too low on one of them
    wide = results(fit | {"screw/padim": entry(0.96, 0.08)})
    assert situations.candidates(wide, ("mtd", "screw")) == ["pni", "patchcore"]
    assert situations.candidates(found, ("mtd", "bottle")) == []


def test_a_figure_that_tells_of_light_too_recommends_nothing():
    scores = {"commit": "a" * 40, "scores": {"normal": "5 6 7 8"}, "tested": {"normal": "1 2 3"}}
    fit = {"screw/pmb_ae": entry(0.97), "screw/patchcore": entry(0.92)}
    found = results(fit, choice={"screw/pmb_ae": scores})
    assert found.ranked("screw")[0] == "pmb_ae"
    assert found.marks("screw", "pmb_ae") == "A"
    assert situations.candidates(found, ("screw",)) == ["patchcore"]
    assert "0.910 to 0.930" in situations.pose(found).evidence


def test_the_fastest_candidate_is_named_where_it_is_another():
    found = results({"screw/patchcore": entry(0.90, ratio=5), "screw/pni": entry(0.895, ratio=3)})
    advice = situations.pose(found)
    assert advice.take == "[patchcore](../methods/patchcore.md)"
    assert advice.faster == "[pni](../methods/pni.md)"
    assert "0.900" in advice.evidence
    assert "[+]" in situations.pose(results({"screw/pni": entry(0.9, commit="b+")})).evidence


def test_sizes_and_squares_are_taken_where_they_are_better():
    fit = {"kolektor_sdd/padim": entry(0.84), "kolektor_sdd/patchcore": entry(0.83)}
    means = {"auto": "256+384", "means": {"256+384": {"auroc": 0.9}}, "singles": {"256": {"auroc": 0.89}}}
    assert "patchcore" in situations.big(results(fit, average={"kolektor_sdd": means})).take
    assert situations.big(results(fit)).take == "[padim](../methods/padim.md)"


def test_six_situations_have_an_answer_and_grounds(stored):
    answers = situations.advise(stored)
    assert len(answers) == 6
    assert all(one.take != "not measured" and one.grounds and one.evidence for one in answers)
    assert all("not measured" in one.take for one in situations.advise(results({}))[:2])


def test_the_front_is_what_no_other_beats_in_both():
    points = {"slow": (3.0, 0.9), "fast": (1.0, 0.7), "worse": (2.0, 0.6), "same": (3.0, 0.8)}
    assert plots.front(points) == ["fast", "slow"]


def test_a_verdict_turns_with_the_figures():
    names = {"features": ("adtr", "uniad"), "pixels": ("alps", "nln")}
    good = {
        f"{v}/{n}": entry(0.9 if what == "features" else 0.7) for what, ns in names.items() for n in ns for v in MAIN
    }
    bad = {
        f"{v}/{n}": entry(0.7 if what == "features" else 0.9) for what, ns in names.items() for n in ns for v in MAIN
    }
    assert claims.features(results(good))[0] == claims.AGREE
    assert claims.features(results(bad))[0] == claims.DISAGREE
    assert claims.flows(results(good))[0] == claims.OPEN
    flat = results({f"mtd/{n}": entry(0.9, ap=0.05, pixel_auroc=0.95) for n in ("adtr", "nln", "pni")})
    assert claims.pixel_ap(flat)[0] == claims.AGREE
    assert claims.pixel_ap(results(good))[0] == claims.DISAGREE


def test_every_claim_has_a_source_and_a_verdict(stored):
    for claim in claims.CLAIMS:
        assert "et al." in claim.source
        assert claim.ask(stored)[0] in (claims.AGREE, claims.PART, claims.DISAGREE, claims.OPEN)


def test_marks_and_intervals_of_the_tables_are_kept(stored):
    page = sections.page(stored, "svg+xml", svg, ())
    text = markdown.text(page)
    low, high = stored.interval("screw", "patchcore")
    assert f"({low:.3f} to {high:.3f})" in text
    assert "| [sgsf](../methods/sgsf.md) | +1T |" in text
    assert "| [cma_ae](../methods/cma_ae.md) | +1S |" in text


def test_recall_by_size_is_shown_where_it_is_stored():
    measured = entry(0.9)
    share = {"n": 4, "found": 3, "recall": 0.75, "interval": [0.3, 0.95]}
    measured["overall"]["sizes"] = {"classes": {"16 to 32": {"pictures": share, "regions": {"n": 4, "tiny": 0}}}}
    (row,) = sections.by_size(results({"mtd/pni": measured}))
    assert row[:2] == ("mtd", "[pni](../methods/pni.md)")
    assert row[3] == "3 of 4"


def test_the_table_of_a_page_is_read():
    assert parsed("x\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nmore") == (("a", "b"), [("1", "2")])
    assert parsed("none") == ((), [])


def test_the_csv_has_every_figure(stored, tmp_path):
    lines = list(csv.DictReader(table(stored, tmp_path / "leaderboard.csv").open()))
    assert len(lines) == sum(map(len, stored.auroc.values()))
    best = next(row for row in lines if row["view"] == "screw")
    assert best["method"] == stored.ranked("screw")[0]
    assert float(best["image_auroc"]) == stored.auroc["screw"][best["method"]]
    assert line(stored, "elpv-mono", "adtr")["pixel_ap"] == ""


def test_sizes_of_data_sets_add_up():
    for name, _, pictures, *_ in datasets.ROWS:
        if "/" in pictures:
            every, good, bad = (
                int(n) for n in pictures.replace(",", "").replace("(", "").replace(")", "").replace("/", " ").split()
            )
            assert every == good + bad, name


def test_without_trained_models_the_gallery_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "View", type("View", (), {"of": staticmethod(lambda _: Absent(tmp_path))}))
    (block,) = gallery.blocks()
    assert "`loupe bench fit`" in block.text


class Absent:
    """A view whose detectors have left nothing."""

    def __init__(self, root):
        self.stages = type("Stages", (), {"of": lambda _, name: root / name})()


def test_the_gallery_draws_each_model_on_the_same_pictures(patchcore, product):
    from components.pictures.decoding import Decoding

    trained = {"patchcore": patchcore / "work" / "run" / "patchcore"}
    pictures = [(kind, product / "test" / kind / "000.png") for kind in ("good", "scratch")]
    found = gallery.figure(trained, pictures, Decoding(), "product")
    assert found.data.startswith(b"\x89PNG")
    assert "good, scratch" in found.caption


def test_the_committed_page_is_that_of_the_stored_results(stored):
    said = Path("docs/report/README.md").read_text()
    now = markdown.text(sections.page(stored, "png", figures.png, ()))
    parts = [(a.split("## The same pictures"), b.split("## The same pictures")) for a, b in [(said, now)]]
    ((before, after), (fresh, _)) = parts[0][0], parts[0][1]
    assert before == fresh, "loupe bench report"
    assert after.split("\n## ", 1)[1] == now.split("## The same pictures")[1].split("\n## ", 1)[1], "loupe bench report"
    assert {path.name for path in Path("docs/report").iterdir()} >= {"ranks.png", "pareto.png"}
