"""The server as its owner meets it: the command line, the token file, logs, and how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests_support import wait_until

import alchemist_ray as alchemist
from alchemist_ray import cli, errors
from alchemist_ray.cli import arguments as cli_arguments
from alchemist_ray.host.cores import allowed_cores
from alchemist_ray.host.temporary_directories import make_log_dir
from alchemist_ray.transport.credentials import write_token

ALCHEMIST = [sys.executable, "-m", "alchemist_ray.cli"]


def free_ports(count):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    """A directory of this test's own for token files."""
    for name in ("ALCHEMIST_TOKEN", "ALCHEMIST_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


@contextlib.contextmanager
def environment(**variables):
    """Set environment variables, which a server and its ranks inherit."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def serve(runtime):
    """Return a function that runs ``alchemist serve`` and waits until it is ready."""
    started = []

    def run(*arguments):
        process = subprocess.Popen([*ALCHEMIST, "serve", *arguments], stdout=subprocess.PIPE, text=True)
        started.append(process)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Accepting connections" in line:
                return process, lines
        raise AssertionError(f"the server did not start: {lines}")

    yield run
    for process in started:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGHUP, False)])
def test_signals_that_a_shell_has_had_ignored(runtime, number, ends):
    """A script's background job has SIGINT ignored and can be interrupted; what nohup has run stays."""
    (port,) = free_ports(1)
    script = f"trap '' {signal.Signals(number).name[3:]}; exec \"$@\""
    command = ["sh", "-c", script, "sh", *ALCHEMIST, "serve", "--workers", "1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "Accepting connections" in line:
                break
        process.send_signal(number)
        if ends:
            assert process.wait(5) == 0
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            process.terminate()


FIGURE_3 = """
from alchemist_ray import *
import numpy as np

als = AlchemistSession() # Start Alchemist session
als.connect_to_alchemist("0.0.0.0", {port})

als.request_workers(3)

TestLib = als.load_library("TestLib", testlib_path)

A = np.random.rand(1000,1000)

A_handle = als.send_matrix(matrix=A, print_times=True, layout="VC_STAR")

rank = 10
S_handle, U_handle, V_handle = TestLib.truncated_svd(A_handle, rank)

S = als.fetch_matrix(S_handle, print_times=True)

print(np.flipud(S).transpose())
"""


def test_session_of_figure_3_runs_line_by_line(serve, tmp_path):
    (port,) = free_ports(1)
    _, lines = serve("--workers", "3", "--port", str(port))
    assert any(
        re.match(r"\[\d{4}-\d\d-\d\d [\d:.]{12}\] \[driver\] \[info\] Alchemist is ready", line) for line in lines
    )
    check = (
        "np.testing.assert_allclose(np.flipud(S)[:, 0], np.linalg.svd(A, compute_uv=False)[:10])\n"
        "U, V = als.fetch_matrix(U_handle), als.fetch_matrix(V_handle)\n"
        "np.testing.assert_allclose(A @ V, U * S[:, 0], atol=1e-8)\n"
    )
    script = "testlib_path = None\n" + FIGURE_3.format(port=port) + check
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Data transfer times breakdown") == 2


def test_token_file_is_private_and_goes_with_the_server(serve, runtime):
    (port,) = free_ports(1)
    process, _ = serve("--workers", "1", "--port", str(port))
    path = runtime / "alchemist" / f"token-{port}"
    assert wait_until(path.exists)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with alchemist.AlchemistSession() as session:
        session.connect("127.0.0.1", port)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert not path.exists()


def test_named_token_file_is_made_and_kept(serve, tmp_path):
    (port,) = free_ports(1)
    path = tmp_path / "token"
    serve("--workers", "1", "--port", str(port), "--token-file", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with alchemist.AlchemistSession() as session:
        session.connect("127.0.0.1", port, path.read_text().strip())


def test_token_is_in_no_command_line(serve, tmp_path):
    (port,) = free_ports(1)
    path = tmp_path / "token"
    serve("--workers", "1", "--port", str(port), "--token-file", str(path))
    with alchemist.AlchemistSession() as session:
        session.connect("127.0.0.1", port, path.read_text().strip())
        session.request_workers(1)
        token, ticket = path.read_text().strip().encode(), session.address.ticket.encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                assert token not in command
                assert ticket not in command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_everything_within_five_seconds(serve, number, tmp_path):
    (port,) = free_ports(1)
    process, _ = serve(
        "--workers", "2", "--port", str(port), "--library", f"faults={Path(__file__).parents[1]}/libraries/faults.py"
    )
    session = alchemist.AlchemistSession()
    session.connect("127.0.0.1", port)
    session.request_workers(2)
    session.send_matrix(np.ones((100, 100)))
    session.load_library("faults")
    pids = [row["pid"] for row in session.list_assigned_workers()]
    started = time.monotonic()
    process.send_signal(number)
    assert process.wait(5) == 0
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 5 - (time.monotonic() - started))
    with pytest.raises(errors.AlchemistError):
        session.run_task("faults", "echo", value=1)
    session.stop()


def test_workers_listen_on_the_ports_they_are_given(serve):
    port, low = free_ports(2)
    serve("--workers", "2", "--port", str(port), "--worker-ports", f"{low}-{low + 20}")
    with alchemist.AlchemistSession(transport="tcp") as session:
        session.connect("127.0.0.1", port)
        endpoints = session.request_workers(2)
        assert all(low <= endpoint.port <= low + 20 for endpoint in endpoints)
        np.testing.assert_array_equal(np.asarray(session.send_matrix(np.eye(5))), np.eye(5))


def test_server_on_all_interfaces_is_reached_by_host_name(serve):
    (port,) = free_ports(1)
    serve("--workers", "2", "--port", str(port), "--hostname", "0.0.0.0")
    with alchemist.AlchemistSession(transport="tcp") as session:
        session.connect("localhost", port)
        assert {endpoint.address for endpoint in session.request_workers(2)} == {"localhost"}
        np.testing.assert_array_equal(np.asarray(session.send_matrix(np.eye(5))), np.eye(5))


def test_logs_are_kept_by_session(serve, tmp_path):
    (port,) = free_ports(1)
    serve("--workers", "2", "--port", str(port), "--log-dir", str(tmp_path / "logs"))
    with alchemist.AlchemistSession() as session:
        session.connect("127.0.0.1", port)
        session.request_workers(2)
        session.load_library("TestLib")
    logs = tmp_path / "logs"
    assert "Alchemist is ready" in (logs / "driver.log").read_text()
    for name in ("worker-001", "worker-002"):
        text = (logs / "session-001" / f"{name}.log").read_text()
        assert f"[{name}] [info] Worker ready" in text
        assert "Library TestLib loaded" in text


def test_status_shows_workers_sessions_matrices_and_tasks(serve):
    (port,) = free_ports(1)
    serve("--workers", "3", "--port", str(port))
    with alchemist.AlchemistSession() as session:
        session.connect("127.0.0.1", port)
        session.request_workers(2)
        handle = session.send_matrix(np.ones((123, 45)), layout="VC_STAR")
        shown = subprocess.run(
            [*ALCHEMIST, "status", "--port", str(port)], capture_output=True, text=True, check=True, timeout=30
        ).stdout
        assert "3 workers, 1 free; 1 sessions" in shown
        assert re.search(r"Worker-1 .* ACTIVE +1", shown)
        assert re.search(r"Worker-3 .* IDLE", shown)
        assert re.search(rf"{handle.matrix_id} +123 x 45 +float64 +VC_STAR +2x1 +", shown)
        libraries = subprocess.run(
            [*ALCHEMIST, "libraries", "--port", str(port)], capture_output=True, text=True, check=True, timeout=30
        ).stdout
        assert re.search(r"linalg +alchemist_ray.mpi_backend.libraries.linalg", libraries)


def test_status_of_no_server(runtime, capsys):
    (port,) = free_ports(1)
    assert cli.main(["status", "--port", str(port)]) == 1
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workers", "-1"], "not a valid number of workers"),
        (["--port", "70000"], "not a valid port"),
        (["--worker-ports", "5-2"], "not a valid range of ports"),
        (["--memory-per-worker", "4 apples"], "not a valid size"),
        (["--library", "nameless"], "give NAME=MODULE"),
        (["--unknown"], "unrecognized arguments"),
    ],
)
def test_bad_options_are_refused(arguments, complaint, capsys):
    with pytest.raises(SystemExit):
        cli.main(["serve", *arguments])
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "count"), [("512", 512), ("4GiB", 4 * 2**30), ("2GB", 2 * 10**9), ("1.5 MiB", 3 * 2**19), ("8k", 8000)]
)
def test_sizes(text, count):
    assert cli_arguments.size(text) == count


def test_port_that_is_taken(runtime):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(errors.ServerStartError, match="in use"):
            alchemist.start_server(num_workers=1, port=port)
        assert cli.main(["serve", "--port", str(port)]) == 1


def test_token_file_that_others_can_read_is_refused(tmp_path, capsys):
    path = tmp_path / "token"
    path.write_text("secret\n")
    path.chmod(0o644)
    assert cli.main(["serve", "--token-file", str(path)]) == 1
    assert f"chmod 600 {path}" in capsys.readouterr().err


COMMANDS_WITH_TOKENS = [
    ["status"],
    ["libraries"],
    ["libraries", "linalg"],
    ["node", "--driver", "127.0.0.1:1"],
    ["ssh-nodes", "{hosts}", "--driver", "127.0.0.1:1"],
]


@pytest.fixture(params=COMMANDS_WITH_TOKENS, ids=" ".join)
def command_with_token(request, tmp_path):
    """A command that needs the token of a server."""
    (tmp_path / "hosts").write_text("h1\n")
    return [word.format(hosts=tmp_path / "hosts") for word in request.param]


@pytest.mark.parametrize(
    ("text", "mode", "complaint"),
    [
        (None, 0, "does not exist. Put the server's token there"),
        ("", 0o600, "is empty. Put the server's token there"),
        ("a token of a test", 0o640, "is open to other users (mode 0640). Run chmod 600 "),
    ],
)
def test_a_token_file_that_is_wrong_is_named_with_what_is_wrong(
    runtime, command_with_token, tmp_path, capsys, text, mode, complaint
):
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    assert cli.main([*command_with_token, "--token-file", str(path)]) == 1
    said = capsys.readouterr().err
    assert f"the token file {path}, which --token-file names, {complaint}" in said
    assert "token=" not in said


def test_a_wrong_token_is_answered_with_the_option_that_gives_the_right_one(server, runtime, tmp_path, capsys):
    path = tmp_path / "token"
    write_token(path, "the token of another server")
    where = ["--hostname", server.hostname, "--port", str(server.port)]
    driver = ["--driver", f"{server.hostname}:{server.port}"]
    for command in (["status", *where], ["libraries", *where], ["node", *driver, "--name", "stranger"]):
        assert cli.main([*command, "--token-file", str(path)]) == 1
        said = capsys.readouterr().err
        assert "authentication failed: the server does not know this token" in said
        assert "--token-file FILE" in said
        assert "ALCHEMIST_TOKEN_FILE" in said


def test_a_server_with_more_workers_than_cores_says_so_on_the_console(serve):
    more, port = allowed_cores() + 3, free_ports(1)[0]
    _, lines = serve("--workers", str(more), "--port", str(port))
    told = f"The {more} workers are more than the {allowed_cores()} cores that this process may use"
    assert sum(told in line for line in lines) == 1


def test_a_server_has_a_worker_for_each_core_and_says_nothing_about_it(serve):
    (port,) = free_ports(1)
    _, lines = serve("--port", str(port))
    assert not any("more than" in line for line in lines)
    with alchemist.AlchemistSession() as session:
        session.connect("127.0.0.1", port)
        assert len(session.list_all_workers()) == allowed_cores()


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["node", "--driver", "127.0.0.1:1", "--wait", "0"]])
def test_mpiexec_without_the_sites_mpi_is_refused(runtime, monkeypatch, capsys, command):
    monkeypatch.setenv("ALCHEMIST_TOKEN", "a token of a test")
    assert cli.main([*command, "--mpiexec", "srun"]) == 1
    assert "mpiexec is 'srun', but ranks are forked here and nothing would use it" in capsys.readouterr().err


def test_start_server_refuses_mpiexec_without_the_sites_mpi():
    with pytest.raises(errors.ServerStartError, match="mpiexec is 'srun', but ranks are forked here"):
        alchemist.start_server(num_workers=1, mpiexec="srun")


def test_server_object_starts_and_stops():
    server = alchemist.start_server(num_workers=2)
    assert (server.hostname, server.num_workers, server.running) == ("127.0.0.1", 2, True)
    assert server.port > 0
    assert len(server.token) > 30
    assert str(server.port) in repr(server)
    logs = Path(server.log_dir)
    assert logs.is_dir()
    server.stop()
    server.stop()
    assert not server.running
    assert not logs.exists()


def test_server_without_nodes_says_so_to_its_clients(runtime):
    with alchemist.start_server(num_workers=0) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        with pytest.raises(errors.NotEnoughWorkersError, match=r"the server has no node, .* alchemist node --driver"):
            session.request_workers(2, labels={"zone": "lab"})


def test_group_that_does_not_start_says_why(runtime):
    """The server's own setting makes MPI_Init fail: the network that it names does not exist."""
    with (
        environment(MPIR_CVAR_CH4_NETMOD="ofi", FI_PROVIDER="carrier-pigeon"),
        alchemist.start_server(num_workers=2) as server,
        alchemist.AlchemistSession() as session,
    ):
        session.connect(server.hostname, server.port, server.token)
        with pytest.raises(errors.GroupStartError, match=r"(?s)rank \d .*Fatal error in internal_Init_thread"):
            session.request_workers(2)
        assert len(session.list_available_workers()) == 2


def test_no_abstract_socket_outlives_its_worker():
    with alchemist.start_server(num_workers=2) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        names = [endpoint.socket_name for endpoint in session.request_workers(2)]
        sockets = Path("/proc/net/unix").read_text()
        assert all(name in sockets for name in names)
    assert wait_until(lambda: not any(name in Path("/proc/net/unix").read_text() for name in names))


def test_empty_token_does_not_open_the_server(serve, monkeypatch, runtime):
    (port,) = free_ports(1)
    monkeypatch.setenv("ALCHEMIST_TOKEN", "")
    serve("--workers", "1", "--port", str(port))
    assert len((runtime / "alchemist" / f"token-{port}").read_text().strip()) > 30
    with pytest.raises(errors.AuthenticationError):
        alchemist.AlchemistSession().connect("127.0.0.1", port, " ")


def test_short_token_is_refused():
    with pytest.raises(errors.ServerStartError, match="at least 8"):
        alchemist.start_server(num_workers=1, token="short")


def test_file_in_the_current_directory_takes_no_modules_place(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('planted')\n")
    monkeypatch.chdir(tmp_path)
    with alchemist.start_server(num_workers=1) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(1)


def test_server_on_ipv6():
    with (
        alchemist.start_server(num_workers=2, hostname="::1") as server,
        alchemist.AlchemistSession(transport="tcp") as session,
    ):
        session.connect("::1", server.port, server.token)
        session.request_workers(2)
        np.testing.assert_array_equal(np.asarray(session.send_matrix(np.eye(5))), np.eye(5))


def test_driver_notices_a_client_whose_host_is_gone():
    """Keepalive is set on its connections."""
    import asyncio

    from alchemist_ray.transport.async_channel import AsyncChannel

    async def options():
        seen = asyncio.get_running_loop().create_future()

        async def connected(reader, writer):
            AsyncChannel.accepted(reader, writer, lambda hello: None)
            sock = writer.get_extra_info("socket")
            seen.set_result(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        keepalive = await seen
        writer.close()
        server.close()
        return keepalive

    assert asyncio.run(options()) == 1


def test_temporary_logs_go_with_the_server(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with alchemist.start_server(num_workers=1) as server:
        assert Path(server.log_dir).parent == tmp_path
    with pytest.raises(errors.ServerStartError):
        alchemist.start_server(num_workers=1, hostname="host.invalid")
    assert cli.main(["serve", "--hostname", "host.invalid"]) == 1
    assert not list(tmp_path.iterdir())


def test_logs_of_a_server_that_was_killed_go_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    ours = Path(make_log_dir())
    theirs = ours.with_name(ours.name.replace(f"-{os.getpid()}-", "-999999999-"))
    theirs.mkdir()
    with alchemist.start_server(num_workers=1):
        assert ours.exists()
        assert not theirs.exists()
