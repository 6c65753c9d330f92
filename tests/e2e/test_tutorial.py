"""docs/tutorial.md from its first command to its last, as somebody types them; at preset tiny, on small pictures."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from benchmarks.common.site import free_port
from benchmarks.production import walk
from benchmarks.production.walk import BACKGROUND, NOT_RUN, PAGE
from tests.conftest import tile

PROJECT = Path(__file__).parents[2]


def blocks() -> list[tuple[str, str]]:
    """What stands behind the language of each block, and its commands."""
    return [(part.mark, part.commands) for part in walk.parts()]


@pytest.fixture
def desk(tmp_path):
    """The two folders that the page begins with, and defects that were found; `loupe` is of these sources."""
    for folder, seeds in {"camera": range(40), "today": range(100, 104), "found/good": range(110, 114)}.items():
        (tmp_path / folder).mkdir(parents=True)
        for number, seed in enumerate(seeds, 1):
            Image.fromarray(tile(seed)).save(tmp_path / folder / f"{number:03d}.png")
    (tmp_path / "found/scratch").mkdir()
    for number in range(4):
        scratched = tile(120 + number)
        scratched[30:50, 20:44] = 250
        Image.fromarray(scratched).save(tmp_path / "found/scratch" / f"{number}.png")
    Image.fromarray(scratched).save(tmp_path / "today/bad.png")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/loupe").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m components.cli "$@"\n')
    (tmp_path / "bin/loupe").chmod(0o755)
    return tmp_path


def typed(commands: str, port: int) -> str:
    """The page's words but for the preset, an alpha that needs no folds, and the port, which another may have."""
    commands = commands.replace(
        "fit patchcore", "fit patchcore --preset tiny --alpha 0.2 --set=evaluation.bootstrap=20"
    )
    return commands.replace("8000", str(port)).replace("--alpha 0.03", "--alpha 0.25")


def environment(desk: Path) -> dict[str, str]:
    path = f"{desk / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT), "no_proxy": "127.0.0.1"}


@pytest.mark.slow
def test_the_commands_of_the_page_lead_from_a_camera_folder_to_a_served_model(desk, record_property):
    port, here, said, service = free_port(), desk, [], None
    first = walk.wanted(walk.parts(), setup=False)
    laps = walk.walked(first, desk, environment(desk), lambda commands: typed(commands, port))
    record_property("seconds by step", json.dumps({lap.step: [round(lap.seconds, 1), lap.busy] for lap in laps}))
    assert [lap.step[:2] for lap in laps] == ["1.", "2.", "3.", "4."]
    assert min(lap.seconds for lap in laps) > 0
    assert len((desk / "today.csv").read_text().splitlines()) == 1 + 5
    try:
        for mark, commands in blocks()[len(first) + 1 :]:  # 1: the set-up
            if mark.startswith(NOT_RUN):
                continue
            shell = ["sh", "-e", "-c", f"{typed(commands, port)}\necho\npwd"]
            if mark == BACKGROUND:
                words = typed(commands, port).split()
                service = subprocess.Popen([desk / "bin" / words[0], *words[1:]], cwd=here, env=environment(desk))
                wait_for(port)
                continue
            done = subprocess.run(shell, cwd=here, env=environment(desk), capture_output=True, text=True)
            assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
            said.append(done.stdout)
            here = Path(done.stdout.splitlines()[-1])
    finally:
        if service:
            service.terminate()
            service.wait(30)
    assert '"decision"' in "".join(said)  # of curl
    table = pd.read_csv(desk / "today.csv").set_index("image_id")
    assert table["score"].idxmax() == "today/bad.png"
    assert table.loc["today/bad.png", "decision"] == "anomalous"
    assert "Other labelled pictures" in (desk / "runs/photos/report.html").read_text()
    assert len(list((desk / "today-heat").iterdir())) == 5
    assert here.name == "plant"
    assert (here / "data/housings.dvc").exists()


def wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the service does not answer")


def test_what_is_not_run_says_why_and_every_step_is_a_block():
    marks = [mark for mark, _ in blocks()]
    assert len(marks) >= 9
    assert [
        mark for mark in marks if mark not in ("", BACKGROUND) and not re.fullmatch(f"{NOT_RUN} .{{10,}}", mark)
    ] == []
    steps = re.findall(r"^## \d+\. ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(steps) == 8
