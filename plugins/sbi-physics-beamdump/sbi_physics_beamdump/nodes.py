r"""Everything one measured event says, as a few hundred weighted points without mass or lifetime.

True energies are written as :math:`E_{1,2} = G e^{\pm r/2}`. With the hits, r and the distance L
of the vertex from the calorimeter the directions of both photons follow, and with them their
invariant mass :math:`m = G e^q`; so the energies' scale G carries the mass, and r, L and the hits
what the angles measure. The angles pick a thin slice in (r, L), which random draws around the
measured values mostly miss: it is looked for, step by step, and integrated by Gauss-Legendre
points inside.

Errors of the hits are small. Of their four components, the one along the line through both hits
moves q and is integrated by points too, with the cut on the distance; the other three contribute
a covariance to the azimuths.

The measure of (r, L, hits) at a mass m is that of two-body decay, isotropic in the ALP's frame:

.. math:: dE_1\, dE_2\, d^2h_1\, d^2h_2\; p(E, h | m, z) = \frac{m^2}{\pi} e^{-4q} H(p_a)
          \prod_i (1 + t_i^2)^{-3/2}\,
          \left|\frac{\partial(t_1, t_2)}{\partial(h_1, h_2)}\right| dr\, d^2h_1\, d^2h_2

with slopes t and the density H of `spectrum`.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import njit

LOG_W: Final = 0
Q: Final = 1
PLACE: Final = 2
RATIO: Final = 3
SUM_PZ: Final = 4
SLOPE: Final = 5
N_NODE: Final = 6
"""Columns of a node: ln weight, q, z (m), r, p_z / G, |slope of the ALP|."""

N_DISTANCE: Final = 36
N_RATIO: Final = 15
N_OFFSET: Final = 7
MAX_NODES: Final = N_DISTANCE * N_RATIO * N_OFFSET

_SCAN: Final = 33
_KEEP: Final = 26.0
"""Log weights this far below the best are outside of the slice (seven standard deviations)."""

_DROP: Final = 18.0
_SIGMAS: Final = 5.0
_LEAST_DISTANCE: Final = 0.1
"""Smallest distance (m) of vertex and calorimeter: hits must be apart."""

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(N_DISTANCE)
_R_POINTS, _R_WEIGHTS = np.polynomial.legendre.leggauss(N_RATIO)
_O_POINTS, _O_WEIGHTS = np.polynomial.legendre.leggauss(N_OFFSET)
_NORMAL_3 = np.array([-math.sqrt(3.0), 0.0, math.sqrt(3.0)])
_NORMAL_3_WEIGHTS = np.array([1.0 / 6.0, 2.0 / 3.0, 1.0 / 6.0])
_TWO_PI = 2.0 * math.pi


@njit(cache=True, error_model="numpy")
def _log_normal_cdf(z: float) -> float:
    if z > -5.0:
        return math.log(0.5 * math.erfc(-z / math.sqrt(2.0)))
    # Leading terms of the asymptotic series; 0.1 % here.
    return -0.5 * z * z - math.log(-z * math.sqrt(_TWO_PI)) + math.log1p(-1.0 / (z * z))


@njit(cache=True, error_model="numpy")
def _wrapped(angle: float) -> float:
    return angle - _TWO_PI * math.floor(angle / _TWO_PI + 0.5)


@njit(cache=True, error_model="numpy")
def _event(
    x: Any, offset: float, ratio: float, distance: float, setup: Any, box: Any, out: Any
) -> float:
    """Log likelihood of the angles; fills a node with the log measure as weight.

    Args:
        x: Ten features, energies and polar angles not in logarithms.
        offset: True minus measured distance of the hits, m.
        ratio: r.
        distance: L, m.
        setup: sigma_e, sigma_hit, sigma_angle, whether slopes are smeared.
        box: The fields of `Geometry`.
        out: Node to fill.
    """
    z_cal = box[2]
    z = z_cal - distance
    dx, dy = x[2] - x[4], x[3] - x[5]
    apart = math.hypot(dx, dy)
    ex, ey = dx / apart, dy / apart
    h1x, h1y = x[2] + 0.5 * offset * ex, x[3] + 0.5 * offset * ey
    h2x, h2y = x[4] - 0.5 * offset * ex, x[5] - 0.5 * offset * ey
    up, down = math.exp(0.5 * ratio), math.exp(-0.5 * ratio)
    c1 = c2 = 1.0
    for _ in range(3):  # the weights of the centroid are p_z, which need the slopes
        a1 = up * c1 / (up * c1 + down * c2)
        ax, ay = (
            (a1 * h1x + (1.0 - a1) * h2x) / z_cal,
            (a1 * h1y + (1.0 - a1) * h2y) / z_cal,
        )
        t1x, t1y = (h1x - z * ax) / distance, (h1y - z * ay) / distance
        t2x, t2y = (h2x - z * ax) / distance, (h2y - z * ay) / distance
        s1, s2 = t1x * t1x + t1y * t1y, t2x * t2x + t2y * t2y
        c1, c2 = 1.0 / math.sqrt(1.0 + s1), 1.0 / math.sqrt(1.0 + s2)
    # |n1 - n2|^2 = 2 (1 - cos of the opening angle)
    f = (t1x * c1 - t2x * c2) ** 2 + (t1y * c1 - t2y * c2) ** 2 + (c1 - c2) ** 2
    q = 0.5 * math.log(f)

    # det d(h1, h2) / d(t1, t2) = L^2 det(L + z (1 + B)): p_z moves with the slopes.
    a2 = 1.0 - a1
    b1, b2 = -a1 / (1.0 + s1), -a2 / (1.0 + s2)
    bxx = b1 * (t1x - ax) * t1x + b2 * (t2x - ax) * t2x
    bxy = b1 * (t1x - ax) * t1y + b2 * (t2x - ax) * t2y
    byx = b1 * (t1y - ay) * t1x + b2 * (t2y - ay) * t2x
    byy = b1 * (t1y - ay) * t1y + b2 * (t2y - ay) * t2y
    det = (z_cal + z * bxx) * (z_cal + z * byy) - z * z * bxy * byx
    log_measure = -4.0 * q + 3.0 * math.log(c1 * c2) - math.log(distance * distance * det)
    out[LOG_W], out[Q], out[PLACE], out[RATIO] = log_measure, q, z, ratio
    out[SUM_PZ] = up * c1 + down * c2
    out[SLOPE] = math.hypot(ax, ay)

    sigma_hit, sigma, slopes = setup[1], setup[2], setup[3] > 0.5
    rho1, rho2 = math.sqrt(s1), math.sqrt(s2)
    n1x, n1y = t1x / rho1, t1y / rho1
    n2x, n2y = t2x / rho2, t2y / rho2
    # How errors of the hits move the photons' transverse flights: across the line through both
    # hits (variance 2 sigma_hit^2) and of both hits together (sigma_hit^2 / 2 each way).
    zeta = z / z_cal
    g1, g2 = 0.5 - 0.5 * zeta * (a1 - a2), -0.5 - 0.5 * zeta * (a1 - a2)
    both = 0.5 * (sigma_hit * (1.0 - zeta)) ** 2
    across = 2.0 * sigma_hit * sigma_hit
    radial1, radial2 = ex * n1y - ey * n1x, ex * n2y - ey * n2x
    r1 = (both + across * (g1 * radial1) ** 2) / distance**2
    r2 = (both + across * (g2 * radial2) ** 2) / distance**2
    if slopes:
        total: float = 0.0
        for i in range(2):
            theta, phi = x[6 + i], x[8 + i]
            tx, ty = (t1x, t1y) if i == 0 else (t2x, t2y)
            tan = math.tan(theta)
            variance = sigma * sigma + (both + 0.5 * across * (g1 if i == 0 else g2) ** 2) / (
                distance**2
            )
            miss = (tan * math.cos(phi) - tx) ** 2 + (tan * math.sin(phi) - ty) ** 2
            total -= 0.5 * miss / variance + math.log(variance)
        return total

    total = 0.0
    for i in range(2):
        theta, s = (math.atan(rho1), r1) if i == 0 else (math.atan(rho2), r2)
        sd = math.sqrt(sigma * sigma + s)
        if x[6 + i] <= sigma * (1.0 + 1e-5):  # cut from below
            total += _log_normal_cdf((sigma - theta) / sd)
        else:
            total -= 0.5 * ((x[6 + i] - theta) / sd) ** 2 + math.log(sd)
    f1, f2 = distance * rho1, distance * rho2
    j1, j2 = g1 * (ex * n1x + ey * n1y) / f1, g2 * (ex * n2x + ey * n2y) / f2
    v11 = sigma * sigma + both / f1**2 + across * j1 * j1
    v22 = sigma * sigma + both / f2**2 + across * j2 * j2
    v12 = both * (n1x * n2x + n1y * n2y) / (f1 * f2) + across * j1 * j2
    d1 = _wrapped(x[8] - math.atan2(t1y, t1x))
    d2 = _wrapped(x[9] - math.atan2(t2y, t2x))
    determinant = v11 * v22 - v12 * v12
    total -= 0.5 * (v22 * d1 * d1 - 2.0 * v12 * d1 * d2 + v11 * d2 * d2) / determinant
    total -= 0.5 * math.log(determinant)
    return total


@njit(cache=True, error_model="numpy")
def _target(
    x: Any, ratio: float, log_l: float, centre: float, width: float, setup: Any, box: Any, out: Any
) -> float:
    """Log likelihood of the angles and of r, for the search."""
    angles: float = _event(x, 0.0, ratio, math.exp(log_l), setup, box, out)
    return angles - 0.5 * ((ratio - centre) / width) ** 2


@njit(cache=True, error_model="numpy")
def _best_ratio(
    x: Any, log_l: float, centre: float, width: float, setup: Any, box: Any, out: Any
) -> tuple[float, float, float]:
    """Return r of the largest target at one distance, its width, and the target there."""
    low, high = max(0.0, centre - _SIGMAS * width), centre + _SIGMAS * width
    best, value = low, -math.inf
    for i in range(9):
        r = low + (high - low) * i / 8.0
        found = _target(x, r, log_l, centre, width, setup, box, out)
        if found > value:
            best, value = r, found
    step, sd = 0.02 * width, width
    for _ in range(4):
        up = _target(x, best + step, log_l, centre, width, setup, box, out)
        down = _target(x, best - step, log_l, centre, width, setup, box, out)
        curvature = (up - 2.0 * value + down) / (step * step)
        sd = 1.0 / math.sqrt(max(-curvature, 1.0 / (width * width)))
        move = 0.5 * (up - down) / step * sd * sd
        trial = min(max(best + move, low), high)
        for _ in range(6):  # not beyond the maximum
            found = _target(x, trial, log_l, centre, width, setup, box, out)
            if found >= value:
                break
            trial = 0.5 * (trial + best)
        if found < value:
            break
        done = abs(trial - best) < 0.02 * sd
        best, value = trial, found
        step = 0.1 * sd
        if done:
            break
    return best, sd, value


@njit(cache=True, error_model="numpy")
def event_nodes(x: Any, setup: Any, box: Any, nodes: Any) -> int:
    """Fill `nodes`, shape (MAX_NODES, N_NODE), for one event; return how many.

    Args:
        x: Features of an event in physical units: E1, E2 (GeV), x1, y1, x2, y2 (m), theta1,
            theta2, phi1, phi2 (rad).
        setup: sigma_e, sigma_hit (m), sigma_angle (rad), 1 where slopes are smeared else 0.
        box: The fields of `Geometry`.
        nodes: Where to put nodes.
    """
    scratch = np.empty(N_NODE)
    centre, width = math.log(x[0] / x[1]), math.sqrt(2.0) * setup[0]
    if centre + _SIGMAS * width <= 0.0:
        # Labels follow the true energies; measured in the other order by more than errors allow.
        centre = 0.0
    low = math.log(max(box[2] - box[1], _LEAST_DISTANCE))
    high = math.log(box[2] - box[0])
    profile = np.empty(_SCAN)
    for _ in range(12):  # close in on the slice
        for i in range(_SCAN):
            log_l = low + (high - low) * i / (_SCAN - 1.0)
            profile[i] = _best_ratio(x, log_l, centre, width, setup, box, scratch)[2]
        level = profile.max() - _KEEP
        first, last = 0, _SCAN - 1
        while profile[first] < level:
            first += 1
        while profile[last] < level:
            last -= 1
        first, last = max(first - 1, 0), min(last + 1, _SCAN - 1)
        step = (high - low) / (_SCAN - 1.0)
        low, high = low + first * step, low + last * step
        if last - first > 0.6 * (_SCAN - 1):
            break

    apart = math.hypot(x[2] - x[4], x[3] - x[5])
    spread = math.sqrt(2.0) * setup[1]
    cut = box[12] - apart
    plain = cut < -4.0 * spread
    n_offset = 3 if plain else N_OFFSET
    from_offset = max(cut, -4.0 * spread)
    n = 0
    largest = -math.inf
    for i in range(N_DISTANCE):
        log_l = 0.5 * (low + high) + 0.5 * (high - low) * _POINTS[i]
        distance = math.exp(log_l)
        best, sd, _ = _best_ratio(x, log_l, centre, width, setup, box, scratch)
        r_low, r_high = max(0.0, best - _SIGMAS * sd), best + _SIGMAS * sd
        for j in range(N_RATIO):
            ratio = 0.5 * (r_low + r_high) + 0.5 * (r_high - r_low) * _R_POINTS[j]
            # dz = L d(ln L)
            log_area = math.log(
                0.25 * (high - low) * _WEIGHTS[i] * (r_high - r_low) * _R_WEIGHTS[j] * distance
            )
            for k in range(n_offset):
                if plain:
                    offset, log_o = spread * _NORMAL_3[k], math.log(_NORMAL_3_WEIGHTS[k])
                else:
                    half = 0.5 * (4.0 * spread - from_offset)
                    offset = from_offset + half * (1.0 + _O_POINTS[k])
                    log_o = math.log(half * _O_WEIGHTS[k]) - 0.5 * (offset / spread) ** 2
                node = nodes[n]
                value = _event(x, offset, ratio, distance, setup, box, node)
                if not _inside(x, node, box):
                    continue
                rough = value - 0.5 * ((ratio - centre) / width) ** 2 + log_o
                node[LOG_W] += value + log_area + log_o
                if rough > largest - _DROP:
                    largest = max(largest, rough)
                    n += 1
    return n


@njit(cache=True, error_model="numpy")
def _inside(x: Any, node: Any, box: Any) -> bool:
    """Whether the vertex is inside the decay volume."""
    z = node[PLACE]
    along = (z - box[0]) / (box[1] - box[0])
    if along < -1e-9 or along > 1.0 + 1e-9:
        return False
    # The centroid of the hits, up to their errors: its direction is that of the ALP.
    a1 = 1.0 / (1.0 + math.exp(-node[RATIO]))
    vx = (a1 * x[2] + (1.0 - a1) * x[4]) * z / box[2]
    vy = (a1 * x[3] + (1.0 - a1) * x[5]) * z / box[2]
    wall_low = box[7] + along * (box[9] - box[7])
    wall_high = box[8] + along * (box[10] - box[8])
    return bool(wall_low <= vx <= wall_high and box[5] <= vy <= box[6])
