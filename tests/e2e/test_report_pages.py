"""The reports in a real browser without a network: whole, quiet, asking nobody, and no wider than the screen."""

import shutil

import pytest

from benchmarks.report.gather import Results
from benchmarks.report.report import written
from components.core.artefacts import read_json
from components.pipeline.fit import EvaluateRequest, evaluate_run
from components.report.compare import compare
from tests.browser import browser, needed  # noqa: F401  (browser is a fixture)

pytestmark = needed
WIDTHS = (1280, 400)
PAGES = ("run", "gallery", "benchmark", "comparison")


@pytest.fixture(scope="module")
def pages(patchcore, other_bundle, product, tmp_path_factory):
    """The page of an evaluated run, its gallery, the benchmark report, and two runs side by side."""
    root = tmp_path_factory.mktemp("pages")
    run = shutil.copytree(patchcore, root / "run")
    evaluate_run(EvaluateRequest(run, product), run / "evaluation")
    _, html, _ = written(Results.read(), root / "docs", root / "html")
    other = shutil.copytree(other_bundle.parent, root / "another run of a long name")
    evaluate_run(EvaluateRequest(other, product), other / "evaluation")
    beside = compare([run, other], root / "compare.html", product)
    gallery = run / "evaluation" / "gallery" / "index.html"
    return dict(zip(PAGES, (run / "report.html", gallery, html, beside), strict=True))


def opened(browser, path, width):  # noqa: F811
    """The page at that width, what it said on the console or as an error, and what it asked for beside itself."""
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    context.set_default_timeout(20_000)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    return page, said, [url for url in asked if url != path.as_uri() and not url.startswith("data:")]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_quiet_and_fits(pages, browser, name, width):  # noqa: F811
    page, said, asked = opened(browser, pages[name], width)
    assert said == []
    assert asked == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator("h2").count() >= 1
    assert page.evaluate("[...document.querySelectorAll('section[id] p')].every(p => p.clientWidth <= innerWidth)")


def test_a_page_that_asks_would_be_caught(pages, browser, tmp_path):  # noqa: F811
    html = pages["run"].read_text().replace("</main>", '<img src="https://example.org/a.png"></main>')
    (tmp_path / "bad.html").write_text(html)
    page, said, asked = opened(browser, tmp_path / "bad.html", 1280)
    page.wait_for_timeout(200)
    assert said, "the policy of the page refuses it, and the console says so"
    assert asked in ([], ["https://example.org/a.png"])


def test_the_run_page_shows_the_test_pictures_after_an_evaluation(pages, browser):  # noqa: F811
    page, _, _ = opened(browser, pages["run"], 1280)
    text = page.inner_text("body")
    metrics = read_json(pages["run"].parent / "evaluation" / "metrics.json")
    missed = round(metrics["overall"]["miss_rate"]["rate"] * 8)
    assert f"Of 8 labelled defective pictures it finds {8 - missed}" in text
    assert "No labelled picture" not in text
    assert page.locator("#test-pictures img").count() == 3
    page.click("nav a[href='#model-card']")
    assert page.locator("#model-card h2").is_visible()
