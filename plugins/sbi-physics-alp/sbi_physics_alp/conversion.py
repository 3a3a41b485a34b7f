"""Survival curves P(E) of many simulations, each through its own random field."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from sbi_physics_alp.cells import Cells
from sbi_physics_alp.ebl import optical_depth
from sbi_physics_alp.field import CELLS_PER_SCALE, CellMode, Cluster, FieldSampler, count_cells
from sbi_physics_alp.propagation import Kernel, photon_survival

Array = np.ndarray[Any, np.dtype[np.float64]]
Float32Array = np.ndarray[Any, np.dtype[np.float32]]
Seeds = np.ndarray[Any, np.dtype[np.int64]]

_CHUNK = 128  # fields in memory at a time: 70 kB each
_CHUNK_CELLS = 1_000_000  # the same for clusters that differ: about 40 bytes a cell
_LARGEST_SEED = 2**32


class Conversion:
    """Draws photon survival curves for one source."""

    def __init__(
        self,
        energy_gev: Array,
        cluster: Cluster,
        *,
        redshift: float,
        milky_way: Cells | None,
        cell_mode: CellMode,
        high_mass_cut: bool,
        realisation: int | Literal["random"],
        tau: Array | None = None,
        merge_rad: float = 0.0,
        single: bool = False,
        kernel: Kernel = "numba",
    ) -> None:
        """Prepare everything that simulations share.

        Args:
            energy_gev: Observed energies in GeV, shape (n_energy,).
            cluster: The cluster around the source, of fixed parameters; `draw_varied` takes
                others.
            redshift: Redshift of the source.
            milky_way: Cells at the observer; None: no mixing there.
            cell_mode: Cells of the cluster field.
            high_mass_cut: No conversion where the field has no power.
            realisation: ``random``, or the seed of one field for all simulations.
            tau: Optical depth of the background light at each energy; None: of arXiv:1007.1459.
            merge_rad: Largest phase in joined cells, see `photon_survival`; 0: none are joined.
            single: Pass the cluster in single precision.
            kernel: What computes, see `photon_survival`.
        """
        self.energy_gev = energy_gev
        self.tau = optical_depth(energy_gev, redshift) if tau is None else tau
        self._redshift = redshift
        self._milky_way = milky_way
        self._merge_rad = merge_rad
        self._single = single
        self._kernel: Kernel = kernel
        self._cell_mode: CellMode = cell_mode
        self._high_mass_cut = high_mass_cut
        self._realisation = realisation
        self._sampler = FieldSampler(cluster, cell_mode)
        self._k_cut = self._sampler.k_cut_kpc if high_mass_cut else None
        self._fixed: Cells | None = None
        if realisation != "random":
            self._fixed = self._sampler.sample(1, np.random.default_rng(realisation))

    @property
    def has_fixed_field(self) -> bool:
        """Whether all simulations share one field, so that P(E) is a function of m and g."""
        return self._fixed is not None

    def draw(self, m_nev: Array, g11: Array, rng: np.random.Generator) -> Float32Array:
        """Survival curves, shape (n, n_energy).

        Args:
            m_nev: ALP mass in neV, shape (n,).
            g11: Coupling in 1e-11 GeV^-1, shape (n,).
            rng: Source of the fields; not used when the field is fixed.
        """
        curves = np.empty((m_nev.size, self.energy_gev.size), dtype=np.float32)
        for start in range(0, m_nev.size, _CHUNK):
            part = slice(start, min(start + _CHUNK, m_nev.size))
            cells = self._fixed or self._sampler.sample(part.stop - part.start, rng)
            curves[part] = self._survival(cells, m_nev[part], g11[part], self._k_cut)
        return curves

    def draw_seeds(self, n: int, rng: np.random.Generator) -> Seeds:
        """Seeds of ``n`` fields, shape (n,): new ones, or n times that of the fixed field."""
        if self._realisation == "random":
            return rng.integers(_LARGEST_SEED, size=n, dtype=np.int64)
        return np.full(n, self._realisation, dtype=np.int64)

    def draw_varied(
        self, m_nev: Array, g11: Array, cluster: Cluster, seeds: Seeds
    ) -> Float32Array:
        """Survival curves through clusters that differ, shape (n, n_energy).

        Each curve depends on its own row of the arguments only.

        Args:
            m_nev: ALP mass in neV, shape (n,).
            g11: Coupling in 1e-11 GeV^-1, shape (n,).
            cluster: The cluster of each simulation.
            seeds: Seed of each field, shape (n,).
        """
        curves = np.empty((m_nev.size, self.energy_gev.size), dtype=np.float32)
        if m_nev.size == 0:
            return curves
        n_cells = np.broadcast_to(
            count_cells(cluster, CELLS_PER_SCALE[self._cell_mode]), m_nev.shape
        )
        # Lines of sight of similar length together: arrays are as long as the longest of them.
        order = np.argsort(n_cells, kind="stable")
        start = 0
        while start < order.size:
            longest = n_cells[order[start : start + _CHUNK]]
            # The first so many rows that fit, each as long as the last; one row in any case.
            fits = np.flatnonzero(longest * np.arange(1, longest.size + 1) <= _CHUNK_CELLS)
            rows = order[start : start + (int(fits[-1]) + 1 if fits.size else 1)]
            sampler = FieldSampler(cluster.take(rows), self._cell_mode)
            cells = sampler.from_seeds(seeds[rows])
            k_cut = sampler.k_cut_kpc if self._high_mass_cut else None
            curves[rows] = self._survival(cells, m_nev[rows], g11[rows], k_cut)
            start += rows.size
        return curves

    def _survival(self, cells: Cells, m_nev: Array, g11: Array, k_cut: Array | None) -> Array:
        return photon_survival(
            self.energy_gev,
            cells,
            m_nev=m_nev,
            g11=g11,
            redshift=self._redshift,
            tau=self.tau,
            milky_way=self._milky_way,
            k_cut_kpc=k_cut,
            merge_rad=self._merge_rad,
            single=self._single,
            kernel=self._kernel,
        )
