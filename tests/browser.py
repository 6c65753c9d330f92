"""Chromium for tests that open pages: found on this machine, told to ask nobody."""

import shutil

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
needed = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, e.g. Debian's package chromium")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield started
        started.close()


class Alone:
    """A page that may speak to *own* alone: what it asks of others is refused and kept."""

    def __init__(self, browser, url, own, width=1280):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, service_workers="block")
        self.context.set_default_timeout(60_000)
        self.asked, self.said = [], []
        self.context.route(lambda one: not one.startswith((own, "data:", "blob:")), self._refuse)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(url)

    def _refuse(self, route):
        self.asked.append(route.request.url)
        route.abort()
