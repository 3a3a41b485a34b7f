r"""Compiled scalar kernels of q qbar' -> W Z with leptonic decays.

Partonic centre-of-mass frame, quark along +z, W at polar angle theta in the x-z plane. Outgoing
polarisation vectors are real: L along the momentum, x in the plane, y out of it. In this basis an
amplitude is :math:`(-i)^{n_y} R_{ij}` with real R and n_y the number of y polarisations, so that
all four amplitudes (SM, HWB, W, Hq3) of one point are a real array of shape (3, 3, 4).

Diagrams: quark emits Z then W (T_Z), W then Z (T_W), and W* -> W Z with the general CP-even vertex
(S_g, S_k, S_l for g1, kappa, lambda; Nucl. Phys. B282 (1987) 253).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit

from sbi_physics_smeft.model import COS_W, M_W, M_Z, SIN2_W, SIN_W, TAN_W, Z_LEFT, G, X

_MW2: Final = M_W * M_W
_MZ2: Final = M_Z * M_Z
_G_W: Final = G / math.sqrt(2.0)
_G_Z: Final = G / COS_W
_G_T: Final = G * COS_W
_LEFT: Final = math.sqrt(1.5 * Z_LEFT)
_RIGHT: Final = math.sqrt(1.5 * (1.0 - Z_LEFT))
_W_NORM: Final = math.sqrt(1.5)


@njit(cache=True, nogil=True)
def momentum(s: float) -> float:
    """Momentum of W and Z in their centre-of-mass frame, GeV."""
    sum2, difference2 = (M_W + M_Z) ** 2, (M_W - M_Z) ** 2
    return 0.5 * math.sqrt(max((s - sum2) * (s - difference2), 0.0) / s)


@njit(cache=True, nogil=True)
def tensor(sqrt_s: float, cos_theta: float, charge: int, r: np.ndarray) -> None:
    """Amplitudes of all polarisations, written to `r` (W, Z, component), shape (3, 3, 4)."""
    s = sqrt_s * sqrt_s
    e = 0.5 * sqrt_s
    p = momentum(s)
    e1 = (s + _MW2 - _MZ2) / (2.0 * sqrt_s)
    e2 = sqrt_s - e1
    sin_theta = math.sqrt(max((1.0 - cos_theta) * (1.0 + cos_theta), 0.0))
    px, pz = p * sin_theta, p * cos_theta
    # Vectors (0, 1, 3 components) of the polarisations L and x; the Z goes the other way.
    a0 = (p / M_W, 0.0)
    a1 = (e1 * sin_theta / M_W, cos_theta)
    a3 = (e1 * cos_theta / M_W, -sin_theta)
    b0 = (p / M_Z, 0.0)
    b1 = (-e2 * sin_theta / M_Z, -cos_theta)
    b3 = (-e2 * cos_theta / M_Z, sin_theta)
    # Momenta of the exchanged quark, and the propagators.
    z0, z1, z3 = e - e2, px, e + pz
    w0, w1, w3 = e - e1, -px, e - pz
    over_tz = sqrt_s / (_MZ2 - 2.0 * e * (e2 + pz))
    over_tw = sqrt_s / (_MW2 - 2.0 * e * (e1 - pz))
    d = -1.0 / (s - _MW2)
    k1k2 = 0.5 * (s - _MW2 - _MZ2)
    pk1, pk2 = sqrt_s * e1, sqrt_s * e2
    k1q = sqrt_s * px
    if charge > 0:
        t1, q1, t2, q2, eta = 0.5, 2.0 / 3.0, -0.5, -1.0 / 3.0, 1.0
    else:
        t1, q1, t2, q2, eta = -0.5, -1.0 / 3.0, 0.5, 2.0 / 3.0, -1.0
    g_t = eta * _G_T
    for i in range(3):
        # First row of a^0 + sigma.a, last column of the same; y without its -i.
        if i < 2:
            ar0, ar1 = a0[i] + a3[i], a1[i]
            ac0, ac1 = a1[i], a0[i] - a3[i]
            k2a = e2 * a0[i] + px * a1[i] + pz * a3[i]
            qa = sqrt_s * a1[i]
        else:
            ar0, ar1, ac0, ac1, k2a, qa = 0.0, 1.0, 1.0, 0.0, 0.0, sqrt_s
        for j in range(3):
            if j < 2:
                br0, br1 = b0[j] + b3[j], b1[j]
                bc0, bc1 = b1[j], b0[j] - b3[j]
                k1b = e1 * b0[j] - px * b1[j] - pz * b3[j]
                qb = sqrt_s * b1[j]
            else:
                br0, br1, bc0, bc1, k1b, qb = 0.0, 1.0, 1.0, 0.0, 0.0, sqrt_s
            if i < 2 and j < 2:
                ab = a0[i] * b0[j] - a1[i] * b1[j] - a3[i] * b3[j]
            else:
                ab = 1.0 if i == j else 0.0  # (-i)^2 taken out
            t_z = over_tz * (
                ar0 * ((z0 - z3) * bc0 - z1 * bc1) + ar1 * ((z0 + z3) * bc1 - z1 * bc0)
            )
            t_w = over_tw * (
                br0 * ((w0 - w3) * ac0 - w1 * ac1) + br1 * ((w0 + w3) * ac1 - w1 * ac0)
            )
            s_g = d * (k2a * qb - 2.0 * k1b * qa + k1q * ab)
            s_k = d * (k1q * ab + k2a * qb)
            trace = (
                k1q * k2a * k1b
                - k1q * ab * pk2
                - qa * k1k2 * k1b
                + qa * k1b * pk2
                - pk1 * k2a * qb
                - pk1 * ab * k1q
                + k2a * k1k2 * qb
                + k2a * k1b * k1q
            )
            s_l = -d / _MW2 * trace
            sm = _G_W * (
                _G_Z * ((t1 - q1 * SIN2_W) * t_z + (t2 - q2 * SIN2_W) * t_w) + g_t * (s_g + s_k)
            )
            r[i, j, 0] = sm
            r[i, j, 1] = (
                _G_W * X * (_G_Z * SIN_W * COS_W * (q1 * t_z + q2 * t_w) + g_t * TAN_W * s_g)
            )
            r[i, j, 2] = _G_W * g_t * 1.5 * G * X * s_l
            r[i, j, 3] = X * sm + _G_W * X * _G_Z * (t1 * t_z + t2 * t_w)


@njit(cache=True, nogil=True)
def gram_of_tensor(r: np.ndarray, gram: np.ndarray) -> None:
    """Sum over polarisations of R_a R_b, written to `gram`, shape (4, 4)."""
    for a in range(4):
        for b in range(a, 4):
            total = 0.0
            for i in range(3):
                for j in range(3):
                    total += r[i, j, a] * r[i, j, b]
            gram[a, b] = gram[b, a] = total


@njit(cache=True, nogil=True)
def current(
    cos_theta: float, sign: float, cos_d: float, phi_d: float
) -> tuple[float, float, float, float, float, float]:
    """Current of a massless lepton pair in the rest frame of its parent, up to a phase.

    A left-handed particle along d gives e1 + i e2, where (e1, e2, d) is right-handed; its
    antiparticle along d gives the complex conjugate.

    Args:
        cos_theta: Cosine of the W's polar angle.
        sign: 1 for the W, -1 for the Z, which moves the other way.
        cos_d: Cosine of the polar angle of d; axes are those of the centre-of-mass frame.
        phi_d: Azimuth of d.

    Returns:
        Components of e1 and e2 along L, e1 and e2 along x, e1 and e2 along y.
    """
    sin_theta = math.sqrt(max((1.0 - cos_theta) * (1.0 + cos_theta), 0.0))
    sin_d = math.sqrt(max((1.0 - cos_d) * (1.0 + cos_d), 0.0))
    c, s = math.cos(phi_d), math.sin(phi_d)
    return (
        sign * (cos_d * c * sin_theta - sin_d * cos_theta),
        -sign * s * sin_theta,
        sign * (cos_d * c * cos_theta + sin_d * sin_theta),
        -sign * s * cos_theta,
        cos_d * s,
        c,
    )


@njit(cache=True, nogil=True)
def decay_amplitudes(
    r: np.ndarray,
    charge: int,
    w: tuple[float, float, float, float, float, float],
    z: tuple[float, float, float, float, float, float],
    amplitude: np.ndarray,
) -> None:
    """Amplitudes with decays, written to `amplitude` (helicity, component, re/im), (2, 4, 2).

    Args:
        r: Amplitudes of the polarisations, shape (3, 3, 4).
        charge: Charge of the W, 1 or -1.
        w: `current` of the charged lepton of the W.
        z: `current` of the negative lepton of the Z.
        amplitude: Output; helicities are those of the Z's leptons, left and right.
    """
    # The charged lepton is the particle in W- -> l- nu, the antiparticle in W+ -> l+ nu.
    k = _W_NORM * (-1.0 if charge > 0 else 1.0)
    alpha = (
        (_W_NORM * w[0], k * w[1]),
        (_W_NORM * w[2], k * w[3]),
        (k * w[5], -_W_NORM * w[4]),  # times -i
    )
    beta = ((z[0], z[1]), (z[2], z[3]), (z[5], -z[4]))
    for a in range(4):
        left_re = left_im = right_re = right_im = 0.0
        for j in range(3):
            u_re = alpha[0][0] * r[0, j, a] + alpha[1][0] * r[1, j, a] + alpha[2][0] * r[2, j, a]
            u_im = alpha[0][1] * r[0, j, a] + alpha[1][1] * r[1, j, a] + alpha[2][1] * r[2, j, a]
            b_re, b_im = beta[j]
            left_re += u_re * b_re - u_im * b_im
            left_im += u_re * b_im + u_im * b_re
            # e1 - i e2; with -i taken out that is minus the conjugate for y.
            if j == 2:
                b_re = -b_re
            else:
                b_im = -b_im
            right_re += u_re * b_re - u_im * b_im
            right_im += u_re * b_im + u_im * b_re
        amplitude[0, a, 0], amplitude[0, a, 1] = _LEFT * left_re, _LEFT * left_im
        amplitude[1, a, 0], amplitude[1, a, 1] = _RIGHT * right_re, _RIGHT * right_im


@njit(cache=True, nogil=True)
def gram_of_amplitudes(amplitude: np.ndarray, gram: np.ndarray) -> None:
    """Re of the sum over helicities of A_a^* A_b, written to `gram`, shape (4, 4)."""
    for a in range(4):
        for b in range(a, 4):
            total = 0.0
            for h in range(2):
                total += (
                    amplitude[h, a, 0] * amplitude[h, b, 0]
                    + amplitude[h, a, 1] * amplitude[h, b, 1]
                )
            gram[a, b] = gram[b, a] = total


@njit(cache=True, nogil=True)
def tensors(
    sqrt_s: np.ndarray, cos_theta: np.ndarray, charge: np.ndarray, amplitudes: np.ndarray
) -> None:
    """Amplitudes of all polarisations, written to `amplitudes`, shape (n, 3, 3, 4)."""
    for k in range(len(sqrt_s)):
        tensor(sqrt_s[k], cos_theta[k], charge[k], amplitudes[k])


@njit(cache=True, nogil=True)
def production_grams(
    sqrt_s: np.ndarray, cos_theta: np.ndarray, charge: np.ndarray, grams: np.ndarray
) -> None:
    """Gram matrices summed over polarisations, written to `grams`, shape (n, 4, 4)."""
    r = np.empty((3, 3, 4))
    for k in range(len(sqrt_s)):
        tensor(sqrt_s[k], cos_theta[k], charge[k], r)
        gram_of_tensor(r, grams[k])


@njit(cache=True, nogil=True)
def full_grams(
    sqrt_s: np.ndarray,
    cos_theta: np.ndarray,
    charge: np.ndarray,
    decay: np.ndarray,
    grams: np.ndarray,
) -> None:
    """Gram matrices with decays, written to `grams`, shape (n, 4, 4).

    `decay` has columns cos and phi of the charged lepton of the W, cos and phi of the Z's l-.
    """
    r, amplitude = np.empty((3, 3, 4)), np.empty((2, 4, 2))
    for k in range(len(sqrt_s)):
        tensor(sqrt_s[k], cos_theta[k], charge[k], r)
        w = current(cos_theta[k], 1.0, decay[k, 0], decay[k, 1])
        z = current(cos_theta[k], -1.0, decay[k, 2], decay[k, 3])
        decay_amplitudes(r, charge[k], w, z, amplitude)
        gram_of_amplitudes(amplitude, grams[k])


@njit(cache=True, nogil=True)
def pair_momenta(
    e: float, px: float, pz: float, mass: float, cos_d: float, phi_d: float, out: np.ndarray
) -> None:
    """Momenta of the massless decay products of (e, px, 0, pz), written to `out`, shape (2, 4).

    The first goes along (cos_d, phi_d) in the rest frame reached by a boost without rotation.
    """
    half = 0.5 * mass
    sin_d = math.sqrt(max((1.0 - cos_d) * (1.0 + cos_d), 0.0))
    dx, dy, dz = sin_d * math.cos(phi_d), sin_d * math.sin(phi_d), cos_d
    along = (px * dx + pz * dz) / mass  # beta gamma times the component along the boost
    for k in range(2):
        sign = 1.0 - 2.0 * k
        shift = half * (1.0 + sign * along * mass / (e + mass)) / mass
        out[k, 0] = half * (e / mass + sign * along)
        out[k, 1] = sign * half * dx + shift * px
        out[k, 2] = sign * half * dy
        out[k, 3] = sign * half * dz + shift * pz


@njit(cache=True, nogil=True)
def event_leptons(
    sqrt_s: float,
    cos_theta: float,
    cos_w: float,
    phi_w: float,
    cos_z: float,
    phi_z: float,
    out: np.ndarray,
) -> None:
    """Momenta of l, nu, l-, l+ in the centre-of-mass frame, written to `out`, shape (4, 4)."""
    s = sqrt_s * sqrt_s
    p = momentum(s)
    e1 = (s + _MW2 - _MZ2) / (2.0 * sqrt_s)
    px = p * math.sqrt(max((1.0 - cos_theta) * (1.0 + cos_theta), 0.0))
    pz = p * cos_theta
    pair_momenta(e1, px, pz, M_W, cos_w, phi_w, out[:2])
    pair_momenta(sqrt_s - e1, -px, -pz, M_Z, cos_z, phi_z, out[2:])


@njit(cache=True, nogil=True)
def leptons(sqrt_s: np.ndarray, cos_theta: np.ndarray, decay: np.ndarray, out: np.ndarray) -> None:
    """`event_leptons` of many events, written to `out`, shape (n, 4, 4)."""
    for k in range(len(sqrt_s)):
        event_leptons(
            sqrt_s[k], cos_theta[k], decay[k, 0], decay[k, 1], decay[k, 2], decay[k, 3], out[k]
        )
