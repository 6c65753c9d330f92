"""Overview, threshold, models and interface in a real browser: offline, within their policy, for everybody, to work."""

import json
import re

import pytest

from components.service.pages import PAGES
from tests import axe
from tests.browser import browser, needed  # noqa: F401  (browser is a fixture)
from tests.service.conftest import ENDED, Server, png, scratched

pytestmark = needed
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 400, "height": 800}}
READY = {
    "/": ".source h2",
    "/review": ".card img",
    "/threshold": "#histogram svg",
    "/models": "#served dt",
    "/docs": ".route summary",
}


@pytest.fixture(scope="module")
def served(bundle, tmp_path_factory):
    root = tmp_path_factory.mktemp("operated")
    server = Server(root, str(bundle), str(root / "store"), env={"LOUPE_OPERATOR_TOKEN": "master"}).start()
    for i in range(6):
        server.score(png(i) if i % 2 else scratched(i), f"?source=line-{i % 2}&name=p{i}.png")
    yield server
    assert server.stop() in ENDED


@pytest.fixture
def opened(browser, served):  # noqa: F811
    """Open a path as somebody with these preferences; whatever is refused or asked for elsewhere fails the test."""
    contexts, failures = [], []

    def open_page(path, size="desk", **preferences):
        context = browser.new_context(viewport=SIZES[size], **preferences)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda said: failures.append(said.text) if "Content Security" in said.text else None)
        local = (f"http://127.0.0.1:{served.port}/", "blob:", "data:")
        page.on("request", lambda one: None if one.url.startswith(local) else failures.append(one.url))
        page.goto(f"http://127.0.0.1:{served.port}{path}")
        page.wait_for_selector(READY[path.partition("?")[0]])
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert failures == []


@pytest.fixture(scope="module")
def checker():
    if axe.source() is None:
        pytest.skip("needs axe-core, which npm could not fetch")


@pytest.mark.parametrize("path", PAGES)
def test_each_page_opens_alone_and_fits_a_phone(opened, path):
    page = opened(path, "phone", locale="de-DE")
    assert page.evaluate("document.documentElement.lang") == "de"
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"]["width"]
    assert "{{" not in page.content()
    unknown = re.findall(r">\s*([a-z]+\.[a-z_]+)\s*<", page.inner_html("main"))
    assert set(unknown) <= {"openapi.json"}  # a key without a text shows as itself


@pytest.mark.usefixtures("checker")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_each_page_is_for_everybody(opened, path, scheme):
    page = opened(path, color_scheme=scheme, reduced_motion="reduce")
    if path == "/review":
        assert axe.violations(page) == []
        page.locator(".card .open").first.click()
        page.wait_for_selector("#viewer img")
    if path == "/docs":
        page.locator(".route summary").first.click()
    assert axe.violations(page) == []


def test_every_page_is_reached_and_used_by_keys_alone(opened):
    page = opened("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#slider")
    assert page.url.endswith("/threshold")
    page.wait_for_selector("#histogram svg")
    before = page.inner_text("#said")
    page.focus("#slider")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#said") != before
    assert page.get_attribute("#slider", "aria-valuetext") == page.inner_text("#said")


def test_the_overview_leads_to_the_open_alarms_of_a_source(opened, served):
    page = opened("/")
    told = served.request("GET", "/v1/overview")[1]
    first = told["sources"][0]
    assert page.locator(".source h2").all_inner_texts() == [one["source"] for one in told["sources"]]
    assert page.locator(".source svg").count() == 2 * len(told["sources"])
    page.locator(".source a").first.click()
    page.wait_for_selector(".card")
    assert page.input_value("#source") == first["source"]
    assert page.locator(".card").count() == first["to_review"]


def test_the_slider_counts_what_would_have_been_alarms(opened, served):
    page = opened("/threshold")
    told = served.request("GET", "/v1/threshold")[1]
    page.focus("#slider")
    page.keyboard.press("Home")
    most = told["steps"][-1]
    count = sum(p <= most["alpha"] + 1e-12 for _, p, _ in told["pictures"])
    assert page.locator("#effect td").nth(2).inner_text().startswith(f"{count} (")
    assert page.locator("#effect tbody tr").first.locator("td").first.inner_text() == str(len(told["pictures"]))


def test_a_change_asks_for_the_right_and_for_a_reason(opened, served):
    page = opened("/threshold")
    assert page.is_disabled("#apply")
    page.click("#less")
    page.fill("#reason", "too many")
    sent = []

    def refuse(route):
        sent.append(route.request)
        route.fulfill(status=403, json={"detail": "no"})

    page.route("**/v1/threshold", refuse)
    page.click("#apply")
    page.fill("#token-field", "guess")
    page.keyboard.press("Enter")
    page.wait_for_selector("#status:not(:empty)")
    assert page.inner_text("#status") == "Not saved: no"
    body = json.loads(sent[0].post_data)
    now = served.request("GET", "/v1/models/current")[1]["calibration"]["alpha"]
    assert (body["reason"], body["seen"]) == ("too many", now)
    assert sent[0].headers["authorization"] == "Bearer guess"


def test_models_tell_what_serves_and_that_a_folder_has_no_versions(opened):
    page = opened("/models")
    assert "patchcore" in page.inner_text("#served")
    assert "bundle folder" in page.inner_text("#versions")
    assert not page.is_visible("#back-panel")


def test_the_interface_lists_every_route_and_asks_what_only_reads(opened, served):
    page = opened("/docs")
    paths = served.request("GET", "/openapi.json")[1]["paths"]
    assert page.locator(".route").count() == sum(len(routes) for routes in paths.values())
    page.fill("#search", "/readyz")
    page.locator(".route summary").click()
    page.locator(".route form button").click()
    page.wait_for_selector(".route form pre:not([hidden])")
    assert '"status": "ready"' in page.inner_text(".route form pre")
    page.fill("#search", "rollback")
    page.locator(".route summary").click()
    assert page.locator(".route form").count() == 0  # what writes is shown as a command


def test_the_switch_of_languages_is_kept(opened):
    page = opened("/models?lang=de", locale="en-GB")
    assert page.inner_text("h1") == "Modelle"
    page.locator(".pages a").first.click()
    page.wait_for_selector(".source h2")
    assert page.inner_text("h1") == "Übersicht"
    page.locator(".switch a").first.click()
    page.wait_for_selector(".source h2")
    assert page.inner_text("h1") == "Overview"
