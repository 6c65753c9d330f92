"""What a score log of many records costs: appending, joining days, reading a window, looking for drift and verdicts.

Records like those of the service, 500 to an object as it ships them, over *--days* days of one line in a folder. A
window is the newest 100. It is read when 1 %, 10 % and all of the history is there; seconds are of the processor.
"""

import tempfile
import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.runner import options, peak_mb, tell
from components.core.artefacts import write_json
from components.core.records import LOG_COLUMNS
from components.monitoring import kept
from components.monitoring.settings import MonitorSettings
from components.scorelog import keeping, table
from components.storage import LocalStore

BEGIN, SOURCE, SEGMENT = datetime(2026, 1, 1, tzinfo=UTC), "line", 500
Row = dict[str, Any]


class Counted(LocalStore):
    """Counts the objects that are opened, and their bytes."""

    objects = read = 0

    def get(self, key: str) -> bytes:
        content = super().get(key)
        self.objects, self.read = self.objects + 1, self.read + len(content)
        return content


def records(day: int, first: int, count: int, a_day: int, rng: np.random.Generator) -> list[Row]:
    """*count* records of a day, evenly over it."""
    embeddings, scores = rng.normal(size=(count, 16)).tolist(), rng.random(count).tolist()
    step, rows = timedelta(days=1) / a_day, list[Row]()
    for number in range(count):
        at = BEGIN + timedelta(days=day) + step * (first + number)
        known = {"record_id": f"{day:05d}{first + number:010d}", "scored_at": at.isoformat(), "source": SOURCE}
        seen = {"score": scores[number], "embedding": embeddings[number], "model_version": "v" * 12}
        rows.append(dict.fromkeys(LOG_COLUMNS) | known | seen | {"sha256": f"{first + number:064x}"})
    return rows


def append(store: LocalStore, day: int, a_day: int, rng: np.random.Generator) -> float:
    """A day of records in segments; returns the processor's seconds of what the shipper does."""
    busy = 0.0
    for first in range(0, a_day, SEGMENT):
        rows = records(day, first, min(SEGMENT, a_day - first), a_day, rng)
        started = time.process_time()
        table.write(store, table.SCORES, f"segment-{first}", rows)
        busy += time.process_time() - started
    return busy


def window(store: Counted, length: int = 100) -> dict[str, float]:
    """What reading the newest records costs."""
    store.objects = store.read = 0
    started = time.process_time()
    found = list(islice(table.newest_first(store, table.SCORES, SOURCE), length))
    busy = time.process_time() - started
    assert len(found) == length
    return {"ms": round(1000 * busy, 1), "objects": store.objects, "kib": store.read >> 10}


def fresh(store: Counted, length: int = 50) -> dict[str, float]:
    """What a monitor's look at the records behind the last verdict costs."""
    (*_, last) = islice(table.newest_first(store, table.SCORES, SOURCE), length + 1)
    store.objects = store.read = 0
    started = time.process_time()
    found = [r for r in table.oldest_first(store, table.SCORES, SOURCE, last["scored_at"]) if r != last]
    busy = time.process_time() - started
    assert len(found) >= length
    return {"ms": round(1000 * busy, 1), "objects": store.objects, "kib": store.read >> 10}


def verdicts(store: Counted, count: int) -> dict[str, float]:
    """What the last verdict and those that wait for an answer cost, behind *count* of them."""
    folder = store.root / kept.VERDICTS / SOURCE / ("v" * 12)
    folder.mkdir(parents=True)
    for number in range(1, count + 1):  # empty: they are counted and not read
        (folder / f"{number:05d}.json").touch()
    store.put(kept.NOTED, b"")
    started = time.process_time()
    assert kept.last_number(store, SOURCE, "v" * 12) == count
    assert kept.unsent(store) == []
    return {"verdicts": count, "ms": round(1000 * (time.process_time() - started), 2)}


def measured(total: int, days: int, folder: Path) -> dict[str, Any]:
    """All figures of *total* records over *days* days."""
    store, rng, a_day = Counted(folder), np.random.default_rng(0), max(200, total // days)
    busy, joining, windows = 0.0, 0.0, {}
    for day in range(days):
        busy += append(store, day, a_day, rng)
        if day + 1 in (max(1, days // 100), max(1, days // 10), days):
            at = BEGIN + timedelta(days=day)
            started = time.process_time()
            keeping.compact(store, table.SCORES, SOURCE, at)
            joining += time.process_time() - started
            windows[f"{(day + 1) * a_day}"] = {"window": window(store), "fresh": fresh(store)}
    keys = list(store.keys(f"{table.SCORES}/"))
    every = MonitorSettings().stride
    return {
        "records": days * a_day,
        "days": days,
        "append_per_second": round(days * a_day / busy),
        "join_per_second": round((days - 1) * a_day / max(joining, 1e-9)),
        "objects": len(keys),
        "mib": sum((folder / key).stat().st_size for key in keys) >> 20,
        "reading": windows,
        "looking": verdicts(store, days * a_day // every),
        "peak_mib": peak_mb(),
    }


def main(arguments: list[str]) -> None:
    parser = options("volume", __doc__)
    parser.add_argument("--records", type=int, default=100_000, help="10000000 takes about 20 minutes")
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where to keep them; a temporary folder unless named")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        found = measured(asked.records, asked.days, Path(folder))
    tell(found, indent=1)
    if asked.out:
        write_json(asked.out, found)
