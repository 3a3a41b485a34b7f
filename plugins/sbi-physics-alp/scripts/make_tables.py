"""Make the tables in sbi_physics_alp/data from gammaALPs and ebltable.

    python scripts/make_tables.py

needs ``pip install gammaALPs ebltable``. Three files come out:

- ebl_dominguez.npz: optical depth of arXiv:1007.1459 at the redshifts of the simulators, on the
  energy nodes of ebltable's own table (which is linear in log10 E between them);
- ebl_dominguez_grid.npz: the same in single precision at redshifts 0 - 1, for other sources;
- milky_way_ngc1275.npz: regular field of arXiv:1204.3662 towards NGC 1275, the 99 cells that
  gammaALPs builds, outermost first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.integrate

# gammaALPs 0.4 imports the old name of this SciPy function.
if not hasattr(scipy.integrate, "simps"):
    scipy.integrate.simps = scipy.integrate.simpson

from ebltable.tau_from_model import OptDepth
from gammaALPs.base.environs import MixGMF
from gammaALPs.core import ALP, Source

DATA = Path(__file__).parents[1] / "sbi_physics_alp" / "data"
REDSHIFTS = (0.017559, 0.116)
GRID = np.concatenate([np.arange(50) / 100, 0.5 + np.arange(26) / 50])
NGC1275 = {"z": 0.017559, "ra": "03h19m48.1s", "dec": "+41d30m42s"}


def main() -> None:
    """Write all files."""
    depth = OptDepth.readmodel(model="dominguez")
    energy_gev = 10.0**depth.x
    tau = np.stack([depth.opt_depth(z, energy_gev / 1e3) for z in REDSHIFTS])
    np.savez_compressed(
        DATA / "ebl_dominguez.npz", redshift=np.array(REDSHIFTS), energy_gev=energy_gev, tau=tau
    )
    grid = np.stack([depth.opt_depth(z, energy_gev / 1e3) for z in GRID])
    np.savez_compressed(
        DATA / "ebl_dominguez_grid.npz",
        redshift=GRID,
        energy_gev=energy_gev,
        tau=grid.astype(np.float32),
    )
    galaxy = MixGMF(ALP(1.0, 1.0), Source(**NGC1275), EGeV=np.array([100.0]), model="jansson12")
    np.savez_compressed(
        DATA / "milky_way_ngc1275.npz",
        b_ug=galaxy.B.ravel(),
        psi_rad=galaxy.psin.ravel(),
        n_e_cm3=galaxy.nel,
        length_kpc=galaxy.dL,
    )


if __name__ == "__main__":
    main()
