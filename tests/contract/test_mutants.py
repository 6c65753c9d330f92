"""Each point that makes a method what it is has a broken source that a named test notices: ``make mutants``."""

import os
import subprocess
import sys

import pytest

from components.detectors.catalogue import CATALOGUE
from tests.mutants import PROJECT, Mutant, MutantError, lists, mutants

LEAST = 3  # mutants of a method
SHARE = 3  # of each list every third runs here; make mutants runs all


def test_every_method_has_mutants():
    few = [name for name in CATALOGUE if name not in lists() or len(mutants(name)) < LEAST]
    assert few == [], f"tests/mutants/NAME.toml names at least {LEAST} points that its tests prove"


@pytest.mark.parametrize("name", lists())
def test_mutants_fit_the_sources_and_name_tests_that_are_there(name):
    for mutant in mutants(name):
        assert mutant.source() != (PROJECT / mutant.file).read_text(), f"{mutant}: changes nothing"
        compile(mutant.source(), mutant.file, "exec")
        file, _, test = mutant.test.partition("::")
        assert f"\ndef {test}(" in (PROJECT / file).read_text(), f"{mutant}: no {test} in {file}"


def test_a_list_that_does_not_fit_is_refused_with_the_place():
    file = "components/detectors/methods/patchcore.py"
    with pytest.raises(MutantError, match=r"list: point: 'no such text' occurs 0 times in .*patchcore\.py"):
        Mutant("list", "point", file, "no such text", "", "test").source()
    with pytest.raises(MutantError, match="'self' occurs"):
        Mutant("list", "point", file, "self", "", "test").source()
    with pytest.raises(MutantError, match="no list of mutants; there are adtr"):
        mutants("none")


def check(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.mutants", "--workers", "1", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_broken_sources_are_noticed():
    done = check("--every", str(SHARE), "--no-plain")  # this run of all tests has them pass as they are
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_check_can_fail(tmp_path):
    """Lists of its own: a survivor, a crash, a test that is not there."""
    entry = """
[[mutant]]
breaks = "{}"
old = "worst, at = distances.max(1)"
new = "{}"
fails = "{}"
"""
    text = 'file = "components/detectors/methods/patchcore.py"\n'
    text += 'tests = "tests/unit/detectors/methods/test_patchcore.py"\n'
    text += entry.format("a", "worst, at = distances.max(1)  # as before", "test_bank_never_outgrows_its_cap")
    text += entry.format("b", "worst, at = nowhere", "test_map_holds_the_distance_of_every_patch")
    text += entry.format("c", "worst, at = distances.min(1)", "test_that_is_not_there")
    (tmp_path / "few.toml").write_text(text)
    done = check("--lists", str(tmp_path))
    assert done.returncode == 1, done.stderr
    for said in ("few: a: survives", "few: b: ends in an exception", "few: c: pytest ends with status 4"):
        assert said in done.stdout
