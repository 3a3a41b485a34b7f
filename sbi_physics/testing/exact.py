"""The engine `exact`: trains nothing and asks the simulator for its exact posterior.

It takes the same path as every engine (simulations, training data, storage), so that the pipeline,
the validator and reports are tested without a deep-learning package, against an answer known to be
right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sbi_physics.engine import Engine
from sbi_physics.errors import TrainingError
from sbi_physics.posterior import Draws, Posterior, PosteriorContext
from sbi_physics.progress import Progress
from sbi_physics.testing.toys import ToySimulator
from sbi_physics.training import TrainingData, TrainingSettings
from sbi_physics.types import AnyArray, DataArray, FloatArray


class ExactPosterior(Posterior):
    """A reference posterior with the context of a trained one.

    Args:
        context: What it was asked for.
        reference: The exact posterior; answers every question.
    """

    def __init__(self, context: PosteriorContext, reference: Posterior) -> None:
        super().__init__(context)
        self.reference = reference
        self.normalized = reference.normalized

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        return self.reference.blocks

    def _draw(
        self, x: DataArray, n: int, rng: np.random.Generator, log_prob: bool, at: FloatArray | None
    ) -> Draws:
        return self.reference._draw(x, n, rng, log_prob, at)

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        return self.reference._log_prob_at(theta, x)


class ExactEngine(Engine):
    """Returns the exact posterior of simulators that know it."""

    name = "exact"
    summary = "Exact posteriors of simulators that know them (toys); trains nothing."

    def _train(
        self,
        data: TrainingData,
        context: PosteriorContext,
        settings: TrainingSettings,
        seed: int,
        progress: Progress,
    ) -> Posterior:
        return _exact(context)

    def _rebuild(
        self, context: PosteriorContext, config: Mapping[str, Any], weights: Mapping[str, AnyArray]
    ) -> Posterior:
        return _exact(context)


def _exact(context: PosteriorContext) -> ExactPosterior:
    """Rebuild the simulator by its identity and ask it.

    Raises:
        TrainingError: If the simulator does not know the posterior of these parameters.
    """
    from sbi_physics import registry

    identity, prior = context.simulator, context.simulation_prior
    if identity is None or prior is None:
        raise TrainingError(
            "engine 'exact' needs simulations of a registered simulator, these are bare arrays"
        )
    simulator = registry.simulator(identity.name, **identity.options)
    if isinstance(simulator, ToySimulator):
        return ExactPosterior(context, simulator.exact_posterior(prior, context.prior.names))
    if not simulator.can("reference_posterior"):
        raise TrainingError(
            f"simulator {identity.name!r} does not know its exact posterior; use another engine"
        )
    if prior != simulator.prior:
        raise TrainingError(
            f"the exact posterior of {identity.name!r} is known under its own prior only"
        )
    reference = simulator.reference_posterior()
    if reference.prior.names != context.prior.names:
        raise TrainingError(
            f"the exact posterior of {identity.name!r} is known for "
            f"{', '.join(reference.prior.names)}, asked was {', '.join(context.prior.names)}"
        )
    return ExactPosterior(context, reference)
