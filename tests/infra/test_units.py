"""The units for a machine without containers: systemd's own checks, and what they name."""

import re
import shlex

import pytest

from tests.infra.reading import BIN, SYSTEMD, UNITS, call, told


@pytest.fixture
def installed(tmp_path):
    """The units as they would be where the programs lie here; systemd asks that they can be run."""
    for path in [*UNITS, SYSTEMD / "loupe.target"]:
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/loupe/.venv/bin", str(BIN)))
    return sorted(tmp_path.iterdir())


def test_systemd_reads_the_units(installed):
    call("systemd-analyze", "verify", *installed)


def test_systemd_finds_them_closed(installed):
    """Of 10 for a unit without limits; what is left is the network, and for the worker the GPU."""
    services = [path for path in installed if path.suffix == ".service"]
    call("systemd-analyze", "security", "--offline=yes", "--threshold=20", *services)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_runs_as_its_own_user_comes_back_and_may_write_to_the_project_alone(unit):
    assert told(unit, "User") == ["loupe"]
    assert told(unit, "Restart") == ["always"]
    assert told(unit, "ProtectSystem") == ["strict"]
    assert told(unit, "ReadWritePaths") == told(unit, "WorkingDirectory") == ["/srv/loupe"]
    assert told(unit, "NoNewPrivileges") == ["yes"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_what_a_unit_asks_the_environment_for_it_is_given(unit):
    asked = set(re.findall(r"\$\{(\w+)\}", " ".join(told(unit, "ExecStart"))))
    given = {"LOUPE_MODEL", "LOUPE_PLACE"}
    assert asked <= given
    example = (SYSTEMD / "environment.example").read_text()
    assert "LOUPE_MODEL=" in example
    if "LOUPE_PLACE" in asked:
        assert "LOUPE_PLACE=" in unit.read_text().split("[Unit]")[0]
        assert told(unit, "EnvironmentFile")[1] == "/etc/loupe/watch-%i"


def test_the_example_holds_no_secret():
    lines = (SYSTEMD / "environment.example").read_text().splitlines()
    for line in lines:
        if re.search("SECRET|TOKEN|KEY", line):
            assert line.endswith("="), line


def test_the_target_starts_units_that_exist():
    (wanted,) = told(SYSTEMD / "loupe.target", "Wants")
    assert set(shlex.split(wanted)) < {unit.name for unit in UNITS}
    (after,) = told(SYSTEMD / "loupe.target", "After")
    assert after == wanted
    (before,) = [told(unit, "After")[0] for unit in UNITS if unit.stem == "loupe-worker"]
    assert "loupe-prefect.service" in before


def test_a_stopping_service_has_time_for_what_waits_and_for_the_log():
    from components.service.settings import ServiceSettings

    (seconds,) = told(SYSTEMD / "loupe-service.service", "TimeoutStopSec")
    assert int(seconds) > 2 * ServiceSettings().drain_seconds
