"""Published limits on the photon coupling of ALPs, from two-column text files.

The format of the AxionLimits repository (doi:10.5281/zenodo.3932430), folder
``limit_data/AxionPhoton``: mass in eV and coupling in GeV^-1, separated by blanks, tabs or commas,
``#`` before comments. A curve bounds an excluded region: everything above it, or the inside of a
closed polygon. Procedures differ between experiments (confidence level, treatment of fields), so
curves are for orientation beside a posterior, not for a quantitative comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import DataFileError, ObservationError

Array = np.ndarray[Any, np.dtype[np.float64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class PublishedLimit:
    """The boundary of an excluded region.

    Attributes:
        name: Name of the file without suffix.
        comment: Comment lines at its head, for example with the reference.
        m_ev: Masses of the boundary in eV, in the order of the file, shape (n,).
        g: Couplings of the boundary in GeV^-1, shape (n,).
        is_region: Whether the boundary runs around a region (masses go forth and back); if not,
            everything above it is excluded.
    """

    name: str
    comment: str
    m_ev: Array
    g: Array
    is_region: bool

    def excludes(self, m_ev: ArrayLike, g: ArrayLike) -> BoolArray:
        """Whether points are in the excluded region; arguments broadcast.

        Args:
            m_ev: Masses in eV.
            g: Couplings in GeV^-1.
        """
        x, y = np.broadcast_arrays(*(np.log(np.asarray(a, dtype=np.float64)) for a in (m_ev, g)))
        log_m, log_g = np.log(self.m_ev), np.log(self.g)
        if not self.is_region:
            order = np.argsort(log_m, kind="stable")
            inside = (x >= log_m[order[0]]) & (x <= log_m[order[-1]])
            return np.asarray(inside & (y >= np.interp(x, log_m[order], log_g[order])))
        return _inside(x, y, log_m, log_g)

    def lowest(self) -> tuple[float, float]:
        """Mass in eV and coupling in GeV^-1 where the boundary reaches lowest."""
        i = int(np.argmin(self.g))
        return float(self.m_ev[i]), float(self.g[i])


def read_limit(path: str | Path, *, is_region: bool | None = None) -> PublishedLimit:
    """Read one file.

    Args:
        path: A text file of two columns, eV and GeV^-1.
        is_region: Whether the curve runs around a region; None: it does if its masses go forth
            and back.

    Raises:
        DataFileError: If there is no such file.
        ObservationError: If it is no text in UTF-8, or does not hold two columns of positive
            numbers.
    """
    file = Path(path)
    if not file.is_file():
        raise DataFileError(f"there is no file {file}")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ObservationError(f"{file} is not a text file in UTF-8: {error}") from error
    comment = "\n".join(line.lstrip("# ") for line in lines if line.lstrip().startswith("#"))
    rows = [line.split("#")[0].replace(",", " ").split() for line in lines]
    try:
        values = np.array([[float(v) for v in row[:2]] for row in rows if row], dtype=np.float64)
    except ValueError as error:
        raise ObservationError(f"{file} is not a table of numbers: {error}") from error
    if values.ndim != 2 or values.shape[1:] != (2,) or not (values > 0).all():
        raise ObservationError(
            f"{file} must hold two columns of positive numbers, mass in eV and coupling in GeV^-1"
        )
    m_ev, g = values.T
    if is_region is None:
        steps = np.diff(m_ev)
        is_region = bool((steps > 0).any() and (steps < 0).any())
    return PublishedLimit(file.stem, comment, m_ev, g, is_region)


def read_limits(folder: str | Path) -> dict[str, PublishedLimit]:
    """Read every ``.txt`` file of a folder, by name.

    Raises:
        DataFileError: If the folder has none.
    """
    files = sorted(Path(folder).glob("*.txt"))
    if not files:
        raise DataFileError(
            f"{folder} holds no .txt files; get some from limit_data/AxionPhoton of the "
            f"AxionLimits repository"
        )
    return {file.stem: read_limit(file) for file in files}


def _inside(x: Array, y: Array, edge_x: Array, edge_y: Array) -> BoolArray:
    """Even-odd rule for the polygon closed from its last to its first point."""
    inside = np.zeros(x.shape, dtype=np.bool_)
    for x0, y0, x1, y1 in zip(
        edge_x, edge_y, np.roll(edge_x, -1), np.roll(edge_y, -1), strict=True
    ):
        if x0 == x1:
            continue
        between = (x0 <= x) != (x1 <= x)
        inside ^= between & (y > y0 + (x - x0) * (y1 - y0) / (x1 - x0))
    return inside
