"""Runs side by side: figures of their own files, paired differences, and what is refused."""

import shutil

import pandas as pd
import pytest

from components.core.artefacts import read_json
from components.core.errors import DataError
from components.decision.paired import worth
from components.pipeline.fit import EvaluateRequest, evaluate_run
from components.report.compare import Compared, compare, gain, page
from components.report.numbers import raw


@pytest.fixture(scope="module")
def runs(patchcore, other_bundle, product, tmp_path_factory):
    """Two evaluated runs of one data set."""
    root, made = tmp_path_factory.mktemp("compared"), []
    for name, source in (("one", patchcore), ("two", other_bundle.parent)):
        made.append(shutil.copytree(source, root / name))
        evaluate_run(EvaluateRequest(made[-1], product), made[-1] / "evaluation")
    return made


def compared(runs):
    return [Compared(run, run.name) for run in runs]


def section(runs, title, data=None):
    return next(part for part in page(compared(runs), data).sections if part.title.startswith(title))


def test_every_run_has_a_row_of_its_own_figures(runs):
    rows = section(runs, "Figures").blocks[0].rows
    assert [row[0] for row in rows] == ["one", "two"]
    for row, run in zip(rows, compared(runs), strict=True):
        assert row[2] == raw(run.known.threshold)
        assert row[4] == f"{worth(run.checked):.3f}"
        overall = read_json(run.folder / "evaluation/metrics.json")["overall"]
        assert row[5] == f"{overall['image']['auroc']:.3f}"


def test_differences_are_of_the_same_pictures(runs):
    one, two = compared(runs)
    found = gain(two, one)
    assert found.low <= found.value <= found.high
    ((name, said, share),) = section(runs, "Beside one").blocks[0].rows
    assert (name, said) == ("two", f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})")
    assert share.endswith("of resamplings")


def test_links_are_from_the_page_and_move_with_it(runs):
    assert page(compared(runs), None, runs[0].parent).links[0][1] == "one/report.html"
    beside = page(compared(runs), None, runs[0].parent / "my pages").links
    assert [place for _, place in beside] == ["../one/report.html", "../two/report.html"]


def test_other_pictures_are_not_compared(runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "other")
    table = pd.read_parquet(other / "evaluation/scores.parquet")
    table.iloc[1:].to_parquet(other / "evaluation/scores.parquet")
    checks = pd.read_parquet(other / "model/check.parquet")
    checks.assign(image_id=checks["image_id"] + "x").to_parquet(other / "model/check.parquet")
    assert gain(*compared([runs[0], other])) is None
    ((_, said, share),) = section([runs[0], other], "Beside one").blocks[0].rows
    assert (said, share) == ("not of the same test pictures", "not checked with the same pictures")


def test_pictures_on_which_they_differ_most_come_first_with_each_run_s_heat(runs, product):
    blocks = section(runs, "Pictures", product).blocks
    tables = [pd.read_parquet(run / "evaluation/scores.parquet").set_index("image_id") for run in runs]
    apart = (tables[0]["p_value"] - tables[1]["p_value"]).abs()
    assert [figure.name for figure in blocks[1].items] == ["scale"]  # of all heat maps, once
    assert apart[blocks[2].text.strip("*")] == apart.max()
    assert [figure.caption.partition(":")[0] for figure in blocks[3].items] == ["one", "two"]
    listed = section(runs, "Pictures").blocks[0].rows
    assert listed[0][0] == blocks[2].text.strip("*")


def test_runs_without_an_evaluation_say_what_would_show_pictures(runs, patchcore, tmp_path):
    bare = shutil.copytree(patchcore, tmp_path / "bare")
    shutil.rmtree(bare / "evaluation", ignore_errors=True)
    assert "`loupe evaluate`" in section([runs[0], bare], "Pictures").blocks[0].text
    assert section([runs[0], bare], "Figures").blocks[0].rows[1][5:] == ("-", "-", "-")


def test_what_is_no_comparison_is_refused(runs, tmp_path):
    for folders, said in (
        ([runs[0]], "of different runs"),
        ([runs[0], runs[0]], "of different runs"),
        ([runs[0], tmp_path], "holds no finished run"),
    ):
        with pytest.raises(DataError, match=said):
            compare(folders, tmp_path / "compare.html")
    with pytest.raises(DataError, match="is not a folder"):
        compare(runs, tmp_path / "compare.html", tmp_path / "none")
    assert not (tmp_path / "compare.html").exists()
