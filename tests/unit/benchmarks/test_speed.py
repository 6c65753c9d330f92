"""The benchmark of speed: turns, ratios, and seconds by the stage that the log tells of."""

import argparse
import json
import logging
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from typer.main import get_command

from benchmarks.speed import int8, latency, metrics, scaling, speed, stages, steps
from benchmarks.speed.turns import in_turns, ratio, spent, timed
from components.cli import app
from components.core.artefacts import write_json
from components.core.errors import SettingsError
from components.export.edge import Grouped


def test_who_begins_changes_with_every_round():
    asked = []
    sides = {name: lambda name=name: asked.append(name) or {"all": len(asked)} for name in ("now", "before")}
    found = in_turns(sides, 3)
    assert asked == ["now", "before", "before", "now", "now", "before"]
    assert [one["all"] for one in found["before"]] == [2, 3, 6]


def test_a_ratio_has_an_interval_and_is_taken_by_round():
    middle, low, high = ratio([2.0, 20.0, 6.0], [1.0, 10.0, 2.0])  # the second round was ten times slower on both
    assert (middle, low, high) == (2.0, 2.0, 3.0)


def test_what_a_process_takes_is_counted_with_its_children():
    work = "sum(range(4_000_000))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    alone, with_child = (spent([sys.executable, "-c", code], Path()) for code in ("pass", parent))
    assert with_child > alone


def test_a_scoring_is_timed_by_the_clock_too_and_told_apart_from_one_thread(tmp_path, monkeypatch):
    asked = []

    def ran(words, folder):
        asked.append((words[3:6], folder))
        Path(words[-1]).touch()
        return {"clock": 3.0, "processor": 5.0}

    monkeypatch.setattr(speed, "timed", ran)
    found = speed.scoring(tmp_path, tmp_path / "pictures", tmp_path / "bundle")
    assert asked == [(["score", str(tmp_path / "bundle"), str(tmp_path / "pictures")], tmp_path)]
    shown = speed.page({"scoring": {"before": None, "rounds": {"now": [found]}}})
    assert "on all cores: by the clock" in shown
    assert "on one thread" not in shown
    assert "| clock | 3.00 | - | - |" in shown
    monkeypatch.setattr(speed, "timed", lambda *_: {})
    with pytest.raises(SettingsError, match="left no table; run it to see why"):
        speed.scoring(tmp_path, tmp_path / "pictures", tmp_path / "bundle")


def test_a_pipeline_is_timed_with_nothing_kept_from_before(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text("artefacts: mine\nseed: 3")
    asked = []

    def ran(words, checkout, among):
        asked.append((words[1:5], checkout))
        known = yaml.safe_load(Path(words[-1]).read_text())
        assert known["seed"] == 3
        places = [known["artefacts"], known["store"], known["registry"]["folder"], among["LOUPE_CACHE"]]
        assert not any(Path(place).exists() for place in [*places, among["PREFECT_HOME"]])
        Path(known["artefacts"], "leaderboard").mkdir(parents=True)
        return {"clock": 3.0, "processor": 5.0}

    monkeypatch.setattr(speed, "timed", ran)
    found = speed.measure_of("pipeline", argparse.Namespace())(tmp_path)
    assert asked == [(["-m", "components.cli", "pipeline", "--params"], tmp_path)]
    shown = speed.page({"pipeline": {"before": None, "rounds": {"now": [found]}}})
    assert "of `loupe pipeline` on the solar cells" in shown
    monkeypatch.setattr(speed, "timed", lambda *_: {})
    with pytest.raises(SettingsError, match=r"left no leaderboard in .*; run it there to see why"):
        speed.pipeline(tmp_path)


def test_a_scoring_needs_a_bundle(tmp_path):
    with pytest.raises(SettingsError, match="the part scoring needs one"):
        speed.main(["scoring", "--data", str(tmp_path)])


def test_seconds_of_the_clock_are_those_of_waiting_too():
    found = timed([sys.executable, "-c", "import time; time.sleep(0.3)"], Path())
    assert found["clock"] > 0.3
    assert found["processor"] < found["clock"]


@pytest.mark.parametrize(("part", "size"), [("stages", 256), ("sizes", "auto")])
def test_a_fit_is_measured_at_the_size_of_its_part(part, size, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(speed, "staged", lambda _, words, __: given.append(words) or {"train": 2.0, "export": 1.0})
    asked = argparse.Namespace(data=tmp_path, detector="padim")
    assert speed.measure_of(part, asked)(tmp_path)["all"] == 3.0
    assert given[0][0] == "padim"
    assert json.loads(given[0][-1]) == size


def test_a_stage_begins_where_the_log_says_so(monkeypatch):
    seconds = iter([1.0, 4.0, 9.0])
    monkeypatch.setattr(stages, "busy", lambda: next(seconds))
    clock = stages.Clock(Path("runs/x"))
    for said in ("runs/x: manifest", "runs/x: 12 pictures", "elsewhere: split", "runs/x: train patchcore"):
        clock.emit(logging.LogRecord("loupe", logging.INFO, "", 0, said, None, None))
    clock.next("end")
    assert clock.found == {"imports": 1.0, "manifest": 3.0, "train": 5.0}


@pytest.mark.parametrize("before", [[], [{"a": 2.0, "b": 0.001}]])
def test_the_table_has_a_ratio_where_there_is_something_to_compare(before):
    rounds = {"now": [{"a": 1.0, "b": 0.001}]} | ({"before": before} if before else {})
    shown = speed.page({"startup": {"before": "abc", "rounds": rounds}})
    assert ("| a | 1.00 | 2.00 | 2.00 |" if before else "| a | 1.00 | - | - |") in shown
    assert shown.count("| b | 0.00 |") == 1
    assert speed.compared([2.0] * 3, [1.0] * 3) == "2.00 (2.00 to 2.00)"


def test_rows_of_another_detector_and_preset_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "OUT", tmp_path / "speed.json")
    of = {"pictures": 33, "megapixels": 0.1}
    row = lambda name, preset, real: {"detector": name, "preset": preset, "real": real, **of}  # noqa: E731
    before = [row("padim", "tiny", 1), row("padim", "cpu", 2), row("prn", "tiny", 3)]
    write_json(speed.OUT, {"memory": {"rows": before}, "steps": {"rows": before}})
    assert speed.beside("memory", [row("padim", "cpu", 4)]) == [before[0], before[2], row("padim", "cpu", 4)]
    assert speed.beside("steps", before[:1]) == before[:1]


def test_rows_have_tables_of_their_own():
    rows = [{"detector": "padim", "pictures": 33, "megapixels": 9.44, "phase": "fit", "predicted": 100, "real": 150}]
    shown = speed.page({"memory": {"rows": rows}})
    assert "| padim | - | 33 | 9.44 | fit | 100 | 150 |" in shown
    assert "Real over predicted is 1.50 to 1.50" in shown
    assert "| fastflow | - |" in speed.page({"int8": {"rows": [{"detector": "fastflow"}]}})
    graphs = {
        "detector": "padim",
        "s_1": 5.0,
        "s_2": 4.0,
        "s_3": 0.5,
        "s_anew": 4.0,
        "times_faster": 8.0,
        "same": "yes",
    }
    assert "| padim | 5 | 4 | 0.5 | 4 | 8 | yes |" in speed.page({"graphs": {"rows": [graphs]}})


PEAKS = """
from benchmarks.speed.memory import alone, peak
large, small = (lambda: b"1" * (400 * 2**20)), (lambda: b"1" * (20 * 2**20))
print(alone(lambda: peak(large)), alone(lambda: (large(), peak(small))[1]))
"""


def test_what_a_call_takes_at_its_peak_is_counted_alone():
    """What an earlier call took does not count, nor what the process had before.

    In a process that is new: of one that has run for long the system takes back what it has not used lately.
    """
    said = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    large, small = map(int, said.stdout.split())
    assert 300 < large < 460
    assert small < 60


def test_the_bundle_of_a_run_and_of_a_view(tmp_path, monkeypatch):
    asked = []
    given = Grouped([], None)
    monkeypatch.setattr(int8.edge, "calibrating", lambda split, *_: asked.append(split) or (given, given))
    int8.material(tmp_path / "view/patchcore/bundle", tmp_path, 3)
    (tmp_path / "run/work/run").mkdir(parents=True)
    int8.material(tmp_path / "run/bundle", tmp_path, 3)
    assert asked == [tmp_path / "view/split", tmp_path / "run/work/run/split"]


def test_metrics_are_those_of_scikit_learn():
    row = metrics.row(9, 64, 1)
    assert row["apart"] < 1e-4
    masks, maps = metrics.drawn(9, 64)
    assert 0.5 < metrics.ours(masks, maps)["aupro"] < 1  # the figures that agree are of maps that see something


def net(*nodes: str, frozen: str) -> onnx.ModelProto:
    """A graph of chained multiplications, of which those in *frozen* have a weight of a frozen network."""
    names = ["image", *(f"v{n}" for n in nodes)]
    weight = {f"v{n}": f"{'detector.backbone.' if n in frozen else ''}w{n}" for n in nodes}
    made = [helper.make_node("Mul", [before, weight[name]], [name]) for before, name in pairwise(names)]
    weights = [numpy_helper.from_array(np.ones((1,), np.float32), node.input[1]) for node in made]
    kind = helper.make_tensor_value_info
    shape = [kind(names[0], TensorProto.FLOAT, ["batch", 4])], [kind(names[-1], TensorProto.FLOAT, ["batch", 4])]
    return helper.make_model(helper.make_graph(made, "net", *shape, weights))


def test_the_bare_backbone_ends_where_the_frozen_network_does(tmp_path):
    onnx.save(net("1", "2", "3", frozen="12"), tmp_path / "all.onnx")
    assert latency.cut(tmp_path / "all.onnx", tmp_path / "bare.onnx")
    assert [node.output[0] for node in onnx.load(tmp_path / "bare.onnx").graph.node] == ["v1", "v2"]
    onnx.save(net("1", frozen=""), tmp_path / "own.onnx")
    assert not latency.cut(tmp_path / "own.onnx", tmp_path / "none.onnx")


def test_latency_without_a_frozen_network_has_no_ratio():
    assert latency.figures([[0.2, 0.4, 0.3]], 2) == {"ms_2": 150.0}
    assert latency.figures([[0.4], [0.2]], 1) == {"ms_1": 400.0, "times_1": 2.0, "low_1": 2.0, "high_1": 2.0}


def test_both_ways_of_a_step_have_one_gradient():
    found = steps.rows("tiny", 1)
    assert [row["maps"] for row in found] == ["4 x 40 x 8 x 8", "4 x 112 x 4 x 4"]
    assert max(row["apart"] for row in found) < 1e-4


def test_what_grows_is_told_with_its_exponents():
    """Time in proportion to the pictures and to the pixels, memory that stays."""
    rows = [
        run._asdict()
        | {"fit_s": 2.0 * run.pictures * run.side**2, "fit_mb": 500.0, "score_s": float(run.side), "score_mb": 9.0}
        for run in scaling.runs(30)
    ]
    assert [row["pictures"] for row in rows] == [30, 60, 120, 240, 30, 30, 30, 30]
    *_, by_pictures, by_side = scaling.told(rows)
    assert [by_pictures[key] for key in scaling.KEYS] == pytest.approx([1, 0, 0, 0], abs=1e-9)
    assert [by_side[key] for key in scaling.KEYS] == pytest.approx([2, 0, 1, 0], abs=1e-9)
    shown = speed.page({"scaling": {"rows": [*rows, by_pictures, by_side]}})
    assert "| exponent |" in shown


def test_too_few_pictures_to_grow_are_told(tmp_path):
    (tmp_path / "train" / "good").mkdir(parents=True)
    (tmp_path / "train" / "good" / "0.png").touch()
    with pytest.raises(SettingsError, match="1 pictures, and 8 are needed"):
        scaling.good(tmp_path, 8)


def test_what_is_measured_are_commands_as_they_are_typed(tmp_path):
    (tmp_path / "data").mkdir()
    known: Any = get_command(app)
    for name, *words in scaling.commands(scaling.Run(30, 512), "padim", tmp_path):
        given = known.commands[name].make_context(name, words).params
        assert Path(given["out"]).parent == tmp_path
        assert given.get("size") in (None, "512")


def test_a_command_that_fails_ends_the_measurement(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        scaling.spent([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)
    seconds, peak = scaling.spent([sys.executable, "-c", "sum(range(3_000_000))"], tmp_path)
    assert seconds > 0
    assert peak > 1  # at least that of the process that starts it, which is small in the benchmark
