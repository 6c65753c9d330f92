"""The documents as a site: every link leads somewhere, and a browser without a network shows and searches them."""

import functools
import http.server
import re
import threading
from pathlib import Path

import pytest

from infra.site import build
from tests.browser import browser, needed

pytest.importorskip("material", reason="needs mkdocs-material, of the extra docs")
pytestmark = pytest.mark.slow
assert browser  # a fixture
LOADED = re.compile(r"""<(?:script|img|source|iframe)[^>]*\ssrc=["']?(?:https?:)?//|url\(["']?(?:https?:)?//""")
STYLED = re.compile(r"""<link(?![^>]*rel=["']?canonical)[^>]*href=["']?(?:https?:)?//""")
KINDS = ["Loupe", "Tutorial", "How to", "Reference", "Explanation", "About"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    return build.built(folder / "pages", folder / "site")


def test_the_menu_has_four_kinds_of_page_and_each_page_once(site):
    menu = build.nav(site.with_name("pages"))
    assert [next(iter(part)) for part in menu] == KINDS
    known = {next(iter(part)): next(iter(part.values())) for part in menu}
    assert known["Tutorial"] == ["docs/tutorial.md"]
    assert {"docs/operating.md", "docs/python.md", "docs/upgrading.md"} <= set(known["How to"])
    assert {"docs/reference/commands.md", "docs/glossary.md", "docs/methods/padim.md"} <= {
        *map(str, known["Reference"])
    }
    assert {"docs/architecture.md", "docs/adr/0045-wheel.md"} <= set(known["Explanation"])
    kinds = [page for kind in KINDS[1:] for page in known[kind] if isinstance(page, str)]
    assert len(kinds) == len(set(kinds))
    pages = {path.relative_to(Path.cwd()).as_posix() for path in Path("docs").resolve().rglob("*.md")}
    assert pages - set(kinds) == set()


def test_no_page_loads_anything_from_elsewhere(site):
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 100
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not LOADED.search(text), page
        assert not STYLED.search(text), page
    tutorial = (site / "docs/tutorial.html").read_text(encoding="utf-8")
    assert 'href="glossary.html"' in tutorial
    assert "<table>" in (site / "index.html").read_text(encoding="utf-8")


@needed
def test_the_start_page_opens_without_a_network(browser, site):
    asked: list[str] = []
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.route(re.compile("^(?!file:)"), lambda route: (asked.append(route.request.url), route.abort()))
    page.on("pageerror", lambda error: asked.append(str(error)))
    page.goto((site / "index.html").as_uri(), wait_until="load")
    assert [tab.inner_text() for tab in page.locator(".md-tabs__link").all()] == KINDS
    assert page.locator("h1").inner_text().startswith("Loupe")
    page.get_by_role("link", name="Reference", exact=True).first.click()
    page.wait_for_url("**/docs/reference/commands.html")
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert asked == []
    page.close()


@needed
def test_the_site_is_searched_without_a_network(browser, site):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here, asked = f"http://127.0.0.1:{server.server_port}", []
    page = browser.new_page()
    page.route(re.compile(f"^(?!{re.escape(here)})"), lambda route: (asked.append(route.request.url), route.abort()))
    try:
        page.goto(f"{here}/index.html?q=coreset")
        found = page.locator(".md-search-result__item").first
        found.wait_for(state="attached")
        assert "coreset" in (found.text_content() or "").lower()
        assert asked == []
    finally:
        page.close()
        server.shutdown()


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path, monkeypatch):
    from mkdocs.exceptions import Abort

    monkeypatch.chdir(tmp_path)
    for folder in ("docs", "benchmarks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "page.md").write_text("# Page\n")
    (tmp_path / "docs/tutorial.md").write_text("# Tutorial\n")
    (tmp_path / "README.md").write_text("# Loupe\n[page](docs/page.md)\n")
    build.built(Path("build/pages"), Path("build/site"))
    for target in ("docs/nowhere.md", "docs/page.md#nowhere"):
        (tmp_path / "README.md").write_text(f"# Loupe\n[page]({target})\n")
        with pytest.raises(Abort):
            build.built(Path("build/pages"), Path("build/site"))


def test_pages_are_put_into_the_words_of_mkdocs():
    given = "Text\n- one\n- two\n\n```sh not-run: why\na\n- b\n```\nMore\n| a |\n| --- |\n"
    said = "Text\n\n- one\n- two\n\n```sh\na\n- b\n```\nMore\n\n| a |\n| --- |\n"
    assert build.in_words_of_mkdocs(given) == said
