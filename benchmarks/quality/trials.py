"""What a change of settings is worth without a label: the evidence that every training leaves (docs/adr/0025).

``loupe bench trials mtd/nln "mtd/nln/epochs=4;turned=true"`` trains the preset ``cpu`` and a variant of it, seed 0, by
the pipeline's own stage, each in a process on one thread. No picture of a test side is read: what a trial says may
choose a preset. One whose settings are unchanged is skipped; ``--again`` measures it anew, after a change of code.
Writes results/trials.json and results/trials.md.
"""

import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.common.images import KEPT
from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import apart, beside, one_thread, options
from benchmarks.common.short import changed
from benchmarks.common.tables import joined, markdown
from benchmarks.common.views import prepare, stages_of
from components.core.artefacts import read_json, values_hash, write_json
from components.core.settings import plain
from components.decision.paired import worth
from components.detectors.catalogue import detector_class, settings_for
from components.training.evidence import summary
from components.training.train import train

FILE = RESULTS / "trials.json"
HEAD = (
    "view",
    "detector",
    "differs from the preset",
    "worth",
    "graded",
    "small",
    "faint",
    "wide",
    "structure",
    "CPU s",
)
GRADED = ("small", "faint", "wide", "structure")
ABOUT = """*Worth* is what detectors are compared by without a label ([ADR 0025](../../docs/adr/0025-the-choice.md)):
the mean over the kinds of graded anomaly of the AUROC against good pictures, nuisances among them. *Graded*: the same
without nuisances, then each kind. *Differs*: from preset `cpu` as it is today; *nothing* is that preset. Seed 0; no
picture of a test side was read. What was decided by it stands on the page of each method."""


def main(arguments: list[str]) -> None:
    parser = options("trials", __doc__, report=True)
    parser.add_argument("--again", action="store_true", help="also what was measured with these very settings")
    parser.add_argument("--note", default="", help="what is special about the code, where the settings do not say it")
    parser.add_argument("--train", metavar="NAME", help="one training in this process, by its name")
    parser.add_argument("names", nargs="*", metavar="VIEW/DETECTOR[/KEY=VALUE;...]")
    asked = parser.parse_args(arguments)
    if asked.train:
        run(asked.train)
        return
    if not asked.report:
        missing = [name for name in asked.names if asked.again or not stands(name)]
        beside(1, lambda name: record(name, asked.note), missing)
    (RESULTS / "trials.md").write_text(page(stored(FILE)))


def parts(name: str) -> tuple[str, str, dict[str, Any]]:
    """View, detector and what is changed, by the (dotted) names of its settings."""
    view, detector, *others = name.split("/")
    pairs = (pair.partition("=") for pair in ";".join(others).split(";") if pair)
    return view, detector, {key: yaml.safe_load(value) for key, _, value in pairs}


def settings(name: str) -> dict[str, Any]:
    """All settings of the detector that a trial trains, as they are kept."""
    _, detector, overrides = parts(name)
    return dict(plain(settings_for(detector, "cpu", overrides)))


def key(name: str) -> str:
    view, detector, _ = parts(name)
    return f"{view}/{detector}/{values_hash(settings(name))[:12]}"


def stands(name: str) -> bool:
    return key(name) in stored(FILE)


def folder(name: str) -> Path:
    return KEPT / "trials" / key(name)


def record(name: str, note: str = "") -> None:
    """One training in a process of its own; its entry goes to results/trials.json."""
    view, _, _ = parts(name)
    prepare(view)
    shutil.rmtree(folder(name), ignore_errors=True)
    if not apart("trials", "--train", name, KEPT):
        return
    entry = {**read_json(folder(name) / "entry.json"), "commit": commit()}
    add(FILE, {key(name): {**entry, **({"note": note} if note else {})}})
    sys.stderr.write(f"{name}: worth {entry['worth']:.4f}, graded {entry['graded']:.4f}\n")


def run(name: str) -> None:
    """Train *name* as the pipeline would; its model and entry.json go to its folder."""
    one_thread()
    view, detector, overrides = parts(name)
    stages, at, started = stages_of(view), folder(name), time.process_time()
    asked = replace(stages.params.train, preset="cpu", detectors={detector: overrides})
    train(detector, stages.folder / "split", stages.folder / "synthetic", stages.data, at / "model", asked, 0)
    entry = evidence(pd.read_parquet(at / "model" / "check.parquet"))
    history = read_json(at / "model" / "history.json")
    entry |= {"moves": read_json(at / "model" / "pose.json")["moves"], "history": history}
    seconds = round(time.process_time() - started, 1)
    write_json(at / "entry.json", {**entry, "settings": settings(name), "seconds": seconds})


def evidence(checked: pd.DataFrame) -> dict[str, Any]:
    """What CHECK_COLUMNS come to: worth, AUROC by kind of anomaly with their mean, alarms by nuisance."""
    told = summary(checked)
    kinds = {kind: round(found["auroc"], 4) for kind, found in told["kinds"].items()}
    alarms = {kind: round(found["alarms"], 4) for kind, found in told["nuisances"].items()}
    graded = round(float(np.mean(list(kinds.values()))), 4)
    return {"worth": round(worth(checked), 4), "graded": graded, "kinds": kinds, "alarms": alarms}


def page(found: dict[str, Any]) -> str:
    """results/trials.md."""
    rows = [(*name.split("/")[:2], entry) for name, entry in found.items()]
    rows.sort(key=lambda row: (row[1], row[0], -row[2]["worth"]))
    shown, notes = changed((differs(detector, entry) for _, detector, entry in rows), 40)
    lines = [[view, d, shown[differs(d, e)], *figures(e), f"{e['seconds']:.0f}"] for view, d, e in rows]
    return joined("# Trials without a label", ABOUT, markdown(HEAD, lines), notes)


def figures(entry: dict[str, Any]) -> list[str]:
    kinds = [entry["kinds"].get(f"graded_{kind}") for kind in GRADED]
    return [f"{value:.3f}" if value is not None else "-" for value in (entry["worth"], entry["graded"], *kinds)]


def differs(detector: str, entry: dict[str, Any]) -> str:
    """What an entry's settings differ in from the preset of today, and its note; ``full`` where they do not."""
    # A setting that was not there yet: its default leaves all as it was.
    kept = plain(detector_class(detector).settings_type()) | entry["settings"]
    own, today = _flat(kept), _flat(plain(settings_for(detector, "cpu")))
    found = [f"{name}={_text(value)}" for name, value in sorted(own.items()) if today.get(name, value) != value]
    return ";".join([*found, *([entry["note"]] if "note" in entry else [])]) or "full"


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
