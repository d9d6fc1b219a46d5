"""A client process that gives up its wait for workers, or dies in it, leaves the line at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from tests_support import wait_until

import alchemist_ray as alchemist

CLIENT = """
import sys
import alchemist_ray as alchemist

with alchemist.AlchemistSession() as session:
    session.connect(sys.argv[1], int(sys.argv[2]))
    print("connected", flush=True)
    try:
        session.request_workers(1, wait=600)
    except KeyboardInterrupt:
        print("interrupted", len(session.list_all_workers()), flush=True)
"""
SECONDS = 4
"""Also on a busy machine; it was 12 seconds."""


@pytest.fixture(scope="module")
def busy():
    """A server whose only worker a session holds."""
    with alchemist.start_server(1) as server, alchemist.AlchemistSession() as holder:
        holder.connect(server.hostname, server.port, server.token)
        holder.request_workers(1)
        yield server, holder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_client_that_is_interrupted_or_killed_leaves_the_line_at_once(busy, number):
    server, holder = busy
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, server.hostname, str(server.port)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "ALCHEMIST_TOKEN": server.token},
    )
    try:
        assert client.stdout.readline() == "connected\n"
        assert wait_until(lambda: holder.server_status()["waiting"] == 1, 10)
        client.send_signal(number)
        begun = time.monotonic()
        assert wait_until(lambda: holder.server_status()["waiting"] == 0, SECONDS)
        said, _ = client.communicate(timeout=SECONDS)
        assert time.monotonic() - begun < SECONDS
    finally:
        client.kill()
        client.wait()
    assert said == ("interrupted 1\n" if number == signal.SIGINT else "")
    assert wait_until(lambda: len(holder.server_status()["sessions"]) == 1)
