"""The nightly benchmark: ``dvc repro`` in a process of its own, and nightly compaction of the score log."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from components.core.errors import StageError
from components.pipeline.monitoring import tidied
from components.pipeline.params import Params, load_params


@task
def reproduce() -> None:
    """Only one DVC command at a time: its lock is repository-wide."""
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], capture_output=True, text=True)
    if done.returncode:
        raise StageError(f"dvc repro: {done.stderr.strip().splitlines()[-1:]}; run it by hand to see more")


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
    params = load_params(params_file)
    joined, gone = tidy(params, datetime.now(UTC))
    get_run_logger().info("score log: %d objects joined, %d of old days removed", joined, gone)
    if Path("dvc.yaml").exists():
        reproduce()
    if Path("benchmarks/results").exists():  # in a checkout
        get_run_logger().info("report in %s", publish(Path(params.artefacts) / "report"))
