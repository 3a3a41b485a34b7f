r"""Posteriors that answer for blocks of parameters, not for all of them jointly.

Marginal engines learn :math:`q(\theta_B|x)` for blocks B of one or two parameters, which is all
that tables, limits and corner plots show, and stays cheap where a joint posterior would not. Ask
for a block with `marginal`. As a posterior of all parameters it is the product

.. math:: q(\theta|x) = \prod_i q(\theta_i|x)

of its one-parameter blocks: right for every parameter by itself, blind to correlations. The
validator tests every block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sbi_physics.errors import ContractError, unknown_name
from sbi_physics.posterior import Draws, Posterior, PosteriorContext
from sbi_physics.types import DataArray, FloatArray

Block = tuple[str, ...]
"""Names of the parameters of one block."""


class MarginalPosterior(Posterior):
    """Marginal posteriors of blocks of parameters.

    Args:
        context: What it was made from; its prior has all parameters.
        parts: Posterior of each block. Every parameter needs a block of its own.

    Raises:
        ContractError: If a parameter has no block of its own, or a part is about other parameters
            than its block.
    """

    def __init__(self, context: PosteriorContext, parts: Mapping[Block, Posterior]) -> None:
        super().__init__(context)
        self.parts = dict(parts)
        for block, part in self.parts.items():
            if part.prior.names != block:
                raise ContractError(
                    f"the posterior of block {', '.join(block)} is about "
                    f"{', '.join(part.prior.names)}"
                )
        for name in self.prior.names:
            if (name,) not in self.parts:
                raise ContractError(
                    f"parameter {name!r} has no block of its own; there are "
                    f"{_listed(self.parts) or 'none'}"
                )
        self.normalized = all(self.parts[(name,)].normalized for name in self.prior.names)

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(self.parts)

    def marginal(self, names: Sequence[str]) -> Posterior:
        """Return the posterior of one block, whatever the order of its names.

        Raises:
            UnknownNameError: If there is no such block.
        """
        wanted = set(names)
        for block, part in self.parts.items():
            if set(block) == wanted and len(names) == len(block):
                return part
        raise unknown_name(
            "block of parameters", ",".join(names), [",".join(b) for b in self.parts]
        )

    def _inner(self) -> Sequence[Posterior]:
        return tuple(self.parts.values())

    def _rows_each(self, n: int) -> int:
        return max(part._rows_each(n) for part in self._singles)

    @property
    def _singles(self) -> list[Posterior]:
        return [self.parts[(name,)] for name in self.prior.names]

    def _draw(
        self, x: DataArray, n: int, rng: np.random.Generator, log_prob: bool, at: FloatArray | None
    ) -> Draws:
        drawn = [
            part._draw(x, n, child, log_prob, None if at is None else at[..., j : j + 1])
            for j, (part, child) in enumerate(
                zip(self._singles, rng.spawn(self.prior.d), strict=True)
            )
        ]
        sizes = [d.ess for d in drawn if d.ess is not None]
        return Draws(
            np.concatenate([d.theta for d in drawn], axis=-1),
            _sum([d.log_prob for d in drawn]),
            _sum([d.log_prob_at for d in drawn]),
            np.min(sizes, axis=0) if sizes else None,
        )

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        parts = [
            part._log_prob_at(theta[..., j : j + 1], x) for j, part in enumerate(self._singles)
        ]
        density: FloatArray = np.sum(parts, axis=0)
        return density


def _sum(densities: Sequence[FloatArray | None]) -> FloatArray | None:
    known = [d for d in densities if d is not None]
    return np.sum(known, axis=0) if len(known) == len(densities) else None


def _listed(blocks: Mapping[Block, Posterior]) -> str:
    return "; ".join(", ".join(block) for block in blocks)
