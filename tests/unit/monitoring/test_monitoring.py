"""The drift verdict: the distance is Evidently's, the limits keep their promise, the rules count windows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.core.errors import MonitorError
from components.decision.bundle import Manifest
from components.monitoring import evidently
from components.monitoring.bounds import bounds, distances
from components.monitoring.columns import COLUMNS, frame, read_reference, standardised
from components.monitoring.evidently import Comparison
from components.monitoring.monitor import find, mark_sent, monitor, unsent, verdicts
from components.monitoring.settings import MonitorSettings
from components.monitoring.verdict import Verdict, decide, drifted
from components.scorelog import table
from components.storage import LocalStore

AT = datetime(2026, 1, 2, tzinfo=UTC)
QUICK = MonitorSettings(window=40, stride=20, min_n=20, resamples=300)


def normal(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, len(COLUMNS))) + 0.7 * rng.normal(size=(n, 1))  # columns that go together
    return pd.DataFrame(mixed + shift, columns=list(COLUMNS))


@pytest.mark.parametrize("n", [20, 100])
@pytest.mark.slow
def test_distances_are_evidentlys(n):
    reference, window = normal(80, 0), normal(n, 1, 0.3)
    seen = Comparison(reference, window, dict.fromkeys(COLUMNS, 1.0), AT, []).values()
    ours = distances(reference.to_numpy(), window.to_numpy())
    assert [seen[c] for c in COLUMNS] == pytest.approx(list(ours), abs=1e-12)


@pytest.mark.parametrize("n", [50, 100])
def test_200_windows_without_drift_are_flagged_as_rarely_as_promised(n):
    settings = replace(MonitorSettings(), false_alarm=0.02)
    reference = normal(150, 0)
    limits, rng = bounds(reference, n, settings).limits, np.random.default_rng(5)
    flagged = 0
    for _ in range(200):
        window = reference.iloc[rng.integers(0, len(reference), n)]
        values = distances(reference.to_numpy(), window.to_numpy())
        flagged += bool(drifted(dict(zip(COLUMNS, values, strict=True)), limits))
    assert flagged <= 10  # 4 are expected of 200; more than 10 happen once in 500 times
    fixed = sum((distances(reference.to_numpy(), normal(n, 100 + i).to_numpy()) > 0.1).any() for i in range(50))
    assert fixed == 50  # what a limit that does not know n says of the same kind of data


@pytest.mark.slow
def test_limits_shrink_with_the_window_down_to_the_least_effect():
    reference = normal(2000, 0)
    wide, narrow = (bounds(reference, n, QUICK).limits["score"] for n in (30, 300))
    assert narrow < 0.6 * wide
    floor = replace(QUICK, min_effect=3.0)
    assert bounds(reference, 300, floor).limits["score"] == 3.0


def test_a_shift_of_a_deviation_is_seen():
    reference = normal(150, 0)
    limits = bounds(reference, 100, MonitorSettings()).limits
    values = distances(reference.to_numpy(), normal(100, 9, 1.0).to_numpy())
    assert drifted(dict(zip(COLUMNS, values, strict=True)), limits)


def verdict(number, action="watch", flagged=True, at=AT):
    return Verdict(action, f"s-v-{number:05d}", "s", "m", "v", number, flagged, ("r",), {}, {}, "", {}, at.isoformat())


@pytest.mark.parametrize(
    ("reasons", "flags", "action"),
    [
        ((), [True, True], "keep"),
        (("x",), [], "watch"),
        (("x",), [True], "retrain"),
        (("x",), [True, False], "retrain"),  # two of the last three
        (("x",), [True, False, False], "watch"),
    ],
)
def test_k_of_m_windows(reasons, flags, action):
    earlier = [verdict(i, flagged=flag) for i, flag in enumerate(flags, 1)]
    assert decide(reasons, earlier, MonitorSettings(), AT)[0] == action


def test_cooldown_holds_and_ends():
    earlier = [verdict(1), verdict(2, "retrain")]
    settings = MonitorSettings(cooldown_hours=2)
    action, said = decide(("x",), earlier, settings, AT + timedelta(hours=1))
    assert action == "watch"
    assert "cooldown" in said[-1]
    assert decide(("x",), earlier, settings, AT + timedelta(hours=2))[0] == "retrain"


def test_a_reference_of_a_few_rows_is_refused():
    with pytest.raises(MonitorError, match="calibrate on more normals"):
        bounds(normal(4, 0), 50, QUICK)


def test_a_constant_reference_column_does_not_divide_by_zero():
    reference = normal(50, 0)
    reference["brightness"] = 0.5
    moved = standardised(reference.assign(brightness=0.6), reference)
    assert moved["brightness"].iloc[0] == pytest.approx(0.2)


def test_records_without_an_embedding_are_refused():
    with pytest.raises(MonitorError, match="embedding"):
        frame([{"score": 1.0, "embedding": None}])


@pytest.fixture
def log(bundle, tmp_path):
    """Write *n* records like those of the bundle's reference, moved by *shift* deviations of the score."""
    import pyarrow.parquet as pq

    reference = pq.read_table(bundle / "reference.parquet").to_pylist()
    spread = float(np.std([r["score"] for r in reference]))
    store, rng, written = LocalStore(tmp_path / "store"), np.random.default_rng(0), [0]

    def write(n, shift=0.0, source="line-1"):
        rows = []
        for _ in range(n):
            written[0] += 1
            row = dict(reference[rng.integers(len(reference))])
            at, moved = (AT + timedelta(seconds=written[0])).isoformat(), row["score"] + shift * spread
            rows.append(row | {"record_id": f"{written[0]:06d}", "source": source, "score": moved, "scored_at": at})
        table.write(store, table.SCORES, f"part-{written[0]}", rows)

    return store, write


class Plain:
    """A comparison by the distances that are Evidently's, without its pictures, which take longer than all the rest."""

    def __init__(self, reference, window, *_):
        found = distances(reference.to_numpy(), window.to_numpy())
        self.found = dict(zip(reference.columns, map(float, found), strict=True))

    def values(self):
        return self.found

    def save(self, path, *_):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        return path

    def show(self, *_):
        pass


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr(evidently, "Comparison", Plain)


@pytest.fixture
def judge(bundle, tmp_path, log):
    settings = replace(QUICK, workspace=str(tmp_path / "monitoring" / "workspace"))
    return lambda hours=1.0, **more: monitor(
        log[0], bundle, "cells", replace(settings, **more), AT + timedelta(hours=hours)
    )


def test_the_reference_is_in_the_bundle_and_hashed(bundle):
    assert "reference.parquet" in Manifest.read(bundle).files
    assert list(read_reference(bundle).columns) == list(COLUMNS)


@pytest.mark.usefixtures("plain")
def test_windows_wait_for_enough_records_and_are_judged_once(log, judge):
    store, write = log
    write(19)
    assert judge() == []
    write(1)
    (first,) = judge()
    assert (first.number, first.window["n"]) == (1, 20)
    assert judge() == []
    write(45)
    assert [v.window["n"] for v in judge()] == [40, 40]
    assert [v.number for v in verdicts(store, "line-1", first.model_version)] == [1, 2, 3]
    assert find(store, first.id) == first


@pytest.mark.usefixtures("plain")
def test_young_records_wait_for_the_next_run(log, judge):
    log[1](20)
    assert judge(hours=25 / 3600) == []  # the last is five seconds old
    assert len(judge(hours=31 / 3600)) == 1


def test_drift_of_one_source_asks_for_retraining_with_report_and_numbers(log, judge):
    store, write = log
    write(20)
    write(20, source="line-2")
    judge()
    write(40, shift=60.0)
    write(40, source="line-2")
    found = judge()
    assert [v.action for v in found if v.source == "line-1"] == ["watch", "retrain"]
    assert {v.action for v in found if v.source == "line-2"} == {"keep"}
    asked = next(v for v in found if v.action == "retrain")
    assert asked.columns["score"]["value"] > asked.columns["score"]["limit"]
    page = Path(asked.evidence).read_text()
    assert "<html" in page.lower()
    assert "Verdict: retrain" in page
    assert [v.id for v in unsent(store)] == [asked.id]
    mark_sent(store, asked, "event", AT)
    assert unsent(store) == []


def test_the_dashboard_has_one_run_per_window(log, judge, tmp_path):
    from evidently.ui.workspace import Workspace

    log[1](60)
    judged = judge()
    space = Workspace.create(str(tmp_path / "monitoring" / "workspace"))
    (project,) = space.list_projects()
    assert len(space.list_runs(project.id)) == len(judged) == 3


NAMES = {"Linie=1 100%41 Süd": True, "Presse Süd": False, "产线-2": False, "a-1-00001": False, "x" * 200: False}


@pytest.mark.parametrize(("source", "shown"), NAMES.items())
def test_a_source_of_any_name_is_judged_and_its_verdicts_are_found(log, judge, source, shown, monkeypatch):
    if not shown:  # to write the report and fill the dashboard takes longer than all the rest; once will do
        monkeypatch.setattr(evidently, "Comparison", Plain)
    store, write = log
    write(20, shift=60.0, source=source)
    judge()
    write(20, shift=60.0, source=source)
    asked = judge()[-1]
    assert (asked.source, asked.action, Path(asked.evidence).exists()) == (source, "retrain", True)
    assert find(store, asked.id) == asked
    assert unsent(store) == [asked]
    mark_sent(store, asked, "event", AT)
    assert unsent(store) == []
