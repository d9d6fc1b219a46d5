"""What the validations of the simulations share: tables in Markdown, printed as they come, and written to a page."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

Table = tuple[str, Sequence[str], Callable[[], Iterable[Sequence[str]]]]
"""A title, the heads of the columns, and what gives the rows."""


def lines_of(tables: Iterable[Table]) -> Iterator[str]:
    """Yield the lines of tables."""
    for title, heads, rows in tables:
        yield f"### {title}\n"
        yield from table_lines(heads, rows())
        yield ""


def table_lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of one table."""
    for row in (heads, ["---"] * len(heads)):
        yield "| " + " | ".join(row) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def arguments_of(description: str) -> argparse.ArgumentParser:
    """Return the options that every validation has."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--results", type=Path, metavar="DIR", help="directory to write the tables to as well")
    return parser


def publish(simulation: str, lines: Iterable[str], directory: Path | None) -> None:
    """Print lines as they come, and write them to a page of `directory`, if there is one."""
    kept = []
    for line in lines:
        print(line, flush=True)
        kept.append(line)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        heading = f"# Validation of `{simulation}`\n\nBy `python experiments/validate/{simulation}.py`.\n\n"
        (directory / f"validation_{simulation}.md").write_text(heading + "\n".join(kept).rstrip() + "\n")
