"""What a library says about itself, as plain data that crosses the wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ParameterDescription:
    """One parameter of a task.

    `kinds` are the kinds of value it takes: ``matrix, int, float, complex, bool, str, bytes, array, list, dict, none``
    or ``any``.
    """

    name: str
    kinds: tuple[str, ...]
    required: bool
    default: Any
    keyword_only: bool


@dataclass(frozen=True, slots=True)
class TaskDescription:
    """One task of a library."""

    name: str
    doc: str
    parameters: tuple[ParameterDescription, ...]
    returns: str


@dataclass(frozen=True, slots=True)
class LibraryDescription:
    """A library: its name, version, docstring and tasks."""

    name: str
    version: str
    doc: str
    tasks: tuple[TaskDescription, ...]

    def to_wire(self) -> dict[str, Any]:
        """Return the description as nested dicts and lists."""
        return asdict(self)

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> LibraryDescription:
        """Return the description that :meth:`to_wire` wrote."""
        tasks = tuple(
            TaskDescription(
                name=t["name"],
                doc=t["doc"],
                parameters=tuple(
                    ParameterDescription(**{**p, "kinds": tuple(p["kinds"])}) for p in t["parameters"]
                ),
                returns=t["returns"],
            )
            for t in fields["tasks"]
        )
        return cls(fields["name"], fields["version"], fields["doc"], tasks)
