"""Blocks as HTML and as Markdown: what is text stays text, what is a mark becomes one, nothing asks the network."""

import re

import pytest

from benchmarks.report import markdown
from components.report import blocks, numbers, page
from components.report.blocks import (
    Bullets,
    Entries,
    Entry,
    Fact,
    Facts,
    Figure,
    Figures,
    Page,
    Section,
    Share,
    Table,
    Text,
)

PIXEL = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
EVERY = Page(
    "A page <of> blocks",
    ("First **sentence**.",),
    (
        Section("One & two", (Text("see [the page](../x.md) and `code`"), Bullets(("a point",)))),
        Section("Figures", (Facts((Fact("threshold", "1.5", "raw"),)), Figures((Figure("f", "a", PIXEL, "svg+xml"),)))),
        Section("Table", (Table(("name", "part"), (("x", Share(0.5, "1 of 2 (50 %)")),)),)),
        Section("Entries", (Entries((Entry("thing", (("what", "that"),)),)),)),
    ),
)


def test_every_kind_of_block_is_on_the_page():
    html = page.html(EVERY)
    for told in (
        "A page &lt;of&gt; blocks",
        "<code>code</code>",
        "a point",
        "threshold",
        "1 of 2 (50 %)",
        "thing",
        "that",
    ):
        assert told in html
    assert "--part: 0.500" in html
    assert page.marked("5 % of 7 %") == "5&nbsp;% of 7&nbsp;%"
    assert 'href="../x.md"' in html
    assert '<section id="one--two">' in html
    assert 'href="#one--two"' in html


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "`<b>`", "[<b>](<x>)", "**<i>**", '" onload="x'])
def test_text_never_becomes_a_tag(text):
    shown = str(page.marked(text))
    assert set(re.findall(r"<(\w+)", shown)) <= {"code", "strong", "a"}
    assert 'onload="' not in shown.replace("&#34;", "")


def test_a_script_is_no_target():
    assert 'href="#"' in page.marked("[x](javascript:alert)")


def test_links_of_a_page_that_lies_elsewhere():
    assert page.target("../methods/a.md", "../../docs/report") == "../../docs/report/../methods/a.md"
    assert page.target("#here", "x") == "#here"
    assert page.target("a.md") == "a.md"


def test_a_page_has_no_script_and_forbids_requests():
    html = page.html(EVERY)
    assert "<script" not in html
    assert "default-src 'none'" in html
    assert re.findall(r"(?:src|href)=\"(https?:[^\"]*)", html) == []


def test_a_page_takes_its_place_whole(tmp_path):
    out = page.write(EVERY, tmp_path / "report.html")
    assert out.read_text() == page.html(EVERY)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_markdown_holds_the_same_and_fits_the_screen(tmp_path):
    text = markdown.write(EVERY, tmp_path).read_text()
    for told in ("# A page <of> blocks", "## One & two", "1 of 2 (50 %)", "### thing", "![a](f.svg)", "- what: that"):
        assert told in text
    assert (tmp_path / "f.svg").read_bytes() == PIXEL
    assert max(map(len, text.splitlines())) <= 120


def test_a_table_that_is_too_wide_becomes_sentences_or_parts():
    wide = ("x" * 50, "y" * 50, "z" * 50)
    told = markdown.text(Page("t", (), (Section("s", (Table(("a", "b", "c"), (wide,)),)),)))
    assert f"- {wide[0]}: b {wide[1]}; c\n  {wide[2]}" in told
    cut = markdown.text(Page("t", (), (Section("s", (Table(("a", "b", "c"), (wide,), cuts=("c",)),)),)))
    assert cut.count("| a |") == 2


def test_anchors_are_those_of_markdown():
    assert blocks.anchor("Where it decides, and why") == "where-it-decides-and-why"


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.05, "5 %"), (0.0155, "1.6 %"), (0, "0 %"), (1, "100 %"), (1e-5, "under 0.1 %"), (0.9999, "over 99.9 %")],
)
def test_percentages(share, said):
    assert numbers.percent(share) == said


def test_counts():
    assert numbers.counted(1, "picture") == "1 picture"
    assert numbers.counted(1200, "picture") == "1,200 pictures"
