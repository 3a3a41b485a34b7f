r"""A parametrised detector: smeared leptons, missing momentum, selection and features.

Leptons: pT is multiplied by 1 + n sqrt(0.01^2 + (1e-4 pT/GeV)^2), eta and phi get 1e-3; missing
momentum is that of the neutrino plus 12 GeV in each component. The selection follows the WZ
measurements of the LHC (arXiv:1902.05759): pT > 20 GeV for the W's lepton and > 15 GeV for those
of the Z, abs(eta) < 2.5, the Z mass within 10 GeV, transverse mass of the W above 30 GeV. It
passes 34 % of events of the Standard Model.

The neutrino's longitudinal momentum is not used: it is known up to a two-fold ambiguity only.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit

from sbi_physics.types import BoolArray, FloatArray

FEATURES: Final = (
    "charge",
    *(f"{what}_{who}" for who in ("l", "lm", "lp") for what in ("ln_pt", "eta", "cos", "sin")),
    "ln_met",
    "cos_met",
    "sin_met",
    "m_ll",
    "ln_pt_z",
    "ln_mt_w",
    "ln_mt_wz",
)
"""Names of the 20 features. cos and sin are of azimuths relative to the Z; m_ll is m/m_Z - 1;
ln_met, ln_pt_z and ln_mt_w have 1 GeV added."""

_Z_MASS: Final = 91.2
_SMALLEST_PT: Final = 0.1
_MOST_TRIES: Final = 200_000
_PT_NOISE, _PT_SLOPE, _ANGLE, _MET = 0.01, 1e-4, 1e-3, 12.0
_PT_CUT_W, _PT_CUT_Z, _ETA_CUT, _MASS_WINDOW, _MT_CUT = 20.0, 15.0, 2.5, 10.0, 30.0
_RECORD: Final = 16


@njit(cache=True, nogil=True)
def _measure(momenta: np.ndarray, rng: np.random.Generator, out: np.ndarray) -> None:
    """Smear one event once: (pt, eta, phi) of l, l-, l+, then derived, shape (16,)."""
    x = y = scalar = 0.0
    energy = zx = zy = zz = 0.0
    for k in range(3):
        m = 0 if k == 0 else k + 1  # momenta are of l, nu, l-, l+
        px, py, pz = momenta[m, 0], momenta[m, 1], momenta[m, 2]
        true_pt = math.hypot(px, py)
        width = math.hypot(_PT_NOISE, _PT_SLOPE * true_pt)
        pt = max(true_pt * (1.0 + width * rng.standard_normal()), _SMALLEST_PT)
        eta = math.asinh(pz / true_pt) + _ANGLE * rng.standard_normal()
        phi = math.atan2(py, px) + _ANGLE * rng.standard_normal()
        out[3 * k], out[3 * k + 1], out[3 * k + 2] = pt, eta, phi
        c, s = pt * math.cos(phi), pt * math.sin(phi)
        x, y, scalar = x + c, y + s, scalar + pt
        if k > 0:
            zx, zy, zz = zx + c, zy + s, zz + pt * math.sinh(eta)
            energy += pt * math.cosh(eta)
    mx = momenta[1, 0] + _MET * rng.standard_normal()
    my = momenta[1, 1] + _MET * rng.standard_normal()
    met, phi_met = math.hypot(mx, my), math.atan2(my, mx)
    out[9], out[10] = met, phi_met
    out[11] = math.sqrt(max(energy * energy - zx * zx - zy * zy - zz * zz, 0.0))
    out[12], out[13] = math.hypot(zx, zy), math.atan2(zy, zx)
    out[14] = math.sqrt(2.0 * out[0] * met * (1.0 - math.cos(out[2] - phi_met)))
    total = scalar + met
    out[15] = math.sqrt(max(total * total - (x + mx) ** 2 - (y + my) ** 2, 0.0))


@njit(cache=True, nogil=True)
def _selected(o: np.ndarray) -> bool:
    leptons = o[0] > _PT_CUT_W and min(o[3], o[6]) > _PT_CUT_Z
    central = max(abs(o[1]), abs(o[4]), abs(o[7])) < _ETA_CUT
    bosons = abs(o[11] - _Z_MASS) < _MASS_WINDOW and o[14] > _MT_CUT
    return bool(leptons and central and bosons)


@njit(cache=True, nogil=True)
def _features(o: np.ndarray, charge: float, out: np.ndarray) -> None:
    out[0] = charge
    for k in range(3):
        out[4 * k + 1], out[4 * k + 2] = math.log(o[3 * k]), o[3 * k + 1]
        angle = o[3 * k + 2] - o[13]
        out[4 * k + 3], out[4 * k + 4] = math.cos(angle), math.sin(angle)
    out[13] = math.log(o[9] + 1.0)
    out[14], out[15] = math.cos(o[10] - o[13]), math.sin(o[10] - o[13])
    out[16] = o[11] / _Z_MASS - 1.0
    out[17], out[18] = math.log(o[12] + 1.0), math.log(o[14] + 1.0)
    out[19] = math.log(max(o[15], 1.0))


@njit(cache=True, nogil=True)
def _passes(momenta: np.ndarray, rng: np.random.Generator, out: np.ndarray) -> None:
    record = np.empty(_RECORD)
    for n in range(len(momenta)):
        _measure(momenta[n], rng, record)
        out[n] = _selected(record)


@njit(cache=True, nogil=True)
def _observe(
    momenta: np.ndarray,
    charge: np.ndarray,
    selection: bool,
    rng: np.random.Generator,
    out: np.ndarray,
) -> None:
    record = np.empty(_RECORD)
    for n in range(len(momenta)):
        out[n] = np.nan
        for _ in range(_MOST_TRIES):
            _measure(momenta[n], rng, record)
            if not selection or _selected(record):
                _features(record, charge[n], out[n])
                break


def passes(momenta: np.ndarray, rng: np.random.Generator) -> BoolArray:
    """Whether each event, measured once, is selected.

    Args:
        momenta: px, py, pz of l, nu, l-, l+ in GeV, shape (n, 4, 3).
        rng: Source of randomness.

    Returns:
        Shape (n,).
    """
    selected = np.empty(len(momenta), dtype=np.bool_)
    _passes(np.asarray(momenta, dtype=np.float64), rng, selected)
    return selected


def observe(
    momenta: np.ndarray, charge: np.ndarray, rng: np.random.Generator, *, selection: bool = True
) -> FloatArray:
    """Features of each event as measured, given that it is selected.

    Events are measured again until they pass, which draws from p(x|z, selected). Those that do
    not in 200 000 attempts are not a number.

    Args:
        momenta: px, py, pz of l, nu, l-, l+ in GeV, shape (n, 4, 3).
        charge: Charge of the W, shape (n,).
        rng: Source of randomness.
        selection: Whether to apply the selection.

    Returns:
        `FEATURES`, shape (n, 20).
    """
    features = np.empty((len(momenta), len(FEATURES)))
    _observe(
        np.asarray(momenta, dtype=np.float64),
        np.asarray(charge, dtype=np.float64),
        selection,
        rng,
        features,
    )
    return features
