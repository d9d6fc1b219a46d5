"""A loaded library, on the client's side: real functions, made from what the library says about itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alchemist_ray.description import LibraryDescription, TaskDescription
from alchemist_ray.errors import TaskNotFoundError

RunTask = Callable[[str, TaskDescription, tuple[Any, ...], dict[str, Any]], Any]


class Library:
    """A library that the workers of a session have loaded; its tasks are its methods.

    Made by :meth:`AlchemistSession.load_library`. ``help(lib.task)``, signatures, defaults and completion work as for
    any Python function.
    """

    def __init__(self, description: LibraryDescription, run: RunTask) -> None:
        self.description = description
        self.__doc__ = description.doc or f"The library {description.name}."
        for task in description.tasks:
            setattr(self, task.name, _as_function(description.name, task, run))

    @property
    def name(self) -> str:
        """Name of the library."""
        return self.description.name

    @property
    def version(self) -> str:
        """Version of the library, as it says itself."""
        return self.description.version

    def task(self, name: str) -> TaskDescription:
        """Return the description of a task.

        Raises
        ------
        TaskNotFoundError
            If the library has no such task.
        """
        for task in self.description.tasks:
            if task.name == name:
                return task
        raise TaskNotFoundError(self.name, name, sorted(task.name for task in self.description.tasks))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # Reached only for what is not there; tells type checkers that any other name is a function.
        if name.startswith("_") or name == "description":
            raise AttributeError(name)
        raise AttributeError(
            f"library {self.name!r} has no task {name!r}; it has "
            f"{', '.join(sorted(task.name for task in self.description.tasks))}"
        )

    def __repr__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"<Library {self.name}{version}: {', '.join(task.name for task in self.description.tasks)}>"


def _as_function(library: str, task: TaskDescription, run: RunTask) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        return run(library, task, args, kwargs)

    function.__name__ = task.name
    function.__qualname__ = f"{library}.{task.name}"
    function.__module__ = library
    function.__doc__ = task.doc
    function.__signature__ = task.signature  # type: ignore[attr-defined]  # inspect looks for it
    return function
