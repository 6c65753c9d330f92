"""``loupe fit`` killed with SIGKILL half way and run again ends with the weights of an unbroken run."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from components.core.artefacts import tree_hash

EPOCHS = 12
BELOW = Path("work/run/fastflow")
MODEL, POSITION = BELOW / "model" / "model.safetensors", BELOW / ".model.checkpoint" / "position.json"


def begun(out: Path) -> bool:
    return (out / POSITION).exists()


def trained(out: Path) -> bool:
    """The checkpoint goes behind the model's coming."""
    return (out / MODEL).exists() and not (out / POSITION).parent.exists()


def fit_until(product: Path, out: Path, reached: Callable[[Path], bool]) -> str:
    """Run the command until *reached* and kill it; returns what it said. What follows is not looked at."""
    command = [sys.executable, "-m", "components.cli", "fit", "fastflow", "--data", product, "--out", out]
    options = ["--preset", "tiny", "--alpha", "0.2", "--set", f"epochs={EPOCHS}", "--checkpoint-every", "0.01"]
    with (out.parent / "said").open("w") as said:
        process = subprocess.Popen([*command, *options], stdout=said, stderr=said)
    end = time.monotonic() + 240
    while not reached(out) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (out.parent / "said").read_text()
    assert reached(out)
    return (out.parent / "said").read_text()


def test_resumed_run_ends_with_the_same_weights(product, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert "resumes at" not in fit_until(product, whole, trained)
    shutil.copytree(whole, cut)  # what comes before the training is the same and need not be made twice
    shutil.rmtree(cut / BELOW)
    fit_until(product, cut, begun)
    assert not (cut / MODEL).exists()
    assert "resumes at" in fit_until(product, cut, trained)
    assert tree_hash(cut / MODEL) == tree_hash(whole / MODEL)
