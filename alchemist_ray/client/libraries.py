"""A loaded library on the client's side: real functions, made from the library's description of itself."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import numpy as np

from alchemist_ray.client.annotations import signature_of
from alchemist_ray.errors import ArgumentError, ArgumentValueError, TaskNotFoundError
from alchemist_ray.protocol.descriptions import LibraryDescription, TaskDescription


class RunsTasks(Protocol):
    """The function of a session that runs tasks."""

    def __call__(
        self,
        library: str,
        task: TaskDescription,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None = None,
        /,
    ) -> Any:
        """Run a task, for at most `timeout` seconds."""


class Library:
    """A library that the workers of a session have loaded; its tasks are its methods.

    Made by :meth:`AlchemistSession.load_library`. ``help(lib)`` lists the tasks, ``help(lib.task)`` documents one;
    signatures, defaults and completion work as for any Python function. ``lib["task"]`` is the same function as
    ``lib.task``; use it for a task that has the name of an attribute of this class.

    A library and its functions do not pickle: tasks run in the process of their session.
    """

    def __init__(self, description: LibraryDescription, run: RunsTasks, timeout: float | None = None) -> None:
        self.description = description
        self._caller = _Caller(description.name, run, timeout)
        self._functions = {task.name: _as_function(self._caller, task) for task in description.tasks}
        self.__doc__ = catalogue(description)
        for name, function in self._functions.items():
            if not hasattr(Library, name) and name != "description":
                self.__dict__[name] = function

    @property
    def name(self) -> str:
        """Name of the library."""
        return self.description.name

    @property
    def version(self) -> str:
        """Version of the library, from its own description."""
        return self.description.version

    def options(self, *, timeout: float | None) -> Library:
        """Return the same library with another time limit for its tasks.

        Parameters
        ----------
        timeout : float or None
            Seconds after which the caller of a task gets TaskTimeoutError; None: the limit of the session. A task
            that cannot be stopped is ended 10 seconds later, together with the worker group and all its matrices.

        Raises
        ------
        ArgumentValueError
            If it is not greater than 0.
        """
        return Library(self.description, self._caller.run, check_timeout(self.name, timeout))

    def task(self, name: str) -> TaskDescription:
        """Return the description of a task.

        Raises
        ------
        TaskNotFoundError
            If the library has no such task.
        """
        return find_task(self.description, name)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._functions[self.task(name).name]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # Called for missing names only; it tells type checkers that any other name is a function.
        if name.startswith("_") or name == "description":
            raise AttributeError(name)
        raise AttributeError(unknown_task(self.description, name))

    def __reduce__(self) -> NoReturn:
        self._caller.refuse_to_pickle()

    def __repr__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"<Library {self.name}{version}: {', '.join(self._functions)}>"


def find_task(description: LibraryDescription, name: str) -> TaskDescription:
    """Return the description of a task.

    Raises
    ------
    TaskNotFoundError
        If the library has no such task.
    """
    for task in description.tasks:
        if task.name == name:
            return task
    raise TaskNotFoundError(description.name, name, sorted(task.name for task in description.tasks))


def unknown_task(description: LibraryDescription, name: str) -> str:
    """Return the text about a task that does not exist: the nearest name, or all names."""
    tasks = sorted(task.name for task in description.tasks)
    near = difflib.get_close_matches(name, tasks, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(tasks)}"
    return f"library {description.name!r} has no task {name!r}; {hint}"


def catalogue(description: LibraryDescription, signature: Callable[[TaskDescription], Any] = signature_of) -> str:
    """Return the description of a library, with two lines for each of its tasks."""
    head = description.doc or f"The library {description.name}."
    tasks = [f"{task.name}{signature(task)}\n    {_first_sentence(task.doc)}" for task in description.tasks]
    return "\n\n".join([head, "Tasks:", *(text.rstrip() for text in tasks)])


def _first_sentence(doc: str) -> str:
    return " ".join(doc.strip().partition("\n\n")[0].split())


def whole_number(where: str, name: str, value: Any) -> int:
    """Return the value of an argument as an int.

    Raises
    ------
    ArgumentError
        If it is not an integer: a float is not rounded, and a bool is not a number.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ArgumentError(where, f"{name} must be an integer, not {value!r} ({type(value).__name__})")
    return int(value)


def check_timeout(what: str, timeout: Any) -> float | None:
    """Check a time limit for tasks, and return it; None means unlimited.

    Raises
    ------
    ArgumentError
        If it is not a number.
    ArgumentValueError
        If it is not greater than 0.
    """
    if timeout is None or timeout == math.inf:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float, np.integer, np.floating)):
        raise ArgumentError(what, f"a timeout must be a number of seconds, not {type(timeout).__name__}")
    if not timeout > 0:
        raise ArgumentValueError(what, f"a timeout must be greater than 0 seconds, not {timeout!r}")
    return float(timeout)


class _Caller:
    """Calls the tasks of a library. All functions of the library refer to it, so none of them pickles."""

    def __init__(self, library: str, run: RunsTasks, timeout: float | None) -> None:
        self.library = library
        self.run = run
        self.timeout = timeout

    def __call__(self, task: TaskDescription, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.run(self.library, task, args, kwargs, self.timeout)

    def refuse_to_pickle(self) -> NoReturn:
        """Say why a library cannot be sent to another process, and what to do instead."""
        raise TypeError(
            f"library {self.library!r} runs tasks in the process of its session and does not pickle: from another "
            f"process call alchemist.library({self.library!r}).task.remote(...) through Ray, or open a session there"
        )

    def __reduce__(self) -> NoReturn:
        self.refuse_to_pickle()


def _as_function(caller: _Caller, task: TaskDescription) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        return caller(task, args, kwargs)

    signature = signature_of(task)
    function.__name__ = task.name
    function.__qualname__ = f"{caller.library}.{task.name}"
    function.__module__ = caller.library
    function.__doc__ = task.doc
    function.__signature__ = signature  # type: ignore[attr-defined]  # read by inspect
    function.__annotations__ = {
        **{name: p.annotation for name, p in signature.parameters.items()},
        "return": signature.return_annotation,
    }
    return function
