"""Helpers for the validations of the simulations: print Markdown tables row by row, and write them to a page."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

Table = tuple[str, Sequence[str], Callable[[], Iterable[Sequence[str]]]]
"""A title, the heads of the columns, and a function that returns the rows."""


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
    """Return a parser with the options that all validations have."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--results", type=Path, metavar="DIR", help="also write the tables to this directory")
    return parser


def publish(simulation: str, lines: Iterable[str], directory: Path | None) -> None:
    """Print each line at once, and write all lines to a page in `directory` unless it is None."""
    kept = []
    for line in lines:
        print(line, flush=True)
        kept.append(line)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        heading = f"# Validation of `{simulation}`\n\nPrinted by `python experiments/validate/{simulation}.py`.\n\n"
        (directory / f"validation_{simulation}.md").write_text(heading + "\n".join(kept).rstrip() + "\n")
