"""Compare PETSc's and SLEPc's results with SciPy's; run by test_petsc.py if they are installed.

The first rank prints one line of JSON: the name of each case, and its fault or None.
"""

import json

import numpy as np
import scipy.sparse as sp
from mpi4py import MPI

from alchemist_ray.errors import AlchemistError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import petsc

try:
    from alchemist_ray.mpi_backend.libraries.petsc import slepc
except AlchemistError:
    slepc = None

comm = MPI.COMM_WORLD
ctx = TaskContext(comm, "petsc.case")
found = []


def note(name, wrong):
    said = [each for each in comm.allgather(wrong) if each is not None]
    found.append((name, said[0] if said else None))


def laplacian(m):
    """Return the five-point Laplacian of an m x m grid; its eigenvalues are 4 - 2 cos(i t) - 2 cos(j t)."""
    T = sp.diags([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], [-1, 0, 1])
    return sp.csr_array(sp.kron(T, sp.identity(m)) + sp.kron(sp.identity(m), T))


def spectrum(m):
    t = 2 - 2 * np.cos(np.arange(1, m + 1) * np.pi / (m + 1))
    return np.sort((t[:, None] + t).ravel())


def convection(m):
    return sp.csr_array(laplacian(m) + sp.diags([np.full(m * m - 1, 0.3)], [1]))


def dense(A, pair="VC_STAR", **how):
    return DistMatrix.from_global(comm, A, Layout.of(pair, A.shape, comm.size, **how))


def sparse(A):
    return SparseDistMatrix.from_global(comm, A)


def off(got, expected, tol):
    if got.shape != expected.shape:
        return f"{got.shape}, not {expected.shape}"
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    return None if error <= tol else f"off by {error}"


def solutions():
    rng = np.random.default_rng(0)
    layouts = (("VC_STAR", None), ("MC_MR", (3, 1)), ("STAR_VR", None), ("CIRC_CIRC", None), ("STAR_STAR", None))
    methods = (("gmres", None), ("cg", "jacobi"), ("bcgs", "bjacobi"), ("minres", "none"), ("gmres", "asm"))
    for dtype, m in (("float64", 12), ("float32", 9), ("float64", 1)):
        for (pair, block), (ksp, pc) in zip(layouts, methods, strict=True):
            A = (laplacian if ksp in ("cg", "minres") else convection)(m).astype(dtype)
            X = rng.standard_normal((m * m, 2)).astype(dtype)
            x, info = petsc.solve(
                ctx, sparse(A), dense((A @ X).astype(dtype), pair, block=block), ksp=ksp, pc=pc, rtol=1e-12
            )
            tol = 1e-9 if dtype == "float64" else 1e-4
            label = f"{ksp} {pc} {dtype} {m} {pair}"
            note(label, off(x.to_global(), X, tol) or (None if x.dtype == dtype else str(x.dtype)))
            note(f"{label} info", None if all(info["converged"]) and max(info["residual"]) < tol else str(info))
    A, b = sparse(laplacian(12)), dense(np.ones((144, 1)))
    few = petsc.solve(ctx, A, b, ksp="gmres", pc="none", options={"ksp_gmres_restart": 3}, rtol=1e-10)[1]["iterations"]
    many = petsc.solve(ctx, A, b, ksp="gmres", pc="none", rtol=1e-10)[1]["iterations"]
    note("options count", None if few[0] > many[0] else f"{few}, {many}")
    unfinished = petsc.solve(ctx, A, b, maxiter=2, pc="none", partial=True)[1]
    note("partial", None if unfinished["converged"] == [False] and unfinished["iterations"] == [2] else str(unfinished))


def eigenvalues():
    for dtype in ("float64", "float32"):
        A, expected = laplacian(11).astype(dtype), spectrum(11)
        tol = 1e-10 if dtype == "float64" else 1e-5
        for which, part in (("LM", expected[-5:]), ("SA", expected[:5]), ("LA", expected[-5:])):
            w, V = slepc.eigsh(ctx, sparse(A), 5, which=which)
            note(f"eigsh {which} {dtype}", off(w, part, tol))
            whole = V.to_global()
            note(f"eigsh {which} {dtype} vectors", off(A @ whole, whole * w, 10 * tol))
            note(f"eigsh {which} {dtype} basis", off(whole.T @ whole, np.eye(5), 10 * tol))
    if comm.size == 1:
        nearest = spectrum(11)[np.argsort(np.abs(spectrum(11) - 3.3))[:3]]
        note("sigma", off(slepc.eigsh(ctx, sparse(laplacian(11)), 3, sigma=3.3)[0], np.sort(nearest), 1e-9))
    rng = np.random.default_rng(1)
    B = sp.csr_array(laplacian(9).toarray() + rng.random((81, 81)) * (rng.random((81, 81)) < 0.05))
    w, V = slepc.eigs(ctx, sparse(B), 4)
    expected = np.linalg.eigvals(B.toarray())
    expected = expected[np.argsort(-np.abs(expected))[:4]]
    note("eigs", off(np.sort(np.abs(w)), np.sort(np.abs(expected)), 1e-8))
    whole = V.to_global()
    note("eigs vectors", off(B @ whole, whole * w, 1e-8))
    note("asymmetric", refusal(lambda: slepc.eigsh(ctx, sparse(B)), "ArgumentValueError", "use eigs"))
    note("k", refusal(lambda: slepc.eigs(ctx, sparse(B), 82), "ArgumentValueError", "1..81"))
    note("which", refusal(lambda: slepc.eigs(ctx, sparse(B), which="LA"), "ArgumentValueError", "LR"))
    note(
        "restarts",
        refusal(lambda: slepc.eigsh(ctx, sparse(laplacian(30)), 9, which="SM", maxiter=1), "ConvergenceError", "of 9"),
    )


def refusal(act, error, text):
    try:
        act()
    except AlchemistError as failure:
        fits = type(failure).__name__ == error and text in str(failure)
        return None if fits else f"{type(failure).__name__}: {failure}"
    return "nothing was raised"


def refusals():
    A, b = sparse(laplacian(5)), dense(np.ones((25, 1)))
    bad = dense(np.full((25, 1), np.nan))
    singular = sparse(sp.csr_array((np.array([1.0, 1, 0, 1]), (range(4), range(4)))))
    for name, act, error, text in (
        ("shapes", lambda: petsc.solve(ctx, A, dense(np.ones((24, 1)))), "ArgumentValueError", "n x n"),
        ("no columns", lambda: petsc.solve(ctx, A, dense(np.ones((25, 0)))), "ArgumentValueError", "1 or more"),
        ("NaN", lambda: petsc.solve(ctx, A, bad), "NonFiniteError", "matrix b"),
        ("ksp", lambda: petsc.solve(ctx, A, b, ksp="none such"), "ArgumentValueError", "none such"),
        ("pc", lambda: petsc.solve(ctx, A, b, pc="none such"), "ArgumentValueError", "none such"),
        ("rtol", lambda: petsc.solve(ctx, A, b, rtol=2), "ArgumentValueError", "rtol=2"),
        ("option", lambda: petsc.solve(ctx, A, b, options={"log_view": ":x"}), "ArgumentValueError", "log_view"),
        ("viewer", lambda: petsc.solve(ctx, A, b, options={"pc_view": "x"}), "ArgumentValueError", "pc_view"),
        ("maxiter", lambda: petsc.solve(ctx, A, b, maxiter=1, pc="none"), "ConvergenceError", "after 1 iterations"),
        ("singular", lambda: petsc.solve(ctx, singular, dense(np.ones((4, 1)))), "ConvergenceError", "DIVERGED"),
    ):
        note(name, refusal(act, error, text))
    note("afterwards", None if petsc.solve(ctx, A, b)[1]["converged"] == [True] else "it does not converge")


solutions()
refusals()
if slepc:
    eigenvalues()
if comm.rank == 0:
    print(json.dumps(found))
