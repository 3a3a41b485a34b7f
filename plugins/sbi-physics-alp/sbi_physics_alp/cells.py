"""Cells of constant magnetic field along a line of sight, in polar or Cartesian form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells given by field components, in the order the photon meets them.

    Every array has shape (n_cells,), shared by all simulations, or (n, n_cells). Shorter lines of
    sight are padded with cells of zero length, which cost and change nothing.

    Attributes:
        b_x: Transverse field component in muG.
        b_y: The other transverse component in muG.
        n_e_cm3: Electron density in cm^-3.
        length_kpc: Cell length in kpc.
    """

    b_x: Array
    b_y: Array
    n_e_cm3: Array
    length_kpc: Array

    def __post_init__(self) -> None:
        _adopt(self, ("b_x", "b_y", "n_e_cm3", "length_kpc"), positive=("n_e_cm3", "length_kpc"))

    @property
    def rows(self) -> int:
        """Number of different lines of sight (1: shared by all simulations)."""
        return max(_rows(a) for a in (self.b_x, self.b_y, self.n_e_cm3, self.length_kpc))


@dataclass(frozen=True, slots=True)
class Domains:
    """Cells given by strength and angle of the transverse field.

    Shapes and padding as for `Cells`.

    Attributes:
        b_ug: Transverse field in muG.
        psi_rad: Its angle in rad, from the y axis: B_x = B sin(psi), B_y = B cos(psi).
        n_e_cm3: Electron density in cm^-3.
        length_kpc: Cell length in kpc.
    """

    b_ug: Array
    psi_rad: Array
    n_e_cm3: Array
    length_kpc: Array

    def __post_init__(self) -> None:
        names = ("b_ug", "psi_rad", "n_e_cm3", "length_kpc")
        _adopt(self, names, positive=("b_ug", "n_e_cm3", "length_kpc"))

    def to_cells(self) -> Cells:
        """The same cells by components."""
        b_x, b_y = self.b_ug * np.sin(self.psi_rad), self.b_ug * np.cos(self.psi_rad)
        return Cells(b_x, b_y, self.n_e_cm3, self.length_kpc)


def _adopt(record: Cells | Domains, names: tuple[str, ...], positive: tuple[str, ...]) -> None:
    """Convert the fields to float64 arrays and check them."""
    arrays = {name: np.asarray(getattr(record, name), dtype=np.float64) for name in names}
    n_cells = {a.shape[-1] if a.ndim in (1, 2) else -1 for a in arrays.values()}
    rows = {_rows(a) for a in arrays.values()} - {1}
    if len(n_cells) > 1 or -1 in n_cells or len(rows) > 1:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise ValueError(
            f"cells need arrays of shape (n_cells,) or (n, n_cells) that agree; got {shapes}"
        )
    for name, a in arrays.items():
        low = float(a.min()) if a.size else 0.0
        high = float(a.max()) if a.size else 0.0
        if not np.isfinite(low + high):
            raise ValueError(f"{name} has non-finite values (smallest {low}, largest {high})")
        if name in positive and low < 0:
            raise ValueError(f"{name} must not be negative; its smallest value is {low}")
        object.__setattr__(record, name, a)


def _rows(a: Array) -> int:
    return a.shape[0] if a.ndim == 2 else 1
