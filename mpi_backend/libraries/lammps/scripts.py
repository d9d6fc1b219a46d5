"""Rules for scripts of clients on this server.

LAMMPS runs programs (``shell``), loads code (``plugin``, ``python``), reads the environment, pipes compressed files
through programs, and opens any file by name. If ``/`` is one of the server's directories for files, its owner allows
all this. On any other server a script must follow these rules; it is checked before its first line runs:

- Commands that run programs, load code or open connections are refused. So are commands that read other commands from a
  file (``include``, ``jump`` to another file), because the file can change after the check.
- The name of a command is written out, not taken from a variable, also inside ``if`` and ``run ... every``.
- A file name is relative to the first of the directories for files, and has no part ``.`` or ``..``. A word with a
  slash contains no variable, and no word consists of dots only, so a script cannot assemble such a name.
- Files are not compressed, because LAMMPS would start the program for it through a shell.

These rules confine scripts to their directory. They do not protect LAMMPS from files made to crash it: then the worker
dies, and with it the group of this session, but no other group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import TaskContext
from alchemist_ray.mpi_backend.libraries.files.directories import is_inside

_REFUSED = frozenset({"shell", "python", "plugin", "mdi", "include", "partition", "server", "message", "geturl"})
_REFUSED_WORDS = frozenset({"getenv", "movie", "imd", "ipi", "mdi/qm", "mdi/qmmm"})
_FORMULAS = frozenset({"equal", "atom", "vector"})
_WORD = re.compile(r"\"[^\"]*\"|'[^']*'|\S+")
_NUMERIC = re.compile(r"\$\((?:[^():]|\([^():]*\))*\)")
_COMPRESSED = (".gz", ".bz2", ".zst", ".xz", ".lzma", ".lz4", ".z")
_OWNER = "the owner of this server does not allow this in scripts"


class _Refusal(Exception):
    """Why a line is refused."""


def everything_goes(ctx: TaskContext) -> bool:
    """Whether scripts on this server may do everything that its user may. Local."""
    return is_inside(Path("/"), ctx.directories)


def check(ctx: TaskContext, script: str) -> None:
    """Check that a script does only what this server allows. Local; the result is the same on all ranks.

    Raises
    ------
    ArgumentValueError
        If it does more; the error names the line.
    """
    if "\0" in script:
        raise ArgumentValueError(ctx.task, "the script contains a zero byte")
    if everything_goes(ctx):
        return
    for number, line in _logical_lines(script):
        try:
            _check_command(line)
        except _Refusal as why:
            raise ArgumentValueError(ctx.task, f"line {number}, {line.strip()!r}: {why}; {_OWNER}") from None


def variable_arguments(ctx: TaskContext, variables: dict[str, Any]) -> list[str]:
    """Return the command-line options that set LAMMPS' variables. Local; the result is the same on all ranks.

    Raises
    ------
    ArgumentValueError
        If a name or a value is not valid for an index variable.
    """
    arguments: list[str] = []
    for name, value in variables.items():
        values = [str(each) for each in (value if isinstance(value, (list, tuple)) else [value])]
        if not re.fullmatch(r"\w+", name) or not values or any(not each or each.startswith("-v") for each in values):
            raise ArgumentValueError(
                ctx.task,
                f"variable {name!r} = {value!r} is not valid: it needs a name of letters, digits and underscores, and "
                "values that are not empty and do not begin with -v",
            )
        if not everything_goes(ctx):
            for each in values:
                try:
                    _check_word(each)
                except _Refusal as why:
                    raise ArgumentValueError(ctx.task, f"variable {name!r}, {each!r}: {why}; {_OWNER}") from None
        arguments += ["-var", name, *values]
    return arguments


def _logical_lines(script: str) -> Iterator[tuple[int, str]]:
    """Yield the commands with continuation lines joined as LAMMPS does, each with the number of its first line."""
    begun, first = "", 0
    for number, line in enumerate(script.splitlines(), 1):
        first = first if begun else number
        begun += line
        if begun.rstrip().endswith("&"):
            begun = begun.rstrip()[:-1]
            continue
        yield first, begun
        begun = ""
    yield first, begun


def _check_command(line: str) -> None:
    if '"""' in line:
        raise _Refusal("triple quotes")
    words = []
    for word in _WORD.findall(line):
        if word.startswith("#"):
            break
        words.append(word[1:-1] if word[0] in "\"'" and word[0] == word[-1] and len(word) > 1 else word)
    if not words:
        return
    name = words[0]
    if not re.fullmatch(r"[a-z][a-z0-9_]*(/[a-z0-9_]+)*", name):
        raise _Refusal(f"the name of a command must be written out, not {name!r}")
    if name in _REFUSED or (name == "jump" and words[1:2] != ["SELF"]):
        raise _Refusal(f"the command {name!r}")
    for body in _bodies(words):
        _check_command(body)
    for word in _plain_words(words):
        _check_word(word)


def _bodies(words: list[str]) -> Iterator[str]:
    """Yield the commands that a command runs."""
    if words[0] == "if":
        inside = False
        for word in words[2:]:
            if word in ("then", "else", "elif"):
                inside = word != "elif"
            elif inside:
                yield word
            else:  # the condition of an elif
                inside = False
    elif words[0] == "run" and "every" in words:
        yield from (word for word in words[words.index("every") + 2 :] if word != "NULL")


def _plain_words(words: list[str]) -> list[str]:
    """Return the words of a command that may be file names: all but formulas, conditions, texts and commands."""
    if words[0] == "if":
        return []
    if words[0] == "run" and "every" in words:
        return words[1 : words.index("every")]
    if words[0] == "variable" and len(words) > 2 and words[2] in _FORMULAS:
        return []
    if words[0] == "print":
        return words[2:]
    if words[0] == "fix" and words[3:4] == ["print"]:
        return words[1:5] + words[6:]
    return words[1:]


def _check_word(word: str) -> None:
    if word.lower() in _REFUSED_WORDS or word.startswith("python"):
        raise _Refusal(f"{word!r}")
    if word != "|^" and re.search(r"[;|&`\\\n]", word):
        raise _Refusal(f"{word!r} has characters that mean something to a shell")
    if word.lower().endswith(_COMPRESSED):
        raise _Refusal(f"{word!r} is a compressed file")
    word = _NUMERIC.sub("0", word)
    if word and not word.strip("."):
        raise _Refusal(f"{word!r}")
    if "/" in word and ("$" in word or any(not part.strip(".") for part in word.split("/"))):
        raise _Refusal(f"{word!r} is not a relative path without variables, '.' and '..'")
