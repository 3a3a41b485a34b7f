"""Parametrised responses that need no data files.

Tables fitted to the on-region response (radius 0.1 deg, source offset 0.5 deg) of the public CTAO
performance files: prod5 North, 20 deg zenith, 50 h (Zenodo 5499840, CC BY 4.0) and prod3b South,
20 deg zenith, 50 h. Columns over x = log10(E / TeV): log10 of the effective area in m^2 including
containment; width and bias of ln(E_reco / E_true), taken as Gaussian; log10 of the background rate
dN / dt / dlnE in s^-1. They follow the files' effective area with an rms of 2.8 % (North) and
3.8 % (South) and the background with 2.6 % and 3.7 % in 30 GeV - 3 TeV. Below 30 GeV single
bins are off by up to a factor 2-4: good for methods and tests, not for quoting sensitivities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtr

from sbi_physics_alp.response import Response, reco_energy_edges, true_energy_edges

Array = np.ndarray[Any, np.dtype[np.float64]]

_THRESHOLD_SLOPE = 5.4  # log10 of the area against x below the table

# Columns: x, log10 area, width, bias, log10 rate.
_NORTH = np.array(
    [
        [-1.8, 1.929, 0.1681, 0.4120, -3.216],
        [-1.6, 3.019, 0.1836, 0.1550, -1.452],
        [-1.4, 3.773, 0.2124, 0.0165, -1.173],
        [-1.2, 4.321, 0.1831, 0.0064, -1.242],
        [-1.0, 4.736, 0.1540, -0.0265, -1.438],
        [-0.8, 4.980, 0.1354, -0.0288, -1.789],
        [-0.6, 5.203, 0.1150, -0.0174, -2.119],
        [-0.4, 5.362, 0.1027, -0.0155, -2.462],
        [-0.2, 5.504, 0.0921, -0.0132, -2.778],
        [0.0, 5.611, 0.0872, -0.0166, -3.163],
        [0.2, 5.713, 0.0867, -0.0173, -3.515],
        [0.4, 5.825, 0.0903, -0.0178, -3.864],
        [0.6, 5.890, 0.0953, -0.0234, -4.175],
        [0.8, 5.939, 0.0990, -0.0231, -4.311],
        [1.0, 5.957, 0.0931, -0.0219, -4.566],
        [1.2, 5.925, 0.0960, -0.0386, -4.768],
        [1.4, 5.985, 0.0962, -0.0408, -4.841],
        [1.6, 5.911, 0.1084, -0.0466, -4.831],
        [1.8, 5.871, 0.1037, -0.0462, -4.967],
        [2.0, 5.937, 0.0966, -0.0619, -4.969],
    ]
)
_SOUTH = np.array(
    [
        [-1.8, 2.163, 0.1768, 0.3512, -2.041],
        [-1.6, 3.215, 0.1872, 0.1159, -1.122],
        [-1.4, 3.765, 0.2138, 0.0247, -1.082],
        [-1.2, 4.261, 0.1810, 0.0584, -1.310],
        [-1.0, 4.780, 0.1282, 0.0042, -1.429],
        [-0.8, 5.121, 0.1246, -0.0194, -1.720],
        [-0.6, 5.417, 0.1095, -0.0089, -2.001],
        [-0.4, 5.619, 0.0912, -0.0002, -2.274],
        [-0.2, 5.790, 0.0777, -0.0017, -2.556],
        [0.0, 5.941, 0.0698, -0.0044, -2.872],
        [0.2, 6.139, 0.0703, -0.0064, -3.119],
        [0.4, 6.344, 0.0684, -0.0021, -3.363],
        [0.6, 6.460, 0.0653, -0.0037, -3.558],
        [0.8, 6.528, 0.0608, -0.0012, -3.709],
        [1.0, 6.573, 0.0613, -0.0099, -4.121],
        [1.2, 6.586, 0.0609, -0.0032, -4.351],
        [1.4, 6.619, 0.0719, -0.0103, -4.756],
        [1.6, 6.682, 0.0678, -0.0110, -5.135],
        [1.8, 6.678, 0.0812, -0.0192, -5.528],
        [2.0, 6.585, 0.0959, -0.0273, -5.530],
    ]
)
NEGLIGIBLE = 1e-9
"""Probabilities of energy migration below this are set to zero."""

_TABLES = {
    "embedded": ("CTAO North prod5, 20 deg zenith, parametrised", _NORTH),
    "embedded-south": ("CTA South prod3b, 20 deg zenith, parametrised", _SOUTH),
}
EMBEDDED = tuple(_TABLES)
"""Names that `embedded_response` knows."""


def embedded_response(
    name: str = "embedded",
    *,
    livetime_s: float = 180000.0,
    reco_edges_gev: Array | None = None,
    true_edges_gev: Array | None = None,
) -> Response:
    """Build a response from its table.

    Args:
        name: ``embedded`` (North) or ``embedded-south``.
        livetime_s: Observation time in s; everything scales with it.
        reco_edges_gev: Reconstructed-energy edges in GeV; None: 200 bins 10 GeV - 100 TeV.
        true_edges_gev: True-energy edges in GeV; None: 5 GeV - 200 TeV, 100 bins a decade.

    Example:
        >>> embedded_response(livetime_s=3600.0).matrix.shape
        (200, 461)
    """
    if name not in _TABLES:
        raise ValueError(
            f"there is no embedded response {name!r}; there are {', '.join(EMBEDDED)}"
        )
    description, table = _TABLES[name]
    reco = reco_energy_edges() if reco_edges_gev is None else np.asarray(reco_edges_gev)
    true = true_energy_edges() if true_edges_gev is None else np.asarray(true_edges_gev)
    x_table, *columns = table.T
    log_area, sigma, bias, log_rate = (PchipInterpolator(x_table, column) for column in columns)
    energy = np.sqrt(true[1:] * true[:-1])
    x = np.log10(energy / 1e3)
    inside = np.clip(x, x_table[0], x_table[-1])
    area_m2 = 10.0 ** (log_area(inside) + _THRESHOLD_SLOPE * np.minimum(x - x_table[0], 0.0))
    shift = np.log(reco[:, None] / energy) - bias(inside)
    migration = np.diff(ndtr(shift / sigma(inside)), axis=0)
    migration[migration < NEGLIGIBLE] = 0.0
    centre = np.log10(np.sqrt(reco[1:] * reco[:-1]) / 1e3)
    rate = 10.0 ** log_rate(np.clip(centre, x_table[0], x_table[-1]))
    return Response(
        matrix=migration * (area_m2 * 1e4 * livetime_s),
        background=rate * livetime_s * np.diff(np.log(reco)),
        reco_edges_gev=reco,
        true_edges_gev=true,
        livetime_s=livetime_s,
        metadata={"name": name, "description": description, "region": "0.1 deg on region"},
    )
