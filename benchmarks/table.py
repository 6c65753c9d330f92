"""The figures of results/fit.json as a table: ``python -m benchmarks.table`` writes results/fit.md."""

from pathlib import Path
from typing import Any

from components.artefacts import read_json

RESULTS = Path(__file__).parent / "results"
HEAD = ("view", "detector", "image AUROC", "95 %", "AP", "F1-max", "pixel AUROC", "pixel AP", "AUPRO 0.3",
        "false alarms", "misses", "train s", "fit command s", "peak MiB")  # fmt: skip


def main() -> None:
    lines = [f"| {' | '.join(HEAD)} |", f"| {' | '.join('---' for _ in HEAD)} |"]
    lines += [f"| {' | '.join(cells(*name.split('/'), entry))} |" for name, entry in sorted(results().items())]
    (RESULTS / "fit.md").write_text("\n".join(lines) + "\n")


def results() -> dict[str, Any]:
    return dict(read_json(RESULTS / "fit.json"))


def cells(view: str, detector: str, entry: dict[str, Any]) -> list[str]:
    overall, seconds = entry["overall"], entry["seconds"]
    image, pixel = overall["image"], overall["pixel"]
    interval = " to ".join(f"{v:.3f}" for v in image["interval"]["auroc"])
    return [
        view, detector, f"{image['auroc']:.3f}", interval, f"{image['ap']:.3f}", f"{image['f1_max']:.3f}",
        *(f"{pixel[k]:.3f}" if k in pixel else "no masks" for k in ("auroc", "ap", "aupro")),
        *(f"{overall[k]['rate']:.3f}" for k in ("false_alarm_rate", "miss_rate")),
        f"{seconds['train']:.0f}", f"{seconds['whole fit command']:.0f}", str(entry["peak_memory_mb"]),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
