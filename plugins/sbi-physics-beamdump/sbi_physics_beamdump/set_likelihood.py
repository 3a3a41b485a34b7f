"""Log likelihood of sets of events on grids of mass and lifetime, from the nodes of `nodes`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit

from sbi_physics.types import FloatArray
from sbi_physics_beamdump import efficiency, spectrum
from sbi_physics_beamdump.geometry import Geometry
from sbi_physics_beamdump.nodes import (
    LOG_W,
    MAX_NODES,
    N_NODE,
    PLACE,
    RATIO,
    SLOPE,
    SUM_PZ,
    Q,
    _log_normal_cdf,
    event_nodes,
)

N_MASS: Final = 64
N_LIFETIME: Final = 61
_N_SCAN: Final = 29
_KEEP: Final = 26.0
_DROP: Final = 18.0
_SIGMAS: Final = 7.0
_FAR: Final = 60.0
_N_PLACES: Final = 128
_NOTHING: Final = -1e4
"""Log likelihood where nothing fits."""

# Handed to compiled code: constants of other modules would be frozen in its cache.
_AXES = np.array(
    [
        [axis[0], axis[1] - axis[0]]
        for axis in (
            spectrum.MASSES,
            spectrum.MOMENTA,
            spectrum.TRANSVERSE,
            efficiency.MASSES,
            efficiency.LIFETIMES,
        )
    ]
)
"""Begin and step of the axes of the two tables."""


@njit(cache=True, error_model="numpy")
def _cell(value: float, axis: Any, n: int) -> tuple[int, float]:
    """Cell of a regular grid and the place in it; from the last cell on, extrapolated."""
    where = (value - axis[0]) / axis[1]
    i = min(max(math.floor(where), 0), n - 2)
    return i, where - i


@njit(cache=True, error_model="numpy")
def _log_spectrum(table: Any, axes: Any, log_m: float, log_pz: float, p_t: float) -> float:
    i, a = _cell(log_m, axes[0], table.shape[0])
    j, b = _cell(log_pz, axes[1], table.shape[1])
    k, c = _cell(p_t, axes[2], table.shape[2])
    if b < -1.0 or b > 2.0:
        return -1e3  # nothing flies there
    total = 0.0
    for u in range(2):
        for v in range(2):
            for w in range(2):
                weight = (a if u else 1.0 - a) * (b if v else 1.0 - b) * (c if w else 1.0 - c)
                total += weight * table[i + u, j + v, k + w]
    return total


@njit(cache=True, error_model="numpy")
def _log_energy(measured: float, true: float, sigma: float, e_min: float) -> float:
    """Log density of a measured energy; the true one is at least e_min, the measured one cut."""
    if true < e_min:
        return -math.inf
    if measured <= e_min * (1.0 + 1e-5):
        return _log_normal_cdf((e_min / true - 1.0) / sigma)
    return -0.5 * ((measured / true - 1.0) / sigma) ** 2 - math.log(true)


@njit(cache=True, error_model="numpy")
def _add_event(
    out: Any,
    x: Any,
    nodes: Any,
    log_m: Any,
    log_ctau: Any,
    setup: Any,
    box: Any,
    tables: tuple[Any, Any, Any],
) -> None:
    """Add the log likelihood of one event to out[mass, lifetime], without the efficiency.

    z / lambda is place / ctau with a place that does not depend on the mass, so that exponentials
    are needed for a row of places only; nodes share between the two next to theirs.
    """
    n_nodes, n_c = len(nodes), len(log_ctau)
    place, value = np.empty(n_nodes), np.empty(n_nodes)
    for n in range(n_nodes):
        place[n] = nodes[n, PLACE] * math.exp(nodes[n, Q]) / nodes[n, SUM_PZ]
    least = place.min()
    step = max((place.max() - least) / (_N_PLACES - 1.5), 1e-12)
    decay = np.empty((_N_PLACES, n_c))
    for b in range(_N_PLACES):
        for j in range(n_c):
            decay[b, j] = math.exp(-b * step * math.exp(-log_ctau[j]))
    weight = np.empty(_N_PLACES)
    for i in range(len(log_m)):
        m = math.exp(log_m[i])
        best = -math.inf
        for n in range(n_nodes):
            node = nodes[n]
            g = m * math.exp(-node[Q])
            root = math.exp(0.5 * node[RATIO])
            found = node[LOG_W] + _log_energy(x[0], g * root, setup[0], box[11])
            found += _log_energy(x[1], g / root, setup[0], box[11])
            if found > best - _FAR:  # the rest varies less than this
                p_z = g * node[SUM_PZ]
                log_pz = math.log(p_z)
                found += (
                    _log_spectrum(tables[0], tables[2], log_m[i], log_pz, p_z * node[SLOPE])
                    - log_pz
                )
                best = max(best, found)
            else:
                found = -math.inf
            value[n] = found
        if best == -math.inf:
            out[i] += _NOTHING
            continue
        weight[:] = 0.0
        for n in range(n_nodes):
            if value[n] > best - _DROP:
                w = math.exp(value[n] - best)
                b = (place[n] - least) / step
                k = int(b)
                weight[k] += w * (k + 1 - b)
                weight[k + 1] += w * (b - k)
        for j in range(n_c):
            total = 0.0
            for b in range(_N_PLACES):
                total += weight[b] * decay[b, j]
            found = best + math.log(max(total, 1e-300)) - least * math.exp(-log_ctau[j])
            # m^2 of the measure, m / ctau of 1 / lambda
            out[i, j] += found + 3.0 * log_m[i] - log_ctau[j]


@njit(cache=True, error_model="numpy")
def _set_grid(
    out: Any,
    x: Any,
    nodes: Any,
    counts: Any,
    log_m: Any,
    log_ctau: Any,
    setup: Any,
    box: Any,
    tables: tuple[Any, Any, Any],
) -> None:
    out[:] = 0.0
    seen, axes = tables[1], tables[2]
    for k in range(len(counts)):
        _add_event(out, x[k], nodes[k, : counts[k]], log_m, log_ctau, setup, box, tables)
    for i in range(len(log_m)):
        u, a = _cell(log_m[i], axes[3], seen.shape[0])
        for j in range(len(log_ctau)):
            v, b = _cell(log_ctau[j], axes[4], seen.shape[1])
            value = (1.0 - a) * ((1.0 - b) * seen[u, v] + b * seen[u, v + 1])
            value += a * ((1.0 - b) * seen[u + 1, v] + b * seen[u + 1, v + 1])
            out[i, j] -= len(counts) * value


@njit(cache=True, error_model="numpy")
def _closed_in(
    x: Any,
    nodes: Any,
    counts: Any,
    ends: tuple[float, float],
    log_ctau: Any,
    setup: Any,
    box: Any,
    tables: tuple[Any, Any, Any],
) -> tuple[float, float]:
    """The range of ln m outside of which the likelihood is negligible."""
    low, high = ends
    out = np.empty((_N_SCAN, len(log_ctau)))
    for _ in range(8):
        log_m = np.linspace(low, high, _N_SCAN)
        _set_grid(out, x, nodes, counts, log_m, log_ctau, setup, box, tables)
        level = out.max() - _KEEP
        first, last = 0, _N_SCAN - 1
        while out[first].max() < level:
            first += 1
        while out[last].max() < level:
            last -= 1
        first, last = max(first - 1, 0), min(last + 1, _N_SCAN - 1)
        low, high = log_m[first], log_m[last]
        if last - first > 0.6 * (_N_SCAN - 1):
            break
    return low, high


@dataclass(frozen=True, slots=True, eq=False)
class SetLikelihood:
    """The likelihood of sets under one detector.

    Attributes:
        geometry: The detector.
        sigma_hit: Resolution of hits, m.
        slopes: Whether slopes are smeared (`tangent`) rather than angles (`azimuth`).
    """

    geometry: Geometry
    sigma_hit: float
    slopes: bool

    def grid(
        self, events: FloatArray, sigma_e: float, sigma_angle: float
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Log likelihood of one set around its maximum, for every lifetime.

        Args:
            events: The ten features of its events, shape (event, 10).
            sigma_e: Relative energy resolution.
            sigma_angle: Angular resolution, rad.

        Returns:
            ln m_a, shape (64,); ln ctau, shape (61,), over the whole prior; log likelihoods up to
            a constant, shape (64, 61).
        """
        x = np.array(events, dtype=np.float64)
        x[:, [0, 1, 6, 7]] = np.exp(x[:, [0, 1, 6, 7]])
        box = self.geometry.array
        setup = np.array([sigma_e, self.sigma_hit, sigma_angle, float(self.slopes)])
        nodes = np.empty((len(x), MAX_NODES, N_NODE))
        counts = np.array(
            [event_nodes(row, setup, box, part) for row, part in zip(x, nodes, strict=True)],
            dtype=np.int64,
        )
        tables = spectrum.spectrum_table(), efficiency.efficiency_table(self.geometry), _AXES
        parts = [part[:count] for part, count in zip(nodes, counts, strict=True)]
        ends = _masses(x, parts, sigma_e)
        few = np.linspace(efficiency.LIFETIMES[0], efficiency.LIFETIMES[-1], 5)
        low, high = _closed_in(x, nodes, counts, ends, few, setup, box, tables)
        log_m = np.linspace(low, high, N_MASS)
        log_ctau = np.linspace(efficiency.LIFETIMES[0], efficiency.LIFETIMES[-1], N_LIFETIME)
        out = np.empty((N_MASS, N_LIFETIME))
        _set_grid(out, x, nodes, counts, log_m, log_ctau, setup, box, tables)
        return log_m, log_ctau, out


def _masses(x: FloatArray, nodes: Sequence[FloatArray], sigma_e: float) -> tuple[float, float]:
    """The range of ln m that no event excludes; the whole prior's if there is none."""
    ends = float(spectrum.MASSES[0]), float(spectrum.MASSES[-1])
    # A measured energy far below the true one is the wider side in logarithms.
    slack = -math.log1p(-min(_SIGMAS * sigma_e, 0.95))
    scale = 0.5 * np.log(x[:, 0] * x[:, 1])
    q = [(part[:, Q].min(), part[:, Q].max()) for part in nodes]
    low = max(ends[0], *(s + a - slack for s, (a, _) in zip(scale, q, strict=True)))
    high = min(ends[1], *(s + b + slack for s, (_, b) in zip(scale, q, strict=True)))
    return (low, high) if low < high else ends
