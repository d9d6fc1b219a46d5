"""The layout that a caller asks for: a pair and optionally a grid, blocks and an alignment.

The shape of the matrix and the number of workers decide the rest.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from alchemist_ray.errors import LayoutError
from alchemist_ray.layouts.layout import Grid, Layout, check_pair

Blocks = int | tuple[int, int]
GridShape = Grid | tuple[int, int]


class LayoutOptions(TypedDict, total=False):
    """The options of a layout in addition to the name of its distribution pair; None stands for the default.

    Attributes
    ----------
    block_size : int or (int, int)
        Rows and columns of a block of the layout; the default depends on the shape. 1 is Elemental's distribution.
    grid : Grid or (int, int)
        Rows and columns of the process grid; by default the most square one.
    align : (int, int)
        The positions that get the first block of rows and of columns; (0, 0) by default.
    """

    block_size: Blocks | None
    grid: GridShape | None
    align: tuple[int, int] | None


@dataclass(frozen=True)
class LayoutChoice:
    """A layout for a matrix whose shape, or number of workers, is not known yet.

    Attributes
    ----------
    pair : str
        Name of the distribution pair, e.g. ``"VC_STAR"``.
    block : int or (int, int), optional
        Rows and columns of a block, or one number for both. The default depends on the shape of the matrix.
    grid : (int, int), optional
        Rows and columns of the process grid; by default the most square one.
    align : (int, int)
        The positions that get the first block of rows and of columns.
    """

    pair: str
    block: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None
    align: tuple[int, int] = (0, 0)

    @classmethod
    def of(
        cls,
        layout: LayoutLike,
        block_size: Blocks | None = None,
        grid: GridShape | None = None,
        align: tuple[int, int] | None = None,
        **unknown: Any,
    ) -> LayoutChoice:
        """Return the choice for a layout and :class:`LayoutOptions`.

        Raises
        ------
        LayoutError
            If the layout does not exist, or a whole :class:`.Layout` is given together with options.
        TypeError
            If an option is unknown.
        """
        for name in unknown:
            near = difflib.get_close_matches(name, LayoutOptions.__annotations__, 1)
            hint = f"did you mean {near[0]!r}?" if near else "the options are block_size, grid and align"
            raise TypeError(f"unknown option {name!r} of a layout; {hint}")
        if isinstance(layout, str):
            check_pair(layout)
            return cls(layout, _blocks(block_size), _grid(grid), _two("align", align) if align is not None else (0, 0))
        if block_size is not None or grid is not None or align is not None:
            raise LayoutError(
                f"a {type(layout).__name__} already contains block_size, grid and align: give these only with the name "
                "of a pair"
            )
        if isinstance(layout, LayoutChoice):
            return layout
        if isinstance(layout, Layout):
            return cls(layout.pair, layout.block, (layout.grid.nprow, layout.grid.npcol), layout.align)
        raise LayoutError(f"a layout must be the name of a pair or a Layout, not {layout!r}")

    def resolve(self, shape: tuple[int, int], size: int) -> Layout:
        """Return the layout for a matrix of `shape` on `size` ranks.

        Raises
        ------
        LayoutError
            If the choice does not fit the shape or the number of ranks.
        """
        grid = None if self.grid is None else Grid(*self.grid)
        return Layout.of(self.pair, shape, size, grid=grid, block=self.block, align=self.align)

    def to_wire(self) -> dict[str, Any]:
        """Return the choice as plain values."""
        return {"pair": self.pair, "block": self.block, "grid": self.grid, "align": self.align}

    @classmethod
    def from_wire(cls, fields: Mapping[str, Any]) -> LayoutChoice:
        """Return the choice that :meth:`to_wire` wrote.

        Raises
        ------
        LayoutError
            If `fields` do not describe a layout.
        """
        unknown = set(fields) - {"pair", "block", "grid", "align"}
        if unknown or not isinstance(fields.get("pair"), str):
            raise LayoutError(f"a layout is described by pair, block, grid and align, not by {dict(fields)!r}")
        return cls.of(fields["pair"], fields.get("block"), fields.get("grid"), fields.get("align"))


LayoutLike = str | Layout | LayoutChoice
"""A layout as a caller gives it: the name of a distribution pair, a whole layout, or a choice."""


def _blocks(given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    return _two("block_size", (given, given) if isinstance(given, (int, np.integer)) else given)


def _grid(given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    return (given.nprow, given.npcol) if isinstance(given, Grid) else _two("grid", given)


def _two(name: str, given: Any) -> tuple[int, int]:
    try:
        first, second = given
        if isinstance(first, bool) or isinstance(second, bool):
            raise TypeError
        return operator.index(first), operator.index(second)
    except (TypeError, ValueError):
        raise LayoutError(f"{name} must be two integers, not {given!r}") from None
