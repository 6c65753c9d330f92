"""How much memory is left: by the machine, and by the control groups of either version around the process."""

import pytest

from components.core.system import available_memory_mb, resident_mb

MIB = 2**20


@pytest.fixture
def machine(tmp_path):
    """A machine with 4 GiB to take, with no limit around the process."""

    def written(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    written("proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 1048576 kB\nMemAvailable: 4194304 kB\n")
    written("proc/self/cgroup", "0::/jobs/one\n")
    return tmp_path, written


def test_what_the_machine_says_where_no_group_has_a_limit(machine):
    root, written = machine
    written("sys/fs/cgroup/jobs/one/memory.max", "max\n")
    assert available_memory_mb(root) == 4096


@pytest.mark.parametrize("group", ["jobs/one/", "jobs/"])
def test_a_limit_of_the_group_or_of_one_around_it(machine, group):
    root, written = machine
    for name, text in (("max", 1000 * MIB), ("current", 700 * MIB), ("stat", f"anon 5\ninactive_file {100 * MIB}\n")):
        written(f"sys/fs/cgroup/{group}memory.{name}", f"{text}")
    assert available_memory_mb(root) == 400  # what the kernel only keeps for speed is free


def test_a_limit_of_the_first_version(machine):
    root, written = machine
    written("proc/self/cgroup", "9:cpu:/\n4:memory:/jobs\n")
    for name, text in (("limit_in_bytes", 600 * MIB), ("usage_in_bytes", 350 * MIB), ("stat", "total_inactive_file 0")):
        written(f"sys/fs/cgroup/memory/jobs/memory.{name}", f"{text}")
    assert available_memory_mb(root) == 250


def test_a_system_that_does_not_tell(tmp_path):
    assert available_memory_mb(tmp_path) is None


def test_this_process_has_some():
    assert 1 < resident_mb() < 100_000
