r"""Ensembles: the mean :math:`q(\theta|x) = \frac{1}{K} \sum_k q_k(\theta|x)` of posteriors.

Densities are averaged, not parameters; ensembles tend to be more conservative than their members
(arXiv:2110.06581).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import special

from sbi_physics.errors import ContractError
from sbi_physics.marginal import MarginalPosterior
from sbi_physics.posterior import Draws, Posterior, PosteriorContext
from sbi_physics.ratio import RatioPosterior
from sbi_physics.training import TrainingHistory
from sbi_physics.types import DataArray, FloatArray


class EnsemblePosterior(Posterior):
    """The equal-weight mixture of posteriors with one prior and one observable.

    Args:
        members: The posteriors; at least one.
    """

    def __init__(self, members: Sequence[Posterior]) -> None:
        self.members = tuple(members)
        super().__init__(replace(_common_context(members), transform=None))
        self.normalized = all(m.normalized for m in members)

    def _inner(self) -> Sequence[Posterior]:
        return self.members

    def _rows_each(self, n: int) -> int:
        return max(m._rows_each(n) for m in self.members)

    def _draw(
        self, x: DataArray, n: int, rng: np.random.Generator, log_prob: bool, at: FloatArray | None
    ) -> Draws:
        # Which member each draw comes from is random, so that draws are independent draws of the
        # mixture.
        choice = rng.integers(len(self.members), size=(len(x), n))
        theta = np.empty((len(x), n, self.prior.d))
        ess = np.zeros(len(x))
        weighted = False
        for k, member in enumerate(self.members):
            mine = choice == k
            most = int(mine.sum(axis=1).max())
            if most == 0:
                continue
            draws = member._draw(x, most, rng, log_prob=False, at=None)
            taken = np.arange(most) < mine.sum(axis=1, keepdims=True)
            theta[mine] = draws.theta[taken]
            if draws.ess is not None:
                weighted = True
                ess += draws.ess
        wanted = [p for p in (theta if log_prob else None, at) if p is not None]
        density = self._log_prob_at(np.concatenate(wanted, axis=1), x) if wanted else None
        return Draws(
            theta,
            density[:, :n] if density is not None and log_prob else None,
            density[:, n if log_prob else 0 :] if density is not None and at is not None else None,
            ess if weighted else None,
        )

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        parts = np.stack([m._log_prob_at(theta, x) for m in self.members])
        mixture: FloatArray = special.logsumexp(parts, axis=0) - np.log(len(self.members))
        return mixture


class RatioEnsemble(RatioPosterior):
    """The mean of learned ratios, sampled through one pool shared by all members.

    Args:
        members: The ratio posteriors; at least one. All share one data transform.
    """

    def __init__(self, members: Sequence[RatioPosterior]) -> None:
        self.members = tuple(members)
        super().__init__(_common_context(members), pool_size=members[0].pool_size)
        if any(m.context.transform != self.context.transform for m in members):
            raise ContractError("the members of a ratio ensemble must share the data transform")

    def _inner(self) -> Sequence[Posterior]:
        return self.members

    def _log_ratio(self, u: FloatArray, xt: DataArray) -> FloatArray:
        parts = np.stack([m._log_ratio(u, xt) for m in self.members])
        mean: FloatArray = special.logsumexp(parts, axis=0) - np.log(len(self.members))
        return mean


class MarginalEnsemble(MarginalPosterior):
    """The mixture of marginal posteriors, block by block.

    Args:
        members: The marginal posteriors; at least one. All answer for the same blocks.
    """

    def __init__(self, members: Sequence[MarginalPosterior]) -> None:
        self.members = tuple(members)
        context = _common_context(members)
        blocks = members[0].blocks
        if any(m.blocks != blocks for m in members):
            raise ContractError("the members of a marginal ensemble must answer for equal blocks")
        parts = {block: ensemble_of([m.parts[block] for m in members]) for block in blocks}
        super().__init__(replace(context, transform=None), parts)

    def _inner(self) -> Sequence[Posterior]:
        return (*self.members, *self.parts.values())


Ensemble = EnsemblePosterior | RatioEnsemble | MarginalEnsemble
"""What `ensemble_of` returns."""


def ensemble_of(members: Sequence[Posterior]) -> Ensemble:
    """Return the mixture of posteriors that fits their kind."""
    ratios = [m for m in members if isinstance(m, RatioPosterior)]
    if members and len(ratios) == len(members):
        return RatioEnsemble(ratios)
    marginals = [m for m in members if isinstance(m, MarginalPosterior)]
    if members and len(marginals) == len(members):
        return MarginalEnsemble(marginals)
    return EnsemblePosterior(members)


def _common_context(members: Sequence[Posterior]) -> PosteriorContext:
    if not members:
        raise ContractError("an ensemble needs at least one member")
    first = members[0].context
    if any(m.prior != first.prior or m.observable != first.observable for m in members):
        raise ContractError("the members of an ensemble must share prior and observable")
    histories = [m.context.history for m in members if m.context.history is not None]
    return replace(first, history=TrainingHistory.of_ensemble(histories) if histories else None)
