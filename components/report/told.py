"""The sentences of a run: the verdict at the top of its page, and what ``loupe fit`` ends with."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from components.core.artefacts import read_json
from components.decision.calibration import Calibration
from components.report import found
from components.report.numbers import between, counted, percent, raw

PAGE = "report.html"
UNTESTED = "How many real defects it finds is not measured: no labelled picture was given."


def verdict(known: Calibration, checked: pd.DataFrame | None, metrics: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Three sentences: where it decides, what is promised of good pictures, and what is known of defects."""
    return decides(known), promises(known), finds(known, checked, metrics)


def decides(known: Calibration) -> str:
    """Where the threshold lies and what it rests on."""
    own = f", where a group has no threshold of its own ({len(known.own)} have)" if known.own else ""
    return f"A picture is called anomalous when its raw score is above **{raw(known.threshold)}**{own}."


def promises(known: Calibration) -> str:
    """The false-alarm rate with its interval, and for how long it holds."""
    nominal = ", nominally," if known.nominal else ""
    return (
        f"Asked for were at most {percent(known.alpha)} false alarms; by {counted(known.n, 'good picture')} the true "
        f"rate lies{nominal} between **{percent(known.interval[0])} and {percent(known.interval[1])}** "
        f"({percent(known.confidence)} interval), while production looks like them.{_alike(known)}"
    )


def _alike(known: Calibration) -> str:
    """For how many pictures those that are alike stand."""
    if not known.alike:
        return ""
    return (
        f" They are of {known.alike}, within which pictures are alike: a new one of these may look "
        f"like none of them, so the interval is too narrow, and only more {known.alike.of} make the promise firm."
    )


def finds(known: Calibration, checked: pd.DataFrame | None, metrics: Mapping[str, Any] | None) -> str:
    """Real defects where labelled pictures are known, else the synthetic anomalies."""
    rates = (metrics or {}).get("overall", {})
    if "rate" in rates.get("miss_rate", {}):
        return _of_test(rates)
    if checked is None or (made := found.anomalies(checked)).empty:
        return UNTESTED
    hits = found.hits(made, known)
    return (
        f"It finds {hits} of {len(made)} synthetic anomalies ({percent(hits / len(made))}), which are made hard on "
        "purpose; real defects are not measured yet."
    )


def _of_test(rates: Mapping[str, Any]) -> str:
    n, missed = rates["n"], rates["miss_rate"]["rate"]
    hits = round((1 - missed) * n["anomalous"])
    said = f"Of {counted(n['anomalous'], 'labelled defective picture')} it finds **{hits}** ({percent(1 - missed)})"
    alarms = rates["false_alarm_rate"]
    if "rate" in alarms:
        calls = round(alarms["rate"] * n["normal"])
        said += f", and it calls {calls} of {counted(n['normal'], 'good one')} anomalous ({percent(alarms['rate'])})"
    return said + "."


def ending(run: Path, data: Path, test: int) -> list[str]:
    """What a person wants to know when a fit is done; *test* labelled pictures wait for an evaluation.

    Reads the operating point of today, which `loupe calibrate` may have moved since.
    """
    known = Calibration.of(read_json(run / "calibration.json"))
    smallest = read_json(run / "run.json").get("sizes", {}).get("smallest_defect")  # not in older runs
    where = f"{counted(known.n, 'good picture')}{' (by folds)' if known.folds else ''}"
    kind = f"{percent(known.confidence)} interval{', nominal: ' if known.nominal else ''}{known.nominal}"
    next_one = (
        f"loupe evaluate {shlex.quote(str(run))} --data {shlex.quote(str(data))}"
        if test
        else f"loupe score {shlex.quote(str(run / 'bundle'))} FOLDER --out scores.parquet"
    )
    said = [
        ("threshold", f"{raw(known.threshold)}, raw score, from {where}"),
        (
            "false alarms",
            f"{percent(known.alpha)} asked for; the true rate lies within {between(known.interval)} ({kind})",
        ),
        ("defects", f"seen from a width of about {max(1, round(smallest or 0))} pixels of the picture"),
        ("report", str(run / PAGE)),
        ("next", next_one),
    ]
    known_of = {"report": (run / PAGE).exists(), "defects": bool(smallest)}
    return [f"{name:13} {text}" for name, text in said if known_of.get(name, True)]
