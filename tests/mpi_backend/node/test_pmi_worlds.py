"""Real processes become ranks of MPI worlds without mpiexec.

At one end of a socket pair is MPICH, at the other a `World`.
"""

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from alchemist_ray.protocol.pmi import Aborted, BarrierReached, Finalized, RankState, Reply, World, process_mapping

SECONDS = 30
OFI = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp", "FI_TCP_IFACE": "lo"}
FOREIGN = ("PMI_", "PMIX_", "HYDI_", "MPIR_CVAR_", "FI_", "UCX_")

START = "from mpi4py import MPI; comm = MPI.COMM_WORLD; "
SHARED = "comm.Split_type(MPI.COMM_TYPE_SHARED).size"
SUM = (
    START
    + f"line = [comm.rank, comm.size, comm.allreduce(10 ** comm.rank), {SHARED}]; "
    + (
        r"print(' '.join(map(str, line)) + '\n', end='', flush=True)"  # in one piece: forks share the pipe
    )
)


class Job:
    """The processes of one world, on one or more pretended hosts with a `World` each, and their conversation."""

    def __init__(self, counts, environment=None):
        self.size = sum(counts)
        self.name = f"test_{uuid.uuid4().hex}"
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        self.environment |= environment or {}
        self.hosts, self.where, self.sockets, self.processes = [], {}, {}, {}
        for count in counts:
            ranks = range(len(self.where), len(self.where) + count)
            self.hosts.append(World(self.size, ranks, self.name, process_mapping(counts)))
            self.where |= dict.fromkeys(ranks, self.hosts[-1])
        self.events, self.lines, self.reached = [], dict.fromkeys(self.where, b""), {}

    def start(self, program):
        """Start the program once for each rank."""
        for rank in self.where:
            with self.connected(rank) as theirs:
                environment = self.environment | self.variables(rank, theirs)
                self.processes[rank] = run(program, environment, [theirs])

    @contextmanager
    def connected(self, rank):
        """Lend the descriptor that the process of a rank needs."""
        ours, theirs = socket.socketpair()
        self.sockets[rank] = ours
        with theirs:
            yield theirs.fileno()

    def variables(self, rank, descriptor):
        return {"PMI_FD": str(descriptor), "PMI_RANK": str(rank), "PMI_SIZE": str(self.size)}

    def converse(self):
        """Answer all ranks until every connection has ended, or a rank aborts. What they print must fit into a pipe."""
        with selectors.DefaultSelector() as selector:
            for rank, ours in self.sockets.items():
                selector.register(ours, selectors.EVENT_READ, rank)
            deadline = time.monotonic() + SECONDS
            while selector.get_map() and not any(isinstance(event, Aborted) for event in self.events):
                ready = selector.select(deadline - time.monotonic())
                assert ready, f"silence: {self.lines}"
                for key, _ in ready:
                    octets = read(key.fileobj)
                    if octets:
                        self.lines[key.data] += octets
                        self.handle(self.where[key.data], self.where[key.data].receive(key.data, octets))
                    else:
                        selector.unregister(key.fileobj)

    def handle(self, host, events):
        for event in events:
            match event:
                case Reply(rank, octets):
                    self.sockets[rank].sendall(octets)
                case BarrierReached(values):
                    self.reached[host] = values
                case _:
                    self.events.append(event)
        if len(self.reached) == len(self.hosts):
            reached, self.reached = self.reached, {}
            for one in self.hosts:
                self.handle(one, one.release(merged(values for other, values in reached.items() if other is not one)))

    def outputs(self):
        """Wait for all processes; return what each rank printed, without the last newline."""
        return [ended(process) for process in self.processes.values()]

    def close(self):
        """Kill what is left and remove its shared memory, whose name is a hash (FNV-1a) of the world's name."""
        for process in self.processes.values():
            process.kill()
            process.communicate()
        for ours in self.sockets.values():
            ours.close()
        for node in range(len(self.hosts)):
            self.segment(node).unlink(missing_ok=True)

    def segment(self, node):
        number = 2166136261
        for octet in self.name.encode():
            number = (number ^ octet) * 16777619 % 2**32
        return Path(f"/dev/shm/mpich_shm_{number:x}_{node}")


def run(program, environment, descriptors):
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read(ours):
    try:
        return ours.recv(65536)
    except ConnectionResetError:
        return b""


def ended(process):
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    return output.strip()


def merged(parts):
    return {key: value for values in parts for key, value in values.items()}


@pytest.fixture
def job():
    with ExitStack() as ends:

        def make(counts, environment=None):
            made = Job(counts, environment)
            ends.callback(made.close)
            return made

        yield make


def assert_in_order(made):
    assert sorted(event.rank for event in made.events) == list(made.where)
    assert all(isinstance(event, Finalized) for event in made.events)
    assert {host.state(rank) for rank, host in made.where.items()} == {RankState.FINALIZED}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_of_one_host_are_ranks_of_a_world(job, size):
    made = job([size])
    made.start(SUM)
    made.converse()
    assert made.outputs() == [f"{rank} {size} {'1' * size} {size}" for rank in range(size)]
    assert_in_order(made)


@pytest.mark.parametrize("environment", [OFI, {}], ids=["ofi", "ucx"])
@pytest.mark.parametrize("counts", [[1, 1], [2, 1]])
def test_worlds_of_two_hosts_exchange_the_addresses_of_their_ranks(job, counts, environment):
    made = job(counts, environment)
    made.start(SUM)
    made.converse()
    size, shared = sum(counts), [count for count in counts for _ in range(count)]
    assert made.outputs() == [f"{rank} {size} {'1' * size} {shared[rank]}" for rank in range(size)]
    assert_in_order(made)
    roots = [rank for rank in range(size) if b"cmd=put" in made.lines[rank]]
    assert roots == [0, counts[0]]  # the first rank of each host puts the address, and the others put nothing


def test_ranks_fork_from_one_process(job):
    made = job([3])
    with ExitStack() as lent:
        descriptors = [lent.enter_context(made.connected(rank)) for rank in made.where]
        variables = [made.variables(rank, descriptor) for rank, descriptor in enumerate(descriptors)]
        program = f"""
import os, sys, mpi4py, numpy
for variables in {variables!r}:
    if not os.fork():
        os.environ |= variables
        {SUM}
        sys.exit()
assert all(os.wait()[1] == 0 for _ in range(3))
"""
        made.processes[0] = run(program, made.environment | {"OPENBLAS_NUM_THREADS": "1"}, descriptors)
    made.converse()
    (output,) = made.outputs()
    assert sorted(output.splitlines()) == [f"{rank} 3 111 3" for rank in range(3)]
    assert_in_order(made)


@pytest.mark.parametrize("counts", [[2], [1, 1]])
def test_an_abort_arrives_and_the_rank_lives_on_until_it_is_ended(job, counts):
    made = job(counts, OFI)
    made.start(START + "comm.barrier(); comm.rank == 1 and comm.Abort(7); print('alive', flush=True); comm.barrier()")
    made.converse()
    assert made.events == [Aborted(1, 7, "abort")]
    assert made.where[1].state(1) is RankState.ABORTED
    aborted = made.processes[1]
    assert any("alive" in line for line in aborted.stdout)
    assert aborted.poll() is None


def test_a_rank_that_dies_ends_its_connection_without_finalize(job):
    made = job([1])
    made.start(START + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    made.converse()
    assert made.events == []
    assert made.where[0].state(0) is RankState.READY
    assert made.processes[0].wait(SECONDS) == -signal.SIGKILL


def test_the_name_of_the_shared_memory_follows_from_the_name_of_the_world(job):
    made = job([2])
    made.start(START + "print(*(line for line in open('/proc/self/maps') if 'mpich_shm' in line))")
    made.converse()
    for output in made.outputs():
        assert set(re.findall(r"/dev/shm/mpich_shm\S+", output)) == {str(made.segment(0))}
    assert not made.segment(0).exists()


UNSUPPORTED = """
for call in (
    lambda: MPI.COMM_SELF.Spawn("/bin/true", args=["a b", "c=d"], maxprocs=1),
    lambda: MPI.COMM_SELF.Spawn_multiple(["/bin/true", "/bin/echo"], maxprocs=[1, 2]),
    lambda: MPI.Publish_name("a service", "a port"),
    lambda: MPI.Lookup_name("service"),
    lambda: MPI.Unpublish_name("service", "port"),
):
    try:
        call()
    except MPI.Exception:
        print("refused")
print(comm.allreduce(1))
"""


def test_what_is_not_supported_is_an_error_of_mpi_and_the_world_goes_on(job):
    made = job([2])
    made.start(START + UNSUPPORTED)
    made.converse()
    assert made.outputs() == ["refused\n" * 5 + "2"] * 2
    assert_in_order(made)
    for command in (b"mcmd=spawn", b"cmd=publish_name", b"cmd=lookup_name", b"cmd=unpublish_name"):
        assert command in made.lines[0]


def test_mpi_can_be_initialized_three_times(job):
    made = job([1, 1], OFI)
    made.start("""
import mpi4py; mpi4py.rc.initialize = False
from mpi4py import MPI
for _ in range(3):
    session = MPI.Session.Init()
    group = session.Create_group("mpi://WORLD")
    comm = MPI.Intracomm.Create_from_group(group)
    print(comm.allreduce(1))
    comm.Free(), group.Free(), session.Finalize()
""")
    made.converse()
    assert made.outputs() == ["2\n2\n2"] * 2
    assert made.lines[0].count(b"cmd=init ") == 3
    assert made.lines[0].count(b"cmd=finalize") == 1
    assert_in_order(made)
