"""Cores and memory that a process may use: by affinity and by its control groups, of either version."""

import os

import pytest

from alchemist_ray.host import cgroups, cores, memory


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Return a function that lays out control groups: the lines of /proc/self/cgroup, and files below the root."""

    def lay_out(own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "root" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "root")
    return lay_out


def machine():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_without_control_groups_the_machine_and_the_affinity_count(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "missing")
    assert memory.physical_memory() == machine()
    assert cores.allowed_cores() == len(os.sched_getaffinity(0))


def test_the_tightest_group_above_a_process_counts(groups):
    groups(
        "0::/a/b\n",
        a__b__memory_dot_max="max\n",
        a__memory_dot_max="1048576\n",
        a__cpu_dot_max="max 100000\n",
        a__b__cpu_dot_max="150000 100000\n",
    )
    assert memory.physical_memory() == 1048576
    assert cores.allowed_cores() == 1


def test_the_first_version_is_read_by_controller(groups):
    groups(
        "5:cpu,cpuacct:/x\n4:memory:/x\n",
        memory__x__memory_dot_limit_in_bytes="2097152\n",
        cpu__x__cpu_dot_cfs_quota_us="-1\n",
    )
    assert memory.physical_memory() == 2097152
    assert cores.allowed_cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "count"),
    [("max 100000", None), ("50000 100000", 1), ("250000 100000", 2), ("400000 200000", 2), ("-1", None)],
)
def test_a_quota_is_whole_cores_and_at_least_one(limit, count):
    assert cores._cores_of(limit) == count
