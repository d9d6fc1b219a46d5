"""The table of TCP connections, read for those whose peer is silent."""

import os
import socket

import pytest

from alchemist_ray.mpi_backend.node import silent_peers

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(remote, state, retransmits, inode):
    queues = "00000000:00000000 01:00000014"
    return f"   0: 0100007F:D431 {remote} {state} {queues} {retransmits:08X}     0        0 {inode} 1\n"


@pytest.fixture
def connection(tmp_path, monkeypatch):
    """Yield a socket of this process and a function that writes its row of the table."""

    def write(remote, state, retransmits):
        table.write_text(HEAD + row("0200A8C0:0016", "01", 9, 1) + row(remote, state, retransmits, inode))

    table = tmp_path / "tcp"
    monkeypatch.setattr(silent_peers, "TABLES", (table, tmp_path / "missing"))
    with socket.socket() as sock:
        inode = os.readlink(f"/proc/self/fd/{sock.fileno()}")[8:-1]
        yield write


def test_a_connection_that_is_not_answered_is_found_with_its_process_and_peer(connection):
    connection("0300A8C0:C001", "01", 5)
    assert silent_peers.silent_peers([os.getpid(), 1 << 30]) == {os.getpid(): "192.168.0.3"}


@pytest.mark.parametrize(("linear_timeouts", "tries"), [("4\n", 5), ("0\n", 3), (None, 3)])
def test_a_connection_that_cannot_be_opened_is_found_too(connection, tmp_path, monkeypatch, linear_timeouts, tries):
    """Each system waits in its own way between two requests to open one; 3 to 5 of them take 5 to 7 s."""
    monkeypatch.setattr(silent_peers, "LINEAR_TIMEOUTS", tmp_path / "timeouts", raising=False)
    if linear_timeouts is not None:
        (tmp_path / "timeouts").write_text(linear_timeouts)
    connection("0300A8C0:C001", "02", tries)
    assert silent_peers.silent_peers([os.getpid()]) == {os.getpid(): "192.168.0.3"}
    connection("0300A8C0:C001", "02", tries - 1)
    assert silent_peers.silent_peers([os.getpid()]) == {}


@pytest.mark.parametrize(("state", "retransmits"), [("01", 0), ("01", 4), ("02", 2), ("06", 9), ("0A", 9)])
def test_others_are_not(connection, state, retransmits):
    connection("0300A8C0:C001", state, retransmits)
    assert silent_peers.silent_peers([os.getpid()]) == {}


def test_the_system_s_own_table_can_be_read():
    assert silent_peers.TABLES[0].exists()
    assert silent_peers.silent_peers([os.getpid()]) == {}


def test_addresses_of_both_families():
    assert silent_peers._address("0100007F") == "127.0.0.1"
    assert silent_peers._address("00000000000000000000000001000000") == "::1"
    assert silent_peers._address("B80D0120000000000000000001000000") == "2001:db8::1"
