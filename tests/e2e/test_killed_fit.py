"""``loupe fit`` killed with SIGKILL half way and run again ends with the weights of an unbroken run."""

import os
import signal
import subprocess
import sys
import time

from components.core.artefacts import tree_hash

EPOCHS = 12


def command(product, out):
    return [
        sys.executable,
        "-m",
        "components.cli",
        "fit",
        "fastflow",
        "--data",
        product,
        "--out",
        out,
        "--preset",
        "tiny",
        "--alpha",
        "0.2",
        "--set",
        f"epochs={EPOCHS}",
        "--checkpoint-every",
        "0.01",
    ]


def test_resumed_run_ends_with_the_same_weights(product, tmp_path):
    subprocess.run(command(product, tmp_path / "whole"), check=True, capture_output=True)
    position = tmp_path / "cut/work/run/fastflow/.model.checkpoint/position.json"
    process = subprocess.Popen(command(product, tmp_path / "cut"), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not position.exists() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert position.exists()
    assert not (tmp_path / "cut" / "model").exists()
    again = subprocess.run(command(product, tmp_path / "cut"), check=True, capture_output=True, text=True)
    assert "resumes at" in again.stderr
    assert tree_hash(tmp_path / "cut/model/model.safetensors") == tree_hash(tmp_path / "whole/model/model.safetensors")
    assert not position.parent.exists()
