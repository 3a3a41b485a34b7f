"""Densities of other packages that may put mass outside the prior, restricted to it.

A network trained on physical parameters knows nothing of the prior's edges. Draws outside are
masked and only observations that are short are topped up; the accepted fraction of an observation
is also the constant that its density lacks.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from sbi_physics.errors import ContractError
from sbi_physics.posterior import Draws, Posterior
from sbi_physics.seeding import generator
from sbi_physics.types import BoolArray, DataArray, FloatArray

_FIRST_EXTRA = 1.1
_MIN_ACCEPTANCE = 1e-3
_LEAKAGE_DRAWS = 2000


class RestrictedPosterior(Posterior):
    """A density over physical parameters, cut at the prior and normalised inside.

    Subclasses write `_propose` and `_raw`.

    Class attributes:
        remedy: What to do about a network that hardly has mass inside the prior.
        leaks: Whether there can be mass outside; if not, nothing is masked or normalised.
    """

    remedy: ClassVar[str] = "train it longer"
    leaks: bool = True

    @abstractmethod
    def _propose(self, x: DataArray, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw from the unrestricted density, shape (batch, n, d)."""

    @abstractmethod
    def _raw(self, theta: FloatArray, x: DataArray) -> FloatArray:
        """Log of the unrestricted density at theta (batch, k, d), shape (batch, k)."""

    def _draw(
        self, x: DataArray, n: int, rng: np.random.Generator, log_prob: bool, at: FloatArray | None
    ) -> Draws:
        theta, log_acceptance = self._inside(x, n, rng)
        return Draws(
            theta,
            self._raw(theta, x) - log_acceptance[:, None] if log_prob else None,
            None if at is None else self._masked(at, x) - log_acceptance[:, None],
        )

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        if not self.leaks:
            return self._masked(theta, x)
        rng = generator(self.context.seed, "posterior", 0)
        _, log_acceptance = self._inside(x, _LEAKAGE_DRAWS, rng)
        return self._masked(theta, x) - log_acceptance[:, None]

    def _inside(
        self, x: DataArray, n: int, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Draw n points inside the prior for each x, and the log of each accepted fraction."""
        if not self.leaks:
            return self._propose(x, n, rng), np.zeros(len(x))
        theta = np.empty((len(x), n, self.prior.d))
        have = np.zeros(len(x), dtype=np.int64)
        accepted, proposed = np.zeros(len(x)), np.zeros(len(x))
        ask = int(np.ceil(_FIRST_EXTRA * n)) + 8
        while True:
            short = np.flatnonzero(have < n)
            if len(short) == 0:
                return theta, np.log(accepted / proposed)
            draws = self._propose(x[short], ask, rng)
            inside: BoolArray = self.prior.contains(draws)
            accepted[short] += inside.sum(axis=1)
            proposed[short] += ask
            self._refuse_leaky(accepted[short] / proposed[short], short)
            for row, points, good in zip(short, draws, inside, strict=True):
                kept = points[good][: n - have[row]]
                theta[row, have[row] : have[row] + len(kept)] = kept
                have[row] += len(kept)
            still = np.flatnonzero(have < n)
            if len(still):
                rate = np.maximum(accepted[still] / proposed[still], _MIN_ACCEPTANCE)
                # Enough for the neediest row, but never more than ten times what all would need.
                ask = int(min(np.max((n - have[still]) / rate) * _FIRST_EXTRA + 8, 10 * n + 1000))

    def _refuse_leaky(self, acceptance: FloatArray, rows: Any) -> None:
        worst = int(np.argmin(acceptance))
        if acceptance[worst] < _MIN_ACCEPTANCE:
            raise ContractError(
                f"only a fraction {acceptance[worst]:.1e} of the draws for observation "
                f"{int(rows[worst])} lies inside the prior (at least {_MIN_ACCEPTANCE:g} is "
                f"needed): the network leaks; {self.remedy}"
            )

    def _masked(self, theta: FloatArray, x: DataArray) -> FloatArray:
        return np.where(self.prior.contains(theta), self._raw(theta, x), -np.inf)
