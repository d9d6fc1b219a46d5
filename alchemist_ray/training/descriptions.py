"""The keys of an experiment as a table, for ``alchemist run --describe`` and the documentation."""

from __future__ import annotations

import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic.fields import FieldInfo

from alchemist_ray.training.loading import section_in
from alchemist_ray.training.schema import Experiment, Section


@dataclass(frozen=True)
class KeyDescription:
    """One key.

    Attributes
    ----------
    path : str
        Its path; ``NAME`` stands for a name that the user chooses.
    kind : str
        Its type.
    unit : str
        Empty if it has none.
    default : str
        As in YAML; ``required`` if the key has none.
    text : str
        Its meaning.
    """

    path: str
    kind: str
    unit: str
    default: str
    text: str


def keys(section: type[Section] = Experiment, above: str = "") -> Iterator[KeyDescription]:
    """Yield the keys of a section and of the sections in it, in their order."""
    for name, field in section.model_fields.items():
        path = f"{above}{name}"
        within = section_in(field.annotation)
        if within is None or field.description:
            yield KeyDescription(
                path, kind_of(field.annotation), _unit(field), _default(field), field.description or ""
            )
        if within is not None:
            chosen = ".NAME" if typing.get_origin(field.annotation) is dict else ""
            yield from keys(within, f"{path}{chosen}.")


def sections() -> dict[str, str]:
    """Return the purpose of each section, by path."""
    found = {}
    for name, field in Experiment.model_fields.items():
        within = section_in(field.annotation)
        if within is not None:
            found[name] = (within.__doc__ or "").strip()
    return found


def kind_of(annotation: Any) -> str:
    """Return the name of a type for readers."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind_of(parts[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in parts)
    if origin is list:
        return f"list of {kind_of(parts[0])}"
    if origin is dict or annotation is Any:
        return "keys and values" if origin is dict else "any"
    if parts:
        return " or ".join(kind_of(part) for part in parts if part is not type(None))
    return {int: "integer", float: "number", str: "text", bool: "true or false"}.get(annotation, "keys and values")


def _unit(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_short(part)}" for name, part in value.items()) + "}"
    return str(value)


def _short(value: Any) -> str:
    return str(getattr(value, "kind", value))


def as_markdown() -> str:
    """Return the table of the documentation."""
    lines = ["| key | type | unit | default | meaning |", "|---|---|---|---|---|"]
    for key in keys():
        default = f"`{key.default}`" if key.default and key.default != "required" else key.default
        lines.append(f"| `{key.path}` | {key.kind} | {key.unit} | {default} | {key.text} |")
    return "\n".join(lines)


def as_text(width: int = 100) -> str:
    """Return the keys for a terminal."""
    blocks, about, seen = [], sections(), ""
    for key in keys():
        section = key.path.partition(".")[0]
        if section != seen and section in about:
            blocks.append(f"\n{section}: {about[section]}")
        seen = section
        facts = ", ".join(part for part in (key.kind.replace("`", ""), key.unit) if part)
        default = f"; default {key.default}" if key.default not in ("", "required") else ""
        required = "; required" if key.default == "required" else ""
        blocks.append(f"{key.path} ({facts}{default}{required})")
        blocks.append(textwrap.indent(textwrap.fill(key.text.replace("`", ""), width - 4), "    "))
    return "\n".join(blocks)
