"""The hosts on which other tests run: what is private, what is shared, what the network does, and what is left."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import namespace_hosts
import pytest
from namespace_hosts import Hosts, skip_without_hosts

pytestmark = pytest.mark.hosts

TCP_ECHO = """
import socket
with socket.create_server(("0.0.0.0", 7000)) as server:
    print("ready", flush=True)
    while True:
        peer, _ = server.accept()
        while data := peer.recv(1000):
            peer.sendall(data)
"""
UDP_ECHO = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("0.0.0.0", 7000))
    print("ready", flush=True)
    while True:
        server.sendto(*server.recvfrom(1000))
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], sys.argv[2]), timeout=5) as peer:
    peer.sendall(b"hello")
    print(peer.recv(1000).decode())
"""
CONNECT = """
import socket, sys
socket.create_connection((sys.argv[1], 7000), timeout=0.3)
"""
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    for _ in range(200):
        client.sendto(b"x", ("outside", int(sys.argv[1])))
"""
TRANSFER = """
import os, socket, threading
with socket.create_connection(("h2", 7000), timeout=20) as peer:
    sent = os.urandom(3_000_000)
    threading.Thread(target=peer.sendall, args=(sent,)).start()
    received = bytearray()
    while len(received) < len(sent):
        received += peer.recv(1_000_000)
    print(received == sent)
"""
ABSTRACT_SERVER = """
import socket
with socket.socket(socket.AF_UNIX) as server:
    server.bind("\\0alchemist-test")
    server.listen()
    print("ready", flush=True)
    server.accept()[0].close()
"""
ABSTRACT_CLIENT = """
import socket
with socket.socket(socket.AF_UNIX) as client:
    client.connect("\\0alchemist-test")
"""
SLEEPING = ["sleep", "600"]
OWNER = """
import time
from namespace_hosts import Hosts
sets = [Hosts(2), Hosts(1, delay=0.001)]
sets[0][0].popen(["sh", "-c", "setsid sleep 600 & sleep 600"])
while len(sets[0][0].processes()) < 3: time.sleep(0.01)
print(*(hosts.outside.interface for hosts in sets), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def pair(module_hosts):
    """Return two hosts for tests that leave the network as it was."""
    return module_hosts(2)


@pytest.fixture(scope="module", params=[{}, {"delay": 0.002}], ids=["bridge", "program"])
def network(request, module_hosts):
    """Return three hosts, first on the kernel's bridge, then on the switch that is a program."""
    return module_hosts(3, **request.param)


@pytest.fixture
def start():
    """Return a function that starts a Python program on a host and waits for its first line. It ends with the test."""
    started = []

    def start_on(host, code):
        started.append(host.popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield start_on
    for process in started:
        with process:
            process.kill()


def eventually(condition, seconds=5):
    """Return whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def interfaces():
    return {name for _, name in socket.if_nameindex()}


def connection(host):
    return socket.create_connection((host.address, 7000), timeout=5)


def answers(peer, seconds=0.3):
    """Return whether the echo of a byte comes back in time."""
    peer.sendall(b"x")
    return bool(select.select([peer], [], [], seconds)[0]) and bool(peer.recv(1000))


# What a host is


def test_hosts_have_names_of_their_own_and_know_those_of_others(pair):
    assert [host.name for host in pair] == ["h1", "h2"]
    assert [host.run(["hostname"]).stdout.strip() for host in pair] == ["h1", "h2"]
    resolve = "import socket; print(*map(socket.gethostbyname, ['h1', 'h2', 'outside', 'localhost']))"
    expected = [pair[0].address, pair[1].address, pair.outside_address, "127.0.0.1"]
    assert [host.python(resolve).stdout.split() for host in pair] == [expected, expected]
    assert socket.gethostname() not in {"h1", "h2"}


def test_no_name_server_is_asked_and_nothing_else_is_reachable(pair):
    look_up = "import socket; socket.getaddrinfo('example.org', 80)"
    assert "gaierror" in pair[0].python(look_up, check=False, timeout=5).stderr
    assert "Network is unreachable" in pair[0].python(ASK, "192.0.2.1", "80", check=False, timeout=5).stderr


def test_each_host_has_the_interface_it_names(pair):
    listed = pair[1].python("import os; print(*sorted(os.listdir('/sys/class/net')))").stdout.split()
    assert listed == sorted([pair[1].interface, "lo"])


@pytest.mark.parametrize("directory", ["/tmp", "/dev/shm", "/run"])
def test_directories_are_private(pair, directory):
    name = uuid.uuid4().hex
    pair[0].run(["touch", f"{directory}/{name}"])
    assert (pair[0].root / directory[1:] / name).exists()
    assert not (pair[1].root / directory[1:] / name).exists()
    assert not Path(directory, name).exists()


def test_shared_memory_is_private(pair):
    pair[0].run(["touch", "/dev/shm/mine"])
    assert "mine" in pair[0].shared_memory()
    assert "mine" not in pair[1].shared_memory() | set(os.listdir("/dev/shm"))


def test_the_checkout_and_the_environment_are_visible(pair):
    assert pair[0].python("import numpy, alchemist_ray; print(alchemist_ray.__file__)").stdout.strip()
    assert pair[0].run(["pwd"], cwd=Path(__file__).parent).stdout.strip() == str(Path(__file__).parent)


def test_shared_directories_are_visible_although_tmp_is_private(hosts, tmp_path):
    one, other = hosts(2, shared=[tmp_path])
    program = tmp_path / "program.py"
    one.run(["tee", program], input="print('hello')")
    assert other.python(program).stdout == "hello\n"
    assert program.read_text() == "print('hello')"


def test_system_v_ipc_and_abstract_sockets_are_private(pair, start):
    pair[0].run(["ipcmk", "--shmem", "100"])
    listed = [host.run(["ipcs", "--shmems"]).stdout.count("0x") for host in pair]
    assert listed == [1, 0]
    start(pair[0], ABSTRACT_SERVER)
    assert "ConnectionRefusedError" in pair[1].python(ABSTRACT_CLIENT, check=False).stderr
    pair[0].python(ABSTRACT_CLIENT)


# Processes


def test_output_exit_codes_and_missing_programs(pair):
    assert pair[0].run(["cat"], input="text").stdout == "text"
    assert pair[0].run(["sh", "-c", "exit 7"], check=False).returncode == 7
    assert pair[0].popen(["no-such-program"], stderr=subprocess.DEVNULL).wait() == 127
    with pytest.raises(subprocess.CalledProcessError) as raised:
        pair[0].python("raise SystemExit('why it failed')")
    assert raised.value.__notes__ == ["on h1: why it failed\n"]
    assert pair[0].run(["sh", "-c", "echo $SETTING"], env=os.environ | {"SETTING": "x"}).stdout == "x\n"
    with pytest.raises(subprocess.TimeoutExpired):
        pair[0].run(SLEEPING, timeout=0.2)
    assert pair[0].processes() == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_popen_reaches_the_process_inside(pair, number):
    process = pair[0].popen(SLEEPING)
    assert eventually(lambda: pair[0].processes() == {process.pid: "sleep 600"})
    assert pair[1].processes() == {}
    process.send_signal(number)
    assert process.wait(5) == -number
    assert pair[0].processes() == {}


def test_processes_inside_cannot_signal_those_outside(pair):
    kill_my_group = "import os, signal; signal.signal(15, signal.SIG_IGN); os.killpg(0, 15); print(os.getsid(0) > 0)"
    assert pair[0].python(kill_my_group).stdout == "True\n"


def test_orphans_are_reaped(pair):
    pair[0].run(["sh", "-c", "sleep 600 >/dev/null 2>&1 &"])
    ((orphan, command),) = pair[0].processes().items()
    assert command == "sleep 600"
    os.kill(orphan, signal.SIGKILL)
    assert eventually(lambda: pair[0].processes() == {})


def test_listeners_are_found(pair, start):
    assert pair[0].listeners() == []
    server, packets = start(pair[0], TCP_ECHO), start(pair[0], UDP_ECHO)
    six = start(pair[0], TCP_ECHO.replace('("0.0.0.0", 7000)', '("::1", 7001), family=socket.AF_INET6'))
    assert pair[0].listeners() == [
        ("tcp", "0.0.0.0", 7000, server.pid),
        ("tcp", "::1", 7001, six.pid),
        ("udp", "0.0.0.0", 7000, packets.pid),
    ]
    assert pair[1].listeners() == []


# The network


def test_every_host_reaches_every_host_and_the_test_process(network, start):
    for host in network:
        start(host, TCP_ECHO)
        with connection(host) as peer:
            assert answers(peer)
    with socket.create_server((network.outside_address, 0)) as server:
        for host in network:
            for other in network:
                assert host.python(ASK, other.name, "7000").stdout == "hello\n"
            asking = host.popen([sys.executable, "-c", ASK, "outside", str(server.getsockname()[1])])
            peer, address = server.accept()
            with peer:
                peer.sendall(peer.recv(1000))
            assert address[0] == host.address
            assert asking.wait(5) == 0


def test_megabytes_arrive_unchanged(network, start):
    start(network[1], TCP_ECHO)
    assert network[0].python(TRANSFER).stdout == "True\n"


def test_a_cut_is_silent_and_the_connection_continues_when_it_is_restored(network, start):
    start(network[0], TCP_ECHO)
    with connection(network[0]) as peer:
        assert answers(peer)
        network.cut(network[0])
        assert not answers(peer)
        with pytest.raises(TimeoutError):
            socket.create_connection((network[0].address, 7000), timeout=0.3)
        assert (network[0].root / "sys/class/net/eth0/carrier").read_text() == "1\n"
        network.restore(network[0])
        assert select.select([peer], [], [], 10)[0], "TCP has sent the byte again"
        assert peer.recv(1000) == b"x"


def test_a_cut_between_two_hosts_leaves_the_others(network, start):
    one, two, three = network
    for host in (one, two):
        start(host, TCP_ECHO)
    network.cut(one, two)
    for host, other in ((one, two), (two, one)):
        assert "TimeoutError" in host.python(CONNECT, other.name, check=False).stderr
        three.python(ASK, other.name, "7000")
        connection(other).close()
    network.restore(one, two)
    one.python(ASK, "h2", "7000")


def test_a_cut_from_the_test_process(network, start):
    start(network[0], TCP_ECHO)
    network.cut(network[0], network.outside)
    network.cut(network[1])
    with pytest.raises(TimeoutError):
        socket.create_connection((network[0].address, 7000), timeout=0.3)
    network[2].python(ASK, "h1", "7000")
    network.restore(network[1])
    with pytest.raises(TimeoutError):
        socket.create_connection((network[0].address, 7000), timeout=0.3)
    network.restore(network[0], network.outside)
    connection(network[0]).close()


def test_cuts_are_checked(pair):
    with pytest.raises(ValueError, match="one or two ends, not 0"):
        pair.cut()
    with pytest.raises(KeyError):
        pair.restore(pair[0])


def test_packets_take_as_long_as_they_should(hosts, start):
    near_and_far = [hosts(1), hosts(1, delay=0.05)]
    fastest = []
    for (host,) in near_and_far:
        start(host, UDP_ECHO)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            times = []
            for _ in range(3):
                begin = time.monotonic()
                client.sendto(b"x", (host.address, 7000))
                client.recv(1000)
                times.append(time.monotonic() - begin)
            fastest.append(min(times))
    assert fastest[0] < 0.05
    assert 0.1 <= fastest[1] < 0.2


@pytest.mark.parametrize("options", [{}, {"delay": 0.001}], ids=["bridge", "program"])
def test_some_packets_are_lost(hosts, options):
    (host,) = hosts(1, loss=0.2, **options)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 0))
        host.python(SEND, str(server.getsockname()[1]))
        server.settimeout(0.3)
        received = 0
        try:
            while server.recv(1000):
                received += 1
        except TimeoutError:
            pass
    assert 120 <= received <= 195


# The end


def test_two_sets_do_not_meet(hosts, start):
    one, other = hosts(1), hosts(1)
    assert one[0].address != other[0].address
    start(other[0], TCP_ECHO)
    connection(other[0]).close()
    assert "unreachable" in one[0].python(ASK, other[0].address, "7000", check=False).stderr


def test_a_host_that_loses_power_leaves_the_others(hosts, start):
    two = hosts(2, delay=0.001)
    for host in two:
        start(host, TCP_ECHO)
    with connection(two[0]) as peer:
        assert answers(peer)
        two[0].close()
        assert not answers(peer)
    assert not two[0].is_alive()
    assert two[1].is_alive()
    two.cut(two[1])
    two.restore(two[1])
    with connection(two[1]) as peer:
        assert answers(peer)


def test_nothing_is_left_after_close():
    skip_without_hosts()
    before = interfaces()
    with Hosts(2) as hosts:
        process = hosts[0].popen(SLEEPING)
        inits = [host.init_pid for host in hosts]
        assert hosts.outside.interface in interfaces() - before
    assert process.returncode == -signal.SIGKILL
    assert hosts.outside.interface not in interfaces()
    assert not any(Path(f"/proc/{pid}").exists() for pid in inits)


def test_nothing_is_left_when_hosts_cannot_be_made(monkeypatch):
    skip_without_hosts()
    monkeypatch.setattr(namespace_hosts, "SWITCH", Path("no_such_switch.py"))
    before = interfaces()
    with pytest.raises(OSError, match="the switch did not start"):
        Hosts(1, delay=0.001)
    assert interfaces() - before == set()


def test_nothing_is_left_when_the_owner_is_killed():
    skip_without_hosts()
    mark = f"OWNER={uuid.uuid4().hex}"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)} | dict([mark.split("=")])
    owner = subprocess.Popen([sys.executable, "-c", OWNER], env=environment, stdout=subprocess.PIPE, text=True)
    with owner:
        mine = set(owner.stdout.readline().split())
        assert len(mine) == 2
        assert mine <= interfaces()
        assert len(_marked(mark)) >= 10
        owner.kill()
    assert eventually(lambda: not _marked(mark), seconds=20), (
        "the first process of the machine reaps what the owner left"
    )
    assert eventually(lambda: not mine & interfaces())


def _marked(mark):
    """Return the processes that have a setting in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(entry.name)
        except OSError:
            continue
    return found


# Machines without namespaces


@pytest.mark.parametrize(
    ("name", "replacement", "reason"),
    [
        ("PROGRAMS", ("ip", "no-such-program"), "needs no-such-program: try `make system-packages`"),
        ("os.geteuid", lambda: 1000, "needs root, for network namespaces"),
        ("TRIAL", "echo no such device >&2; exit 1", "namespaces are not permitted here: no such device"),
    ],
)
def test_tests_are_skipped_with_the_reason(monkeypatch, name, replacement, reason):
    skip_without_hosts()
    monkeypatch.setattr(f"namespace_hosts.{name}", replacement)
    monkeypatch.setattr(namespace_hosts, "why_impossible", namespace_hosts.why_impossible.__wrapped__)
    with pytest.raises(pytest.skip.Exception) as skipped:
        skip_without_hosts()
    assert str(skipped.value) == reason
