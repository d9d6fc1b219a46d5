"""A program that starts fast although it loads many modules."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

_THREADS = "OPENBLAS_NUM_THREADS"


@contextlib.contextmanager
def loading_modules() -> Iterator[None]:
    """Load modules without the garbage collector and without threads of BLAS; call it before NumPy is imported.

    The collector would look again and again at objects that all stay. The threads of OpenBLAS spin for a while after
    they have started, on cores that other programs need; a program that computes nothing has no use for them. Each
    costs about as much time as it takes to import NumPy.
    """
    threads = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if threads is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = threads
