r"""Where B mesons come from: two independent distributions, or a user's table.

The parametric source has :math:`x_F = 2 p_z^{cm} / \sqrt s \sim N(0, 0.1879)` cut at
:math:`|x_F| < 0.92`, :math:`p_T^2` exponential with mean 5.60 GeV^2, uniform azimuth, and half of
the mesons neutral. Only the shape matters: data are conditional on the number of events.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, Final

import numpy as np

from sbi_physics.errors import DataFileError, OptionError
from sbi_physics.types import FloatArray
from sbi_physics_beamdump.constants import E_BEAM, M_B0, M_BPLUS, PDG_B0, PDG_BPLUS

COLUMNS: Final = ("pdg", "px", "py", "pz")


def parametric() -> FloatArray:
    """The empty table, shape (0, 4): it stands for the parametric source."""
    return np.empty((0, 4))


def read_table(path: str | Path) -> FloatArray:
    """Read B mesons to draw from, uniformly with replacement.

    Args:
        path: An npz file with arrays `pdg`, `px`, `py`, `pz`, or a text file whose first line is
            `pdg,px,py,pz`. Momenta are in GeV in the laboratory, z along the beam; `pdg` is 511
            (B0) or 521 (B+), of either sign. Further columns are ignored.

    Returns:
        Rows (is B0, px, py, pz), shape (n, 4).

    Raises:
        DataFileError: If there is no such file.
        OptionError: If columns are missing, or a value is not acceptable.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataFileError(
            f"no table of B mesons at {file}; accepted is 'parametric' or the path of a file "
            f"with columns {', '.join(COLUMNS)}"
        )
    found = _columns(file)
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise OptionError(
            f"{file} lacks {', '.join(missing)}; it has {', '.join(found) or 'no columns'}"
        )
    shapes = {name: found[name].shape for name in COLUMNS}
    if len(set(shapes.values())) > 1 or found["pdg"].ndim != 1 or not len(found["pdg"]):
        raise OptionError(f"columns of {file} must be equally long and not empty, got {shapes}")
    species = np.abs(found["pdg"])
    foreign = ~np.isin(species, (PDG_B0, PDG_BPLUS))
    if foreign.any():
        raise OptionError(
            f"{file} has pdg = {found['pdg'][foreign][0]:g} in row {int(np.argmax(foreign))}; "
            f"accepted are {PDG_B0} (B0) and {PDG_BPLUS} (B+), of either sign"
        )
    table = np.stack([species == PDG_B0, *(found[name] for name in COLUMNS[1:])], axis=1)
    bad = ~np.isfinite(table).all(axis=1)
    if bad.any():
        raise OptionError(f"{file} has momenta that are not finite in row {int(np.argmax(bad))}")
    return table.astype(np.float64)


def highest_energy(table: FloatArray) -> float:
    """Largest energy (GeV) of a B meson, and so of an ALP, of a source.

    The beam's energy for the parametric one: energy conservation, which its tail exceeds with a
    probability below 1e-9.
    """
    if not len(table):
        return E_BEAM
    mass = np.where(table[:, 0] > 0, M_B0, M_BPLUS)
    return float(np.sqrt(mass**2 + (table[:, 1:] ** 2).sum(axis=1)).max())


def _columns(file: Path) -> dict[str, Any]:
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as data:
                return {name: np.asarray(data[name], dtype=np.float64) for name in data.files}
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream, skipinitialspace=True))
        names = [name.strip().lstrip("#").strip() for name in rows[0]] if rows else []
        values = np.array([[_number(v) for v in row] for row in rows[1:] if row])
        return dict(
            zip(names, values.T if len(values) else np.empty((len(names), 0)), strict=True)
        )
    except (ValueError, OSError) as error:
        raise OptionError(f"{file} cannot be read as a table of B mesons: {error}") from error


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else math.nan
