"""The figures of results/fit.json: ``python -m benchmarks.table`` writes results/fit.md and results/curves.png."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from components.artefacts import read_json

RESULTS = Path(__file__).parent / "results"
HEAD = ("view", "detector", "image AUROC", "95 %", "AP", "F1-max", "pixel AUROC", "pixel AP", "AUPRO 0.3",
        "false alarms", "misses", "train s", "fit command s", "peak MiB")  # fmt: skip


def main() -> None:
    lines = [f"| {' | '.join(HEAD)} |", f"| {' | '.join('---' for _ in HEAD)} |"]
    lines += [f"| {' | '.join(cells(*name.split('/'), entry))} |" for name, entry in sorted(results().items())]
    (RESULTS / "fit.md").write_text("\n".join(lines) + "\n")
    curves()


def curves() -> None:
    """Training curves of the methods that have epochs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, entry in sorted(results().items()):
        steps = [record for record in entry["history"] if "loss" in record]
        if steps:
            left.plot([r["loss"] for r in steps], label=name)
            right.plot([r["synthetic_auroc"] for r in steps], label=name)
    left.set(xlabel="epoch", ylabel="loss on fit normals")
    right.set(xlabel="epoch", ylabel="image AUROC on synthetic anomalies")
    right.legend()
    figure.savefig(RESULTS / "curves.png", dpi=90, metadata={"Software": None})


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
