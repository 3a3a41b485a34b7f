"""Absorption on the extragalactic background light, model of arXiv:1007.1459.

A photon survives with probability exp(-tau(E, z)). The package holds tau at the redshifts of its
simulators on the energy nodes of the published table, and interpolates linearly in log E, as that
table is meant to be. Below its first node (1 GeV) tau is 0; above its last (100 TeV) it stays
constant, near 35 for z = 0.0176, where nothing is left.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray[Any, np.dtype[np.float64]]


@cache
def _table() -> dict[str, Array]:
    file = resources.files("sbi_physics_alp") / "data" / "ebl_dominguez.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


def optical_depth(energy_gev: ArrayLike, redshift: float) -> Array:
    """Optical depth at observed energies, of their shape.

    Args:
        energy_gev: Observed photon energies in GeV.
        redshift: Redshift of the source: 0.017559 (NGC 1275) or 0.116 (PKS 2155-304).

    Example:
        >>> float(optical_depth(1e3, 0.017559).round(3))
        0.172
    """
    table = _table()
    match = np.flatnonzero(np.isclose(table["redshift"], redshift, rtol=0, atol=1e-9))
    if match.size == 0:
        raise ValueError(
            f"no table of optical depths at redshift {redshift}; there are tables at "
            f"{', '.join(str(z) for z in table['redshift'])}"
        )
    log_energy = np.log(np.asarray(energy_gev, dtype=np.float64))
    return np.asarray(np.interp(log_energy, np.log(table["energy_gev"]), table["tau"][match[0]]))
