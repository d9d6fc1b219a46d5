"""Tasks as Ray remote functions: ``alchemist.svd.remote(A, k)``, ``alchemist.library("name").task.remote(...)``.

A call checks its arguments against the library's description of the task, finds its session (an actor), writes large
arrays to the session's workers, and submits the task to the actor. The caller writes these arrays straight to the
workers; Ray's object store, which copies at a tenth of the speed, never holds them. An ``ObjectRef`` is passed on, and
the actor reads it.
"""

from __future__ import annotations

import copy
import inspect
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
import ray

from alchemist_ray.calls.catalogue import ROUTINES
from alchemist_ray.calls.holder import TaskCall
from alchemist_ray.calls.placing import pass_argument
from alchemist_ray.calls.routine import Operands, Routine
from alchemist_ray.client.annotations import REMOTE_PARAMETERS, signature_of
from alchemist_ray.client.libraries import catalogue, check_timeout, find_task, unknown_task
from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.matrices.sparse import is_sparse
from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.on_ray.sessions import RemoteSession, SessionLike, find_session, named_session
from alchemist_ray.protocol.descriptions import LibraryDescription, TaskDescription


def put(A: npt.ArrayLike, layout: str | Layout = "MC_MR", session: SessionLike | None = None) -> MatrixHandle:
    """Write a matrix to the workers of a session, to use it more than once.

    Parameters
    ----------
    A : array_like, shape (m, n)
        The matrix; or a sparse matrix of SciPy's. A vector becomes one column.
    layout : str or Layout
        How to distribute it; a sparse matrix is always distributed by rows.
    session : ActorHandle or str, optional
        The session; by default the default session of this process.

    Returns
    -------
    MatrixHandle
        Lives until it is freed or garbage collected.
    """
    found = find_session(session, None, [])
    return found.place(A if is_sparse(A) else _ANY_MATRIX.convert("A", A), layout)


_ANY_MATRIX = Operands({})


def _is_pending(value: Any) -> bool:
    return isinstance(value, ray.ObjectRef)


def _remote_signature(task: TaskDescription) -> inspect.Signature:
    return signature_of(task, REMOTE_PARAMETERS, "ObjectRef")


@dataclass(frozen=True)
class Options:
    """Where a remote function runs, and its time limit.

    Attributes
    ----------
    session : ActorHandle or str or None
        The session's actor, or its name.
    num_workers : int or None
        Without a session: the size of the session of this process to run in.
    timeout : float or None
        Seconds.
    """

    session: SessionLike | None = None
    num_workers: int | None = None
    timeout: float | None = None

    def but(self, session: SessionLike | None, num_workers: int | None, timeout: float | None) -> Options:
        """Return the options, changed where arguments are given.

        Raises
        ------
        ArgumentValueError
            If they contradict each other, or a number is too small.
        """
        if session is not None and num_workers is not None:
            raise ArgumentValueError("options", "give a session or a number of workers, not both")
        if num_workers is not None and num_workers < 1:
            raise ArgumentValueError("options", f"num_workers must be at least 1, not {num_workers}")
        limit = self.timeout if timeout is None else check_timeout("options", timeout)
        if session is None and num_workers is None:
            return replace(self, timeout=limit)
        return Options(session, num_workers, limit)

    def find(self, handles: list[MatrixHandle]) -> RemoteSession:
        """Return the session to run in; `handles` are arguments of the call."""
        return find_session(self.session, self.num_workers, handles)


class RemoteRoutine:
    """A task as a Ray remote function.

    Call it as ``function.remote(...)``. Matrices are given as arrays, sparse matrices of SciPy, ObjectRefs of these, or
    handles. Results are arrays, or handles if a matrix was given as a handle. A vector stands for a matrix of one
    column; then a result of one column is a vector. ``function.options(session=..., num_workers=...,
    timeout=...).remote(...)`` chooses where it runs, and for how long.

    Parameters
    ----------
    routine : Routine or (str, str)
        The task; or the names of library and task, if a session must describe the task first.
    options : Options
        Where it runs, and its time limit.
    """

    def __init__(self, routine: Routine | tuple[str, str], options: Options = Options()) -> None:
        self._options = options
        self._routine: Routine | None = None
        if isinstance(routine, Routine):
            library, task = self._names = routine.library, routine.task.name
            self._shown = f"alchemist.{routine.name}" if routine.name else f'alchemist.library("{library}").{task}'
            self._learn(routine)
        else:
            self._names = routine
            self._shown = f"alchemist.{routine[1]}"
            self.__name__ = routine[1]
            self.__doc__ = (
                f"The task {routine[1]} of the library {routine[0]} as a Ray remote function.\n\n"
                f"For its parameters: help(alchemist.library({routine[0]!r}).{routine[1]})."
            )

    def _learn(self, routine: Routine) -> Routine:
        """Take over the library's description of the task."""
        self._routine = routine
        self.__name__ = routine.name or routine.task.name
        self.__signature__ = _remote_signature(routine.task)
        self.__doc__ = f"{self.__name__}{self.__signature__}\n\n{routine.task.doc}"
        return routine

    def options(
        self, *, session: SessionLike | None = None, num_workers: int | None = None, timeout: float | None = None
    ) -> RemoteRoutine:
        """Return the same function with other options.

        Parameters
        ----------
        session : ActorHandle or str, optional
            The :class:`SessionActor` to run in, or its name.
        num_workers : int, optional
            Run in the session of this process with this many workers, which is made on first use.
        timeout : float, optional
            Seconds that the task may take once the session has started it; after that it raises TaskTimeoutError.
        """
        changed = copy.copy(self)
        changed._options = self._options.but(session, num_workers, timeout)
        return changed

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submit the task; return an ``ObjectRef`` to its result.

        Raises
        ------
        ArgumentError, ArgumentValueError, InvalidArrayError
            If an argument does not fit; then nothing has been sent.
        MatrixMemoryError
            If the workers have no room for a matrix.
        """
        handles = [value for value in (*args, *kwargs.values()) if isinstance(value, MatrixHandle)]
        routine = self._routine or self._ask(self._options.find(handles))
        arguments = routine.bind(args, kwargs, _is_pending)
        matrices = [p for p, value in arguments.items() if _is_pending(value) or routine.sends(p, value)]
        operands = replace(
            routine.operands, layouts={p: pair for p, pair in routine.operands.layouts.items() if p in matrices}
        )
        timeout = self._options.timeout
        takes_paths = any("path" in p.kinds for p in routine.task.parameters)
        directory = os.getcwd() if takes_paths else ""
        call = TaskCall(*self._names, tuple(arguments), operands, routine.smaller_side, timeout, directory)
        session = self._options.find(handles)
        placed: list[MatrixHandle] = []  # freed here unless the actor gets them
        try:
            values = [_pass(session, operands, name, value, placed) for name, value in arguments.items()]
            result = session.actor.run_routine.remote(call, *values)
        except BaseException:
            for handle in placed:
                handle.free()
            raise
        for handle in placed:
            handle.disown()
        return result

    def _ask(self, session: RemoteSession) -> Routine:
        """Ask a session for the library's description of the task."""
        library, task = self._names
        return self._learn(Routine.of(library, find_task(session.describe(library), task)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a remote function is not called directly."""
        raise TypeError(f"{self.__name__} is a remote function: call it as {self._shown}.remote(...)")

    def __repr__(self) -> str:
        parameters = f"({', '.join(p.name for p in self._routine.task.parameters)})" if self._routine else ""
        return f"<remote function {self._shown}{parameters}>"


def _pass(session: RemoteSession, operands: Operands, name: str, value: Any, placed: list[MatrixHandle]) -> Any:
    """Return the value that the actor gets for an argument; a large matrix is written to the workers here and now.

    An ``ObjectRef`` is written to the workers by a task of Ray, which Ray runs on the node that holds the object.
    """
    if name not in operands.layouts or isinstance(value, MatrixHandle):
        return value
    if _is_pending(value):
        return _pass_there.remote(session.actor, operands, name, value) if session.is_on_many_nodes else value
    passed, handle = pass_argument(session.place, operands, name, value)
    if handle is not None:
        placed.append(handle)
    return passed


def _pass_here(actor: Any, operands: Operands, name: str, value: Any) -> Any:
    """Do what :func:`_pass` does for a value that was a reference; the session frees the matrix."""
    if isinstance(value, MatrixHandle):
        return value
    placed: list[MatrixHandle] = []
    passed = _pass(named_session(actor), operands, name, value, placed)
    for handle in placed:
        handle.disown()
    return passed


_pass_there = ray.remote(num_cpus=0)(_pass_here)
"""Ray runs it on the node that holds the value."""


class RemoteLibrary:
    """A library whose tasks are Ray remote functions; made by :func:`library`.

    ``help(lib)`` lists the tasks, ``help(lib.task)`` documents one. ``lib["task"]`` is the same as ``lib.task``.
    """

    def __init__(self, description: LibraryDescription, options: Options) -> None:
        self.description = description
        self._options = options
        self._functions = {
            task.name: RemoteRoutine(Routine.of(description.name, task), options) for task in description.tasks
        }
        self.__doc__ = catalogue(description, _remote_signature)
        for name, function in self._functions.items():
            if not hasattr(RemoteLibrary, name) and name != "description":
                self.__dict__[name] = function

    def options(
        self, *, session: SessionLike | None = None, num_workers: int | None = None, timeout: float | None = None
    ) -> RemoteLibrary:
        """Return the same library with other options; see :meth:`RemoteRoutine.options`."""
        return RemoteLibrary(self.description, self._options.but(session, num_workers, timeout))

    def __getitem__(self, name: str) -> RemoteRoutine:
        return self._functions[find_task(self.description, name).name]

    def __getattr__(self, name: str) -> RemoteRoutine:
        # Called for missing names only; it tells type checkers that any other name is a function.
        raise AttributeError(name if name.startswith("_") else unknown_task(self.description, name))

    def __repr__(self) -> str:
        return f"<remote library {self.description.name}: {', '.join(self._functions)}>"


def library(
    name: str, *, session: SessionLike | None = None, num_workers: int | None = None, timeout: float | None = None
) -> RemoteLibrary:
    """Return a library of the server with its tasks as Ray remote functions.

    ::

        linalg = alchemist.library("linalg")
        L = ray.get(linalg.cholesky.remote(A, lower=True))
        heat = alchemist.library("heat", num_workers=2)

    Parameters
    ----------
    name : str
        Its registered name.
    session, num_workers, timeout : optional
        Where its tasks run, and their time limit; see :meth:`RemoteRoutine.options`.

    Raises
    ------
    LibraryNotFoundError, LibraryLoadError
        If the server has no such library, or it does not load.
    """
    options = Options().but(session, num_workers, timeout)
    return RemoteLibrary(options.find([]).describe(name), options)


svd = RemoteRoutine(ROUTINES["svd"])
matmul = RemoteRoutine(ROUTINES["matmul"])
qr = RemoteRoutine(ROUTINES["qr"])
solve = RemoteRoutine(ROUTINES["solve"])
lu = RemoteRoutine(("linalg", "lu"))
cholesky = RemoteRoutine(("linalg", "cholesky"))
lstsq = RemoteRoutine(("linalg", "lstsq"))
inv = RemoteRoutine(("linalg", "inv"))
det = RemoteRoutine(("linalg", "det"))
eigh = RemoteRoutine(("linalg", "eigh"))
eigvals = RemoteRoutine(("linalg", "eigvals"))
expm = RemoteRoutine(("linalg", "expm"))
pinv = RemoteRoutine(("linalg", "pinv"))
polar = RemoteRoutine(("linalg", "polar"))
condest = RemoteRoutine(("linalg", "condest"))
norm = RemoteRoutine(("linalg", "norm"))
pca = RemoteRoutine(("linalg", "pca"))
kmeans = RemoteRoutine(("linalg", "kmeans"))
