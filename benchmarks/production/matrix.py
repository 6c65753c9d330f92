"""``dvc repro`` over the matrix of params.yaml: one broken cell stops no other, and is told with its log.

A cell is a detector on a view. Stages that are up to date are left alone, so a killed run goes on where it was and a
second one does nothing. Each stage's output goes to runs/matrix/STAGE.log. The last words are a table: what each cell
took, and which failed, where and why. Exit status 1 if any did. --views and --detectors spell the matrix out in
params.yaml first (``benchmark``), with the rest of that file and its comments as they are. --seeds runs the matrix once
for each seed, that of params.yaml last, and tells the image AUROC of each cell over the seeds.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common.runner import options
from benchmarks.common.tables import markdown
from benchmarks.production.seeds import keep, over, seeds_of, table
from components.core.checks import check_known
from components.core.errors import LoupeError, SettingsError
from components.datasets.adapters import adapter
from components.detectors.catalogue import CATALOGUE, detector_class, parted

PARAMS = Path("params.yaml")
LOGS = Path("runs/matrix")
BEGINS, PASSED, SKIPPED = "Running stage '", "Stage '", "WARNING: Stage '"
FAILED = "failed to reproduce '"
HEAD = ("cell", "state", "seconds", "log")


def main(arguments: list[str]) -> None:
    parser = options("matrix", __doc__)
    parser.add_argument("--views", metavar="A,B", help="views of params.yaml; those of the matrix unless given")
    parser.add_argument("--detectors", metavar="A,B", help="names of `loupe detectors`, or all")
    parser.add_argument("--seeds", metavar="0,1,2", help="a run for each; that of params.yaml unless given")
    parser.add_argument("--write", action="store_true", help="write params.yaml and run nothing")
    asked = parser.parse_args(arguments)
    if asked.views or asked.detectors:
        written(asked.views, asked.detectors)
    if asked.write:
        return
    failed = of_seeds(seeds_of(asked.seeds)) if asked.seeds else once().failed
    if failed:
        raise LoupeError(f"{len(failed)} stages failed, as said above; mend what they say and run this again")


def once() -> "Ran":
    """One run of the matrix, and its table."""
    ran = repro(cells())
    sys.stdout.write(ran.table())
    if ran.code and not ran.failed:
        raise LoupeError(f"dvc repro ended with status {ran.code} before a stage began; it says why above")
    return ran


def of_seeds(seeds: list[int]) -> list[str]:
    """A run for each seed and a table over all; the stages that failed."""
    failed: list[str] = []

    def whole() -> list[str]:
        ran = once()
        failed.extend(ran.failed)
        return ran.whole()

    found = over(seeds, PARAMS, whole)
    sys.stdout.write(f"{table(found, seeds)}\n")
    keep(found, LOGS / "seeds.json")
    return failed


def written(views: str | None, detectors: str | None) -> None:
    """Spell the matrix out in params.yaml, whose other lines stay. Raises SettingsError for an unknown name."""
    text = PARAMS.read_text()
    values = yaml.safe_load(text)
    known = values["benchmark"]
    wanted = views.split(",") if views else known["views"]
    made = spell(values, wanted, _named(values, wanted, detectors) if detectors else known["detectors"])
    PARAMS.write_text(with_settings(with_section(text, made), values, made["detectors"]))


def _named(values: dict[str, Any], views: list[str], text: str) -> list[str]:
    """*text* as names; ``all`` leaves out what looks at clips, of which views of single pictures have none."""
    if text != "all":
        return text.split(",")
    frames = all(adapter(values["data"][values["views"][view]["data"]]["adapter"]).clips for view in views)
    return [name for name in CATALOGUE if frames or not detector_class(name).clips]


def with_section(text: str, made: dict[str, Any]) -> str:
    """*text* with the values of ``benchmark`` replaced; comments behind its keys stay."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("benchmark:"))
    end = next((i for i, line in enumerate(lines) if i > first and line[:1] not in (" ", "#")), len(lines))
    notes = {key: _note(line) for line in lines[first:end] for key in made if line.startswith(f"  {key}:")}
    body: list[str] = []
    for key, value in made.items():
        note = notes.get(key, "")
        if key == "runs":
            body += [f"  {key}:{note}", *(f"    {name}: {_flow(run)}" for name, run in value.items())]
        else:
            body.append(f"  {key}: {_flow(value)}{note}")
    return "\n".join([*lines[: first + 1], *body, *lines[end:]]) + "\n"


def with_settings(text: str, values: dict[str, Any], detectors: Iterable[str]) -> str:
    """A line of settings for each detector that has none, behind that of its method: DVC asks for the key."""
    for name in set(detectors) - set(values["train"]["detectors"]):
        text = re.sub(rf"(?m)^(    {parted(name)[0]}:.*)$", rf"\1\n    {name}: {{}}", text, count=1)
    return text


def _note(line: str) -> str:
    return f" #{line.partition(' #')[2]}" if " #" in line else ""


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).strip()


def spell(values: dict[str, Any], views: Iterable[str], detectors: Iterable[str]) -> dict[str, Any]:
    """The section ``benchmark`` of these views and detectors, as dvc.yaml loops over it."""
    views, detectors = list(views), list(detectors)
    for view in views:
        check_known(view, values["views"], f"{PARAMS}: views")
        if "data" not in values["views"][view]:
            raise SettingsError(f"{view}: is made of several views; dvc.yaml has stages for those of one data set")
    for name in detectors:
        check_known(parted(name)[0], CATALOGUE, "loupe bench matrix")
    sources = {view: values["views"][view]["data"] for view in views}
    return {
        "views": views,
        "detectors": detectors,
        "sources": sources,
        "data": {data: view for view, data in reversed(sources.items())},
        "runs": {
            f"{view}-{name.replace('@', '-')}": {"view": view, "detector": name, "method": parted(name)[0]}
            for view in views
            for name in detectors
        },
    }


def cells() -> list[str]:
    """The names of the matrix's cells, which DVC puts behind the @ of a stage."""
    return list(yaml.safe_load(PARAMS.read_text())["benchmark"]["runs"])


@dataclass
class Ran:
    """What DVC said: its exit status, seconds by stage, and the stages that failed or wait for one that did."""

    cells: list[str]
    code: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def table(self) -> str:
        """A line for each cell, and one for each failed stage of what stands before them."""
        before = [name for name in self.failed if name.partition("@")[2] not in self.cells]
        lines = [*(self._line(name, [name]) for name in before), *(self._line(c, self._of(c)) for c in self.cells)]
        return f"{markdown(HEAD, lines)}\n{sum(self.seconds.values()):.0f} s in all\n"

    def whole(self) -> list[str]:
        """The cells of which no stage failed or waits."""
        broken = {name.partition("@")[2] for name in (*self.failed, *self.skipped)}
        return [cell for cell in self.cells if cell not in broken]

    def _of(self, cell: str) -> list[str]:
        known = {*self.seconds, *self.failed, *self.skipped}
        return sorted(name for name in known if name.partition("@")[2] == cell)

    def _line(self, cell: str, stages: list[str]) -> list[str]:
        spent = f"{sum(self.seconds.get(name, 0.0) for name in stages):.0f}"
        if broken := [name for name in stages if name in self.failed]:
            return [cell, f"failed: {reason(log_of(broken[0]))}", spent, str(log_of(broken[0]))]
        waits = [name for name in stages if name in self.skipped]
        return [cell, "waits for a failed stage" if waits else "done" if stages else "up to date", spent, "-"]


def repro(names: list[str]) -> Ran:
    """Run DVC to its end; what it says goes on to the terminal and, stage by stage, to files."""
    words = [sys.executable, "-m", "dvc", "repro", "--keep-going"]
    # The stages' own `python` is that of this environment, whether it was activated or not.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    LOGS.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PATH": path}
    )
    assert process.stdout is not None
    ran = followed(process.stdout, Ran(names))
    ran.code = process.wait()
    return ran


def followed(lines: Iterable[str], ran: Ran) -> Ran:
    """Take the lines of ``dvc repro`` apart."""
    for stage, line, seconds in staged(lines):
        sys.stderr.write(line)
        if stage:
            ran.seconds[stage] = seconds
            with log_of(stage).open("a") as log:
                log.write(line)
        if line.startswith(SKIPPED):
            ran.skipped.append(line.removeprefix(SKIPPED).partition("'")[0])
        if FAILED in line:
            ran.failed += [part.partition("'")[0] for part in line.split(FAILED)[1:]]
    return ran


def staged(lines: Iterable[str]) -> Iterator[tuple[str, str, float]]:
    """Each line with the stage that it is of, "" before the first, and for how long that stage has run."""
    stage, started = "", time.monotonic()
    for line in lines:
        if line.startswith(BEGINS):
            stage, started = line.removeprefix(BEGINS).partition("'")[0], time.monotonic()
            log_of(stage).unlink(missing_ok=True)
        elif line.startswith(PASSED):  # of another stage, behind the end of this one
            stage, started = "", time.monotonic()
        yield stage, line, time.monotonic() - started


def log_of(stage: str) -> Path:
    return LOGS / f"{stage}.log"


def reason(log: Path) -> str:
    """The last words of the stage itself; what DVC says behind them is of the command and its exit status."""
    said = [line.strip() for line in log.read_text().splitlines() if line.strip()] if log.exists() else []
    own = [line for line in said if not line.startswith(("WARNING: ", "ERROR: ", BEGINS, "> "))]
    return (own or ["see its log"])[-1].replace("|", "/")
