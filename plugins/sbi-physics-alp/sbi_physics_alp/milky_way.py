"""The regular magnetic field of the Milky Way towards NGC 1275.

Field of arXiv:1204.3662 (disk, toroidal halo, X-shaped component) along the line of sight to
l = 150.58 deg, b = -13.26 deg: 99 cells from 13 kpc inwards, outermost first.
"""

from __future__ import annotations

from importlib import resources

import numpy as np

from sbi_physics_alp.cells import Cells, Domains


def milky_way_cells(*, n_e_cm3: float | None = None) -> Cells:
    """Cells of the Milky Way towards NGC 1275, in the order the photon meets them.

    Args:
        n_e_cm3: Electron density in cm^-3; None: the 10 cm^-3 of gammaALPs, kept so that whole
            chains agree with it. That is about 1000 times too dense, which changes conversion only
            for ALPs lighter than about 0.3 neV.
    """
    file = resources.files("sbi_physics_alp") / "data" / "milky_way_ngc1275.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
        density = data["n_e_cm3"] if n_e_cm3 is None else np.full(data["b_ug"].shape, n_e_cm3)
        return Domains(data["b_ug"], data["psi_rad"], density, data["length_kpc"]).to_cells()
