"""What Prefect's pages show: links that a browser may open, and the data check as tables."""

import pytest

from flows import pages
from flows.pages import PAGES, address, checked, show_page

SUMMARY = {
    "dataset": "cells",
    "counts": {"mono/a/train/normal": 30, "mono/test/anomalous": 4},
    "quarantined": [f"x{i}|.png: <b>is broken</b>" for i in range(30)],
    "repeats": [],
    "expectations": [
        {"expectation": "unique", "column": "image_id", "success": True, "unexpected": []},
        {"expectation": "between", "column": "width", "success": False, "unexpected": ["a.png"]},
    ],
    "unavailable": {"pixel AUROC": "no masks"},
    "broken": ["between on width failed"],
}


@pytest.fixture
def shown(monkeypatch):
    kept = []
    monkeypatch.setattr(pages, "create_link_artifact", lambda link, **more: kept.append(("link", link, more)))
    monkeypatch.setattr(pages, "create_markdown_artifact", lambda text, **more: kept.append(("text", text, more)))
    return kept


def test_where_artefacts_are_served_a_link_leads_to_the_page(tmp_path, monkeypatch, shown):
    monkeypatch.setenv(PAGES, "http://127.0.0.1:8002/")
    page = tmp_path / "my view" / "patchcore" / "report.html"
    show_page(page, tmp_path, "report-a", "report")
    assert shown == [
        ("link", "http://127.0.0.1:8002/my%20view/patchcore/report.html", {"key": "report-a", "link_text": "report"})
    ]


def test_elsewhere_the_place_is_told_and_no_page_links_to_a_file(tmp_path, monkeypatch, shown):
    monkeypatch.delenv(PAGES, raising=False)
    show_page(tmp_path / "report.html", tmp_path, "report-a", "report")
    monkeypatch.setenv(PAGES, "http://127.0.0.1:8002")
    show_page(tmp_path / "report.html", tmp_path / "other", "report-b", "report")  # not below what is served
    assert [kind for kind, _, _ in shown] == ["text", "text"]
    assert all("file:" not in text and str(tmp_path / "report.html") in text for _, text, _ in shown)


def test_the_data_check_is_a_table_with_the_verdict_on_top(tmp_path, monkeypatch):
    monkeypatch.setenv(PAGES, "http://127.0.0.1:8002")
    docs = tmp_path / "cells" / "docs" / "index.html"
    said = checked(SUMMARY, docs, tmp_path)
    lines = said.splitlines()
    assert lines[0] == "## cells: contract broken"
    assert "| mono/a | train | normal | 30 |" in lines
    assert "| between | width | **broken** | a.png |" in lines
    assert "| x0\\|.png: &lt;b>is broken&lt;/b> |" in lines
    assert "| ... and 10 more |" in lines
    assert "No file is left out as repeats." in lines
    assert lines[-1] == f"[All of it]({address(docs, tmp_path)})"
    assert "{" not in said
