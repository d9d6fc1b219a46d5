"""Show the main use on real data: ``make demo``.

The demonstration starts a group of MPI workers and computes two truncated singular value decompositions on it from Ray.
Both are checked against NumPy. The first matrix is a photograph, whose rank-k approximation is saved as a picture. The
second matrix holds all 8 x 8 patches of two photographs, half a million rows.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import ray
from PIL import Image
from sklearn.datasets import load_sample_images

import alchemist_ray as alchemist

OUTPUT = Path("output")
PICTURE_RANK = 40
PATCH, PATCH_RANK = 8, 16


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Print a step of the demonstration, run it, and print the seconds it took."""
    print(f"  {text:<62}", end="", flush=True)
    started = time.perf_counter()
    yield
    print(f"{time.perf_counter() - started:8.2f} s", flush=True)


def check(A: np.ndarray, U: np.ndarray, S: np.ndarray, Vt: np.ndarray, reference: np.ndarray) -> None:
    """Check a truncated SVD against NumPy's singular values and against its definition."""
    values = np.abs(S - reference[: S.size]).max() / S[0]
    residual = np.linalg.norm(A @ Vt.T - U * S, axis=0).max() / S[0]
    orthogonality = np.abs(U.T @ U - np.eye(S.size)).max()
    print(f"  errors: singular values {values:.0e} s1", end="")
    print(f", |A v - s u| {residual:.0e} s1, |UtU - I| {orthogonality:.0e}")
    if max(values, residual, orthogonality) > 1e-8:
        sys.exit("the decomposition is wrong: an error is above 1e-8")


def decompose_picture(photograph: np.ndarray) -> None:
    """Approximate a photograph by a matrix of low rank, and save both side by side."""
    grey = photograph.mean(axis=2)
    print(f"\nA photograph, {grey.shape[0]} x {grey.shape[1]}, by {PICTURE_RANK} singular triplets")
    with step("alchemist.svd.remote"):
        U, S, Vt = ray.get(alchemist.svd.remote(grey, k=PICTURE_RANK))
    with step("numpy.linalg.svd, for comparison"):
        reference = np.linalg.svd(grey, compute_uv=False)
    check(grey, U, S, Vt, reference)
    approximation = (U * S) @ Vt
    kept = np.sum(S**2) / np.sum(reference**2)
    stored = (U.size + S.size + Vt.size) / grey.size
    print(f"  {kept:.2%} of the energy in {stored:.1%} of the numbers")
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / f"photograph-rank-{PICTURE_RANK}.png"
    Image.fromarray(np.hstack([grey, approximation]).clip(0, 255).astype(np.uint8)).save(path)
    print(f"  the photograph (left) and its approximation (right): {path}")


def decompose_patches(photographs: list[np.ndarray]) -> None:
    """Find the principal components of all patches of some photographs, and save them as a picture."""
    print()
    with step(f"cut all {PATCH} x {PATCH} patches from two photographs"):
        A = patches(photographs)
    print(f"\n{A.shape[0]:,} patches, {A.shape[1]} numbers each ({A.nbytes / 1e9:.2f} GB), {PATCH_RANK} triplets")
    with step("alchemist.svd.remote, first call (new memory)"):
        U, S, Vt = ray.get(alchemist.svd.remote(A, k=PATCH_RANK))
    with step("alchemist.svd.remote, second call"):
        U, S, Vt = ray.get(alchemist.svd.remote(A, k=PATCH_RANK))
    with step("NumPy in this process (eigh of A.T @ A, U formed)"):
        values, vectors = np.linalg.eigh(A.T @ A)
        A @ vectors[:, : -PATCH_RANK - 1 : -1]
    check(A, U, S, Vt, np.sqrt(values[::-1]))
    tiles = [component.reshape(PATCH, PATCH, 3) for component in Vt]
    tiles = [np.kron(128 + 127 * tile / np.abs(tile).max(), np.ones((8, 8, 1))) for tile in tiles]
    rows = [np.hstack([np.pad(tile, ((2, 2), (2, 2), (0, 0))) for tile in tiles[i : i + 8]]) for i in (0, 8)]
    path = OUTPUT / "patch-components.png"
    Image.fromarray(np.vstack(rows).astype(np.uint8)).save(path)
    print(f"  the components, largest first: {path}")


def patches(photographs: list[np.ndarray]) -> np.ndarray:
    """Return a float64 matrix whose rows are the patches of some photographs, minus their mean."""
    cut = [
        np.lib.stride_tricks.sliding_window_view(photograph, (PATCH, PATCH), axis=(0, 1))
        .transpose(0, 1, 3, 4, 2)
        .reshape(-1, PATCH * PATCH * 3)
        for photograph in photographs
    ]
    A = np.concatenate(cut).astype(np.float64)
    A -= A.mean(axis=0)
    return A


def main() -> None:
    """Run the demonstration."""
    photographs = load_sample_images().images
    print("Alchemist for Ray: MPI linear algebra from a Ray call\n")
    with step("start Ray"):
        ray.init(include_dashboard=False, logging_level="error")
    with step("start an Alchemist server and two MPI workers"):
        alchemist.init(num_workers=2)
    decompose_picture(photographs[0])
    decompose_patches(photographs)
    alchemist.shutdown()
    ray.shutdown()
    print("\nDone.")


if __name__ == "__main__":
    main()
