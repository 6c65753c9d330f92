"""One way to show long work: a bar on a terminal, else a log line at most every ``EVERY`` seconds."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from components.core.filenames import printable

T = TypeVar("T")
CURVES = "loupe-curves"  # logger of each record of a training's history; silent until somebody follows
EVERY = 15.0  # seconds between lines where there is no terminal
log = logging.getLogger("loupe")


class Printable(logging.Filter):
    """Names with bytes that are no UTF-8 are told with escapes, which every terminal, file and collector can take."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        if (shown := printable(said)) != said:
            record.msg, record.args = shown, None
        return True


log.addFilter(Printable())


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield *items* while telling how many of *total* are done and how long the rest will take."""
    total = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
    if sys.stderr.isatty():
        from rich.progress import track  # only here: a line computer scores without rich

        yield from track(items, description=label, total=total, transient=True)
        return
    started = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told >= EVERY:
            told = now
            left = f", {(now - started) / done * (total - done):.0f} s left" if total and done else ""
            log.info("%s: %d of %s%s", label, done, total or "?", left)
        yield item


def show_logs(level: int = logging.INFO) -> None:
    """Send Loupe's log lines to standard error with the time of day; called by the command line and the flows."""
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
        log.propagate = False
    log.setLevel(level)


def write_curves(file: Path) -> None:
    """Append every record of a training's history to *file*, one line of JSON each, as it is made."""
    logger, handler = logging.getLogger(CURVES), logging.FileHandler(file, encoding="utf-8")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
