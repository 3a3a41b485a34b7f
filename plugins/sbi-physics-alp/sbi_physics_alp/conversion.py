"""Survival curves P(E) of many simulations, each through its own random field."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from sbi_physics_alp.cells import Cells
from sbi_physics_alp.ebl import optical_depth
from sbi_physics_alp.field import CellMode, Cluster, FieldSampler
from sbi_physics_alp.propagation import photon_survival

Array = np.ndarray[Any, np.dtype[np.float64]]
Float32Array = np.ndarray[Any, np.dtype[np.float32]]

_CHUNK = 128  # fields in memory at a time: 70 kB each


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
    ) -> None:
        """Prepare everything that simulations share.

        Args:
            energy_gev: Observed energies in GeV, shape (n_energy,).
            cluster: The cluster around the source, of fixed parameters.
            redshift: Redshift of the source.
            milky_way: Cells at the observer; None: no mixing there.
            cell_mode: Cells of the cluster field.
            high_mass_cut: No conversion where the field has no power.
            realisation: ``random``, or the seed of one field for all simulations.
        """
        self.energy_gev = energy_gev
        self.tau = optical_depth(energy_gev, redshift)
        self._redshift = redshift
        self._milky_way = milky_way
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
            curves[part] = photon_survival(
                self.energy_gev,
                cells,
                m_nev=m_nev[part],
                g11=g11[part],
                redshift=self._redshift,
                tau=self.tau,
                milky_way=self._milky_way,
                k_cut_kpc=self._k_cut,
            )
        return curves
