"""The models page with a real registry: champion, challenger, reasons of the gate, shadow, and the way back."""

import pytest

from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings
from tests import axe
from tests.browser import browser, needed  # noqa: F401  (browser is a fixture)
from tests.service.conftest import ENDED, Server, png, scratched

pytestmark = [needed, pytest.mark.slow]


@pytest.fixture
def served(bundle, other_bundle, tmp_path):
    """Version 1 was champion, 2 is, 3 wants to be and runs behind the answers."""
    registry = Registry(RegistrySettings(str(tmp_path / "registry")))
    for number, folder in enumerate((other_bundle, bundle, other_bundle), 1):
        registry.register("tiles", folder, {}, {"synthetic_auroc": 0.9 + number / 100}, {"detector": "patchcore"})
    registry.promote("tiles", "1", ("first",), {})
    registry.promote("tiles", "2", ("better",), {})
    registry.refuse("tiles", "3", ("failed: latency 90 ms, champion 20 ms", "passed: parity"), {})
    settings = {"shadow": "challenger"}
    server = Server(tmp_path, "tiles", str(tmp_path / "store"), settings, {"LOUPE_OPERATOR_TOKEN": "master"}).start()
    for i in range(6):
        server.score(png(i) if i % 2 else scratched(i), f"?source=line-1&name=p{i}.png")
    yield server, registry
    assert server.stop() in ENDED


def test_the_page_tells_who_serves_who_wants_to_and_goes_back(served, browser):  # noqa: F811
    server, registry = served
    context = browser.new_context(viewport={"width": 400, "height": 800}, locale="en-GB", bypass_csp=True)
    context.set_default_timeout(60_000)
    page = context.new_page()
    for _ in range(200):
        if server.request("GET", "/v1/models")[1]["shadow"]["n"] == 6:
            break
        page.wait_for_timeout(100)
    page.goto(f"http://127.0.0.1:{server.port}/models")
    page.wait_for_selector("#versions tbody tr")
    roles = {row.split()[0]: row for row in page.locator("#versions tbody tr").all_inner_texts()}
    assert "champion" in roles["2"]
    assert "challenger" in roles["3"]
    assert "latency 90 ms" in page.inner_text("#decisions")
    told = server.request("GET", "/v1/models")[1]["shadow"]
    assert f"of {told['n']} pictures" in page.inner_text("#shadow")
    assert page.locator("#differ li").count() == len(told["differ"])
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    if axe.source() is not None:
        assert axe.violations(page) == []
    page.fill("#who", "Ada")
    page.fill("#reason", "too many false alarms")
    page.click("#apply")
    page.fill("#token-field", "master")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#decisions').textContent.includes('too many false alarms')")
    assert registry.champion("tiles") == "1"
    assert registry.decisions("tiles")[-1].reasons == ("by hand, Ada: too many false alarms",)
    # The page may ask between the registry's decision and the new session: the old version answers until that is open.
    server.until_serves("1")
    context.close()
