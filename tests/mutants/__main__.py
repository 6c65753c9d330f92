"""``python -m tests.mutants [NAME ...]``: every broken source must make the test that it names fail.

One process imports the libraries, never what is broken, and forks for each mutant: a loader gives the child the changed
text in place of the file, and pytest runs the one test in it. Before that each named test has to pass as it is.
"""

import argparse
import contextlib
import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_loader
from pathlib import Path

import components  # noqa: F401  (the environment switches, before torch is imported)
from tests.mutants import LISTS, PROJECT, Mutant, MutantError, lists, mutants

LIBRARIES = (
    "torch torchvision timm kornia.filters kornia.metrics lightning_fabric pandas sklearn.cluster sklearn.metrics "
    "scipy.ndimage skimage safetensors.torch PIL.Image pytest"
)
LIMIT = 120  # seconds of one child; a mutant may make a loop endless
PASSED, FAILED, CRASHED, STUCK = 0, 1, 3, -signal.SIGALRM


class Changed(MetaPathFinder, SourceFileLoader):
    """Finds one module and gives it another text."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.module, str(PROJECT / mutant.file))
        self.text = mutant.source()

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname == self.name else None

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        return compile(self.text, self.get_filename(fullname), "exec")


class Verdicts:
    """A pytest plugin: whether a test failed because an assertion did, or because something could not even run."""

    def __init__(self) -> None:
        self.crashed = False

    def pytest_runtest_makereport(self, call) -> None:  # type: ignore[no-untyped-def]
        if call.excinfo and call.excinfo.typename not in ("AssertionError", "Failed", "Skipped"):
            self.crashed = True


@dataclass
class Child:
    """A forked pytest over *tests*, with *mutant* if there is one; what it prints goes to *output*."""

    label: str
    tests: list[str]
    mutant: Mutant | None
    output: Path
    status: int = 0
    seconds: float = 0.0

    def run(self) -> int:
        """In the child: pytest's exit status, or CRASHED."""
        import pytest

        signal.alarm(LIMIT)
        if self.mutant:
            sys.meta_path.insert(0, Changed(self.mutant))
        verdicts = Verdicts()
        quiet = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:unraisableexception", f"--basetemp={self.output}.tmp"]
        status = int(pytest.main([*quiet, *self.tests], plugins=[verdicts]))
        return CRASHED if status == FAILED and verdicts.crashed else status


def complaint(child: Child) -> str:
    """What is wrong with the outcome of *child*, one sentence; empty if nothing is."""
    wanted = FAILED if child.mutant else PASSED
    if child.status == wanted:
        return ""
    said = {
        PASSED: "survives; the test does not prove this point",
        FAILED: "a named test fails with the sources as they are",
        CRASHED: "ends in an exception that is no failed assertion; let it answer wrongly instead",
        STUCK: f"does not end in {LIMIT} seconds",
    }.get(child.status, f"pytest ends with status {child.status}; is there such a test?")
    return f"{child.label}: {said} ({', '.join(child.tests)})"


def forked(children: Iterable[Child], workers: int) -> Iterator[Child]:
    """All *children*, *workers* at a time, as they end."""
    running: dict[int, tuple[Child, float]] = {}
    for child in children:
        running[_started(child)] = child, time.monotonic()
        if len(running) == workers:
            yield _ended(running)
    while running:
        yield _ended(running)


def _started(child: Child) -> int:
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    status = 70
    try:
        with child.output.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            status = child.run()
            sys.stdout.flush()
    finally:
        os._exit(status)  # the parent's clean-up is not the child's


def _ended(running: dict[int, tuple[Child, float]]) -> Child:
    pid, status = os.wait()
    child, since = running.pop(pid)
    child.status, child.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - since
    return child


def plan(found: list[Mutant], folder: Path, plain: bool) -> Iterator[Child]:
    """First, if *plain*, the named tests as they are, a child per file; then a child per mutant."""
    files: dict[str, set[str]] = {}
    for mutant in found if plain else ():
        files.setdefault(mutant.test.partition("::")[0], set()).add(mutant.test)
    for number, (file, tests) in enumerate(sorted(files.items())):
        yield Child(file, sorted(tests), None, folder / f"plain{number}")
    for number, mutant in enumerate(found):
        yield Child(str(mutant), [mutant.test], mutant, folder / f"mutant{number}")


def check(chosen: list[Mutant], workers: int, plain: bool, say: Callable[[str], None] = print) -> int:
    """Run the *chosen* ones; the number of complaints, each of which has been said. Raises MutantError."""
    began, found, count = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="loupe-mutants-") as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder  # what tests leave behind goes with it
        for child in forked(plan(chosen, Path(folder), plain), workers):
            count += child.mutant is not None
            if problem := complaint(child):
                found += 1
                say(problem)
                if child.status not in (PASSED, FAILED) or not child.mutant:
                    say(child.output.read_text()[-2000:])
        tempfile.tempdir = None
    say(f"{count} mutants, {found} complaints, {time.monotonic() - began:.0f} s")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a method or another list; all without one")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of each list the first and each N-th more")
    parser.add_argument("--lists", type=Path, default=LISTS, metavar="DIR")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-plain", action="store_true", help="whoever asks has the named tests pass anyway")
    given = parser.parse_args()
    try:
        names = given.names or lists(given.lists)
        chosen = [mutant for name in names for mutant in mutants(name, given.lists)[:: given.every]]
        for mutant in chosen:
            mutant.source()  # a list that does not fit is refused before long work begins
    except MutantError as error:
        raise SystemExit(str(error)) from error
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for library in LIBRARIES.split():
        __import__(library)
    sys.modules["torch"].set_num_threads(1)  # a forked process has no threads but its own
    gc.freeze()  # no child looks for rubbish among the libraries, which would copy their memory too
    with contextlib.chdir(PROJECT):
        return 1 if check(chosen, given.workers, not given.no_plain) else 0


if __name__ == "__main__":
    sys.exit(main())
