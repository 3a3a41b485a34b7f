r"""Tree-level amplitudes of :math:`q\bar q' \to W^\pm Z \to` leptons with Wilson coefficients.

Exact in the on-shell approximation with massless fermions: all helicities, spin correlations of
the decays, one insertion in each amplitude. Amplitudes come as components (SM, HWB, W, Hq3) with
:math:`M = A_0 + \sum_i C_i A_i`, C_i in TeV^-2, or as Gram matrices

.. math:: G_{ab} = \mathrm{Re} \sum_h A_a^* A_b, \qquad \sum_h |M|^2 = v^T G v,\; v = (1, C).

Frame: partonic centre of mass, quark along +z, W at polar angle theta in the x-z plane with
positive x. Decay angles are those in the rest frame reached by a boost without rotation.

Not included: photon exchange and single-resonant diagrams, finite widths, shifts of leptonic
couplings and widths, QCD corrections.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sbi_physics.errors import ContractError
from sbi_physics.types import FloatArray, IntArray
from sbi_physics_smeft import kernels
from sbi_physics_smeft.model import THRESHOLD

PARTICLES: Final = ("q", "qbar", "l", "nu", "l-", "l+")
"""Order of `momenta`: incoming quark and antiquark, leptons of the W, leptons of the Z."""


def helicity_amplitudes(
    sqrt_s: ArrayLike, cos_theta: ArrayLike, charge: ArrayLike
) -> NDArray[np.complex128]:
    """Amplitudes of q qbar' -> W Z in the basis of real polarisations (L, x, y).

    Args:
        sqrt_s: Invariant mass of the pair in GeV, shape (n,), above m_W + m_Z.
        cos_theta: Cosine of the angle between W and quark, shape (n,).
        charge: Charge of the W, 1 or -1, shape (n,).

    Returns:
        Shape (n, 3, 3, 4): polarisation of the W, of the Z, component. Helicity vectors are
        (-+ x + i y)/sqrt(2). One phase common to all entries is arbitrary.

    Raises:
        ContractError: If a value is out of range or shapes disagree.
    """
    energy, cosine, sign = _points(sqrt_s, cos_theta, charge)
    real = np.empty((len(energy), 3, 3, 4))
    kernels.tensors(energy, cosine, sign, real)
    phase = np.array([1.0, 1.0, -1.0j])
    return np.asarray(real * phase[:, None, None] * phase[:, None])


def gram_production(sqrt_s: ArrayLike, cos_theta: ArrayLike, charge: ArrayLike) -> FloatArray:
    """Gram matrices of q qbar' -> W Z, summed over all polarisations, shape (n, 4, 4).

    Args:
        sqrt_s: Invariant mass of the pair in GeV, shape (n,), above m_W + m_Z.
        cos_theta: Cosine of the angle between W and quark, shape (n,).
        charge: Charge of the W, 1 or -1, shape (n,).

    Raises:
        ContractError: If a value is out of range or shapes disagree.
    """
    energy, cosine, sign = _points(sqrt_s, cos_theta, charge)
    grams = np.empty((len(energy), 4, 4))
    kernels.production_grams(energy, cosine, sign, grams)
    return grams


def gram_full(
    sqrt_s: ArrayLike,
    cos_theta: ArrayLike,
    charge: ArrayLike,
    decay_cos_w: ArrayLike,
    decay_phi_w: ArrayLike,
    decay_cos_z: ArrayLike,
    decay_phi_z: ArrayLike,
) -> FloatArray:
    """Gram matrices with decays, shape (n, 4, 4); their mean over decay angles is production's.

    Args:
        sqrt_s: Invariant mass of the pair in GeV, shape (n,), above m_W + m_Z.
        cos_theta: Cosine of the angle between W and quark, shape (n,).
        charge: Charge of the W, 1 or -1, shape (n,).
        decay_cos_w: Cosine of the polar angle of the W's charged lepton, shape (n,).
        decay_phi_w: Its azimuth.
        decay_cos_z: Cosine of the polar angle of the Z's negative lepton, shape (n,).
        decay_phi_z: Its azimuth.

    Raises:
        ContractError: If a value is out of range or shapes disagree.
    """
    energy, cosine, sign = _points(sqrt_s, cos_theta, charge)
    decay = _decay(len(energy), decay_cos_w, decay_phi_w, decay_cos_z, decay_phi_z)
    grams = np.empty((len(energy), 4, 4))
    kernels.full_grams(energy, cosine, sign, decay, grams)
    return grams


def momenta(
    sqrt_s: ArrayLike,
    cos_theta: ArrayLike,
    decay_cos_w: ArrayLike,
    decay_phi_w: ArrayLike,
    decay_cos_z: ArrayLike,
    decay_phi_z: ArrayLike,
) -> FloatArray:
    """Four-momenta (E, px, py, pz) in GeV of `PARTICLES`, shape (n, 6, 4).

    Args:
        sqrt_s: Invariant mass of the pair in GeV, shape (n,), above m_W + m_Z.
        cos_theta: Cosine of the angle between W and quark, shape (n,).
        decay_cos_w: Cosine of the polar angle of the W's charged lepton, shape (n,).
        decay_phi_w: Its azimuth.
        decay_cos_z: Cosine of the polar angle of the Z's negative lepton, shape (n,).
        decay_phi_z: Its azimuth.

    Raises:
        ContractError: If a value is out of range or shapes disagree.
    """
    energy, cosine, _ = _points(sqrt_s, cos_theta, np.ones(np.shape(sqrt_s), dtype=np.int64))
    decay = _decay(len(energy), decay_cos_w, decay_phi_w, decay_cos_z, decay_phi_z)
    p = np.zeros((len(energy), 6, 4))
    p[:, :2, 0] = energy[:, None] / 2
    p[:, 0, 3], p[:, 1, 3] = energy / 2, -energy / 2
    kernels.leptons(energy, cosine, decay, p[:, 2:])
    return p


def _points(
    sqrt_s: ArrayLike, cos_theta: ArrayLike, charge: ArrayLike
) -> tuple[FloatArray, FloatArray, IntArray]:
    energy = np.ascontiguousarray(sqrt_s, dtype=np.float64)
    cosine = np.ascontiguousarray(cos_theta, dtype=np.float64)
    sign = np.ascontiguousarray(charge, dtype=np.int64)
    if energy.ndim != 1 or not energy.shape == cosine.shape == sign.shape:
        raise ContractError(
            f"sqrt_s, cos_theta and charge must have one shape (n,), got {energy.shape}, "
            f"{cosine.shape} and {sign.shape}"
        )
    for name, unit, bad, values, accepted in (
        ("sqrt_s", " GeV", ~(energy > THRESHOLD), energy, f"above {THRESHOLD:g} GeV"),
        ("cos_theta", "", ~(np.abs(cosine) <= 1), cosine, "-1 to 1"),
        ("charge", "", np.abs(sign) != 1, sign, "1 and -1"),
    ):
        if bad.any():
            raise ContractError(f"{name} = {values[bad][0]:g}{unit}; accepted: {accepted}")
    return energy, cosine, sign


def _decay(n: int, *angles: ArrayLike) -> FloatArray:
    arrays = [np.asarray(a, dtype=np.float64) for a in angles]
    if any(a.shape != (n,) for a in arrays):
        raise ContractError(
            f"decay angles must have shape ({n},), got {', '.join(str(a.shape) for a in arrays)}"
        )
    decay = np.stack(arrays, axis=1)
    bad = ~(np.abs(decay[:, ::2]) <= 1)
    if bad.any():
        raise ContractError(
            f"cosine of a decay angle is {decay[:, ::2][bad][0]:g}; accepted: -1 to 1"
        )
    return decay
