"""One random magnetic field of a cluster, as an object that is sampled where it is needed.

A realisation is its cluster and its seed: components at any radius, cells of any size, and a
summary of a few bytes that brings it back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from sbi_physics_alp.cells import Cells
from sbi_physics_alp.field import CellMode, Cluster, FieldSampler
from sbi_physics_alp.turbulence import modes

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class FieldRealisation:
    """A field: Gaussian turbulence of one seed under the profile of one cluster.

    The same as ``FieldSampler(cluster).sample(1, numpy.random.default_rng(seed))``, and as the
    field that a simulation keeps the seed of.

    Attributes:
        cluster: The cluster, each parameter a number.
        seed: Seed of the modes, not negative.

    Example:
        >>> field = FieldRealisation(Cluster(), seed=3)
        >>> field.components(np.array([0.0, 100.0])).shape
        (2, 2)
    """

    cluster: Cluster
    seed: int

    def __post_init__(self) -> None:
        if self.cluster.rows != 1:
            raise ValueError(
                f"a realisation has one cluster; got arrays of {self.cluster.rows} values"
            )
        if self.seed < 0:
            raise ValueError(f"a seed is an integer from 0; got {self.seed}")

    def cells(self, cell_mode: CellMode | float = "fine") -> Cells:
        """The field as cells of constant field, see `FieldSampler`."""
        return FieldSampler(self.cluster, cell_mode).from_seeds(np.array([self.seed]))

    def components(self, r_kpc: Array) -> Array:
        """Both transverse components in muG at distances from the centre, shape (2, n).

        Args:
            r_kpc: Distances along the line of sight in kpc, shape (n,).
        """
        r = np.asarray(r_kpc, dtype=np.float64)
        b0, k_l, k_h, q = (
            float(np.reshape(getattr(self.cluster, name), ()))
            for name in ("b0", "k_l", "k_h", "q")
        )
        k, sigma = modes(b0, k_l, k_h, q)
        rng = np.random.default_rng(self.seed)
        u, v = rng.standard_normal((2, 2, k.size)).swapaxes(0, 1) * sigma
        phase = np.multiply.outer(k, r)
        turbulent = u @ np.cos(phase) - v @ np.sin(phase)
        return np.asarray(turbulent * self.cluster.field_profile(r))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the seed and the twelve parameters of the cluster."""
        cluster = {name: float(np.reshape(v, ())) for name, v in asdict(self.cluster).items()}
        return {"seed": int(self.seed), "cluster": cluster}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        return cls(Cluster(**data["cluster"]), int(data["seed"]))
