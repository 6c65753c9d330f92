"""The tables of the benchmarks, from figures that are made up."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks import questions
from benchmarks.common.tables import WIDTH, noted, sections, stacked, wrapped
from benchmarks.quality import methods, table
from benchmarks.speed import speed
from tests.figures import entry, old_entry


def test_a_table_too_wide_for_the_page_is_several_with_the_same_first_columns():
    head = ("view", "detector", *(f"figure {i}" for i in range(12)))
    lines = [["mtd", "uniad", *(f"0.{i:08d}" for i in range(12))]]
    text = stacked(head, lines, 2, "figure 6")
    one, two = text.split("\n\n")
    assert (
        one.splitlines()[0] == "| view | detector | figure 0 | figure 1 | figure 2 | figure 3 | figure 4 | figure 5 |"
    )
    assert two.splitlines()[2].startswith("| mtd | uniad | 0.00000006 |")
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\n\n" not in stacked(head[:4], [lines[0][:4]], 2, "figure 1")


def test_a_long_name_is_a_number_with_a_note_below_the_table():
    numbers, notes = noted(["b" * 50, "c" * 60, "b" * 50])
    assert numbers == {"b" * 50: "(1)", "c" * 60: "(2)"}
    assert notes.splitlines() == [f"- (1) {'b' * 50}", f"- (2) {'c' * 60}"]


def test_text_is_wrapped_between_words_only():
    assert wrapped("`a=b-c` " * 30).splitlines()[0] == " ".join(["`a=b-c`"] * 15)


def test_sections_of_a_page():
    assert sections("# Head\n\nabout\n\n## mtd\n\none\n\ntwo\n") == {"mtd": "one\n\ntwo"}


def test_new_and_old_entries_fill_the_same_columns():
    new, old = table.cells("mtd", "uniad", entry()), table.cells("mtd", "uniad", old_entry())
    assert len(new) == len(old) == len(table.HEAD)
    shown, before = (dict(zip(table.HEAD, line, strict=True)) for line in (new, old))
    assert shown["AUROC (95 %)"] == "0.800 (0.700 to 0.900)"
    assert (shown["features s"], shown["over bare backbone"], shown["learned M"]) == ("8", "1.61", "0.56")
    assert (before["train s"], before["ONNX ms"], before["state MB"]) == ("54", "-", "-")
    assert before["pixel AP"] == "no masks"


def test_a_row_says_what_a_reader_must_know_of_it():
    clean = entry() | {"commit": "abc", "metric_version": "2"}
    assert table.marks("screw", "prn", clean) == ""
    assert table.marks("mtd", "prn", clean) == "T"
    assert table.marks("mtd", "cma_ae", clean | {"commit": "abc+"}) == "+S"
    assert table.marks("screw", "prn", {k: v for k, v in clean.items() if k != "metric_version"}) == "1"


def test_a_row_whose_good_test_pictures_score_apart_is_marked():
    run, calibrated = entry() | {"commit": "a" * 40}, "0.1 0.2 0.3 0.4"
    scores = {"commit": "a" * 40, "scores": {"normal": calibrated}, "tested": {"normal": "0.5 0.6"}}
    alike = scores | {"tested": {"normal": "0.15 0.25 0.35"}}
    below = scores | {"tested": {"normal": "0.01 0.15"}}
    marked = [
        table.rows({"mtd/uniad": run}, {"mtd/uniad": found})[0][2].endswith("A") for found in (scores, below, alike)
    ]
    assert marked == [True, True, False]
    assert not table.apart(run, scores | {"commit": "b" * 40}), "scores of another run say nothing"


def test_other_seeds_have_a_table_of_their_own():
    found = {"mtd/uniad": entry(0.8), "mtd/uniad@1": entry(0.7), "mtd/uniad@2": entry(0.9), "mtd/sap2": old_entry()}
    assert [line[:2] for line in table.rows(found, {})] == [["mtd", "sap2"], ["mtd", "uniad"]]
    (line,) = table.seed_rows(found)
    assert line[:4] == ["mtd", "uniad", "3", "0.800 (0.700 to 0.900)"]


def test_curves_take_stages_that_choose_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    table.curves({"mtd/uniad": entry(), "screw/uniad": entry(), "mtd/fastflow": entry(), "mtd/sap2": old_entry()})
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_page_has_the_method_s_rows_seeds_and_shares():
    found = {"mtd/uniad": entry(0.8), "mtd/uniad@1": entry(0.7), "screw/uniad": old_entry(), "mtd/sap2": entry(0.5)}
    text = methods.measured("uniad", found)
    assert "sap2" not in text
    assert "0.500 (" not in text
    assert "| mtd | 2 | 0.750 (0.700 to 0.800) |" in text
    assert "- mtd, 80 s: features 10%, drawing 10%, steps 50%, choosing 20%, the rest 10%" in text
    assert "- screw" not in text
    assert methods.measured("adtr", found) == "## Measured here\nNot measured yet.\n"
    assert "results/video.md" in methods.measured("stm_ae", found), "where its figures are of clips"


def commits(found) -> Iterator[str]:
    """Every commit that a result names, at any depth."""
    if isinstance(found, dict):
        if isinstance(commit := found.get("commit"), str):
            yield commit
        found = list(found.values())
    if isinstance(found, list):
        for part in found:
            yield from commits(part)


def test_results_of_a_tree_with_changes_are_said_to_be_so():
    page = Path("benchmarks/README.md").read_text()
    for path in sorted(Path("benchmarks/results").glob("*.json")):
        named = list(commits(json.loads(path.read_text())))
        if changed := sum(commit.endswith("+") for commit in named):
            assert f"| `{path.name}` | {len(named)} | {changed} |" in page


def test_the_first_page_names_every_question_and_counts_the_findings_of_each_group():
    page = Path("benchmarks/README.md").read_text()
    asked = {f"`{name}`" for name in questions.FILES} - {"`demo_drift`", "`speed`", "`report`"}
    asked |= {"`make demo-drift`", "`loupe bench report`"}
    asked |= {f"`speed {name}`" for name in speed.PARTS}
    assert {name for name in asked if name not in page} == set()
    for group in ("quality", "mechanisms", "production", "speed", "peer"):
        findings = re.findall(r"^\| \d+ \|", Path(f"benchmarks/{group}/README.md").read_text(), re.MULTILINE)
        (row,) = (line for line in page.splitlines() if line.startswith(f"| [{group}]({group}/README.md)"))
        assert row.endswith(f" {len(findings)} |"), row
