"""Read a YAML file as an experiment; errors have the line, the key and the nearest known name.

PyYAML reads YAML 1.1, in which ``1e-4`` is a string (``1.0e-4`` is a number) and a repeated key replaces the earlier
one. Here ``1e-4`` is a number, and a repeated key is an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from alchemist_ray.errors import ExperimentError
from alchemist_ray.training.schema import Experiment, Section
from alchemist_ray.training.shipped import find_experiment

KeyPath = tuple[str | int, ...]


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
    """Quotes text that the loader would read as a number."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Reads YAML with numbers such as 1e-4."""


_NUMBER = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))


def load_experiment(file: str | Path, overrides: Sequence[str] = (), *, results: str | None = None) -> Experiment:
    """Read an experiment.

    Parameters
    ----------
    file : path
        Its YAML file, or the name of a shipped experiment, such as ``ppo_cylinder``.
    overrides : sequence of str
        ``key.path=value`` with a value in YAML; they replace values of the file.
    results : str, optional
        Directory of the results; it replaces the one in the file.

    Raises
    ------
    ExperimentError
        If the file cannot be read or is not valid YAML (with line and column), or if it is not a valid experiment: the
        text has every unknown key with its line and the nearest name, every wrong value and every contradiction.
    """
    path = find_experiment(file)
    text = _read(path)
    said, lines = parse(str(path), text)
    for override in overrides if said is not None else ():
        _override(str(path), said, override)
    if said is None:
        raise ExperimentError(str(path), ["the file is empty: it needs at least environment and stop"])
    if isinstance(said, dict):
        said.setdefault("name", path.stem)
        said |= {"results": results} if results is not None else {}
    try:
        experiment = Experiment.model_validate(said)
    except pydantic.ValidationError as wrong:
        problems = [_problem(error, said, lines) for error in wrong.errors()]
        raise ExperimentError(str(path), problems) from None
    return _with_whole_paths(experiment, path.resolve().parent)


def to_yaml(said: Mapping[str, Any]) -> str:
    """Return plain values as YAML, in their order."""
    return str(yaml.dump(dict(said), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def parse(name: str, text: str) -> tuple[Any, dict[KeyPath, int]]:
    """Return the contents of YAML text, and the line of each key.

    Raises
    ------
    ExperimentError
        If it is not valid YAML, or a key is given twice.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        lines: dict[KeyPath, int] = {}
        for key_path, key in _keys(node):
            line = key.start_mark.line + 1
            if key_path in lines:
                raise ExperimentError(
                    name, [f"line {line}: {_dotted(key_path)} is given twice, first in line {lines[key_path]}"]
                )
            lines[key_path] = line
        return yaml.load(text, Loader=_Loader), lines  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as wrong:
        raise ExperimentError(name, [_yaml_problem(wrong)]) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(str(other) for ending in ("*.yaml", "*.yml") for other in path.parent.glob(ending))
        hint = f"; its directory has {', '.join(near)}" if near else ""
        raise ExperimentError(str(path), [f"the file does not exist{hint}"]) from None
    except (OSError, UnicodeDecodeError) as failure:
        raise ExperimentError(str(path), [f"the file cannot be read: {failure}"]) from failure


def _yaml_problem(wrong: yaml.YAMLError) -> str:
    if isinstance(wrong, yaml.MarkedYAMLError) and wrong.problem_mark is not None:
        mark = wrong.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: not valid YAML: {wrong.problem}"
    return f"not valid YAML: {wrong}"


def _keys(node: yaml.Node | None, above: KeyPath = ()) -> Iterator[tuple[KeyPath, yaml.Node]]:
    """Yield the path and the node of every key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*above, str(key.value)), key
            yield from _keys(value, (*above, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            yield from _keys(value, (*above, place))


def _override(name: str, said: Any, override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ExperimentError(name, [f"--set {override}: give KEY.PATH=VALUE, e.g. stop.timesteps=1e5"])
    value, _ = parse(f"--set {override}", text)
    place = said
    for depth, part in enumerate(parts[:-1]):
        if not isinstance(place, dict):
            raise ExperimentError(name, [f"--set {override}: {'.'.join(parts[:depth])} has no keys"])
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
    if not isinstance(place, dict):
        raise ExperimentError(name, [f"--set {override}: {'.'.join(parts[:-1])} has no keys"])
    place[parts[-1]] = value


# --- errors -----------------------------------------------------------------------------------------------------------


def _problem(error: Any, said: Any, lines: Mapping[KeyPath, int]) -> str:
    """Return the text for one of pydantic's errors."""
    where = tuple(part for part in error["loc"] if part != "[key]")
    text = f"{_where(where, lines)}{_what(error, where)}"
    return text[0].lower() + text[1:] if not where else text


def _where(where: KeyPath, lines: Mapping[KeyPath, int]) -> str:
    if not where:
        return ""
    known = next((lines[where[:length]] for length in range(len(where), 0, -1) if where[:length] in lines), None)
    return (f"line {known}: " if known is not None else "") + f"{_dotted(where)}: "


def _what(error: Any, where: KeyPath) -> str:
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"unknown key; {_nearest(str(where[-1]), list(fields_at(where[:-1])))}"
    if kind == "missing":
        field = fields_at(where[:-1]).get(str(where[-1]))
        return f"missing{f': {field.description}' if field is not None and field.description else ''}"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "model_type":
        return f"must be keys and values, not {given!r}"
    if kind == "literal_error" and isinstance(given, str):
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"{given!r} is not one of {', '.join(choices)}{_did_you_mean(given, choices)}"
    message = error["msg"].removeprefix("Input should be ")
    shown = f"{given!r}"
    return f"must be {message}, not {shown if len(shown) < 80 else shown[:77] + '...'}"


def fields_at(where: KeyPath) -> Mapping[str, Any]:
    """Return the fields of the section at a path, by name; empty if the path is not that of a section."""
    kind: Any = Experiment
    for part in where:
        field = kind.model_fields.get(str(part)) if section_in(kind) is not None else None
        annotation = field.annotation if field is not None else kind
        kind = section_in(annotation) or object
    return kind.model_fields if section_in(kind) is not None else {}


def section_in(annotation: Any) -> type[Section] | None:
    """Return the section in an annotation, directly or as part of an optional, list or dict; None if it has none."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := section_in(part))), None)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _dotted(where: KeyPath) -> str:
    return ".".join(map(str, where))


# --- paths ------------------------------------------------------------------------------------------------------------


def _with_whole_paths(experiment: Experiment, directory: Path) -> Experiment:
    """Return the experiment with absolute paths instead of those that are relative to its file's directory."""
    environment, server = experiment.environment, experiment.server
    if environment.lib_path is not None and environment.lib_path.endswith((".py", ".so", ".dylib")):
        whole = str((directory / environment.lib_path).resolve())
        environment = environment.model_copy(update={"lib_path": whole})
    if server.token_file is not None:
        server = server.model_copy(update={"token_file": str((directory / server.token_file).expanduser().resolve())})
    return experiment.model_copy(update={"environment": environment, "server": server})
