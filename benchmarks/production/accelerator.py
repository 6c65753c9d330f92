"""What a GPU buys: seconds of a training, and larger ones for the methods that segment.

Preset ``cpu``, seed 0, trained on the GPU by the one loop: seconds beside those of one CPU thread (results/fit.json);
and, for the methods that segment, what larger networks, more kinds of anomaly and more of them would give (ASKED). Test
labels are read at the end and choose nothing; *synthetic pixel AP* is what a site could choose a map by. Trainings run
as processes beside each other, so that seconds are upper bounds. Writes results/accelerator.json and accelerator.md.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.asked import SGSF_PUBLISHED, Overrides
from benchmarks.common.images import KEPT, View
from benchmarks.common.results import RESULTS, add, stored
from benchmarks.common.runner import apart, beside, options
from benchmarks.common.short import changed, kept_at, learned, quality, scored, variants
from benchmarks.common.tables import joined, markdown, wrapped
from components.core.artefacts import read_json, write_json
from components.detectors.catalogue import CATALOGUE, settings_for
from components.evaluation.metrics import pixel_metrics

KINDS = [  # none of them in the mixture that epochs are chosen by
    "heterologous",
    "homologous",
    "confetti",
    "smudge",
    "spot_defect",
    "line_defect",
    "texture_defect",
    "natural_blended",
]
SIMULATED: Overrides = {"strategies": ["heterologous", "homologous"]}  # what their publications have
LARGE_DSR = {
    "size": 256,
    "width": 64,
    "inner": 32,
    "words": 1024,
    "restriction": 64,
    "decoder": 64,
    "detection": [32, 64, 128],
    "upsampling": [32, 64, 128],
    "box": 21,
}
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
        SGSF_PUBLISHED,
        {**SGSF_PUBLISHED, "copies": 15, "epochs": 2},
        {**SGSF_PUBLISHED, "strategies": KINDS, "copies": 15, "epochs": 2},
    ),
    "mtd/dsr": ({}, {"epochs": [12, 48, 12]}, {**LARGE_DSR, "epochs": [10, 30, 6]}),
}
ABOUT = (
    "Preset `cpu`, seed 0, test split, trained on {devices}. *Changed* is on top of the preset. Trainings shared "
    "the card and its host, so that seconds are upper bounds; *CPU s* are those on one CPU thread. *Synthetic*: "
    "what a site could choose by; test labels choose nothing."
)
HEAD = (
    "view",
    "detector",
    "changed",
    "image AUROC (95 %)",
    "pixel AP",
    "synthetic AUROC",
    "synthetic pixel AP",
    "GPU s",
    "CPU s",
)


def main(arguments: list[str]) -> None:
    parser = options("accelerator", __doc__, jobs=True, report=True)
    parser.add_argument("--within", type=float, default=float("inf"), help="seconds after which none is started")
    parser.add_argument("--out", type=Path, default=RESULTS / "accelerator.json")
    parser.add_argument("--train", metavar="VARIANT", help="one training in this process, by its name")
    parser.add_argument("names", nargs="*", default=list(ASKED), metavar="VIEW/DETECTOR[/LABEL]")
    asked = parser.parse_args(arguments)
    if asked.train:
        run(asked.train)
        return
    if not asked.report:
        deadline = time.monotonic() + asked.within
        wanted = [v for name in asked.names for v in variants(ASKED) if f"{v}/".startswith(f"{name}/")]
        beside(asked.jobs, lambda v: record(v, asked.out, deadline), wanted)
    (asked.out.parent / "accelerator.md").write_text(page(stored(asked.out)))


def record(variant: str, out: Path, deadline: float) -> None:
    """One training in a process of its own; its entry goes to *out* at once."""
    if time.monotonic() > deadline:
        sys.stderr.write(f"{variant}: not started, the time is over\n")
        return
    if not apart("accelerator", "--train", variant, KEPT):
        return
    entry = read_json(kept_at("accelerator", variant))
    add(out, {variant: entry})
    sys.stderr.write(f"{variant}: {', '.join(quality(entry))}, {entry['wall']:.0f} s\n")


def run(variant: str) -> None:
    name = variant.rpartition("/")[0]
    view_name, _, kind = name.partition("/")
    started = time.monotonic()
    entry, made = learned(name, settings_for(kind, "cpu", variants(ASKED)[variant]))
    wall = round(time.monotonic() - started, 1)
    forged, masks = View.of(view_name).made()
    maps = scored(made, made.inputs(forged))[1]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    about = {"synthetic_pixel_ap": pixel_metrics(masks, maps)["ap"], "wall": wall, "hardware": device}
    write_json(kept_at("accelerator", variant), {**entry, **about})


def page(found: dict[str, Any]) -> str:
    """results/accelerator.md."""
    known, devices = stored(RESULTS / "fit.json"), {entry["hardware"] for entry in found.values()}
    shown, notes = changed((variant.split("/", 2)[2] for variant in found), 30)
    lines = [_cells(variant, entry, known, shown) for variant, entry in sorted(found.items())]
    about = wrapped(ABOUT.format(devices=" or ".join(sorted(devices))))
    return joined("# On a GPU", about, markdown(HEAD, lines), notes)


def _cells(variant: str, entry: dict[str, Any], known: dict[str, Any], shown: dict[str, str]) -> list[str]:
    view, detector, what = variant.split("/", 2)
    cpu = f"{known[f'{view}/{detector}']['seconds']['train']:.0f}" if what == "full" else "-"
    made = f"{entry['synthetic_pixel_ap']:.3f}"
    return [view, detector, shown[what], *quality(entry), made, f"{entry['wall']:.0f}", cpu]
