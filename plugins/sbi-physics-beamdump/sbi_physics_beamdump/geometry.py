"""Where an ALP may decay and where its photons are seen.

The beam runs along +z from the dump at the origin. Photons cross an empty decay volume to a
rectangular calorimeter in the plane z = z_cal. The volume's x range may widen linearly from the
entrance to the end, which makes a box or a truncated pyramid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final

import numpy as np

from sbi_physics.errors import ContractError, unknown_name
from sbi_physics.types import FloatArray


@dataclass(frozen=True, slots=True)
class Geometry:
    """Decay volume, calorimeter and the cuts on a pair of photons.

    Attributes:
        z_min: Begin of the decay volume, m.
        z_max: End of the decay volume, m.
        z_cal: Plane of the calorimeter, m, not before z_max.
        x_min: Low edge of the calorimeter in x, m.
        x_max: High edge of the calorimeter in x, m.
        y_min: Low edge of calorimeter and decay volume in y, m.
        y_max: High edge of calorimeter and decay volume in y, m.
        entrance_x_min: Low edge in x of the decay volume at z_min, m.
        entrance_x_max: High edge in x of the decay volume at z_min, m.
        end_x_min: Low edge in x of the decay volume at z_max, m.
        end_x_max: High edge in x of the decay volume at z_max, m.
        e_min: Least energy of each photon, GeV.
        separation_min: Least distance of the two hits, m.

    Raises:
        ContractError: If edges are not in order or a cut is negative.
    """

    z_min: float
    z_max: float
    z_cal: float
    x_min: float
    x_max: float
    y_min: float
    y_max: float
    entrance_x_min: float
    entrance_x_max: float
    end_x_min: float
    end_x_max: float
    e_min: float = 1.0
    separation_min: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.z_min < self.z_max <= self.z_cal:
            raise ContractError(
                f"a geometry needs 0 < z_min < z_max <= z_cal, got z_min = {self.z_min:g}, "
                f"z_max = {self.z_max:g}, z_cal = {self.z_cal:g} m"
            )
        for low, high in (
            ("x_min", "x_max"),
            ("y_min", "y_max"),
            ("entrance_x_min", "entrance_x_max"),
            ("end_x_min", "end_x_max"),
        ):
            a, b = getattr(self, low), getattr(self, high)
            if not a < b:
                raise ContractError(f"a geometry needs {low} < {high}, got {a:g} and {b:g} m")
        if not (self.e_min >= 0 and self.separation_min >= 0):
            raise ContractError(
                f"cuts cannot be negative, got e_min = {self.e_min:g} GeV, "
                f"separation_min = {self.separation_min:g} m"
            )

    @property
    def array(self) -> FloatArray:
        """The fields in their order, shape (13,), as compiled code wants them."""
        return np.array(astuple(self), dtype=np.float64)

    @property
    def azimuths(self) -> tuple[float, float]:
        """Middle and half width (rad) of the azimuths under which the dump sees the decay volume.

        Half a turn where the beam axis runs through it.
        """
        low = min(self.entrance_x_min, self.end_x_min), self.y_min
        high = max(self.entrance_x_max, self.end_x_max), self.y_max
        if all(a <= 0 <= b for a, b in zip(low, high, strict=True)):
            return 0.0, math.pi
        middle = math.atan2(0.5 * (low[1] + high[1]), 0.5 * (low[0] + high[0]))
        corners = [math.atan2(y, x) for x in (low[0], high[0]) for y in (low[1], high[1])]
        return middle, max(abs(math.remainder(c - middle, math.tau)) for c in corners)


def _box(
    x_min: float, x_max: float, z: tuple[float, float, float] = (10.0, 35.0, 35.0)
) -> Geometry:
    return Geometry(*z, x_min, x_max, -1.25, 1.25, x_min, x_max, x_min, x_max)


GEOMETRIES: Final[Mapping[str, Geometry]] = {
    # arXiv:2308.01353: calorimeter of 2.5 m side at the end of the decay volume. "Off-axis" is
    # called displaced there.
    "on-axis": _box(-1.25, 1.25),
    "off-axis": _box(1.0, 3.5),
    # arXiv:2407.20329: half width in x of 0.6 + 1.35 (z - 32) / 50 m.
    "ship-like": Geometry(32.0, 82.0, 93.0, -2.0, 2.0, -3.0, 3.0, -0.6, 0.6, -1.95, 1.95),
}
"""Published geometries, by name."""


def find_geometry(geometry: Geometry | str) -> Geometry:
    """Return a geometry given by name, or the one given.

    Raises:
        UnknownNameError: If there is no such name.
    """
    if isinstance(geometry, Geometry):
        return geometry
    if geometry not in GEOMETRIES:
        raise unknown_name("geometry", geometry, GEOMETRIES)
    return GEOMETRIES[geometry]


def changed_geometry(name: str, changes: Mapping[str, float]) -> Geometry:
    """Return a named geometry with other edges or cuts.

    The walls of a box-shaped decay volume follow the calorimeter; those of another shape stay.

    Args:
        name: Name of the geometry to start from.
        changes: Fields of `Geometry` and their values.
    """
    base = find_geometry(name)
    values: dict[str, Any] = {field: getattr(base, field) for field in Geometry.__slots__}
    for edge in ("x_min", "x_max"):
        walls = [f"entrance_{edge}", f"end_{edge}"]
        if edge in changes and all(values[wall] == values[edge] for wall in walls):
            values |= dict.fromkeys(walls, changes[edge])
    return Geometry(**{**values, **changes})
