"""What the overview says of each source: alarms by hour and shift, scores, drift, rate; counted in Arrow and numpy."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.core.shares import share_interval
from components.service.answers import Service
from components.service.plainly import means, moved, phrases, reference_means

STEPS = {24: 1, 72: 1, 168: 6, 720: 24}  # hours shown, and hours of one bar
POINTS = 600  # pictures that are shown one by one; of more than these only the alarms
BAND = (0.05, 0.5, 0.95)


def overview(service: Service, hours: int, at: datetime) -> dict[str, Any]:
    """All sources over the last *hours* before *at*; *hours* is a key of STEPS."""
    since = (at - timedelta(hours=hours)).replace(minute=0, second=0, microsecond=0)
    rows, complete = service.history.span(_iso(since))
    served = service.champion.identity()
    found = [_source(service, name, rows, since, at, hours) for name in service.history.sources()]
    shipper = service.recorder.shipper
    return {
        "model": served,
        "store": {"state": "waiting" if shipper.failing else "ok", "shipped": shipper.shipped},
        "queue": {"waiting": service.batcher.waiting, "places": service.settings.queue},
        "complete": complete,
        "at": _iso(at),
        "hours": hours,
        "step": STEPS[hours],
        "sources": found,
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _source(service: Service, name: str, every: pa.Table, since: datetime, at: datetime, hours: int) -> dict[str, Any]:
    rows = every.filter(pc.equal(every["source"], name)).sort_by("scored_at")
    times, alarms = seconds(rows), np.asarray(pc.equal(rows["decision"], "anomalous"), bool)
    edges = np.arange(since.timestamp(), at.timestamp() + 1, STEPS[hours] * 3600)
    unseen = pc.invert(pc.is_in(rows["record_id"], value_set=pa.array(service.recorder.labelled("yes"), pa.string())))
    return {
        "source": name,
        "n": len(rows),
        "alarms": int(alarms.sum()),
        "to_review": int((np.asarray(unseen, bool) & alarms).sum()),
        "last": rows["scored_at"][-1].as_py() if len(rows) else None,
        "rate": rate(service, rows),
        "buckets": _buckets(rows, times, alarms, edges),
        "points": _points(rows, times, alarms),
        "shifts": _shifts(times, alarms, shift_starts(since, at, service.settings.shifts, service.settings.time_zone)),
        "drift": drift(service, name, rows),
    }


def seconds(rows: pa.Table) -> np.ndarray:
    """When each of *rows* was scored, in seconds since 1970 (N,)."""
    text = pc.utf8_slice_codeunits(rows["scored_at"], 0, 19).to_numpy().astype("datetime64[s]")
    return np.asarray(text.astype(np.int64))


def rate(service: Service, rows: pa.Table) -> dict[str, Any]:
    """Share of alarms among the pictures of the model in service at its present alpha, beside that alpha.

    The p-value of a record does not depend on alpha. *state* is above where the 95 % interval (Wilson) lies above it.
    """
    served = service.champion.served.bundle
    own = rows.filter(pc.equal(rows["model_version"], served.version))
    alpha, n = served.calibration.alpha, len(own)
    k = int(np.sum(own["p_value"].to_numpy() <= alpha + 1e-12))
    low, high = share_interval(k, n) if n else (0.0, 1.0)
    state = "few" if n < 1 / alpha else "above" if low > alpha else "within"
    return {"n": n, "alarms": k, "share": k / n if n else None, "low": low, "high": high, "alpha": alpha,
            "state": state, "other_models": len(rows) - n}  # fmt: skip


def _buckets(rows: pa.Table, times: np.ndarray, alarms: np.ndarray, edges: np.ndarray) -> list[dict[str, Any]]:
    at = np.searchsorted(edges, times, side="right") - 1
    scores, limits, told = rows["score"].to_numpy(), rows["threshold"].to_numpy(), []
    for i, begin in enumerate(edges):
        here = at == i
        one: dict[str, Any] = {"at": int(begin), "n": int(here.sum()), "alarms": int(alarms[here].sum())}
        if one["n"]:
            one["band"] = [float(v) for v in np.quantile(scores[here], BAND)]
            one["threshold"] = float(limits[here][-1])
        told.append(one)
    return told


def _points(rows: pa.Table, times: np.ndarray, alarms: np.ndarray) -> list[list[float]]:
    """Time, score and whether it was an alarm, of the newest ones."""
    chosen = np.flatnonzero(alarms if len(rows) > POINTS else np.ones(len(rows), bool))[-POINTS:]
    scores = rows["score"].to_numpy()
    return [[int(times[i]), float(scores[i]), int(alarms[i])] for i in chosen]


def shift_starts(since: datetime, at: datetime, shifts: Sequence[str], zone: str) -> list[datetime]:
    """When the shifts began that lie between the two times, and the one in which the first of them lies."""
    local = ZoneInfo(zone) if zone else at.astimezone().tzinfo
    begin, days = since.astimezone(local), (at - since).days + 3
    starts = []
    for offset in range(-1, days):
        day = begin.date() + timedelta(days=offset)
        starts += [datetime.fromisoformat(f"{day}T{text}").replace(tzinfo=local) for text in sorted(shifts)]
    past = [s for s in starts if s <= at]
    return past[max(0, sum(s <= since for s in past) - 1) :]


def _shifts(times: np.ndarray, alarms: np.ndarray, starts: list[datetime]) -> list[dict[str, Any]]:
    """Newest first; the first shift may have begun before what is shown."""
    at = np.searchsorted([s.timestamp() for s in starts], times, side="right") - 1
    told = [
        {"at": _iso(s), "name": f"{s:%H:%M}", "n": int((at == i).sum()), "alarms": int(alarms[at == i].sum())}
        for i, s in enumerate(starts)
    ]
    return [one for one in told[::-1] if one["n"]]


def drift(service: Service, source: str, rows: pa.Table) -> dict[str, Any]:
    """What the monitor said last of *source*, in words, with its earlier verdicts as a row of values."""
    bundle = service.champion.served.bundle
    found = service.desk.verdicts(source, bundle.version)
    if not found:
        return {"state": "unknown", "phrases": [], "history": []}
    last = found[-1]
    first = last["window"]["first"][0]
    if not len(rows) or first < rows["scored_at"][0].as_py():  # the window is older than what is shown
        rows, _ = service.history.span(first, source)
    now = means(_window(rows, last["window"], bundle.version))
    said = phrases(moved(last["columns"]), now, reference_means(bundle.folder))
    earlier = [{"at": v["at"], "action": v["action"], "worst": _worst(v["columns"])} for v in found[-40:]]
    return {"state": last["action"], "at": last["at"], "n": last["window"]["n"], "phrases": said, "history": earlier}


def _window(rows: pa.Table, window: Mapping[str, Any], version: str) -> pa.Table:
    inside = pc.and_(
        pc.greater_equal(rows["scored_at"], window["first"][0]), pc.less_equal(rows["scored_at"], window["last"][0])
    )
    return rows.filter(pc.and_(inside, pc.equal(rows["model_version"], version)))


def _worst(columns: Mapping[str, Mapping[str, float]]) -> float:
    """How far the farthest column lies, in units of its limit."""
    return max((c["value"] / c["limit"] for c in columns.values() if c["limit"]), default=0.0)
