"""Workers that count as Ray's resources: who has them, when Ray gets them back, what they may do."""

from __future__ import annotations

import contextlib
import os
import time

import h5py
import numpy as np
import pytest
import ray
from conftest import LIBRARIES
from tests_support import wait_until

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.host.memory import physical_memory
from alchemist_ray.on_ray import clusters
from alchemist_ray.on_ray.cluster_options import ClusterOptions

pytestmark = pytest.mark.timeout(240)

CPUS = 3
HEAT = {"lib_name": "heat", "num_workers": 1, "cluster": "ray", "params": {"n": 16}}


@pytest.fixture(scope="module", autouse=True)
def _ray():
    ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    yield
    alchemist.shutdown()
    ray.shutdown()


@pytest.fixture(autouse=True)
def _all_cpus():
    """Each test begins and ends with all CPUs free."""
    assert wait_until(lambda: free_cpus() == CPUS, 20), f"a test has left {free_cpus()} CPUs"
    yield
    alchemist.shutdown()


def free_cpus():
    return ray.available_resources().get("CPU", 0)


def environment(**settings):
    return contextlib.closing(alchemist.HPCSimulator({**HEAT, **settings}))


def workers_of(actor):
    return len(ray.get(actor.call.remote("list_assigned_workers")))


# --- Ray gets its resources back --------------------------------------------------------------------------------------


@ray.remote(num_cpus=0)
class Runner:
    """Holds an environment, as an EnvRunner does."""

    def open(self):
        self.env = alchemist.HPCSimulator({**HEAT, "num_workers": 2, "wait": 20})
        self.env.reset(seed=1)


@ray.remote(num_cpus=0)
def use_and_be_killed():
    env = alchemist.HPCSimulator({**HEAT, "num_workers": 2})
    env.reset(seed=1)
    os._exit(1)


def test_a_killed_runner_gives_its_cpus_back_at_once_and_its_replacement_starts():
    for _ in range(2):  # 2 of 3 CPUs each time
        runner = Runner.remote()
        ray.get(runner.open.remote())
        assert free_cpus() == CPUS - 2
        ray.kill(runner)
        assert wait_until(lambda: free_cpus() == CPUS, 5)


def test_a_killed_task_gives_its_cpus_back():
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(use_and_be_killed.options(max_retries=0).remote())
    assert wait_until(lambda: free_cpus() == CPUS, 5)


def test_who_is_killed_while_it_waits_for_cpus_leaves_nothing():
    def reserved():
        return [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]

    @ray.remote(num_cpus=0)
    def wait_in_vain():
        clusters.start_cluster(ClusterOptions(CPUS + 1), clusters.new_cluster_name())

    waiting = wait_in_vain.options(max_retries=0).remote()
    assert wait_until(reserved, 20)
    ray.cancel(waiting, force=True)
    assert wait_until(lambda: not reserved(), 10)


# --- who has the workers ----------------------------------------------------------------------------------------------


def test_an_environment_has_workers_of_its_own_beside_those_of_init():
    alchemist.init(num_workers=1, workers_per_node=1)
    with environment() as env:
        env.reset(seed=1)
        assert free_cpus() == CPUS - 2
    assert wait_until(lambda: free_cpus() == CPUS - 1, 5)


def test_a_named_cluster_is_shared_by_the_default_session_others_and_environments():
    actor = alchemist.init(num_workers=1, cluster_workers=3, cluster_name="shared")
    assert workers_of(actor) == 1
    assert free_cpus() == CPUS - 3
    A = np.diag([3.0, 2.0, 1.0])
    with environment(cluster="ray:shared") as env:
        env.reset(seed=1)
        assert ray.get(alchemist.svd.options(num_workers=1).remote(A, k=1))[1][0] == pytest.approx(3)
        with environment(cluster="ray:shared") as more, pytest.raises(errors.NotEnoughWorkersError):
            more.reset(seed=1)  # the three are taken
    with environment(cluster="ray:sharde") as misspelt, pytest.raises(errors.ClusterError, match="mean 'shared'"):
        misspelt.reset(seed=1)


def test_a_cluster_that_is_found_is_used_with_its_size_and_a_misspelt_one_is_an_error():
    address = clusters.start_cluster(ClusterOptions(2), "known").address
    try:
        actor = alchemist.init(cluster_name="known")
        assert workers_of(actor) == 2  # not all CPUs of Ray
        assert alchemist.init(cluster_name="known", num_workers=1) != actor
        for misspell in (alchemist.stop_cluster, lambda name: alchemist.init(cluster_name=name)):
            with pytest.raises(errors.ClusterError, match=r"called 'knwon'\. Its clusters are 'known' \(did you mean"):
                misspell("knwon")
        assert clusters.find_cluster("known").address == address  # it is still there
    finally:
        alchemist.shutdown()
        alchemist.stop_cluster("known")
    with pytest.raises(errors.ClusterError, match="no cluster with a name"):
        alchemist.stop_cluster("known")


def test_a_second_process_of_the_job_is_told_that_the_first_has_workers():
    @ray.remote(num_cpus=0)
    def start_as_well():
        alchemist.init(num_workers=1, workers_per_node=1)

    alchemist.init(num_workers=np.int64(1), workers_per_node=np.int64(1))
    with pytest.raises(errors.ClusterError, match="another process of this Ray job has workers by init already"):
        ray.get(start_as_well.remote())


def test_without_a_number_a_cluster_has_as_many_workers_as_fit():
    actor = alchemist.init(resources_per_worker={"CPU": 2})
    assert workers_of(actor) == CPUS // 2


# --- what the workers may do ------------------------------------------------------------------------------------------


def test_workers_on_ray_may_do_what_those_of_a_laptop_may(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text((LIBRARIES / "ring.py").read_text())
    with h5py.File("A.h5", "w") as file:
        file["A"] = np.eye(3)
    with environment(lib_name="mine", lib_path="mine.py", params={}) as env:
        env.reset(seed=1)
        session = env.library._caller.run.__self__
        np.testing.assert_array_equal(np.asarray(session.read_hdf5("A.h5", "A")), np.eye(3))


def test_a_cluster_has_libraries_and_a_limit_of_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text((LIBRARIES / "everything.py").read_text())
    actor = alchemist.init(num_workers=1, libraries={"own": "own.py"}, memory_per_worker=2**26)
    np.testing.assert_array_equal(ray.get(alchemist.library("own").twice.remote(np.eye(2))), 2 * np.eye(2))
    (session,) = ray.get(actor.call.remote("server_status"))["sessions"]
    assert [worker["memory"] for worker in session["workers"]] == [2**26]
    written = ray.get(alchemist.library("files").write_npy.remote(np.eye(3), "A.npy"))
    assert written == str(tmp_path / "A.npy")


def test_a_worker_has_its_share_of_the_memory_of_its_node():
    actor = alchemist.init(num_workers=1, workers_per_node=1)
    (session,) = ray.get(actor.call.remote("server_status"))["sessions"]
    (limit,) = [worker["memory"] for worker in session["workers"]]
    assert limit == pytest.approx(physical_memory() * 0.8 / CPUS, rel=1e-3)


# --- what Ray does not give -------------------------------------------------------------------------------------------


def test_a_shorter_wait_of_an_environment_is_respected():
    started = time.monotonic()
    with environment(num_workers=CPUS + 1, wait=3) as env, pytest.raises(errors.ClusterError, match="within 3 s"):
        env.reset(seed=1)
    assert time.monotonic() - started < 20


def test_who_waits_for_ray_is_told_why(monkeypatch, caplog):
    monkeypatch.setattr("alchemist_ray.on_ray.reservation.QUIET_SECONDS", 0.5)
    with pytest.raises(errors.ClusterError, match="could not hold them even if nothing else ran"):
        alchemist.init(num_workers=CPUS + 1, timeout=2)
    assert "Waiting up to 2 s for Ray to give 4 CPU for 4 workers (PACK). These nodes could not hold" in caplog.text
    with environment(num_workers=2) as env:
        env.reset(seed=1)
        with pytest.raises(errors.ClusterError, match=r"1 of 3 CPU free\. Other tasks and actors use the rest"):
            alchemist.init(num_workers=2, timeout=2)
