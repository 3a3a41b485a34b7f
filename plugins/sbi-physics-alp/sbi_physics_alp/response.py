"""Instrument response as numbers: expected counts mu = R phi + b, and its npz files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sbi_physics.errors import ContractError
from sbi_physics_alp.data_files import load_arrays

Array = np.ndarray[Any, np.dtype[np.float64]]

FORMAT = 1
"""Version of the file layout."""


@dataclass(frozen=True)
class Response:
    """Linear map from the fluxes of true-energy bins to counts of reconstructed-energy bins.

    Attributes:
        matrix: Exposure times migration in cm^2 s, shape (n_reco, n_true).
        background: Expected background counts, shape (n_reco,).
        reco_edges_gev: Edges of the reconstructed-energy bins in GeV, shape (n_reco + 1,).
        true_edges_gev: Edges of the true-energy bins in GeV, shape (n_true + 1,).
        livetime_s: Observation time in s.
        metadata: Where the numbers come from; values that JSON can hold.
    """

    matrix: Array
    background: Array
    reco_edges_gev: Array
    true_edges_gev: Array
    livetime_s: float
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("matrix", "background", "reco_edges_gev", "true_edges_gev"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        shape = (self.reco_edges_gev.size - 1, self.true_edges_gev.size - 1)
        if self.matrix.shape != shape or self.background.shape != shape[:1]:
            raise ValueError(
                f"matrix {self.matrix.shape} and background {self.background.shape} do not fit "
                f"{shape[0]} reconstructed and {shape[1]} true energy bins"
            )
        if not self.livetime_s > 0:
            raise ValueError(f"livetime_s must be positive; got {self.livetime_s} s")

    @property
    def true_centres_gev(self) -> Array:
        """Geometric centres of the true-energy bins in GeV."""
        return np.asarray(np.sqrt(self.true_edges_gev[1:] * self.true_edges_gev[:-1]))

    def fold(self, bin_fluxes: Array) -> Array:
        """Expected counts without background, shape (n, n_reco).

        Args:
            bin_fluxes: Flux of each true-energy bin in cm^-2 s^-1, shape (n, n_true).
        """
        # Migration reaches few bins. The sparse product is faster than the dense one, and its bits
        # depend neither on the batch nor on the threads of a linear algebra library.
        return np.ascontiguousarray((self._sparse @ np.ascontiguousarray(bin_fluxes.T)).T)

    @cached_property
    def _sparse(self) -> Any:
        return csr_array(self.matrix)

    def with_livetime(self, livetime_s: float) -> Response:
        """The same instrument observing longer or shorter: R and b scale with the livetime."""
        factor = livetime_s / self.livetime_s
        return replace(
            self,
            matrix=self.matrix * factor,
            background=self.background * factor,
            livetime_s=livetime_s,
        )

    def without_blind_bins(self) -> Response:
        """Drop the true-energy bins at both ends that contribute to no count; exact."""
        seen = np.flatnonzero(self.matrix.any(axis=0))
        if seen.size == 0:
            raise ValueError("the response matrix is zero everywhere")
        first, last = int(seen[0]), int(seen[-1]) + 1
        return replace(
            self,
            matrix=self.matrix[:, first:last],
            true_edges_gev=self.true_edges_gev[first : last + 1],
        )

    def save(self, path: str | Path) -> Path:
        """Write an npz file without pickles."""
        path = Path(path)
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                format=np.array(FORMAT),
                matrix=self.matrix,
                background=self.background,
                reco_edges_gev=self.reco_edges_gev,
                true_edges_gev=self.true_edges_gev,
                livetime_s=np.array(self.livetime_s),
                metadata=np.array(json.dumps(self.metadata)),
            )
        return path

    @classmethod
    def load(cls, path: str | Path) -> Response:
        """Read a file written by `save`.

        Raises:
            ContractError: If it is another file.
        """
        data = load_arrays(Path(path))
        if "on_off_format" in data:
            raise ContractError(
                f"{path} was written by `python -m sbi_physics_alp.dl3` and has off counts, no "
                f"known background; alp-source takes it with background=off, and alp-pks2155 does"
            )
        if "format" not in data or data["format"] != FORMAT:
            raise ContractError(
                f"{path} is not a response file of format {FORMAT}, which `Response.save` writes; "
                f"it has the arrays {sorted(data)}"
            )
        return cls(
            data["matrix"],
            data["background"],
            data["reco_edges_gev"],
            data["true_edges_gev"],
            float(data["livetime_s"]),
            json.loads(str(data["metadata"])),
        )


def true_energy_edges(
    low_gev: float = 5.0, high_gev: float = 2e5, bins_per_decade: int = 100
) -> Array:
    """Equal logarithmic bins, at least ``bins_per_decade`` of them a decade, in GeV."""
    n = int(np.ceil(bins_per_decade * np.log10(high_gev / low_gev) - 1e-9))
    return np.geomspace(low_gev, high_gev, n + 1)


def reco_energy_edges(low_gev: float = 10.0, high_gev: float = 1e5, n_bins: int = 200) -> Array:
    """Equal logarithmic bins in GeV; 200 bins over four decades by default."""
    return np.geomspace(low_gev, high_gev, n_bins + 1)
