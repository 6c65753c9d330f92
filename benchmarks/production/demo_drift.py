"""What the production loop does on solar cells, unattended (about a quarter of an hour on two cores).

A champion learns 288 monocrystalline normals. Then cells arrive at the scoring service, and nothing else is done by
hand: 300 other mono normals (no alarm is expected), polycrystalline cells of which 30 % are defective (the gate must
refuse), and polycrystalline cells of which 5 % are (the challenger must serve in the end). Figures go to *--out*;
labels of cells are used for the table at the end only.
"""

import http.client
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common import project
from benchmarks.common.results import RESULTS
from benchmarks.common.runner import options, tell
from benchmarks.common.stack import ROOT, Stack
from components.core.artefacts import file_hash, write_json
from components.datasets.adapters import elpv_rows
from components.datasets.versions import checkout
from components.monitoring.monitor import VERDICTS
from components.pipeline.params import load_params
from components.pipeline.retraining import outcomes
from components.pipeline.stages import Stages
from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings
from components.storage import open_store

MODEL, SHIFT = "solar", 1000
INTERVALS = {"hourly": 30.0, "inbox": 3600.0}  # seconds, in place of those of prefect.yaml
POISONED, CLEAN = "line-2", "line-1"
COUNTS = {"train": 288, "arriving": 300, "poly": 420}
CONFIG = project.config(
    MODEL,
    split={"calibrate_share": 0.35},
    monitor={"settle_seconds": 5.0, "cooldown_hours": 24.0},
    retrain={"detectors": ["patchcore"]},
    calibration={"alpha": 0.05},
)


class Cells:
    """The data set in the parts that the demonstration needs, drawn by *seed*."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, rng = root, np.random.default_rng(seed)
        rows = elpv_rows(root)

        def drawn(group: str, label: str) -> list[str]:
            return list(rng.permutation([r.image_id for r in rows if r.group == group and r.label == label]))

        mono, poly, bad = drawn("mono", "normal"), drawn("poly", "normal"), drawn("poly", "anomalous")
        self.train, self.arriving = mono[: COUNTS["train"]], mono[COUNTS["train"] :][: COUNTS["arriving"]]
        self.mono_bad = drawn("mono", "anomalous")
        n, few, many = COUNTS["poly"], round(0.05 * COUNTS["poly"]), round(0.3 * COUNTS["poly"])
        clean, poisoned = poly[: n - few], poly[n - few : 2 * n - few - many]
        self.clean = list(rng.permutation(clean + bad[:few]))
        self.poisoned = list(rng.permutation(poisoned + bad[few : few + many]))
        self.few_bad = set(bad[:few])
        self.held = {"poly": poly[2 * n - few - many :], "poly_bad": bad[few + many :]}

    def paths(self, names: list[str]) -> list[Path]:
        return [self.root / name for name in names]


def feed(port: int, cells: list[Path], source: str) -> None:
    """Send cells one after the other, as a line does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for path in cells:
        connection.request(
            "POST", f"/v1/score?source={source}&name={path.name}", path.read_bytes(), {"Content-Type": "image/png"}
        )
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {content!r}")
    say(f"{len(cells)} cells sent to {source}")


def say(text: str) -> None:
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")


def stored_verdicts(source: str) -> list[dict[str, Any]]:
    store = open_store(os.environ["LOUPE_STORE"])
    return [json.loads(store.get(key)) for key in store.keys(f"{VERDICTS}/{source}/")]


def until(what: str, found: Callable[[], Any], limit: float = 900) -> Any:
    """Wait for *found* to return something; it is the system that acts, not this script."""
    say(f"waiting: {what}")
    began = time.monotonic()
    while time.monotonic() - began < limit:
        if result := found():
            say(f"{what}: after {time.monotonic() - began:.0f} s")
            return result
        time.sleep(2)
    raise SystemExit(f"{what}: not within {limit:g} s")


def decision_of(source: str) -> Any:
    return next((d for d in outcomes(open_store(os.environ["LOUPE_STORE"]), MODEL) if d.source == source), None)


def served(port: int) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/v1/models/current")
    version: str | None = json.loads(connection.getresponse().read())["version"]
    return version


def run(folder: Path, cells: Cells) -> dict[str, Any]:
    """Everything that happens while the stack is up; returns what was seen, when."""
    stack, seen = Stack(folder, SHIFT), dict[str, Any]()
    stack.up(MODEL, INTERVALS)
    port, size = stack.service_port(), 100
    try:
        feed(port, cells.paths(cells.arriving), CLEAN)
        quiet = until("all mono windows judged", lambda: len(found := stored_verdicts(CLEAN)) == 6 and found)
        seen["mono"] = [{k: v[k] for k in ("action", "reasons")} for v in quiet]
        for source, pool in ((POISONED, cells.poisoned), (CLEAN, cells.clean)):
            started, before = time.monotonic(), len(stored_verdicts(source))
            feed(port, cells.paths(pool), source)
            outcome = until(f"decision on {source}", partial(decision_of, source))
            asked = next(v for v in stored_verdicts(source) if v["action"] == "retrain")
            seen[source] = {
                "cells_until_alarm": size // 2 * (asked["number"] - before),
                "alarm": asked["reasons"],
                "seconds_from_first_cell_to_decision": round(time.monotonic() - started),
                "action": outcome.action,
                "reasons": outcome.reasons,
                "contamination_estimate": outcome.contamination,
                "champion": outcome.champion,
                "challenger": outcome.challenger,
                "data_version": outcome.data_version,
            }
        if seen[CLEAN]["action"] == "promote":
            until("the challenger serves", lambda: served(port) == seen[CLEAN]["challenger"], 60)
    finally:
        stack.down()
    return seen


def without_defects(folder: Path, cells: Cells) -> Path:
    """The bundle the promoted challenger would have been, had no defect arrived: its stages on its data less those."""
    window, name = next((folder / "artefacts" / "retrain").glob(f"{CLEAN}-*")), f"{MODEL}-live"
    data = folder / "clean" / name
    shutil.rmtree(folder / "clean", ignore_errors=True)
    shutil.copytree(folder / "data" / name, data)
    defects, table = {file_hash(p) for p in cells.paths(sorted(cells.few_bad))}, pd.read_csv(data / "images.csv")
    table[[file_hash(data / i) not in defects for i in table["image_id"]]].to_csv(data / "images.csv", index=False)
    params = load_params(window / "params.yaml", {"artefacts": str(folder / "clean" / "artefacts")})
    stages = Stages(params, name, folder / "clean")
    for step in (stages.manifest, stages.validate, stages.split, stages.synthesise):
        step()
    stages.train("patchcore")
    stages.calibrate("patchcore")
    return stages.export("patchcore")


def rates(folder: Path, cells: Cells, seen: dict[str, Any]) -> dict[str, Any]:
    """Shares of alarms of the first champion and of the challengers, by kind of cell."""
    from components.decision.batch import record
    from components.decision.bundle import Bundle

    registry = Registry(RegistrySettings(str(folder / "registry")))
    kinds = {
        "mono normals (arrived, not learned)": cells.arriving,
        "poly normals (never seen)": cells.held["poly"],
        "mono defects": cells.mono_bad,
        "poly defects (never seen)": cells.held["poly_bad"],
        "poly defects in the pool": sorted(cells.few_bad),
    }
    versions = {
        "before": seen[CLEAN]["champion"],
        "after": seen[CLEAN]["challenger"],
        "refused": seen[POISONED]["challenger"],
    }
    bundles = {when: registry.fetch(MODEL, v, folder / "bundles" / v) for when, v in versions.items() if v}
    bundles["after, had no defect arrived"] = without_defects(folder, cells)
    table: dict[str, dict[str, object]] = {kind: {"n": len(names)} for kind, names in kinds.items()}
    for when, made in bundles.items():
        bundle = Bundle.open(made)
        for kind, names in kinds.items():
            alarms = [record(bundle, p, p.name, "demo")["decision"] == "anomalous" for p in cells.paths(names)]
            table[kind][when] = float(np.mean(alarms)) if alarms else None
        say(f"scored: {when}")
    return table


def main(arguments: list[str]) -> None:
    parser = options("demo_drift", __doc__)
    parser.add_argument("--project", type=Path, default=ROOT / "runs" / "demo-drift")
    parser.add_argument("--out", type=Path, default=RESULTS / "drift.json")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    began = time.monotonic()
    os.chdir(ROOT)
    cells = Cells(checkout("elpv").resolve(), asked.seed)
    project.make(asked.project, MODEL, cells.paths(cells.train), CONFIG)
    say("champion trained")
    seen = run(asked.project.resolve(), cells)
    table = rates(asked.project.resolve(), cells, seen)
    result = {"seed": asked.seed, "seen": seen, "alarms": table, "minutes": round((time.monotonic() - began) / 60, 1)}
    write_json(asked.out, result)
    tell(result, indent=1)
    ok = seen[CLEAN]["action"] == "promote" and seen[POISONED]["action"] == "refuse"
    quiet = all(v["action"] != "retrain" for v in seen["mono"])
    sys.exit(0 if ok and quiet else "the loop did not end as it should; see above")
