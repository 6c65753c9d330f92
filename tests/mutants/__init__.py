"""Broken sources that tests must notice: what makes a method what it is, taken out point by point.

A list ``NAME.toml`` names the file that it breaks and the tests that notice, then the mutants, which may name others:

    file = "components/detectors/methods/NAME.py"
    tests = "tests/unit/detectors/methods/test_NAME.py"

    [[mutant]]
    breaks = "the point of the method that is missing then"
    old = "text that occurs exactly once in the file"
    new = "what stands there instead"
    fails = "test_that_notices"

``make mutants`` runs them (``__main__.py``).
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

LISTS = Path(__file__).parent
PROJECT = LISTS.parents[1]


class MutantError(Exception):
    """A list that does not fit the sources of today; one sentence."""


@dataclass(frozen=True)
class Mutant:
    """One change of one source file and the test, a pytest node id, that must fail with it."""

    name: str  # of the list
    breaks: str
    file: str
    old: str
    new: str
    test: str

    def source(self) -> str:
        """The changed text of the whole file. Raises MutantError when there is not exactly one place to change."""
        path = PROJECT / self.file
        if not path.is_file():
            raise MutantError(f"{self}: there is no {self.file}; correct the list")
        text = path.read_text()
        if (found := text.count(self.old)) != 1:
            raise MutantError(f"{self}: {self.old!r} occurs {found} times in {self.file}; give text that occurs once")
        return text.replace(self.old, self.new)

    @property
    def module(self) -> str:
        return ".".join(Path(self.file).with_suffix("").parts)

    def __str__(self) -> str:
        return f"{self.name}: {self.breaks}"


def lists(folder: Path = LISTS) -> list[str]:
    """The names of all lists."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def mutants(name: str, folder: Path = LISTS) -> list[Mutant]:
    """Those of one list, in its order. Raises MutantError when there is no such list or it is not as described."""
    path = folder / f"{name}.toml"
    if not path.exists():
        raise MutantError(f"{name}: no list of mutants; there are {', '.join(lists(folder))}")
    read = tomllib.loads(path.read_text())
    try:
        return [_mutant(name, read, entry) for entry in read["mutant"]]
    except KeyError as missing:
        raise MutantError(f"{path.name}: {missing} is missing; see tests/mutants/__init__.py") from missing


def _mutant(name: str, read: dict, entry: dict) -> Mutant:
    tests, fails = entry.get("tests", read["tests"]), entry["fails"]
    file = entry.get("file", read["file"])
    return Mutant(name, entry["breaks"], file, entry["old"], entry["new"], f"{tests}::{fails}")
