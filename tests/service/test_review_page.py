"""The review page in a real browser: load, filter, enlarge, label by key and finger, undo, and a reload keeps it."""

import json
import re

import pytest

from components.scorelog.labels import read_labels
from components.storage import LocalStore
from tests.browser import browser, needed  # noqa: F401  (browser is a fixture)
from tests.service.conftest import ENDED, png, scratched

pytestmark = needed


@pytest.fixture
def page(browser):  # noqa: F811
    # A tablet; what the policy of the pages forbids stands in test_operator_pages.py, since waiting here needs eval.
    context = browser.new_context(
        viewport={"width": 820, "height": 1180}, has_touch=True, locale="en-GB", bypass_csp=True
    )
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.failures = []
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    yield page
    assert page.failures == []
    context.close()


@pytest.fixture(scope="module")
def filled(bundle, tmp_path_factory):
    """A server with three good tiles of line-1 and two scratched ones of line-2, for tests that leave no label."""
    from tests.service.conftest import Server

    root = tmp_path_factory.mktemp("reviewed")
    server = fill(Server(root, str(bundle), str(root / "store")).start())
    yield server
    assert server.stop() in ENDED


@pytest.fixture
def reviewed(filled, page):
    return shown(filled, page)


@pytest.fixture
def own(serve, bundle, page):
    """Such a server for this test alone."""
    return shown(fill(serve(bundle)), page)


def fill(server):
    for i in range(3):
        server.score(png(i), f"?source=line-1&name=good-{i}.png")
    for i in range(2):
        server.score(scratched(i), f"?source=line-2&name=bad-{i}.png")
    return server


def shown(server, page, query=""):
    page.goto(f"http://127.0.0.1:{server.port}/review{query}")
    page.wait_for_selector(".card")
    return server


def names(page):
    return [text.split(" · ")[1] for text in page.locator(".card .name").all_inner_texts()]


def labels(page):
    return page.locator(".card").evaluate_all("cards => cards.map(c => c.dataset.label)")


@pytest.mark.usefixtures("reviewed")
def test_it_shows_the_latest_first_with_originals_beside_heat_maps(page):
    assert names(page) == ["bad-1.png", "bad-0.png", "good-2.png", "good-1.png", "good-0.png"]
    page.wait_for_function(
        "[...document.querySelectorAll('.card')].every(c => [...c.querySelectorAll('img')].length === 2"
        " && [...c.querySelectorAll('img')].every(i => i.naturalWidth === 96))"
    )
    page.keyboard.press("h")
    assert page.input_value("#view") == "heat"
    page.wait_for_function("document.querySelectorAll('.card img').length === 5")


def test_filters_stand_in_the_address_and_survive_a_reload(reviewed, page):
    page.select_option("#source", "line-1")
    page.wait_for_function("document.querySelectorAll('.card').length === 3")
    assert names(page) == ["good-2.png", "good-1.png", "good-0.png"]
    assert page.url.endswith("?source=line-1")
    page.reload()
    page.wait_for_function("document.querySelectorAll('.card').length === 3")
    page.click("#clear")
    page.wait_for_function("document.querySelectorAll('.card').length === 5")
    page.fill("#search", "BAD")
    page.wait_for_function("document.querySelectorAll('.card').length === 5")  # nothing is asked while one types
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.card').length === 2")
    shown(reviewed, page, "?decision=anomalous")
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


def test_labels_by_key_and_by_touch_survive_a_reload(own, page, tmp_path):
    page.fill("#reviewer", "Ada")
    page.locator(".card").first.focus()
    page.keyboard.press("d")
    page.wait_for_selector(".card[data-label=defect]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("f")
    page.wait_for_selector(".card[data-label=false_alarm]")
    page.locator(".card").nth(4).locator("button.defect").tap()
    page.wait_for_function("document.querySelectorAll('.card[data-label=defect]').length === 2")
    page.reload()
    page.wait_for_selector(".card")
    assert labels(page) == ["defect", "false_alarm", "", "", "defect"]
    assert page.locator(".card .said").first.inner_text() == "Real defect · by Ada"
    assert own.stop() in ENDED
    found = {label["image_id"]: label["label"] for label in read_labels(LocalStore(tmp_path / "store")).values()}
    assert found == {"bad-1.png": "defect", "bad-0.png": "false_alarm", "good-0.png": "defect"}
    own.start()
    page.reload()
    page.wait_for_function("document.querySelectorAll('.card[data-label=defect]').length === 2")


def test_undo_restores_what_was_there_and_a_second_click_withdraws(own, page):
    button = page.locator(".card").first.locator("button.defect")
    button.click()
    page.wait_for_selector(".card[data-label=defect]")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    page.wait_for_function("!document.querySelector('.card[data-label=defect]')")
    page.click("#undo")
    page.wait_for_selector(".card[data-label=defect]")
    page.keyboard.press("z")
    page.wait_for_function("!document.querySelector('.card[data-label=defect]')")
    assert page.is_disabled("#undo")
    assert own.request("GET", "/v1/records?labelled=yes")[1]["records"] == []


@pytest.mark.usefixtures("reviewed")
def test_only_alarms_offer_false_alarm(page):
    decisions = set(page.locator(".card .decision").all_inner_texts())
    assert decisions == {"anomalous", "normal"}
    for card in page.locator(".card").all():
        alarm = card.locator(".decision").inner_text() == "anomalous"
        assert card.locator("button.false_alarm").is_visible() == alarm
        assert card.locator("button.defect").inner_text() == ("Real defect" if alarm else "Missed defect")


def test_a_click_enlarges_and_tags_say_why(own, page):
    page.locator(".card .open").first.click()
    page.wait_for_function("[...document.querySelectorAll('#viewer img')].map(i => i.naturalWidth).join() === '96,96'")
    page.fill("#tag", "scratch")
    page.keyboard.press("Enter")
    page.locator("#viewer button.defect").click()
    page.wait_for_selector(".card[data-label=defect]")
    page.fill("#tag", "deep")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.card .said').textContent.includes('scratch, deep')")
    page.locator("#viewer-close").focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-title") == "bad-0.png"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.id") == page.locator(".card").nth(1).get_attribute("data-id")
    assert own.request("GET", "/v1/records?search=deep")[1]["records"][0]["tags"] == "scratch, deep"


def test_new_pictures_come_by_themselves_and_older_ones_by_a_button(own, page):
    page.route(re.compile(r"/v1/records\?"), lambda route: route.continue_(url=route.request.url.replace("=60", "=2")))
    page.reload()
    page.wait_for_function("document.querySelectorAll('.card').length === 2")
    page.click("#more")
    page.wait_for_function("document.querySelectorAll('.card').length === 4")
    page.evaluate("document.activeElement.blur()")
    own.score(png(9), "?source=line-1&name=fresh.png")
    page.wait_for_function("document.querySelector('.card .name').textContent.includes('fresh.png')")
    assert len(names(page)) == 5


def test_the_table_is_saved_as_a_file(reviewed, page, tmp_path):
    page.select_option("#source", "line-2")
    page.wait_for_function("document.querySelectorAll('.card').length === 2")
    with page.expect_download() as begun:
        page.click("#csv")
    begun.value.save_as(tmp_path / "t.csv")
    assert [line.split(",")[3] for line in (tmp_path / "t.csv").read_text().splitlines()] == [
        "image_id",
        "bad-1.png",
        "bad-0.png",
    ]
    assert begun.value.suggested_filename == "loupe-records.csv"
    assert reviewed.request("GET", "/readyz")[0] == 200


def test_buttons_fit_a_finger_and_nothing_comes_from_outside(reviewed, page):
    boxes = [b.bounding_box() for b in page.locator(".card button:visible").all()]
    assert boxes
    assert all(box["height"] >= 44 and box["width"] >= 44 for box in boxes)
    loaded = page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    assert all(url.startswith((f"http://127.0.0.1:{reviewed.port}/", "blob:")) for url in loaded)


def test_the_page_asks_for_the_token_and_keeps_it(serve, bundle, page):
    server = serve(bundle, env={"LOUPE_TOKEN": "open"})
    server.score(png(1), Authorization="Bearer open")
    page.goto(f"http://127.0.0.1:{server.port}/review")
    page.fill("#token-field", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#token[open]")
    page.fill("#token-field", "open")
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    page.reload()
    page.wait_for_selector(".card")
    assert names(page) == ["image"]


def test_like_stands_by_like_where_that_order_is_chosen(own, page):
    page.select_option("#order", "alike")
    page.wait_for_selector(".card[data-begins=true]")
    told = own.request("GET", "/v1/records/alike")[1]["records"]
    assert names(page) == [row["image_id"] for row in told]
    assert {row["kind"] for row in told} >= {0}
    page.select_option("#order", "")
    page.wait_for_function("!document.querySelector('.card[data-begins=true]')")
    assert names(page)[0] == "bad-1.png"


def drawn(server, name="bad-1.png"):
    """What the service keeps of a picture."""
    rows = server.request("GET", "/v1/records")[1]["records"]
    return json.loads(next(row["shapes"] for row in rows if row["image_id"] == name) or "[]")


def until_drawn(page, server, many):
    for _ in range(100):
        if len(drawn(server)) == many:
            return drawn(server)
        page.wait_for_timeout(100)
    raise AssertionError(drawn(server))


def test_a_defect_is_drawn_by_pointer_in_pixels_of_the_picture(own, page):
    page.locator(".card .open").first.click()
    page.wait_for_selector("#canvas svg")
    page.wait_for_function("document.querySelector('#canvas img').naturalWidth === 96")
    page.locator("#viewer button.defect").click()
    page.wait_for_selector(".card[data-label=defect]")
    page.click("#draw-box")
    place = page.evaluate(
        "([x, y]) => { const p = new DOMPoint(x, y).matrixTransform("
        "document.querySelector('#canvas svg').getScreenCTM()); return [p.x, p.y]; }",
        [20, 30],
    )
    far = page.evaluate(
        "([x, y]) => { const p = new DOMPoint(x, y).matrixTransform("
        "document.querySelector('#canvas svg').getScreenCTM()); return [p.x, p.y]; }",
        [44, 50],
    )
    page.mouse.move(*place)
    page.mouse.down()
    page.mouse.move(*far, steps=4)
    page.mouse.up()
    (box,) = until_drawn(page, own, 1)
    assert box == {"kind": "box", "points": [[20, 30], [44, 50]]}
    page.click("#draw-stroke")
    page.mouse.move(*place)
    page.mouse.down()
    page.mouse.move(*far, steps=8)
    page.mouse.up()
    stroke = until_drawn(page, own, 2)[1]
    assert (stroke["kind"], stroke["points"][0]) == ("stroke", [20, 30])
    assert len(stroke["points"]) > 3
    page.click("#draw-back")
    until_drawn(page, own, 1)
    page.click("#viewer-close")
    page.reload()
    page.wait_for_selector(".card")
    page.locator(".card .open").first.click()
    page.wait_for_selector("#canvas svg rect")
    sides = ["20", "30", "24", "20"]
    assert [page.get_attribute("#canvas rect", name) for name in ("x", "y", "width", "height")] == sides


def test_a_defect_is_drawn_by_keys_and_waits_for_its_label(own, page):
    page.locator(".card").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#canvas svg")
    page.keyboard.press("b")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    assert "40, 38" in page.inner_text("#drawn")
    page.keyboard.press("Escape")  # of the box, not of the picture
    assert page.locator("#canvas rect").count() == 0
    assert page.is_visible("#viewer")
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.wait_for_selector("#canvas rect")
    assert drawn(own) == []
    page.keyboard.press("d")
    (box,) = until_drawn(page, own, 1)
    assert box == {"kind": "box", "points": [[38, 38], [58, 58]]}
    page.click("#viewer-close")
    page.keyboard.press("z")
    until_drawn(page, own, 0)
