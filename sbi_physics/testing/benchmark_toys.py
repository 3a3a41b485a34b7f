r"""Three problems of the field's benchmark (sbibm, arXiv:2101.04653), with exact posterior draws.

* `toy-two-moons`: :math:`\theta \sim U(-1, 1)^2`, and

.. math:: x = \begin{pmatrix} r\cos\alpha + 1/4 \\ r\sin\alpha \end{pmatrix} + \frac{1}{\sqrt 2}
    \begin{pmatrix} -|\theta_1 + \theta_2| \\ \theta_2 - \theta_1 \end{pmatrix}, \quad
    \alpha \sim U(-\pi/2, \pi/2), \ r \sim N(0.1, 0.01^2);

* `toy-mixture`: :math:`\theta \sim U(-10, 10)^2`,
  :math:`x \sim \frac12 N(\theta, I) + \frac12 N(\theta, 0.01\, I)`;
* `toy-slcp`: :math:`\theta \sim U(-3, 3)^5`, four independent draws of
  :math:`N((\theta_1, \theta_2), S)` with standard deviations :math:`\theta_3^2, \theta_4^2` and
  correlation :math:`\tanh\theta_5` (simple likelihood, complex posterior).

sbibm inverts the simulators of the first two likewise, and runs long Markov chains for the third,
whose draws are independent here: see `SlcpPosterior`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from sbi_physics.distributions import Uniform
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter, ParameterSpace
from sbi_physics.posterior import Posterior, PosteriorContext
from sbi_physics.priors import Prior
from sbi_physics.testing.benchmark_posteriors import (
    MIXTURE,
    TRIALS,
    MixturePosterior,
    SlcpPosterior,
    TwoMoonsPosterior,
    crescent,
    folded,
    isotropic,
    slcp_log_likelihood,
)
from sbi_physics.testing.toys import ToySimulator
from sbi_physics.types import DataArray, FloatArray


class _BenchmarkToy(ToySimulator):
    """A problem in a uniform box whose posterior is known for all parameters at once."""

    half_width: ClassVar[float]
    dimension: ClassVar[int]

    @property
    def parameters(self) -> ParameterSpace:
        return ParameterSpace(
            Parameter(
                f"theta_{k}",
                Uniform(-self.half_width, self.half_width),
                label=rf"\theta_{k}",
                description=f"Parameter {k}.",
            )
            for k in range(1, self.dimension + 1)
        )

    def exact_posterior(self, prior: Prior, infer: Sequence[str]) -> Posterior:
        if prior != self.prior or tuple(infer) != self.parameters.names:
            raise self._unknown(prior)
        return self._posterior(self._context(prior, infer))

    def _posterior(self, context: PosteriorContext) -> Posterior:
        raise NotImplementedError


class ToyTwoMoons(_BenchmarkToy):
    """Two crescents: a crescent of noise around a point that two values of theta share."""

    name = "toy-two-moons"
    summary = "Two thin crescents in two parameters (sbibm); exact posterior known."
    half_width, dimension = 1.0, 2
    fiducial: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "centre": {"theta_1": 0.0, "theta_2": 0.0},
        "apart": {"theta_1": 0.6, "theta_2": 0.2},
    }

    @property
    def observable(self) -> Observable:
        return Observable("vector", (2,), label="x", names=("x_1", "x_2"))

    def _simulate(self, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        return crescent(len(theta), rng) + folded(theta)

    def _posterior(self, context: PosteriorContext) -> Posterior:
        return TwoMoonsPosterior(context)


class ToyMixture(_BenchmarkToy):
    """The same mean with a broad or a narrow spread."""

    name = "toy-mixture"
    summary = "A broad and a narrow Gaussian with common mean (sbibm); exact posterior known."
    half_width, dimension = 10.0, 2
    fiducial: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "centre": {"theta_1": 0.0, "theta_2": 0.0},
        "edge": {"theta_1": 9.5, "theta_2": -4.0},
    }

    @property
    def observable(self) -> Observable:
        return Observable("vector", (2,), label="x", names=("x_1", "x_2"))

    def _simulate(self, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        spread = np.array(MIXTURE)[rng.integers(2, size=len(theta))]
        return theta + spread[:, None] * rng.standard_normal(theta.shape)

    def log_likelihood(self, x: DataArray, theta: FloatArray) -> FloatArray:
        square = ((np.asarray(x, np.float64) - theta) ** 2).sum(axis=1)
        broad, narrow = (isotropic(square, s) for s in MIXTURE)
        density: FloatArray = np.logaddexp(broad, narrow) - np.log(2.0)
        return density

    def _posterior(self, context: PosteriorContext) -> Posterior:
        return MixturePosterior(context)


class ToySlcp(_BenchmarkToy):
    """Four points of a Gaussian: two signs are undetermined, so that there are four modes."""

    name = "toy-slcp"
    summary = "Mean and covariance from four points, four modes (sbibm); exact posterior known."
    half_width, dimension = 3.0, 5
    fiducial: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "centre": dict(zip((f"theta_{k}" for k in range(1, 6)), (0, 0, 1, 1, 0), strict=True)),
        "correlated": dict(
            zip((f"theta_{k}" for k in range(1, 6)), (0.7, -2.9, -1.0, -0.9, 0.6), strict=True)
        ),
    }

    @property
    def observable(self) -> Observable:
        names = tuple(f"{axis}_{i}" for i in range(1, TRIALS + 1) for axis in ("x", "y"))
        return Observable("vector", (2 * TRIALS,), label="x", names=names)

    def _simulate(self, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        one, two = rng.standard_normal((2, TRIALS, len(theta)))
        s_1, s_2, rho = theta[:, 2] ** 2, theta[:, 3] ** 2, np.tanh(theta[:, 4])
        first = theta[:, 0] + s_1 * one
        # 1 - tanh^2 = 1 / cosh^2 keeps its precision near full correlation.
        second = theta[:, 1] + s_2 * (rho * one + two / np.cosh(theta[:, 4]))
        points = np.stack([first, second], axis=-1).transpose(1, 0, 2)
        return points.reshape(len(theta), 2 * TRIALS)

    def log_likelihood(self, x: DataArray, theta: FloatArray) -> FloatArray:
        return slcp_log_likelihood(np.asarray(x, np.float64), theta[:, None])[:, 0]

    def _posterior(self, context: PosteriorContext) -> Posterior:
        return SlcpPosterior(context)
