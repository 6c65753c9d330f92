"""What a GPU buys: ``python -m benchmarks.accelerator [--jobs N] [--within S] [VIEW/DETECTOR[/LABEL] ...]``.

Preset ``cpu``, seed 0, trained on the GPU by the one loop: seconds beside those of one CPU thread (results/fit.json);
and, for the methods that segment, what larger networks, more kinds of anomaly and more of them would give (ASKED). Test
labels are read at the end and choose nothing; *synthetic pixel AP* is what a site could choose a map by. Trainings run
as processes beside each other, so that seconds are upper bounds. None is started after S seconds. --report writes
results/accelerator.md from results/accelerator.json.
"""

import argparse
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.fit import stored
from benchmarks.more import PUBLISHED, changed, measured, quality
from benchmarks.studies import Overrides, label
from benchmarks.table import markdown
from benchmarks.variant import KEPT, View, apart, scored
from components.core.artefacts import read_json, write_json
from components.detectors.catalogue import CATALOGUE, settings_for
from components.evaluation.metrics import pixel_metrics

RESULTS = Path(__file__).parent / "results"
LOCK = threading.Lock()
KINDS = [  # none of them in the mixture that epochs are chosen by
    "heterologous", "homologous", "confetti", "smudge", "spot_defect", "line_defect", "texture_defect",
    "natural_blended",
]  # fmt: skip
SIMULATED: Overrides = {"strategies": ["heterologous", "homologous"]}  # what their publications have
LARGE_DSR = {
    "size": 256, "width": 64, "inner": 32, "words": 1024, "restriction": 64, "decoder": 64,
    "detection": [32, 64, 128], "upsampling": [32, 64, 128], "box": 21,
}  # fmt: skip
ASKED: dict[str, tuple[Overrides, ...]] = {f"mtd/{name}": ({},) for name in CATALOGUE} | {
    "mtd/prn": (
        {},
        SIMULATED,
        {**SIMULATED, "copies": 12, "epochs": 1},
        {**SIMULATED, "copies": 12, "epochs": 6, "batch_size": 16},
        {"strategies": KINDS, "copies": 12, "epochs": 1},
        {"strategies": KINDS, "copies": 12, "epochs": 6, "batch_size": 16},
    ),
    "mtd/sgsf": (
        {},
        PUBLISHED,
        {**PUBLISHED, "copies": 15, "epochs": 2},
        {**PUBLISHED, "strategies": KINDS, "copies": 15, "epochs": 2},
    ),
    "mtd/dsr": ({}, {"epochs": [12, 48, 12]}, {**LARGE_DSR, "epochs": [10, 30, 6]}),
}
ABOUT = """*Changed* is on top of the preset. Trainings shared the card and its host, so that seconds are upper
bounds. *Synthetic*: what a site could choose by; test labels choose nothing."""
HEAD = (
    "view", "detector", "changed", "image AUROC (95 %)", "pixel AP", "synthetic AUROC", "synthetic pixel AP", "GPU s",
    "s on one CPU thread",
)  # fmt: skip


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.accelerator")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--within", type=float, default=float("inf"), help="seconds after which none is started")
    parser.add_argument("--out", type=Path, default=RESULTS / "accelerator.json")
    parser.add_argument("--train", metavar="VARIANT", help="one training in this process, by its name")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("names", nargs="*", default=list(ASKED))
    asked = parser.parse_args(arguments)
    if asked.train:
        run(asked.train)
        return
    if not asked.report:
        deadline = time.monotonic() + asked.within
        wanted = [v for name in asked.names for v in variants() if f"{v}/".startswith(f"{name}/")]
        with ThreadPoolExecutor(asked.jobs) as pool:
            list(pool.map(lambda v: record(v, asked.out, deadline), wanted))
    (asked.out.parent / "accelerator.md").write_text(page(stored(asked.out)))


def variants() -> dict[str, Overrides]:
    """All that is asked about, by VIEW/DETECTOR/LABEL."""
    return {f"{name}/{label(overrides)}": overrides for name, asked in ASKED.items() for overrides in asked}


def _made(variant: str) -> Path:
    return KEPT / f"accelerator-{variant.replace('/', '-')}.json"


def record(variant: str, out: Path, deadline: float) -> None:
    """One training in a process of its own; its entry goes to *out* at once."""
    if time.monotonic() > deadline:
        sys.stderr.write(f"{variant}: not started, the time is over\n")
        return
    if not apart("accelerator", "--train", variant):
        return
    entry = read_json(_made(variant))
    with LOCK:
        write_json(out, stored(out) | {variant: entry})
    sys.stderr.write(f"{variant}: {', '.join(quality(entry))}, {entry['wall']:.0f} s\n")


def run(variant: str) -> None:
    name = variant.rpartition("/")[0]
    view_name, _, kind = name.partition("/")
    started = time.monotonic()
    entry, made = measured(name, settings_for(kind, "cpu", variants()[variant]))
    wall = round(time.monotonic() - started, 1)
    forged, masks = View.of(view_name).made()
    maps = scored(made, made.inputs(forged))[1]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    about = {"synthetic_pixel_ap": pixel_metrics(masks, maps)["ap"], "wall": wall, "hardware": device}
    write_json(_made(variant), {**entry, **about})


def page(found: dict[str, Any]) -> str:
    """results/accelerator.md."""
    known, devices = stored(RESULTS / "fit.json"), {entry["hardware"] for entry in found.values()}
    lines = [_cells(variant, entry, known) for variant, entry in sorted(found.items())]
    head = f"Preset `cpu`, seed 0, test split, trained on {' or '.join(sorted(devices))}."
    return f"# On a GPU\n\n{head} {ABOUT}\n\n{markdown(HEAD, lines)}\n"


def _cells(variant: str, entry: dict[str, Any], known: dict[str, Any]) -> list[str]:
    view, detector, what = variant.split("/", 2)
    cpu = f"{known[f'{view}/{detector}']['seconds']['train']:.0f}" if what == "full" else "-"
    made = f"{entry['synthetic_pixel_ap']:.3f}"
    return [view, detector, changed(what), *quality(entry), made, f"{entry['wall']:.0f}", cpu]


if __name__ == "__main__":
    main(sys.argv[1:])
