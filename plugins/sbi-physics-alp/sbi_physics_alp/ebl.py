"""Absorption on the extragalactic background light: a photon survives with exp(-tau(E, z)).

The model of arXiv:1007.1459 (``dominguez``) comes with the package: exactly at the redshifts of
its two named sources, on a grid up to z = 1 for others. It is linear in log E between the energy
nodes of the published table, and in z between redshifts. Below its first node (1 GeV) tau is 0;
above its last (100 TeV) it stays constant, near 35 for z = 0.0176, where nothing is left.

Other models: a name of gammapy (`GAMMAPY_MODELS`, files below $GAMMAPY_DATA/ebl), the path of a
file in gammapy's format, or ``ebltable:NAME`` for any model of the package ebltable.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics_alp.data_files import locate

Array = np.ndarray[Any, np.dtype[np.float64]]

GAMMAPY_MODELS: Final[dict[str, str]] = {
    "franceschini": "arXiv:0805.1841",
    "finke": "arXiv:0905.1115",
    "franceschini17": "arXiv:1705.10256",
    "saldana-lopez21": "arXiv:2012.03035",
}
"""Models read from gammapy's files, with their references."""

_GAMMAPY_FILES: Final = {
    "franceschini": "ebl_franceschini.fits.gz",
    "finke": "frd_abs.fits.gz",
    "franceschini17": "ebl_franceschini_2017.fits.gz",
    "saldana-lopez21": "ebl_saldana-lopez_2021.fits.gz",
}
_EBLTABLE: Final = "ebltable:"
_EBLTABLE_NAMES: Final = (
    "dominguez, dominguez-lower, dominguez-upper, finke, finke2022, franceschini, "
    "franceschini2017, gilmore, gilmore-fixed, inoue, inoue-low-pop3, inoue-up-pop3, kneiske, "
    "saldana-lopez, saldana-lopez-lower, saldana-lopez-upper"
)  # of ebltable 0.6, for messages only: the package itself decides
_OPAQUE: Final = 1e-300  # transmissions below it are zero


def optical_depth(energy_gev: ArrayLike, redshift: float, model: str = "dominguez") -> Array:
    """Optical depth at observed energies, of their shape.

    Args:
        energy_gev: Observed photon energies in GeV.
        redshift: Redshift of the source; ``dominguez`` reaches up to 1.
        model: Model of the background light, see the head of this module.

    Raises:
        ValueError: If the redshift is outside the model, or the model is unknown.
        MissingDataError: If the file of the model is not there.

    Example:
        >>> float(optical_depth(1e3, 0.017559).round(3))
        0.172
    """
    energy = np.asarray(energy_gev, dtype=np.float64)
    if not (redshift >= 0 and np.isfinite(redshift)):
        raise ValueError(f"redshift must not be negative; got {redshift}")
    if model == "dominguez":
        return _dominguez(energy, redshift)
    if model.startswith(_EBLTABLE):
        return _ebltable(energy, redshift, model.removeprefix(_EBLTABLE))
    return _gammapy(energy, redshift, model)


@cache
def _table(name: str) -> dict[str, Array]:
    file = resources.files("sbi_physics_alp") / "data" / name
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
        return {key: data[key].astype(np.float64) for key in data.files}


def _dominguez(energy: Array, redshift: float) -> Array:
    table = _table("ebl_dominguez.npz")
    match = np.flatnonzero(np.isclose(table["redshift"], redshift, rtol=0, atol=1e-9))
    if match.size:
        nodes, tau = table["energy_gev"], table["tau"][match[0]]
    else:
        table = _table("ebl_dominguez_grid.npz")
        nodes, known = table["energy_gev"], table["redshift"]
        if redshift > known[-1]:
            raise ValueError(
                f"the table of model 'dominguez' ends at redshift {known[-1]:g}; got {redshift}. "
                f"Give another model, such as 'ebltable:dominguez'"
            )
        above = min(int(np.searchsorted(known, redshift, side="right")), known.size - 1)
        share = (redshift - known[above - 1]) / (known[above] - known[above - 1])
        tau = (1.0 - share) * table["tau"][above - 1] + share * table["tau"][above]
    return np.asarray(np.interp(np.log(energy), np.log(nodes), tau))


def _gammapy(energy: Array, redshift: float, model: str) -> Array:
    from astropy import units as u
    from gammapy.modeling.models import EBLAbsorptionNormSpectralModel

    if model in _GAMMAPY_FILES:
        path = locate(Path("$GAMMAPY_DATA/ebl") / _GAMMAPY_FILES[model])
    elif {"/", "."} & set(model):
        path = locate(model)
    else:
        raise ValueError(
            f"there is no model {model!r} of the background light; there are dominguez, "
            f"{', '.join(GAMMAPY_MODELS)}, {_EBLTABLE}NAME, or the path of a file"
        )
    absorption = EBLAbsorptionNormSpectralModel.read(path, redshift=redshift)
    transmission = absorption(np.atleast_1d(energy) * u.GeV).to_value("")
    tau = -np.log(np.clip(transmission, _OPAQUE, 1.0))
    return np.asarray(np.reshape(tau, energy.shape))


def _ebltable(energy: Array, redshift: float, name: str) -> Array:
    try:
        from ebltable.tau_from_model import OptDepth
    except ImportError as error:
        raise ValueError(
            f"the model '{_EBLTABLE}{name}' needs the package ebltable: pip install ebltable"
        ) from error
    try:
        depth = OptDepth.readmodel(model=name)
    except ValueError as error:
        raise ValueError(
            f"the package ebltable reads no model {name!r}; as '{_EBLTABLE}NAME' it knows "
            f"{_EBLTABLE_NAMES} ({error})"
        ) from error
    tau = depth.opt_depth(redshift, np.atleast_1d(energy) / 1e3)
    return np.asarray(np.reshape(np.maximum(tau, 0.0), energy.shape), dtype=np.float64)
