"""What can be validated: posteriors, native objects of other ecosystems, bare functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from sbi_physics import registry
from sbi_physics.errors import ContractError, ValidationError
from sbi_physics.posterior import Posterior
from sbi_physics.store import Simulations

Sampler = Callable[[Any, int], Any]
"""A function of observations (batch, *shape) and n that returns draws (batch, n, param)."""


def resolve(posterior: Any, pairs: Simulations) -> Posterior | Sampler:
    """Return what can be drawn from.

    Args:
        posterior: A posterior, a native posterior of an ecosystem whose plugin is installed, or a
            function of observations and a number of draws.
        pairs: The pairs it will be tested on; they know the parameters of native objects.

    Raises:
        ValidationError: If it is none of these.
    """
    if isinstance(posterior, Posterior):
        return posterior
    if registry.ecosystem_of(posterior) is not None:
        return _native(posterior, pairs)
    if callable(posterior):
        sampler: Sampler = posterior
        return sampler
    raise ValidationError(
        f"cannot validate a {type(posterior).__module__}.{type(posterior).__qualname__}: accepted "
        "are posteriors, native "
        f"posteriors of {', '.join(registry.native_ecosystems()) or 'no installed ecosystem'}, "
        "and functions sampler(x, n)"
    )


def _native(posterior: Any, pairs: Simulations) -> Posterior:
    """Wrap a native posterior of all free parameters, or else of those of interest."""
    free = tuple(p.name for p in pairs.parameters if not p.is_fixed)
    interest = pairs.parameters.interest
    if free != interest:
        # A native object knows the number of its parameters, not their names.
        with contextlib.suppress(ContractError):
            prior = pairs.prior.select(free)
            return registry.native_posterior_for(posterior, prior, pairs.observable)
    prior = pairs.prior.select(interest)
    return registry.native_posterior_for(posterior, prior, pairs.observable)


def block_posteriors(posterior: Posterior) -> list[Posterior | Sampler]:
    """One posterior for each block; a joint posterior is its own only block."""
    if len(posterior.blocks) == 1:
        return [posterior]
    marginal = getattr(posterior, "marginal", None)  # see MarginalPosterior
    if marginal is None:
        raise ValidationError(
            f"{posterior!r} answers for {len(posterior.blocks)} blocks of parameters but has no "
            "marginal(names) method"
        )
    return [marginal(block) for block in posterior.blocks]
