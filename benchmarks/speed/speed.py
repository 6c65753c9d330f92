"""Where the time goes: the start of every command, and the stages of one fit, beside another checkout in turns.

Seconds of the processor on one thread, by parts: startup (each command that computes nothing, and the help of each),
stages (`loupe fit` at 256 pixels on a folder in MVTec layout, by stage, with an evaluation where there is test/), sizes
(the same at the sizes that Loupe takes by itself), memory (predicted and real peak of the training of each of
--detectors, at --preset), int8 (what the backbone of each --bundle loses in 8-bit integers, and how much sooner it
answers; OpenVINO beside it), latency (the graph of each --bundle beside its bare backbone), graphs (the export of three
models of a kind, of each of --detectors), metrics (all figures of an evaluation beside scikit-learn's), steps
(FastFlow's by both ways), scaling (a fit of --detector and a scoring with 1 to 8 times --pictures, and at 256 to 1,024
pixels), scoring (`loupe score` of --data by the first --bundle, on all cores, by the clock as well), pipeline (`loupe
pipeline` into new folders, with the data that the checkout has, measured as scoring is). With --against another
checkout of Loupe is measured in the same rounds, the sides in alternating order, and the ratio of both is told with its
95 % bootstrap interval.
Writes results/speed.json and speed.md.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import joined, markdown, wrapped
from benchmarks.speed import scaling
from benchmarks.speed.turns import Figures, environment, in_turns, ratio, spent, timed
from components.core.checks import check_known
from components.core.errors import SettingsError

HERE = Path(__file__).parent
OUT = RESULTS / "speed.json"
STARTED = (
    "--help",
    "--version",
    "detectors",
    "doctor",
    "models",
    "cache",
    "data sets",
    "bench",
    "bench more --help",
    "fit --help",
    "score --help",
    "compare --help",
    "frames --help",
    "init --help",
    "dashboard --help",
)
ROWS = {  # parts that have a row for each detector, and what their table says
    "memory": {
        "detector": "detector",
        "preset": "preset",
        "pictures": "pictures",
        "megapixels": "megapixels",
        "phase": "most in",
        "predicted": "predicted MiB",
        "real": "real MiB",
    },
    "latency": {
        "detector": "detector",
        "pixels": "picture",
        "ms_1": "ms a picture",
        "times_1": "times the backbone",
        "ms_16": "ms in batches of 16",
        "times_16": "times the backbone there",
    },
    "metrics": {
        "pictures": "maps",
        "side": "side",
        "ours_s": "s",
        "literal_s": "scikit-learn s",
        "times_faster": "faster",
        "low": "from",
        "high": "to",
        "apart": "apart",
    },
    "steps": {
        "maps": "features",
        "plain_s": "by the definition s",
        "short_s": "the short way s",
        "times_faster": "faster",
        "low": "from",
        "high": "to",
        "apart": "gradients apart",
    },
    "graphs": {
        "detector": "detector",
        "s_1": "first s",
        "s_2": "second s",
        "s_3": "third s",
        "s_anew": "third anew s",
        "times_faster": "faster",
        "same": "same bytes",
    },
    "scaling": {
        "pictures": "pictures",
        "side": "side",
        "fit_s": "fit s",
        "fit_mb": "fit MiB",
        "score_s": "scoring s",
        "score_mb": "scoring MiB",
    },
    "int8": {
        "detector": "detector",
        "view": "view",
        "pictures": "pictures",
        "float_mb": "MB",
        "int8_mb": "int8 MB",
        "rank_correlation": "ranks alike",
        "synthetic_auroc_float": "AUROC",
        "synthetic_auroc": "int8 AUROC",
        "times_faster": "faster",
        "openvino_times_faster": "OpenVINO faster",
        "openvino_map_error": "its error",
    },
}
CLOCKED = {  # parts that are measured on all cores, by the clock and of the processor
    "scoring": "`loupe score` of one folder with one bundle",
    "pipeline": "`loupe pipeline` on the solar cells, with empty caches and no server",
}
PARTS = ("startup", "stages", "sizes", *CLOCKED, *ROWS)
SIZE: dict[str, int | str] = {"stages": 256, "sizes": "auto"}
OF = {"memory": ("detector", "preset", "pictures", "megapixels")}  # what one row is of: those of others stay beside it
SAID = {
    "memory": "What a training takes on top of a process in which everything is loaded, before it starts and in truth; "
    "a process for each. Real over predicted is {low:.2f} to {high:.2f}, {middle:.2f} in the middle. The pictures are "
    "the first 41 of MVTec AD screw, train/good; of 9.44 megapixels: the same at 3072 x 3072 by Pillow's resize, JPEG "
    "of quality 95.",
    "latency": "The graph that ships and the part of it that is the frozen network, in ONNX Runtime on one thread, in "
    "turns; medians of {rounds} rounds, seconds of the processor.",
    "metrics": "Image and pixel AUROC, AP and F1-max, AUPRO and the interval of 1,000 resamples, on drawn maps; "
    "*faster*: than a call of scikit-learn for each figure, {rounds} rounds in turns; *apart*: the largest difference.",
    "steps": "FastFlow's likelihood and its gradient for a batch, one row a tap, preset as asked for, one thread, in "
    "turns; {rounds} rounds. *Apart*: the norm of the difference over that of the gradient.",
    "scaling": "`loupe fit` and `loupe score` of the pictures that it learned from, each a process on one thread with "
    "an empty cache, seconds of the processor and peak memory. *Exponent*: the power of the pictures, or of the side, "
    "with which a figure grows; 2 of the side is in proportion to the pixels.",
    "graphs": "The graphs of three models of one kind, seconds of the processor on one thread: two are exported, the "
    "third is filled in (ADR 0059). *Anew*: the third one exported with an empty cache; *faster*: anew over filled in.",
    "int8": "On one thread, the processor's seconds in turns; AUROC of synthetic anomalies against "
    "calibrate normals. *Faster*: times as fast as the float graph in ONNX Runtime; *its error*: of the span of a map.",
}
SECONDS = "Seconds of the processor on one thread."
ALL_CORES = "Seconds of {of}, on all cores: by the clock and of the processor."
ABOUT = (
    "{rounds} on a busy machine. *Before*: commit {before}. "
    "*Ratio*: before / now in the same round, median and 95 % interval over rounds; above 1 is sooner now."
)
HEAD = ("what", "now s", "before s", "ratio (95 %)")


def main(arguments: list[str]) -> None:
    parser = options("speed", __doc__, report=True)
    parser.add_argument("--against", type=Path, help="another checkout of Loupe, measured in the same rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="the folder of pictures of the parts stages, sizes")
    parser.add_argument("--detector", default="patchcore", help="of the parts stages, sizes and scaling")
    parser.add_argument("--detectors", default="patchcore", help="of memory and graphs, joined by commas")
    parser.add_argument("--preset", default="tiny", help="of the parts memory, graphs and steps")
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="of int8 and latency; may be repeated")
    parser.add_argument(
        "--pictures", type=int, default=32, help="of int8, of each kind at most; of scaling, the fewest"
    )
    parser.add_argument("parts", nargs="*", default=["startup"], metavar="PART", help=", ".join(PARTS))
    asked = parser.parse_args(arguments)
    for part in [] if asked.report else asked.parts:
        check_known(part, PARTS, "loupe bench speed")
        if part in ROWS:
            made = [row | {"commit": commit()} for row in rows(part, words_of(part, asked))]
            add(OUT, {part: {"commit": commit(), "asked": asked.rounds, "rows": beside(part, made)}})
            continue
        measure = measure_of(part, asked)
        sides = {"now": Path()} | ({"before": asked.against} if asked.against else {})
        found = in_turns({name: partial(measure, checkout.resolve()) for name, checkout in sides.items()}, asked.rounds)
        add(OUT, {part: {"commit": commit(), "before": commit_of(asked.against), "rounds": found}})
    OUT.with_suffix(".md").write_text(page(stored(OUT)))


def measure_of(part: str, asked: Any) -> Callable[[Path], Figures]:
    """What is measured of a checkout, in turns with another one. Raises SettingsError for what it lacks."""
    if part == "startup":
        return startup
    if part == "pipeline":
        return pipeline
    if part in SIZE:
        return partial(stages, data=pictures(asked.data), detector=asked.detector, size=SIZE[part])
    if not asked.bundle:
        raise SettingsError("--bundle: names no bundle; the part scoring needs one")
    return partial(scoring, data=pictures(asked.data), bundle=asked.bundle[0].resolve())


def words_of(part: str, asked: Any) -> list[str]:
    """Arguments of the file that measures *part*."""
    if part == "metrics":
        return ["583", "256", str(asked.rounds)]
    if part == "steps":
        return [asked.preset, str(asked.rounds)]
    data, bundles = str(pictures(asked.data)), [str(bundle.resolve()) for bundle in asked.bundle]
    if part == "latency":
        return [data, str(asked.rounds), *bundles]
    if part == "scaling":
        scaling.good(Path(data), max(scaling.runs(asked.pictures)).pictures)  # said before hours of work
        return [data, asked.detector, str(asked.pictures)]
    if part in ("memory", "graphs"):
        return [data, asked.preset, *(["train"] if part == "memory" else []), *asked.detectors.split(",")]
    return [data, str(asked.pictures), *bundles]


def rows(part: str, words: list[str]) -> list[dict[str, Any]]:
    """What the file of *part* measures in a process of its own."""
    command, here = [sys.executable, str(HERE / f"{part}.py"), *words], str(HERE.parents[1])
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment(PYTHONPATH=here))
    return list(json.loads(done.stdout))


def beside(part: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """*found* behind the rows of *part* that were measured before, of something else."""
    if part not in OF:
        return found
    of = [[row[key] for key in OF[part]] for row in found]
    known = stored(OUT).get(part, {"rows": []})["rows"]
    return [row for row in known if [row.get(key) for key in OF[part]] not in of] + found


def pictures(folder: Path | None) -> Path:
    """Raises SettingsError where none is named."""
    if folder is None or not folder.is_dir():
        raise SettingsError(f"--data {folder}: is no folder; the part needs one of pictures")
    return folder.resolve()


def commit_of(checkout: Path | None) -> str | None:
    if checkout is None:
        return None
    words = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def startup(checkout: Path) -> Figures:
    """Seconds of each command of STARTED, in that checkout."""
    loupe = [sys.executable, "-m", "components.cli"]
    return {words: spent([*loupe, *words.split()], checkout) for words in STARTED}


def scoring(checkout: Path, data: Path, bundle: Path) -> Figures:
    """Seconds of `loupe score` by the clock and of the processor, by the code of that checkout, on all cores."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "scores.csv"
        words = ["score", str(bundle), str(data), "--out", str(table)]
        found = timed([sys.executable, "-m", "components.cli", *words], checkout)
        if not table.exists():
            raise SettingsError(f"`loupe {' '.join(words)}` left no table; run it to see why")
    return found


def pipeline(checkout: Path) -> Figures:
    """Seconds of `loupe pipeline` by the code, settings and data of that checkout, into folders that are new."""
    with tempfile.TemporaryDirectory() as folder:
        params, artefacts = Path(folder) / "params.yaml", f"{folder}/artefacts"
        known = yaml.safe_load((checkout / "params.yaml").read_text())
        new = {"artefacts": artefacts, "store": f"{folder}/store", "registry": {"folder": f"{folder}/registry"}}
        params.write_text(yaml.safe_dump(known | new, sort_keys=False))
        kept = {"LOUPE_CACHE": f"{folder}/cache", "PREFECT_HOME": f"{folder}/prefect"}
        words = ["pipeline", "--params", str(params)]
        found = timed([sys.executable, "-m", "components.cli", *words], checkout, os.environ | kept)
        if not Path(artefacts, "leaderboard").is_dir():
            raise SettingsError(f"`loupe pipeline` left no leaderboard in {checkout}; run it there to see why")
    return found


def stages(checkout: Path, data: Path, detector: str, size: int | str) -> Figures:
    """Seconds of each stage of a fit at that *size*, by the code of that checkout."""
    with tempfile.TemporaryDirectory() as folder:
        kind = "evaluated" if (data / "test").is_dir() else "fitted"
        words = [detector, str(data), str(Path(folder) / "run"), kind, "{}", "{}", json.dumps(size)]
        found = staged(checkout, words, Path(folder))
    return found | {"all": sum(found.values())}


def staged(checkout: Path, words: list[str], folder: Path, **more: str) -> Figures:
    """What stages.py tells by the code of *checkout*, started in *folder* with *more* in its environment."""
    command, here = [sys.executable, str(HERE / "stages.py"), *words], environment(PYTHONPATH=str(checkout), **more)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=here)
    return dict(json.loads(done.stdout))


def page(found: dict[str, Any]) -> str:
    """results/speed.md."""
    parts = [text for name, entry in found.items() for text in (f"## {name}", *section(name, entry))]
    return joined("# Where the time goes", *(parts or ["Not measured."]))


def section(name: str, entry: dict[str, Any]) -> tuple[str, str]:
    """What is said of one part, and its table."""
    if name not in ROWS:
        return told(name, entry), table(entry["rounds"])
    found, heads = entry["rows"], ROWS[name]
    lines = [[figure(row.get(key)) for key in heads] for row in found]
    said = SAID[name].format(**spread(found), rounds=entry.get("asked"))
    return wrapped(said), markdown(tuple(heads.values()), lines)


def spread(found: list[dict[str, Any]]) -> dict[str, float]:
    """Of real over predicted: the least, the middle and the most; of rows that have neither, 1."""
    ratios = [row["real"] / row["predicted"] for row in found if "real" in row] or [1.0]
    return {"low": min(ratios), "middle": float(np.median(ratios)), "high": max(ratios)}


def figure(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.3g}"
    return str(value)


def told(name: str, entry: dict[str, Any]) -> str:
    counted = ALL_CORES.format(of=CLOCKED[name]) if name in CLOCKED else SECONDS
    of = {"rounds": said(len(entry["rounds"]["now"])), "before": entry["before"] or "not measured"}
    return wrapped(f"{counted} {ABOUT.format(**of)}")


def said(rounds: int) -> str:
    return "One round" if rounds == 1 else f"Medians of {rounds} rounds"


def table(rounds: dict[str, list[Figures]]) -> str:
    """A row for each thing that was measured."""
    return markdown(HEAD, [line(what, rounds) for what in rounds["now"][0]])


def line(what: str, rounds: dict[str, list[Figures]]) -> list[str]:
    now, before = ([one.get(what, 0.0) for one in rounds.get(side, [])] for side in ("now", "before"))
    if not before:
        return [what, f"{np.median(now):.2f}", "-", "-"]
    return [what, f"{np.median(now):.2f}", f"{np.median(before):.2f}", compared(before, now)]


def compared(before: list[float], now: list[float]) -> str:
    """The ratio, with its interval where there are rounds enough; none of what takes no time to speak of."""
    if min(*now, *before) < 0.01:
        return "-"
    middle, low, high = ratio(before, now)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})" if len(now) > 2 else f"{middle:.2f}"
