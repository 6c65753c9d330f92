"""The tutorial timed: its commands, copied from the page, from a bare clone to a scored folder of pictures.

A clone of this checkout's last commit is made in a new folder, the pictures are put beside its README, and one shell
gets the blocks of docs/tutorial.md up to `loupe score`, word by word. Seconds by the clock and of the processor.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.common.runner import options
from benchmarks.common.tables import markdown
from components.core.errors import StageError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/tutorial.md"
PARTS = re.compile(
    r"^## (?P<step>\d+\. [^\n]+)$|^```sh *(?P<mark>[^\n]*)\n(?P<commands>.*?)^```", re.MULTILINE | re.DOTALL
)
NOT_RUN, BACKGROUND, SETUP = "not-run:", "background", "make setup"
LAST = "4. Score new pictures"
DONE = "@@ walked @@"  # what the shell prints behind a block


class Part(NamedTuple):
    """A block of the page: the heading above it, what stands behind its language, its commands."""

    step: str
    mark: str
    commands: str


class Lap(NamedTuple):
    """A step of the page, and what its blocks took: seconds by the clock, and of the processor."""

    step: str
    seconds: float
    busy: float


def main(arguments: list[str]) -> None:
    parser = options("walk", __doc__)
    parser.add_argument("--camera", type=Path, required=True, help="good pictures, the page's folder `camera`")
    parser.add_argument("--today", type=Path, required=True, help="new pictures, the page's folder `today`")
    parser.add_argument("--programs", type=Path, help="where a loupe is that is ready; default: the clone's make setup")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        clone = cloned(Path(folder) / "loupe", asked.camera, asked.today)
        laps = walked(wanted(parts(), asked.programs is None), clone, environment(clone, asked.programs))
        scored = len((clone / "today.csv").read_text(encoding="utf-8").splitlines()) - 1
    told = [(lap.step, f"{lap.seconds:.1f}", f"{lap.busy:.1f}") for lap in laps]
    whole = ("all of it", f"{sum(lap.seconds for lap in laps):.1f}", f"{sum(lap.busy for lap in laps):.1f}")
    sys.stdout.write(f"{markdown(('step', 'seconds', 'of the processor'), [*told, whole])}\n")
    sys.stdout.write(f"{json.dumps({'scored': scored, 'seconds': float(whole[1]), 'busy': float(whole[2])})}\n")


def parts(text: str | None = None) -> list[Part]:
    """The blocks of the page in order, each with the step that it belongs to."""
    found, step = [], ""
    for match in PARTS.finditer(PAGE.read_text(encoding="utf-8") if text is None else text):
        step = match["step"] or step
        if match["commands"]:
            found.append(Part(step, match["mark"], match["commands"]))
    return found


def wanted(every: Sequence[Part], setup: bool) -> list[Part]:
    """The blocks up to the scored folder; that of the set-up only where there is no environment yet."""
    last = max(number for number, part in enumerate(every) if part.step == LAST)
    return [part for part in every[: last + 1] if not part.mark or (setup and part.commands.startswith(SETUP))]


def cloned(folder: Path, camera: Path, today: Path) -> Path:
    """A clone of the last commit of this checkout, with the pictures that the page begins with."""
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), folder], check=True)
    for name, pictures in {"camera": camera, "today": today}.items():
        shutil.copytree(pictures, folder / name)
    return folder


def environment(clone: Path, programs: Path | None) -> dict[str, str]:
    """That of a new terminal, in which the *programs* are found and the clone's modules."""
    if programs is None:
        return dict(os.environ)
    path = f"{programs.resolve()}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(clone)}


def walked(
    blocks: Sequence[Part], folder: Path, known: Mapping[str, str], typed: Callable[[str], str] = str
) -> list[Lap]:
    """Give the *blocks* to one shell in *folder*, as *typed* changes them. Raises StageError where one fails."""
    script = "\n".join(f"{typed(block.commands)}\nprintf '\\n{DONE}\\n'" for block in blocks)
    laps: dict[str, Lap] = {}
    with tempfile.TemporaryFile("w+") as log:
        shell = subprocess.Popen(
            ["sh", "-e", "-c", script], cwd=folder, env=known, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert shell.stdout is not None
        left, began, busy = list(blocks), time.perf_counter(), _busy(shell.pid)
        for line in shell.stdout:
            if line.strip() == DONE:
                now, used = time.perf_counter(), _busy(shell.pid)
                before = laps.get(left[0].step, Lap(left[0].step, 0.0, 0.0))
                laps[before.step] = Lap(before.step, before.seconds + now - began, before.busy + used - busy)
                left, began, busy = left[1:], now, used
        if shell.wait():
            log.seek(0)
            raise StageError(f"{left[0].step}: failed in {folder}: {log.read()[-2000:]}; mend the page or the command")
    return list(laps.values())


def _busy(shell: int) -> float:
    """Seconds of the processor of what a shell has waited for; 0 where the system does not tell (Linux does)."""
    try:
        fields = Path(f"/proc/{shell}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # own and children's, user and system
