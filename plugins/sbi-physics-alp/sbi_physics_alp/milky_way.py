"""The regular magnetic field of the Milky Way on the way to us.

Towards NGC 1275 (l = 150.58 deg, b = -13.26 deg) the field of arXiv:1204.3662 (disk, toroidal
halo, X-shaped component) comes with the package: 99 cells from 13 kpc inwards, outermost first.
Other directions and models are computed by gammaALPs, an optional dependency.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from types import ModuleType
from typing import Final

import numpy as np

from sbi_physics_alp.cells import Cells, Domains

MODELS: Final = ("jansson12", "jansson12b", "jansson12c", "pshirkov")
"""Models of gammaALPs: arXiv:1204.3662, its updates after Planck, arXiv:1103.0814."""

NGC1275_DEG: Final = (49.950417, 41.511667)
"""Right ascension and declination (ICRS) of the embedded direction in deg."""

_SAME_DEG: Final = 0.01  # nearer directions have the same field


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


def galactic_cells(
    ra_deg: float, dec_deg: float, model: str = "jansson12", *, n_e_cm3: float | None = None
) -> Cells:
    """Cells of the Milky Way towards any direction, in the order the photon meets them.

    Args:
        ra_deg: Right ascension (ICRS) in deg.
        dec_deg: Declination (ICRS) in deg.
        model: One of `MODELS`.
        n_e_cm3: Electron density in cm^-3; None: the 10 cm^-3 of gammaALPs.

    Raises:
        ValueError: If the model is unknown or the direction is none.
        ImportError: If gammaALPs is needed and not installed.
    """
    if model not in MODELS:
        raise ValueError(f"there is no Galactic field {model!r}; there are {', '.join(MODELS)}")
    if not (0.0 <= ra_deg <= 360.0 and -90.0 <= dec_deg <= 90.0):
        raise ValueError(f"(ra, dec) = ({ra_deg}, {dec_deg}) deg is no direction")
    near = np.hypot(
        (ra_deg - NGC1275_DEG[0]) * np.cos(np.radians(dec_deg)), dec_deg - NGC1275_DEG[1]
    )
    if model == "jansson12" and near < _SAME_DEG:
        return milky_way_cells(n_e_cm3=n_e_cm3)
    return _from_gammaalps(ra_deg, dec_deg, model, n_e_cm3)


def _from_gammaalps(ra_deg: float, dec_deg: float, model: str, n_e_cm3: float | None) -> Cells:
    try:
        core, environs = import_gammaalps()
    except ImportError as error:
        raise ImportError(
            "the Milky Way in other directions than NGC 1275 needs the package gammaALPs: "
            "pip install gammaALPs"
        ) from error
    source = core.Source(z=0.01, ra=ra_deg, dec=dec_deg)
    galaxy = environs.MixGMF(core.ALP(1.0, 1.0), source, EGeV=np.array([100.0]), model=model)
    b, length = np.asarray(galaxy.B).ravel(), np.asarray(galaxy.dL)
    density = np.broadcast_to(galaxy.nel if n_e_cm3 is None else n_e_cm3, b.shape)
    return Domains(b, np.asarray(galaxy.psin).ravel(), density, length).to_cells()


def import_gammaalps() -> tuple[ModuleType, ModuleType]:
    """Return the modules `core` and `base.environs` of gammaALPs.

    Raises:
        ImportError: If gammaALPs is not installed.
    """
    with _old_name_in_scipy(), _without_git():
        from gammaALPs import core
        from gammaALPs.base import environs
    return core, environs


@contextmanager
def _old_name_in_scipy() -> Iterator[None]:
    """GammaALPs 0.4 imports a function of SciPy under a name that SciPy has dropped."""
    import scipy.integrate

    missing = not hasattr(scipy.integrate, "simps")
    if missing:
        scipy.integrate.simps = scipy.integrate.simpson
    try:
        yield
    finally:
        if missing:
            del scipy.integrate.simps


@contextmanager
def _without_git() -> Iterator[None]:
    """GammaALPs asks git for its version, and leaves that process and its pipe behind."""
    path = os.environ.get("PATH")
    os.environ["PATH"] = ""
    try:
        yield
    finally:
        if path is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = path
