"""Shared code of the programs in this directory that run cases of linear algebra and print their results.

A program marks functions with :func:`case` and ends with ``main(sys.argv[1:])``. A case yields pairs of a label and a
result, on all ranks: scaled residuals, which the test compares with its limit, or the errors of all ranks.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import AlchemistError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg import small_problems

comm = MPI.COMM_WORLD
ctx = TaskContext(comm, "linalg.case")
Array = np.ndarray[Any, Any]
Case = Callable[[], Iterator[tuple[str, Any]]]
CASES: dict[str, Case] = {}
Item = TypeVar("Item")


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def dealt(items: Iterable[Item], sizes: tuple[int, ...] = (2, 3, 4)) -> list[Item]:
    """Return the share of `items` for this number of ranks.

    The items are shuffled, always in the same way, and divided among the numbers of ranks in `sizes`, so each item is
    tried on one of them and each gets a mixture. A number of ranks that is not in `sizes` gets the share of the first.
    """
    every = list(items)
    shuffled = np.random.default_rng(len(every)).permutation(len(every))
    hand = sizes.index(comm.size) if comm.size in sizes else 0
    return [every[at] for at in sorted(shuffled[hand :: len(sizes)])]


def spread(A: Array, pair: str = "MC_MR", block: int | None = None, **how: Any) -> DistMatrix:
    return DistMatrix.from_global(comm, A, Layout.of(pair, A.shape, comm.size, block=block, **how))


def raised(function: Callable[..., Any], *arguments: Any, context: TaskContext = ctx, **named: Any) -> list[str]:
    """Return the error of each rank as "name: text"."""
    try:
        function(context, *arguments, **named)
        outcome = "nothing"
    except AlchemistError as error:
        outcome = f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - reported to the test
        outcome = repr(error)
    return comm.allgather(outcome)


@contextlib.contextmanager
def solved_by(ranks: str) -> Iterator[None]:
    """Let ``all`` ranks solve problems of any size, or let ``one`` rank or the rules for ``small`` ones solve them."""
    largest, replicated = dict(small_problems.LARGEST), small_problems.REPLICATED
    if ranks == "all":
        small_problems.LARGEST.clear()
    if ranks == "one":
        small_problems.REPLICATED = -1
    try:
        yield
    finally:
        small_problems.LARGEST.update(largest)
        small_problems.REPLICATED = replicated


def main(names: list[str]) -> None:
    """Run the named cases; the first rank prints all their results as JSON, ``[case, label, result]``.

    By default all ranks share the work of each problem. If the name of a case begins with ``one:``, one rank solves
    small problems. If it begins with ``small:``, the library decides, and lets every rank solve the smallest ones.
    """
    for name in names:
        ranks, _, plain = name.rpartition(":")
        with solved_by(ranks or "all"):
            for label, result in CASES[plain]():
                if comm.rank == 0:
                    print(json.dumps([name, label, result], default=float), flush=True)
