"""The exact log likelihood as a quantity to rank, for simulators that know theirs.

Quantities that depend on the data make rank tests far more sensitive (arXiv:2211.02383).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sbi_physics.errors import ValidationError
from sbi_physics.priors import Prior
from sbi_physics.store import Simulations
from sbi_physics.types import DataArray, FloatArray

_CHUNK_VALUES: Final = 4_000_000


class Likelihood:
    """log p(x | theta) of the inferred parameters.

    Args:
        pairs: Their simulator is asked.
        prior: Prior of the inferred parameters.

    Raises:
        ValidationError: If the simulator does not know its likelihood, or has free parameters that
            are not inferred.
    """

    def __init__(self, pairs: Simulations, prior: Prior) -> None:
        self._simulator = pairs.simulator
        if not self._simulator.can("log_likelihood"):
            raise ValidationError(
                f"simulator {self._simulator.name!r} does not know its likelihood, so loglik "
                "cannot be ranked"
            )
        free = [p.name for p in pairs.parameters if not p.is_fixed]
        left_out = [name for name in free if name not in prior.names]
        if left_out:
            raise ValidationError(
                f"the likelihood also depends on {', '.join(left_out)}, which the posterior does "
                "not infer, so loglik cannot be ranked"
            )
        self._columns = pairs.parameters.indices(prior.names)
        self._fixed = np.array([p.bounds[0] for p in pairs.parameters], dtype=np.float64)

    def __call__(self, x: DataArray, theta: FloatArray) -> FloatArray:
        """Return log likelihoods of points for each observation.

        Args:
            x: Data, shape (batch, *shape).
            theta: Parameters in physical units, shape (batch, point, param).

        Returns:
            Shape (batch, point).
        """
        n, k, _ = theta.shape
        full = np.broadcast_to(self._fixed, (n, k, len(self._fixed))).copy()
        full[..., self._columns] = theta
        step = max(1, _CHUNK_VALUES // (k * max(1, x[0].size)))
        parts = []
        for start in range(0, n, step):
            rows = slice(start, start + step)
            points = full[rows].reshape(-1, full.shape[2])
            found = self._simulator.log_likelihood(np.repeat(x[rows], k, axis=0), points)
            parts.append(np.asarray(found, dtype=np.float64).reshape(-1, k))
        return np.concatenate(parts)
