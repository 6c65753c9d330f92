"""Pictures of the pages for docs/pages: `python -m tests.screens OUT`; of made pictures alone, each below 60 KB.

A service is started on a small model of drawn tiles, with a registry and a challenger; each page is opened at 1280 and
400 pixels with the network refused.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from components.pipeline.operating import PointRequest, set_point
from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings
from tests.browser import BROWSER, QUIET
from tests.conftest import _fitted, _tiles
from tests.service.conftest import Server, png, scratched

BYTES = 60_000
PAGES = {"overview": "/", "review": "/review", "threshold": "/threshold", "models": "/models", "api": "/docs"}
READY = (".source h2", ".card img", "#histogram svg", "#served dt", ".route summary")
WIDTHS = {1280: 900, 400: 860}


def small(content: bytes) -> bytes:
    """The same picture as PNG with few colours, as few as it takes to stay below BYTES."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    for colours in (256, 192, 128, 96, 64, 32):
        stream = io.BytesIO()
        image.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
        if stream.tell() < BYTES:
            break
    return stream.getvalue()


def filled(root: Path) -> Server:
    """A line that has scored some pictures; a defect is drawn, one alarm was false."""
    _tiles(root / "product")
    made = root / "run"
    _fitted(root / "product", made, 0)
    other = set_point(PointRequest(made / "bundle", alpha=0.5, out=root / "other")).place
    registry = Registry(RegistrySettings(str(root / "registry")))
    for number, bundle in enumerate((made / "bundle", other)):
        version = registry.register("tiles", bundle, {}, {"synthetic_auroc": 0.95 + number / 50}, TAGS)
        (registry.refuse if number else registry.promote)("tiles", version, REASONS[number], {})
    settings, env = {"shadow": "challenger"}, {"LOUPE_OPERATOR_TOKEN": "master"}
    server = Server(root, "tiles", str(root / "store"), settings, env).start()
    for i in range(24):
        server.score(scratched(i) if i % 4 == 0 else png(i), f"?source=line-{i % 2 + 1}&name=tile-{i:02d}.png")
    return server


# A box around the mark of a tile, by keys.
AROUND = ("b", *["ArrowLeft"] * 9, *["ArrowUp"] * 4, *["Shift+ArrowRight"] * 2, "Enter")
TAGS = {"detector": "patchcore"}
REASONS = (("first of its name",), ("failed: latency 31 ms, champion 19 ms", "passed: parity"))


def taken(server: Server, out: Path) -> None:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=QUIET)
        own = f"http://127.0.0.1:{server.port}"
        for width, height in WIDTHS.items():
            context = browser.new_context(viewport={"width": width, "height": height}, locale="en-GB")
            page = context.new_page()
            context.route(lambda url: not url.startswith((own, "file:", "blob:", "data:")), lambda route: route.abort())
            for (name, path), ready in zip(PAGES.items(), READY, strict=True):
                page.goto(own + path)
                page.wait_for_selector(ready)
                page.wait_for_timeout(2500)
                (out / f"{name}-{width}.png").write_bytes(small(page.screenshot()))
            page.goto(own + "/review?decision=anomalous")
            page.locator(".card .open").first.click()
            page.wait_for_selector("#canvas svg")
            page.wait_for_timeout(1500)
            for key in AROUND:
                page.keyboard.press(key)
            page.wait_for_timeout(500)
            (out / f"drawing-{width}.png").write_bytes(small(page.screenshot()))
            page.goto((server.root / "run" / "report.html").as_uri())
            page.wait_for_timeout(500)
            (out / f"report-{width}.png").write_bytes(small(page.screenshot()))
            context.close()
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/pages"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        server = filled(Path(scratch))
        try:
            taken(server, out)
        finally:
            server.stop()
    sys.stdout.write("".join(f"{p.stat().st_size:6} {p}\n" for p in sorted(out.glob("*.png"))))


if __name__ == "__main__":
    main()
