"""A harbour basin behind breakwaters: its bed, its gauges, and the wave makers in its mouth.

Places are fractions of the length L of the domain along x and of its width W along y. Heights are in m relative to
still water. Waves come from the west over a bed at -depth. In front of the harbour the bed rises to two thirds of that
depth, and in the east to a beach. The basin is 0.26 L long and W/2 wide. Its mouth, W/8 wide, is in the western
breakwater.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

WEST, EAST = 0.60, 0.86
"""Ends of the basin along x, as fractions of L: the middle of the western breakwater, and the start of the beach."""
SOUTH, NORTH = 0.25, 0.75
"""Middles of the southern and northern breakwaters, as fractions of W."""
MOUTH = 0.0625
"""Half the width of the mouth, as a fraction of W."""
MAKERS = 4
"""Number of wave makers side by side in the mouth."""

_CREST = 4.0
_HALF_CREST = 12.0
_FLANK = 24.0
_FOOT = 0.35
_GAUGES = {
    "offshore": ((0.30, 0.50), (0.40, 0.30), (0.40, 0.70), (0.50, 0.50)),
    "mouth": tuple((WEST, 0.5 + MOUTH * (2 * k - MAKERS + 1) / MAKERS) for k in range(MAKERS)),
    "basin": ((0.68, 0.36), (0.68, 0.64), (0.80, 0.36), (0.80, 0.64)),
}


@dataclass(frozen=True)
class Harbour:
    """The harbour in a domain of given size.

    Attributes
    ----------
    length, width : float
        Size L and W of the domain, in m.
    depth : float
        Depth of the sea in the west, in m.
    """

    length: float
    width: float
    depth: float

    def bed(self, x: Doubles, y: Doubles) -> Doubles:
        """Return the height of the bed in m at places (m) that broadcast against each other."""
        inner = self.depth * 2 / 3
        slope = np.interp(
            x / self.length, [0, _FOOT, WEST - 0.05, EAST, 0.98], [-self.depth, -self.depth, -inner, -inner, 3.0]
        )
        return np.maximum(slope, self._breakwaters(x, y, inner))

    def _breakwaters(self, x: Doubles, y: Doubles, inner: float) -> Doubles:
        """Return the height of the breakwaters. Elsewhere it is far below the bed."""
        behind = np.maximum(WEST * self.length - x, 0.0)
        off_axis = np.abs(y - 0.5 * self.width)
        arm = np.hypot(np.abs(off_axis - (NORTH - 0.5) * self.width), behind)
        past_mouth = np.maximum(MOUTH * self.width + _HALF_CREST + _FLANK / 2 - off_axis, 0.0)
        past_corner = np.maximum(off_axis - (NORTH - 0.5) * self.width, 0.0)
        head = np.hypot(np.abs(x - WEST * self.length), past_mouth + past_corner)
        beyond = np.minimum(arm, head) - _HALF_CREST
        return np.where(beyond <= 0, _CREST, _CREST - (_CREST + inner) / _FLANK * beyond)

    def in_basin(self, x: Doubles, y: Doubles) -> npt.NDArray[np.bool_]:
        """Return whether places are in the scored part of the basin: between the breakwaters, in front of the beach."""
        along = (x > WEST * self.length + _HALF_CREST + _FLANK) & (x < EAST * self.length)
        return along & (np.abs(y - 0.5 * self.width) < (NORTH - 0.5) * self.width - _HALF_CREST - _FLANK)

    def offshore(self, x: Doubles) -> Doubles:
        """Return 1 over the deep bed in the west and 0 in the east, with a smooth transition."""
        rise = np.clip((0.45 - x / self.length) / 0.2, 0.0, 1.0)
        return rise * rise * (3 - 2 * rise)

    def makers(self, x: Doubles, y: Doubles) -> list[Doubles]:
        """Return the weight of each wave maker at places, as a fraction of its full acceleration, 0 to 1.

        Wave makers stand side by side between the heads of the breakwaters. They act over 0.04 L along x, and their
        weights fall off smoothly at the ends.
        """
        along = np.clip(2.0 - np.abs(x - WEST * self.length) / (0.01 * self.length), 0.0, 1.0)
        lane = np.floor((y / self.width - 0.5 + MOUTH) / (2 * MOUTH) * MAKERS)
        return [along * (lane == k) for k in range(MAKERS)]

    def gauges(self) -> tuple[list[str], Doubles]:
        """Return the names of the gauges and their places (n, 2) in m."""
        names = [f"{where} {number}" for where, places in _GAUGES.items() for number in range(1, len(places) + 1)]
        places = np.array([place for group in _GAUGES.values() for place in group])
        return names, places * [self.length, self.width]
