"""The review page in a real browser: load, filter, label by key and by finger, and a reload keeps the label."""

import pytest

from components.scorelog.labels import read_labels
from components.storage import LocalStore
from tests.browser import browser, needed  # noqa: F401  (browser is a fixture)
from tests.service.conftest import ENDED, png
from tests.service.test_scoring import until

pytestmark = needed


@pytest.fixture
def page(browser):  # noqa: F811
    context = browser.new_context(viewport={"width": 820, "height": 1180}, has_touch=True)  # a tablet
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.failures = []
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    page.on("requestfailed", lambda request: page.failures.append(request.url))
    yield page
    assert page.failures == []
    context.close()


@pytest.fixture
def reviewed(serve, bundle, page):
    """A server with three good tiles of line-1 and two scratched ones of line-2, and its open page."""
    server = serve(bundle)
    for i in range(3):
        server.score(png(i), f"?source=line-1&name=good-{i}.png")
    for i in range(2):
        server.score(scratched(i), f"?source=line-2&name=bad-{i}.png")
    page.goto(f"http://127.0.0.1:{server.port}/review")
    page.wait_for_selector(".card")
    return server


def scratched(seed):
    import io

    from PIL import Image

    from tests.conftest import tile

    pixels, stream = tile(200 + seed), io.BytesIO()
    pixels[30:50, 20:44] = 250
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def names(page):
    return [text.split(" · ")[1] for text in page.locator(".card .name").all_inner_texts()]


@pytest.mark.usefixtures("reviewed")
def test_it_shows_the_latest_first_with_heat_maps(page):
    assert names(page) == ["bad-1.png", "bad-0.png", "good-2.png", "good-1.png", "good-0.png"]
    page.wait_for_function("[...document.querySelectorAll('.card img')].every(i => i.naturalWidth === 96)")
    with page.expect_response("**/image"):
        page.keyboard.press("h")
    assert not page.is_checked("#heat")


@pytest.mark.usefixtures("reviewed")
def test_filters(page):
    page.select_option("#source", "line-1")
    page.wait_for_function("document.querySelectorAll('.card').length === 3")
    assert names(page) == ["good-2.png", "good-1.png", "good-0.png"]
    page.select_option("#source", "")
    page.select_option("#decision", "anomalous")
    page.wait_for_function("[...document.querySelectorAll('.decision')].every(d => d.textContent === 'anomalous')")
    assert set(names(page)) >= {"bad-1.png", "bad-0.png"}


@pytest.mark.usefixtures("reviewed")
def test_an_answer_that_comes_late_does_not_replace_the_last_one(page):
    every, held = names(page), []
    page.route("**/v1/records?*source=line-1*", lambda route: held.append(route))
    page.select_option("#source", "line-1")
    page.wait_for_timeout(100)
    page.select_option("#source", "")
    page.wait_for_function("document.querySelector('#source').options.length > 1")
    page.wait_for_timeout(500)
    with page.expect_response("**/v1/records?*source=line-1*"):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert names(page) == every


def test_labels_by_key_and_by_touch_survive_a_reload(reviewed, page, tmp_path):
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    page.wait_for_selector(".card[data-label=defect]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("f")
    page.wait_for_selector(".card[data-label=false_alarm]")
    page.locator(".card").nth(4).locator("button.false_alarm").tap()
    page.wait_for_function("document.querySelectorAll('.card[data-label=false_alarm]').length === 2")
    page.reload()
    page.wait_for_selector(".card")
    labels = page.locator(".card").evaluate_all("cards => cards.map(c => c.dataset.label)")
    assert labels == ["defect", "", "false_alarm", "", "false_alarm"]
    assert reviewed.stop() in ENDED
    found = {label["image_id"]: label["label"] for label in read_labels(LocalStore(tmp_path / "store")).values()}
    assert found == {"bad-1.png": "defect", "good-2.png": "false_alarm", "good-0.png": "false_alarm"}
    reviewed.start()
    until(lambda: reviewed.request("GET", "/v1/records")[1]["records"])  # it reads them back beside serving
    page.reload()
    page.wait_for_function("document.querySelectorAll('.card[data-label=false_alarm]').length === 2")


@pytest.mark.usefixtures("reviewed")
def test_a_label_is_withdrawn_by_the_same_button(page):
    button = page.locator(".card").first.locator("button.defect")
    button.click()
    page.wait_for_selector(".card[data-label=defect]")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    page.wait_for_function("!document.querySelector('.card[data-label=defect]')")


def test_buttons_fit_a_finger_and_nothing_comes_from_outside(reviewed, page):
    boxes = [b.bounding_box() for b in page.locator(".card button").all()]
    assert boxes
    assert all(box["height"] >= 44 and box["width"] >= 44 for box in boxes)
    loaded = page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    assert all(url.startswith((f"http://127.0.0.1:{reviewed.port}/", "blob:")) for url in loaded)


def test_the_page_asks_for_the_token_and_keeps_it(serve, bundle, page):
    server = serve(bundle, env={"LOUPE_TOKEN": "open"})
    server.score(png(1), Authorization="Bearer open")
    page.on("dialog", lambda dialog: dialog.accept("open"))
    page.goto(f"http://127.0.0.1:{server.port}/review")
    page.wait_for_selector(".card")
    assert names(page) == ["image"]
