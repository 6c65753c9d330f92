"""FastFlow's taps and scoring rule by synthetic anomalies alone: ``python -m benchmarks.choose``.

Six epochs of preset cpu, seed 0, per candidate; the figure is the AUROC between calibrate normals and synthetic
anomalies. No test image is read. Written to benchmarks/results/choose.md.
"""

import subprocess
import sys
from pathlib import Path

from components.registry.register import synthetic_score

CANDIDATES = (([1, 2, 3], 0.0), ([2, 3, 4], 0.0), ([2, 3, 4], 0.005), ([3, 4], 0.005))
CHOSEN = {
    "elpv-mono": ["data/elpv", "--adapter", "elpv", "--group", "mono"],
    "screw": ["data/mvtec_ad_screw"],
}
OUT = Path(__file__).parent / "results" / "choose.md"


def main() -> None:
    lines = [f"| taps | top | {' | '.join(CHOSEN)} |", f"| --- | --- | {' | '.join('---' for _ in CHOSEN)} |"]
    for taps, top in CANDIDATES:
        figures = [f"{synthetic(view, taps, top):.3f}" for view in CHOSEN]
        lines.append(f"| {', '.join(map(str, taps))} | {top} | {' | '.join(figures)} |")
        OUT.write_text("\n".join(lines) + "\n")


def synthetic(view: str, taps: list[int], top: float) -> float:
    run = Path("runs/choose") / f"{view}-{'-'.join(map(str, taps))}-{top}"
    sets = [f"backbone.taps={taps}", f"top={top}", "epochs=6"]
    command = [sys.executable, "-m", "components.cli", "fit", "fastflow", "--data", *CHOSEN[view], "--out", str(run)]
    subprocess.run([*command, *(part for s in sets for part in ("--set", s))], check=True, stdout=subprocess.DEVNULL)
    return synthetic_score(run)


if __name__ == "__main__":
    main()
