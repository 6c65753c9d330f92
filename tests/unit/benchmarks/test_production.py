"""Benchmarks of the production loop from the first line to the last, over a line that answers at once.

The loop itself is in tests/loop; here it is what the benchmarks ask of it, wait for and make of it. Their stack is a
server in a thread, whose verdicts and decisions go to a real store when the last cell of a source has come.
"""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from benchmarks.common import project
from benchmarks.production import bulk, demo_drift, devices, power_cut
from components.core.artefacts import read_json
from components.core.settings import plain
from components.monitoring.monitor import SENT, VERDICTS
from components.retraining.outcomes import Retrained, store_outcome
from components.storage import open_store
from tests.conftest import tile

COUNTS = {"train": 4, "arriving": 6, "poly": 20}
CELLS = {("mono", 0.0): 12, ("poly", 0.0): 36, ("mono", 1.0): 3, ("poly", 1.0): 9, ("mono", 0.33): 2}


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """A folder as that of the solar cells, with few and small ones, each with other bytes."""
    lines, number = [], 0
    (tmp_path / "elpv/images").mkdir(parents=True)
    for (group, probability), count in CELLS.items():
        for _ in range(count):
            name, number = f"images/cell{number:04d}.png", number + 1
            lines.append(f"{name}  {probability}  {group}\n")
            Image.fromarray(tile(number, 48)).save(tmp_path / "elpv" / name)
    (tmp_path / "elpv/labels.csv").write_text("".join(lines))
    monkeypatch.setattr(demo_drift, "COUNTS", COUNTS)
    for room in (demo_drift, power_cut):
        monkeypatch.setattr(room, "checkout", lambda _: tmp_path / "elpv")
    return demo_drift.Cells(tmp_path / "elpv", 0)


class Line:
    """In place of the stack: what its service, monitor and retraining leave in the store, and a process that trains."""

    actions = {"line-2": "refuse", "line-1": "promote"}
    of_the_champion: tuple[str, ...] = ()  # the cells that are like those the champion learned
    ups = 0

    def __init__(self, folder: Path, _: int) -> None:
        self.folder, self.got, self.serving, self.training = folder, {}, "1", None

    def up(self, _: str, intervals: dict, store: Path | None = None) -> None:
        assert intervals == demo_drift.INTERVALS
        type(self).ups += 1
        os.environ["LOUPE_STORE"] = str(store or self.folder / "store")
        line = self

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                query = parse_qs(urlsplit(self.path).query)
                line.came(query["source"][0], query["name"][0])
                self.answer({})

            def do_GET(self):
                self.answer({"version": line.serving})

            def answer(self, content):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        if store and self.ups == 2:  # behind the power cut the training goes on and ends
            self.train()
            self.decide("line-1")

    def came(self, source: str, name: str) -> None:
        self.got.setdefault(source, []).append(name)
        number, usual = len(self.got[source]), name in self.of_the_champion
        if usual or name == self.last[source]:
            verdict = {"action": "keep" if usual else "retrain", "reasons": ["x"], "number": number}
            open_store(os.environ["LOUPE_STORE"]).put(
                f"{VERDICTS}/{source}/v/{number:05d}.json", json.dumps(verdict).encode()
            )
            if not usual:
                self.ask(source)

    def ask(self, source: str) -> None:
        self.decide(source)

    def decide(self, source: str) -> None:
        action, challenger = self.actions[source], {"line-2": "2", "line-1": "3"}[source]
        fields = {"verdict": f"of {source}", "model": demo_drift.MODEL, "champion": "1", "pool": None}
        more = {"contamination": 0.1, "data_version": "d", "evidence": "", "at": "2026-01-01T00:00:00+00:00"}
        outcome = Retrained(action, source=source, challenger=challenger, reasons=("why",), **fields, **more)
        store_outcome(open_store(os.environ["LOUPE_STORE"]), outcome)
        self.serving = challenger if action == "promote" else self.serving

    def train(self) -> None:
        words = ["components.pipeline.stages", "train", f"{demo_drift.MODEL}-live"]
        self.training = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words])

    def service_port(self) -> int:
        return self.server.server_port

    def processes(self) -> dict:
        return {"worker": {"pid": self.training.pid}}

    def down(self) -> None:
        self.server.shutdown()
        if self.training:
            self.training.kill()
            self.training.wait()


@pytest.fixture
def line(cells, tmp_path, monkeypatch):
    """Both benchmarks over the line, in a project that nothing was trained in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOUPE_STORE", "")
    (tmp_path / "project").mkdir()
    made = []
    monkeypatch.setattr(project, "make", lambda *given: made.append(given))
    names = [Path(name).name for name in cells.arriving]
    last = {"line-2": Path(cells.poisoned[-1]).name, "line-1": Path(cells.clean[-1]).name}
    kind = type("Here", (Line,), {"of_the_champion": tuple(names), "last": last})
    for room in (demo_drift, power_cut):
        monkeypatch.setattr(room, "Stack", kind)
        monkeypatch.setattr(room, "ROOT", tmp_path)
    return SimpleNamespace(kind=kind, made=made, project=tmp_path / "project")


def drift(line, bundle, monkeypatch):
    """``loupe bench demo_drift`` whose versions are all one bundle; its exit status and what it stored."""
    registry = SimpleNamespace(fetch=lambda *_: bundle)
    monkeypatch.setattr(demo_drift, "Registry", lambda _: registry)
    monkeypatch.setattr(demo_drift, "without_defects", lambda *_: bundle)
    out = line.project / "drift.json"
    with pytest.raises(SystemExit) as ended:
        demo_drift.main(["--project", str(line.project), "--out", str(out)])
    return ended.value.code, read_json(out)


def test_cells_are_in_one_part_each_and_the_pools_have_the_shares_that_are_told(cells):
    assert (len(cells.train), len(cells.arriving)) == (4, 6)
    assert (len(cells.clean), len(cells.poisoned)) == (20, 20)
    bad = {row.image_id for row in demo_drift.elpv_rows(cells.root) if row.label == "anomalous"}
    assert (len(bad & set(cells.clean)), len(bad & set(cells.poisoned))) == (1, 6)
    assert cells.few_bad == bad & set(cells.clean)
    parts = [cells.train, cells.arriving, cells.mono_bad, cells.clean, cells.poisoned, *cells.held.values()]
    names = [name for part in parts for name in part]
    assert len(names) == len(set(names))


def test_the_demonstration_ends_well_when_the_loop_does(line, bundle, cells, monkeypatch):
    code, found = drift(line, bundle, monkeypatch)
    assert code == 0
    assert [(v["action"]) for v in found["seen"]["mono"]] == ["keep"] * 6
    assert (found["seen"]["line-2"]["action"], found["seen"]["line-1"]["action"]) == ("refuse", "promote")
    assert found["seen"]["line-2"]["contamination_estimate"] == 0.1
    alarms = found["alarms"]
    assert {kind: row["n"] for kind, row in alarms.items()} == {
        "mono normals (arrived, not learned)": 6,
        "poly normals (never seen)": len(cells.held["poly"]),
        "mono defects": 3,
        "poly defects (never seen)": 2,
        "poly defects in the pool": 1,
    }
    for row in alarms.values():
        assert 0 <= row["before"] <= 1
        assert row["before"] == row["after"] == row["refused"] == row["after, had no defect arrived"]  # one bundle
    (_, name, good, config), *_ = line.made
    assert (name, len(good)) == ("solar", 4)
    assert config["retrain"] == {"detectors": ["patchcore"]}


def test_the_demonstration_fails_when_a_poisoned_pool_is_promoted(line, bundle, monkeypatch):
    monkeypatch.setattr(line.kind, "actions", {"line-2": "promote", "line-1": "promote"})
    code, found = drift(line, bundle, monkeypatch)
    assert code == "the loop did not end as it should; see above"
    assert found["seen"]["line-2"]["action"] == "promote"


def test_what_does_not_come_ends_the_wait(monkeypatch):
    monkeypatch.setattr(demo_drift.time, "sleep", lambda _: None)
    with pytest.raises(SystemExit, match=r"a decision: not within 0\.01 s"):
        demo_drift.until("a decision", lambda: None, 0.01)


def test_after_a_power_cut_it_is_told_how_long_and_how_often(line, monkeypatch):
    others = set(psutil.Process().children())  # of tests before this one in the same process

    def ask(self, _):
        open_store(os.environ["LOUPE_STORE"]).put(f"{SENT}/v.json", b'{"times": 2}')
        self.train()

    monkeypatch.setattr(line.kind, "ask", ask)
    monkeypatch.setattr(power_cut, "OUT", line.project / "power_cut.json")
    power_cut.main(["--project", str(line.project)])
    found = read_json(line.project / "power_cut.json")
    assert line.kind.ups == 2
    assert (found["action"], found["reasons"], found["events"]) == ("promote", ["why"], [2])
    assert 0 <= found["seconds_until_training"] <= found["seconds_until_decision"] < 60
    assert line.made[0][3]["monitor"]["again_hours"] == power_cut.AGAIN
    assert not power_cut.trainings()  # neither the one that was cut off nor the one after it
    assert not [p for p in set(psutil.Process().children()) - others if p.status() != psutil.STATUS_ZOMBIE]


def test_the_twin_without_defects_learns_all_but_those(cells, tmp_path, monkeypatch):
    data = tmp_path / "data/solar-live"
    data.mkdir(parents=True)
    (tmp_path / "artefacts/retrain/line-1-v-00007").mkdir(parents=True)
    (bad,), good = sorted(cells.few_bad), cells.clean[:3]
    names = [f"{number}.png" for number in range(4)]
    for name, source in zip(names, cells.paths([*[c for c in good if c != bad][:3], bad]), strict=False):
        (data / name).write_bytes(source.read_bytes())
    names = sorted(path.name for path in data.iterdir())
    pd.DataFrame({"image_id": names}).to_csv(data / "images.csv", index=False)
    steps = []

    class Stages:
        def __init__(self, params, view, root):
            steps.append((params, view, root))

        def __getattr__(self, step):
            return lambda *detector: steps.append((step, *detector)) or step

    monkeypatch.setattr(demo_drift, "Stages", Stages)
    monkeypatch.setattr(demo_drift, "load_params", lambda path, changed: (path.parent.name, changed["artefacts"]))
    assert demo_drift.without_defects(tmp_path, cells) == "export"
    left = list(pd.read_csv(tmp_path / "clean/solar-live/images.csv")["image_id"])
    assert left == [name for name in names if (data / name).read_bytes() != (cells.root / bad).read_bytes()]
    assert len(left) == len(names) - 1
    params, *order = steps
    assert params == (("line-1-v-00007", str(tmp_path / "clean/artefacts")), "solar-live", tmp_path / "clean")
    before = [("manifest",), ("validate",), ("split",), ("synthesise",)]
    assert order == [*before, ("train", "patchcore"), ("calibrate", "patchcore"), ("export", "patchcore")]


def test_a_project_of_its_own_begins_anew_with_the_good_pictures(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(project.subprocess, "run", lambda command, **options: asked.append((command, options["cwd"])))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "project").mkdir()
    (tmp_path / "project/left").write_text("over from before")
    project.make(tmp_path / "project", "solar", [tmp_path / "a.png"], project.config("solar", seed=3))
    there = {str(p.relative_to(tmp_path / "project")) for p in (tmp_path / "project").rglob("*") if p.is_file()}
    assert there == {"data/solar/train/good/a.png", "params.yaml", ".gitignore"}
    assert [command[0] for command, _ in asked] == ["git", "dvc", "dvc", "loupe"]
    assert {cwd for _, cwd in asked} == {tmp_path / "project"}
    assert plain(project.config("solar", seed=3))["seed"] == 3


def test_the_volume_of_a_small_log_is_measured_and_a_window_opens_as_much_at_each_history(tmp_path):
    from benchmarks.production import volume

    found = volume.measured(4000, 10, tmp_path)
    assert (found["records"], found["objects"]) == (4000, 10)
    assert {at["window"]["objects"] for at in found["reading"].values()} == {1}
    assert found["looking"]["verdicts"] == 80


def test_bulk_files_are_all_different_and_rates_are_of_whole_commands(tmp_path):
    source = tmp_path / "source.png"
    Image.fromarray(np.full((200, 200), 90, np.uint8)).save(source)
    bulk._copies([source], 30, tmp_path / "made")
    files = sorted((tmp_path / "made").rglob("*.png"))
    assert len({path.read_bytes() for path in files}) == len(files) == 30
    row = {"workers": "2, killed half way", "seconds": 100.0, "scored": 5000}
    page = bulk.page({"images": 5000, "side": 128, "shards": 20, "commit": "abc", "rows": [row]})
    assert "| 2, killed half way | 100 | 50 | 5000 | 23.1 |" in page


def test_a_row_says_what_each_number_of_processes_gave():
    entry = {"processes": [1, 2], "auroc": [0.9, 0.91], "apart": 1e-3, "cpu_seconds": [10.0, 25.0], "hardware": "CPU"}
    text = devices.page({"elpv-mono/msfi/tiny": entry})
    assert "| elpv-mono | msfi | tiny | CPU | 1 | 0.9000 | - | 10.0 | 1.00 |" in text
    assert "| elpv-mono | msfi | tiny | CPU | 2 | 0.9100 | 1.0e-03 | 25.0 | 2.50 |" in text
