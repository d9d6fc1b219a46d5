"""Parse the thermodynamic output of LAMMPS.

LAMMPS prints one table for each ``run`` or ``minimize``, between the lines ``Per MPI rank memory allocation`` and
``Loop time of``, in one of three styles (``thermo_modify line``): ``one`` (a line of headings, then a line for each
output), ``multi`` (``Name = value`` over several lines, each output headed by a dashed line with the step) and
``yaml``. Warnings may appear in between. The table of a failed run has no ``Loop time`` line and ends with the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Columns = dict[str, npt.NDArray[Any]]

_BEGIN, _END = "Per MPI rank memory allocation", "Loop time of"
_MULTI_HEAD = re.compile(r"-+ Step +(\S+) -+ CPU = +(\S+) ")
_MULTI_FIELD = re.compile(r"(\S+) += +(\S+)")
_YAML_HEAD, _YAML_ROW = re.compile(r"keywords: \[(.*)\]"), re.compile(r" *- \[(.*)\]")


def tables(text: str) -> list[Columns]:
    """Return the columns of each table in the output of LAMMPS, in order: ``Step`` is int64, the others float64."""
    return [columns for lines in _sections(text) if (columns := _columns(lines))]


def _sections(text: str) -> Iterator[list[str]]:
    lines: list[str] | None = None
    for line in text.splitlines():
        if line.startswith(_BEGIN):
            if lines is not None:
                yield lines
            lines = []
        elif line.startswith(_END) and lines is not None:
            yield lines
            lines = None
        elif lines is not None:
            lines.append(line)
    if lines is not None:
        yield lines


def _columns(lines: list[str]) -> Columns:
    rows: list[dict[str, float]] = []
    names: list[str] = []
    for line in lines:
        if head := _MULTI_HEAD.match(line):
            rows.append({"Step": float(head[1]), "CPU": float(head[2])})
        elif rows and "CPU" in rows[-1] and not names and (fields := _MULTI_FIELD.findall(line)):
            rows[-1].update((name, float(value)) for name, value in fields)
        elif head := _YAML_HEAD.search(line):
            names = [name.strip(" '\"") for name in head[1].split(",") if name.strip()]
        elif not names and line.strip():
            names = line.split()
        else:
            row = _YAML_ROW.match(line)
            values = [value.strip() for value in row[1].split(",") if value.strip()] if row else line.split()
            if len(values) == len(names) and all(map(_is_number, values)):
                rows.append(dict(zip(names, map(float, values), strict=True)))
    columns = {name: np.array([row[name] for row in rows if name in row]) for name in (rows[0] if rows else ())}
    return {name: each.astype(np.int64) if name == "Step" else each for name, each in columns.items()}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
