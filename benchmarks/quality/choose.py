"""Which taps and scoring rule of FastFlow synthetic anomalies prefer.

Six epochs of preset cpu, seed 0, per candidate; the figure is the AUROC between calibrate normals and synthetic
anomalies. No test image is read. Written to benchmarks/results/choose.md.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.common.results import RESULTS
from benchmarks.common.runner import options
from benchmarks.common.tables import markdown
from components.registry.choice import synthetic_score

CANDIDATES = (([1, 2, 3], 0.0), ([2, 3, 4], 0.0), ([2, 3, 4], 0.005), ([3, 4], 0.005))
CHOSEN = {
    "elpv-mono": ["data/elpv", "--adapter", "elpv", "--group", "mono"],
    "screw": ["data/mvtec_ad_screw"],
}
OUT = RESULTS / "choose.md"


def main(arguments: list[str]) -> None:
    options("choose", __doc__).parse_args(arguments)
    lines: list[list[str]] = []
    for taps, top in CANDIDATES:
        figures = [f"{synthetic(view, taps, top):.3f}" for view in CHOSEN]
        lines.append([", ".join(map(str, taps)), str(top), *figures])
        OUT.write_text(markdown(("taps", "top", *CHOSEN), lines) + "\n")


def synthetic(view: str, taps: list[int], top: float) -> float:
    run = Path("runs/choose") / f"{view}-{'-'.join(map(str, taps))}-{top}"
    sets = [f"backbone.taps={taps}", f"top={top}", "epochs=6"]
    command = [sys.executable, "-m", "components.cli", "fit", "fastflow", "--data", *CHOSEN[view], "--out", str(run)]
    subprocess.run([*command, *(part for s in sets for part in ("--set", s))], check=True, stdout=subprocess.DEVNULL)
    return synthetic_score(run)
