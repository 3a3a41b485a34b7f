"""The magnetised plasma of a galaxy cluster: density, field profile, cells, random realisations.

Electron density and field strength at radius r (double beta model, arXiv:astro-ph/0301482, with
the Perseus numbers of arXiv:1603.06978):

    n_e(r) = n0 (1 + r^2/r_core^2)^(-1.5 beta) + n2 (1 + r^2/r_core2^2)^(-1.5 beta2)
    B(r)   = B_turbulent(r) [n_e(r) / (n0 + n2)]^eta

The line of sight runs from the centre to r_abell in equal cells; density and field are those at
the middle of a cell.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numba
import numpy as np

from sbi_physics_alp.cells import Cells
from sbi_physics_alp.synthesis import sum_modes
from sbi_physics_alp.turbulence import modes

Array = np.ndarray[Any, np.dtype[np.float64]]
Counts = np.ndarray[Any, np.dtype[np.int64]]
CellMode = Literal["compat", "fine"]

CELLS_PER_SCALE: dict[str, int] = {"compat": 1, "fine": 2}
"""Cells for each smallest turbulence scale 1 / k_h."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Parameters of a cluster; each a number or an array of shape (n,), one value a simulation.

    The defaults describe Perseus around NGC 1275 (arXiv:1603.06978; turbulence of A2199,
    arXiv:1201.4119).

    Attributes:
        b0: Root mean square of the three-dimensional field at the centre in muG.
        n0: First central density in 1e-3 cm^-3.
        n2: Second central density in 1e-3 cm^-3.
        r_abell: Where the field ends, in kpc.
        r_core: First core radius in kpc.
        r_core2: Second core radius in kpc.
        beta: First slope.
        beta2: Second slope.
        eta: Exponent of the field's dependence on the density.
        k_l: Smallest wavenumber of the turbulence in kpc^-1.
        k_h: Largest wavenumber of the turbulence in kpc^-1.
        q: Index of the turbulence spectrum (negative: falling).
    """

    b0: float | Array = 10.0
    n0: float | Array = 39.0
    n2: float | Array = 4.05
    r_abell: float | Array = 500.0
    r_core: float | Array = 80.0
    r_core2: float | Array = 280.0
    beta: float | Array = 1.2
    beta2: float | Array = 0.58
    eta: float | Array = 0.5
    k_l: float | Array = 0.18
    k_h: float | Array = 9.0
    q: float | Array = -2.8

    def __post_init__(self) -> None:
        sizes = set()
        for field in fields(self):
            value = np.asarray(getattr(self, field.name), dtype=np.float64)
            if value.ndim > 1 or not np.isfinite(value).all():
                raise ValueError(
                    f"{field.name} must be finite, a number or shape (n,); got {value}"
                )
            lowest = value.min(initial=np.inf)
            if field.name in ("r_abell", "r_core", "r_core2", "k_l", "k_h") and not lowest > 0:
                raise ValueError(f"{field.name} must be positive; the smallest is {lowest}")
            if field.name in ("b0", "n0", "n2") and lowest < 0:
                raise ValueError(f"{field.name} must not be negative; got {lowest}")
            sizes |= {value.size} if value.ndim else set()
        if len(sizes) > 1:
            raise ValueError(f"the cluster parameters are arrays of different lengths {sizes}")
        if (np.asarray(self.k_l) >= np.asarray(self.k_h)).any():
            raise ValueError(f"k_l must be below k_h; got k_l = {self.k_l}, k_h = {self.k_h}")
        if (np.asarray(self.n0) + np.asarray(self.n2) <= 0).any():
            raise ValueError("n0 + n2 must be positive: the field profile is relative to it")

    @property
    def rows(self) -> int:
        """Number of different clusters (1: one for all simulations)."""
        return max(np.size(getattr(self, field.name)) for field in fields(self))

    def take(self, index: slice | np.ndarray[Any, np.dtype[np.int64]]) -> Cluster:
        """The clusters of some simulations only; a fixed cluster stays one for all."""
        arrays = {
            field.name: value[index]
            for field in fields(self)
            if np.ndim(value := getattr(self, field.name)) and np.size(value) > 1
        }
        return replace(self, **arrays)

    def density_cm3(self, r_kpc: Array) -> Array:
        """Electron density in cm^-3 at radii of shape (n_r,) or (rows, n_r); (rows, n_r)."""
        n0, n2, r_core, r_core2, beta, beta2 = (
            np.reshape(np.asarray(a, dtype=np.float64), (-1, 1))
            for a in (self.n0, self.n2, self.r_core, self.r_core2, self.beta, self.beta2)
        )
        inner = n0 * (1.0 + (r_kpc / r_core) ** 2) ** (-1.5 * beta)
        outer = n2 * (1.0 + (r_kpc / r_core2) ** 2) ** (-1.5 * beta2)
        return np.asarray(1e-3 * (inner + outer))

    def field_profile(self, r_kpc: Array) -> Array:
        """Field strength relative to the centre; shapes as for `density_cm3`."""
        return self.relative_field(self.density_cm3(r_kpc))

    def relative_field(self, density_cm3: Array) -> Array:
        """Field strength relative to the centre where the density is this, (rows, n_r)."""
        centre = 1e-3 * np.reshape(np.asarray(self.n0) + np.asarray(self.n2), (-1, 1))
        return np.asarray((density_cm3 / centre) ** np.reshape(self.eta, (-1, 1)))


def count_cells(cluster: Cluster, cells_per_scale: float) -> Counts:
    """Number of cells of each line of sight, shape (rows,).

    As numpy.arange(0, r_abell, spacing) counts edges, for equal cells with gammaALPs.

    Args:
        cluster: The cluster.
        cells_per_scale: Cells for each smallest turbulence scale 1 / k_h.
    """
    r_abell, k_h = np.broadcast_arrays(np.atleast_1d(cluster.r_abell), np.atleast_1d(cluster.k_h))
    edges = np.ceil(r_abell / (1.0 / (cells_per_scale * k_h))).astype(np.int64)
    return np.broadcast_to(np.maximum(edges - 1, 0), (cluster.rows,))


def _profiles(cluster: Cluster, r_kpc: Array) -> tuple[Array, Array]:
    """Density and relative field at radii of shape (rows, n_r), on the threads of the kernels.

    Powers of thousands of radii are a tenth of the time where every simulation has its cluster.
    """

    def part(rows: slice) -> tuple[Array, Array]:
        some = cluster.take(rows)
        density = some.density_cm3(r_kpc[rows])
        return density, some.relative_field(density)

    threads = min(numba.get_num_threads(), cluster.rows)
    if threads == 1:
        return part(slice(0, len(r_kpc)))
    ends = np.linspace(0, cluster.rows, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(part, (slice(*pair) for pair in itertools.pairwise(ends))))
    density, field = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return density, field


class FieldSampler:
    """Draws random realisations of a cluster's field as cells.

    What does not depend on the realisation (cells, modes, profiles) is computed once here; a
    cluster of fixed parameters shares it among all simulations.
    """

    def __init__(self, cluster: Cluster, cell_mode: CellMode | float = "compat") -> None:
        """Prepare cells and modes.

        Args:
            cluster: The cluster, of fixed parameters or of one value a simulation.
            cell_mode: ``compat``: cells of 1 / k_h, as gammaALPs has them. ``fine``: half that. A
                number: so many cells for each 1 / k_h.
        """
        per_scale = CELLS_PER_SCALE.get(cell_mode) if isinstance(cell_mode, str) else cell_mode
        if per_scale is None or not 0 < per_scale < np.inf:
            raise ValueError(
                f"cell_mode is {cell_mode!r}; expected one of {sorted(CELLS_PER_SCALE)} or a "
                f"positive number of cells for each 1 / k_h"
            )
        self.cluster = cluster
        rows = cluster.rows
        b0, k_l, k_h, q = (
            np.broadcast_to(np.asarray(a, dtype=np.float64).reshape(-1), (rows,))
            for a in (cluster.b0, cluster.k_l, cluster.k_h, cluster.q)
        )
        self.k_cut_kpc = k_h
        self._spacing = 1.0 / (per_scale * k_h)
        self._n_cells = count_cells(cluster, per_scale)
        grids = [modes(*row) for row in zip(b0, k_l, k_h, q, strict=True)]
        self._n_modes = [len(k) for k, _ in grids]
        n_modes = max(self._n_modes)
        self._k, self._sigma = (
            np.stack([np.pad(grid[i], (0, n_modes - len(grid[i]))) for grid in grids])
            for i in range(2)
        )
        index = np.arange(self._n_cells.max())
        self._length = np.where(index < self._n_cells[:, None], self._spacing[:, None], 0.0)
        self.r_kpc = (index + 0.5) * self._spacing[:, None]
        self._density, self._profile = _profiles(cluster, self.r_kpc)

    @property
    def n_normals(self) -> tuple[int, int, int]:
        """Shape of the standard normals of one simulation: (component, u or v, mode)."""
        return (2, 2, self._k.shape[1])

    def sample(self, n: int, rng: np.random.Generator) -> Cells:
        """Draw ``n`` independent realisations, both components of each drawn anew.

        Args:
            n: Number of simulations; of a cluster with one value a simulation, just as many.
            rng: Source of the modes.
        """
        return self.from_normals(rng.standard_normal((n, *self.n_normals)))

    def from_seeds(self, seeds: Counts) -> Cells:
        """Realisations of given seeds, shape (n,): each a function of its seed and cluster only.

        The field of seed s is that of ``sample(1, numpy.random.default_rng(s))``.
        """
        normals = np.zeros((len(seeds), *self.n_normals))
        for i, seed in enumerate(seeds):
            n = self._n_modes[i % len(self._n_modes)]
            rng = np.random.default_rng(int(seed))
            normals[i, :, :, :n] = rng.standard_normal((2, 2, n))
        return self.from_normals(normals)

    def from_normals(self, normals: Array) -> Cells:
        """Realisations of given standard normals, shape (n, 2, 2, n_modes).

        Mode n of component c is sigma_n (u cos(k_n z) - v sin(k_n z)), (u, v) = normals[c, :, n].
        """
        if normals.ndim != 4 or normals.shape[1:] != self.n_normals:
            raise ValueError(
                f"normals have shape {normals.shape}; expected (n, *{self.n_normals})"
            )
        if self.cluster.rows not in (1, len(normals)):
            raise ValueError(
                f"the cluster has {self.cluster.rows} rows of parameters; got normals for "
                f"{len(normals)} simulations"
            )
        b = sum_modes(self._k, self._sigma, normals, self._spacing, self._n_cells)
        b *= self._profile[:, None, :]
        return Cells(b[:, 0], b[:, 1], self._density, self._length)
