"""A Ray cluster of three nodes, whose workers count as Ray's resources."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from recipes import recipe
from tests_support import end_process, wait_until

pytestmark = [pytest.mark.hosts, pytest.mark.systems, pytest.mark.timeout(420)]

PORT = 6379
START_SECONDS = 120
"""Ray's agents start slowly on a busy machine."""

ENVIRONMENT = {
    **os.environ,
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": str(START_SECONDS),
}


def start_ray(host, head):
    """Start a node of Ray with two CPUs on a host."""
    where = ["--head", f"--port={PORT}", "--include-dashboard=false"] if head is host else [
        f"--address={head.address}:{PORT}"
    ]  # fmt: skip
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where, f"--node-ip-address={host.address}",
               "--num-cpus=2", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]  # fmt: skip
    return host.popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)


def answers(head):
    """Whether the head of Ray listens."""
    knock = f"import socket; socket.create_connection(({head.address!r}, {PORT}), 1)"
    return head.run([sys.executable, "-c", knock], check=False).returncode == 0


@pytest.fixture(scope="module")
def ray_hosts(module_hosts):
    """Three hosts with a Ray node each; programs run on the first."""
    hosts = module_hosts(3)
    nodes = [start_ray(hosts[0], hosts[0])]
    assert wait_until(lambda: answers(hosts[0]), START_SECONDS), "Ray's head did not start"
    nodes += [start_ray(host, hosts[0]) for host in hosts[1:]]
    count = "import ray; ray.init('auto', log_to_driver=False); print(len([n for n in ray.nodes() if n['Alive']]))"

    def alive():
        ran = hosts[0].run([sys.executable, "-c", count], env=ENVIRONMENT, check=False, timeout=60)
        return ran.stdout.strip().endswith("3")

    assert wait_until(alive, START_SECONDS), "Ray's nodes did not start"
    yield hosts
    for node in nodes:
        end_process(node, 20)


def run(hosts, program):
    """Run a program on the first host, as a Ray driver; return what it prints last, decoded from JSON."""
    begin = "import json, ray\nimport numpy as np\nimport alchemist_ray as alchemist\n"
    begin += "ray.init('auto', log_to_driver=False)\n"
    ran = hosts[0].run([sys.executable, "-c", begin + program], env=ENVIRONMENT, check=False, timeout=200)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return json.loads(ran.stdout.splitlines()[-1])


def no_workers_left(hosts):
    return wait_until(lambda: not any("warm_process" in c for h in hosts for c in h.processes().values()), 15)


def test_workers_on_three_nodes_compute_and_take_ray_s_resources(ray_hosts):
    facts = run(
        ray_hosts,
        """
alchemist.init(num_workers=6, placement_strategy="STRICT_SPREAD", workers_per_node=2)
A = np.random.default_rng(0).standard_normal((400, 300))
U, S, Vt = ray.get(alchemist.svd.remote(A, 10))
wrong = float(np.abs(S - np.linalg.svd(A, compute_uv=False)[:10]).max())
handle = alchemist.put(A)
hosts = sorted({endpoint.host for endpoint in handle.address.endpoints})
free = ray.available_resources().get("CPU", 0)
alchemist.shutdown()
import time
end = time.monotonic() + 15
while ray.available_resources().get("CPU", 0) < 6 and time.monotonic() < end:
    time.sleep(0.2)
print(json.dumps([wrong, hosts, free, ray.available_resources().get("CPU", 0)]))
""",
    )
    wrong, hosts, free, after = facts
    assert wrong < 1e-10
    assert hosts == [host.name for host in ray_hosts]
    assert free == 0
    assert after == 6
    assert no_workers_left(ray_hosts)


def test_the_recipe_of_the_page_runs_as_printed(ray_hosts):
    program, *_ = recipe("Ray", "python")
    ray_hosts[0].run([sys.executable, "-c", program + "assert S.shape == (10,)"], env=ENVIRONMENT, timeout=120)
    assert no_workers_left(ray_hosts)


def test_a_reference_is_read_on_the_node_that_holds_it(ray_hosts):
    where, total = run(
        ray_hosts,
        """
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

alchemist.init(num_workers=3, placement_strategy="STRICT_SPREAD")
other = next(n for n in ray.nodes() if n["NodeManagerAddress"] != ray.util.get_node_ip_address())

@ray.remote(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(other["NodeID"], soft=False))
def make():
    return np.ones((3000, 1000))

reference = make.remote()
ray.wait([reference], fetch_local=False)
total = ray.get(alchemist.norm.remote(reference))
locations = ray.experimental.get_object_locations([reference])[reference]["node_ids"]
print(json.dumps([locations == [other["NodeID"]], float(total)]))
""",
    )
    assert total == pytest.approx(3000**0.5 * 1000**0.5)
    assert where, "the array was copied to another node"


def test_what_can_never_be_scheduled_is_an_error_that_shows_what_the_cluster_has(ray_hosts):
    text = run(
        ray_hosts,
        """
try:
    alchemist.init(num_workers=9, workers_per_node=3, timeout=4)
except alchemist.errors.ClusterError as error:
    print(json.dumps(str(error)))
""",
    )
    assert "Ray has not given 9 CPU for 9 workers with 3 on a node" in text
    for host in ray_hosts:
        assert f"{host.address}: 2 of 2 CPU free" in text


def test_a_detached_cluster_serves_the_next_job(ray_hosts):
    """By the lines of the page: the later job names the cluster, and nothing else."""
    _, first, later, *_ = recipe("Ray", "python")
    other = """
import time

deadline = time.monotonic() + 20
while ray.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
    time.sleep(0.2)
env = alchemist.HPCSimulator({"lib_name": "heat", "num_workers": 3, "cluster": "ray:shared", "params": {"n": 16}})
env.reset(seed=1)
env.close()
print(json.dumps([ray.available_resources().get("CPU"), alchemist.init(cluster_name="shared") is not None]))
"""
    for program in (first, first):  # the second time it is found
        ray_hosts[0].run([sys.executable, "-c", program], env=ENVIRONMENT, timeout=120)
    assert run(ray_hosts, other) == [2, True]
    shown = ray_hosts[0].run([sys.executable, "-c", later], env=ENVIRONMENT, timeout=120).stdout
    assert shown.splitlines()[-1] == "5.0"
    assert no_workers_left(ray_hosts)
    lost = ray_hosts[0].run([sys.executable, "-c", later], env=ENVIRONMENT, timeout=120, check=False)
    assert lost.returncode
    assert "Ray has no cluster of workers called 'shared'" in lost.stderr


def test_a_driver_that_is_killed_leaves_no_workers_and_no_cpus_reserved(ray_hosts):
    run(
        ray_hosts,
        """
import os, signal, subprocess, sys
begin = "import ray, alchemist_ray as alchemist, os, signal; ray.init('auto', log_to_driver=False);"
killed = subprocess.run([sys.executable, "-c", begin + "alchemist.init(num_workers=4); os.kill(os.getpid(), 9)"])
assert killed.returncode == -signal.SIGKILL
import time
deadline = time.monotonic() + 30
while ray.available_resources().get("CPU") != 6 and time.monotonic() < deadline:
    time.sleep(0.2)
assert ray.available_resources().get("CPU") == 6
print(json.dumps(True))
""",
    )
    assert no_workers_left(ray_hosts)


TRAINING = """
from ray.rllib.algorithms.ppo import PPOConfig

config = (
    PPOConfig()
    .environment(alchemist.HPCSimulator, env_config={"cluster": "ray", "lib_name": "heat", "num_workers": 2,
                                                     "placement": "strict_spread", "max_episode_steps": 20})
    .env_runners(num_env_runners=1, create_local_env_runner=True, num_cpus_per_env_runner=1)
    .training(train_batch_size=200, minibatch_size=50, num_epochs=1)
    .debugging(log_level="ERROR")
)
algorithm = config.build_algo()
result = algorithm.train()
steps = result["num_env_steps_sampled_lifetime"]
algorithm.stop()
print(json.dumps(float(steps)))
"""


def test_rllib_trains_on_a_simulation_with_ranks_on_two_nodes(ray_hosts):
    assert run(ray_hosts, TRAINING) >= 200
    assert no_workers_left(ray_hosts)
