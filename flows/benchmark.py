"""The nightly benchmark: ``dvc repro`` in a process of its own, and nightly compaction of the score log."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from components.core.errors import StageError
from components.core.progress import show_logs
from components.pipeline.cells import Cell
from components.pipeline.monitoring import tidied
from components.pipeline.params import Params, load_params, matrix
from components.pipeline.stages import Stages
from flows.fan import fan_out

OF_A_CELL = ("train", "calibrate", "evaluate", "export")  # the stages of dvc.yaml that a run of a pool makes


@task
def reproduce(*targets: str) -> None:
    """Only one DVC command at a time: its lock is repository-wide."""
    dvc("repro", *targets)


def dvc(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True)
    if done.returncode:
        raise StageError(f"dvc {words[0]}: {done.stderr.strip().splitlines()[-1:]}; run it by hand to see more")
    return done.stdout


def spread(params: Params, params_file: Path) -> None:
    """The benchmark with its trainings in work pools: what DVC finds changed is made there and handed to DVC.

    Raises StageError behind all others where some failed.
    """
    reproduce("synthesise")
    changed = json.loads(dvc("status", "--json"))
    runs = params.benchmark.runs or matrix(params.benchmark)
    stale = {key: run for key, run in runs.items() if any(f"{stage}@{key}" in changed for stage in OF_A_CELL)}
    cells = {key: Cell(Stages(params, run.view), run.detector, params_file) for key, run in stale.items()}
    failed = fan_out(params, list(cells.values())) if cells else {}
    made = [f"{stage}@{key}" for key, cell in cells.items() if cell.name not in failed for stage in OF_A_CELL]
    if made:
        dvc("commit", "--force", *made)
    if failed:
        raise StageError("; ".join(f"{name}: {why}" for name, why in failed.items()))


@task
def publish(out: Path) -> Path:
    """The benchmark report of the stored results in *out*, and as an artefact; the page of the checkout stays."""
    words = ["-m", "benchmarks", "report", "--docs", str(out), "--html", str(out)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        raise StageError(f"loupe bench report: {done.stderr.strip().splitlines()[-1:]}; run it by hand to see more")
    create_markdown_artifact((out / "README.md").read_text(), key="benchmark-report")
    return out / "index.html"


@task(retries=2, retry_delay_seconds=[2, 10])
def tidy(params: Params, at: datetime) -> tuple[int, int]:
    return tidied(params, at)


@flow(name="benchmark", log_prints=False)
def benchmark(params_file: Path = Path("params.yaml")) -> None:
    """Bring every benchmark figure up to date, and join the small objects of past days."""
    show_logs()
    params = load_params(params_file)
    joined, gone = tidy(params, datetime.now(UTC))
    get_run_logger().info("score log: %d objects joined, %d of old days removed", joined, gone)
    if Path("dvc.yaml").exists():
        spread(params, params_file) if params.pipeline.pools else reproduce()
    if Path("benchmarks/results").exists():  # in a checkout
        get_run_logger().info("report in %s", publish(Path(params.artefacts) / "report"))
