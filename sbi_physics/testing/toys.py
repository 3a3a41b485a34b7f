r"""Toy simulators with exact posteriors; core tests, tutorials and the conformance kit use them.

* `toy-gaussian`: :math:`\theta \sim U(-h, h)^d`, :math:`x = A\theta + \sigma N(0, 1)` with
  orthonormal columns of A; its data can be a vector, a spectrum, an image or a set;
* `toy-bimodal`: :math:`\theta \sim U(-3, 3)`, :math:`x = \theta^2 + N(0, 0.25^2)`;
* `toy-two-stage`: hits :math:`z_i = \mu + 0.5 N`, readout :math:`x_i = z_i + b + 0.2 N` and a
  monitor of the offset, :math:`x_m = b + 0.3 N`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sbi_physics.distributions import Fixed, Normal, Uniform
from sbi_physics.errors import ContractError
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter, ParameterSpace
from sbi_physics.posterior import Posterior, PosteriorContext
from sbi_physics.priors import Prior
from sbi_physics.simulator import Budget, Simulator, SimulatorOptions
from sbi_physics.testing.closed_form import (
    GaussianPosterior,
    GridPosterior,
    TruncatedNormalPosterior,
)
from sbi_physics.testing.observation_files import read_array
from sbi_physics.types import DataArray, FloatArray, Latents

_BUDGETS = {
    "quick": Budget(simulations=4_000, training={"max_epochs": 100}),
    "standard": Budget(simulations=20_000),
    "thorough": Budget(simulations=100_000, pairs=4000, training={"ensemble": 5}),
}
_IMAGE_MODES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (2, 2))
_IMAGE_SIDE = 8
_BINS = 24


class ToySimulator(Simulator):
    """A simulator that knows the exact posterior of any of its parameters."""

    budgets = _BUDGETS

    @abstractmethod
    def exact_posterior(self, prior: Prior, infer: Sequence[str]) -> Posterior:
        """Return the exact posterior.

        Args:
            prior: Prior of all parameters (some may be truncated or fixed).
            infer: Names of the parameters to infer; the others are marginalised.

        Raises:
            ContractError: If it has no closed form under this prior.
        """

    def reference_posterior(self) -> Posterior:
        return self.exact_posterior(self.prior, self.parameters.interest)

    def read_observation(self, path: Path) -> DataArray:
        return read_array(path, self.observable)

    def _context(self, prior: Prior, infer: Sequence[str]) -> PosteriorContext:
        return PosteriorContext(
            "exact",
            prior.select(infer),
            self.observable,
            simulator=self.identity,
            simulation_prior=prior,
        )

    def _unknown(self, prior: Prior) -> ContractError:
        return ContractError(f"the exact posterior of {self.name!r} is not known under {prior}")


class ToyGaussianOptions(SimulatorOptions):
    """Options of `toy-gaussian`."""

    dimension: int = Field(2, ge=1, le=8, description="Number of parameters.")
    noise: float = Field(
        0.3, gt=0, description="Standard deviation of the noise, in units of the parameters."
    )
    half_width: float = Field(
        1.0, gt=0, description="Parameters are uniform between minus and plus this."
    )
    kind: Literal["vector", "spectrum", "set", "image"] = Field(
        "vector", description="Kind of the data."
    )
    events: int = Field(3, ge=2, le=64, description="Mean number of events, for kind 'set'.")


class ToyGaussian(ToySimulator):
    """Linear-Gaussian data.

    As a set, an observation holds `events` - 1, `events` or `events` + 1 (equally likely)
    independent draws of theta + noise.
    """

    name = "toy-gaussian"
    summary = "Linear-Gaussian data of any kind with uniform priors; exact posterior known."
    Options = ToyGaussianOptions

    def __init__(self, options: ToyGaussianOptions | None = None, **values: object) -> None:
        super().__init__(options, **values)
        names, width = self.parameters.names, self.options.half_width
        # On the instance, because the names depend on the options.
        vars(self)["fiducial"] = {
            "centre": dict.fromkeys(names, 0.0),
            "offset": {n: width * (0.5 if k % 2 == 0 else -0.25) for k, n in enumerate(names)},
            "corner": dict.fromkeys(names, 0.95 * width),
        }

    @property
    def parameters(self) -> ParameterSpace:
        width = self.options.half_width
        return ParameterSpace(
            Parameter(
                f"theta_{k}",
                Uniform(-width, width),
                label=rf"\theta_{k}",
                description=f"Amplitude of mode {k}.",
            )
            for k in range(1, self.options.dimension + 1)
        )

    @property
    def observable(self) -> Observable:
        d, kind = self.options.dimension, self.options.kind
        if kind == "spectrum":
            edges = tuple(np.linspace(0.0, _BINS, _BINS + 1).tolist())
            return Observable(
                kind, (_BINS,), edges=edges, edge_unit="GeV", label="signal", edge_label="energy"
            )
        if kind == "image":
            return Observable(kind, (_IMAGE_SIDE, _IMAGE_SIDE), label="brightness")
        names = tuple(f"x_{k}" for k in range(1, d + 1))
        shape = (self.options.events + 1, d + 1) if kind == "set" else (d,)
        return Observable(kind, shape, label="x", names=names)

    def _simulate(self, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        n, sigma = len(theta), float(self.options.noise)
        if self.options.kind == "set":
            rows = self.options.events + 1
            events = theta[:, None] + sigma * rng.standard_normal((n, rows, theta.shape[1]))
            count = rng.integers(self.options.events - 1, rows, size=n, endpoint=True)
            mask = (np.arange(rows) < count[:, None])[..., None].astype(np.float64)
            return np.concatenate([events * mask, mask], axis=-1)
        signal: FloatArray = theta @ self._modes
        return (signal + sigma * rng.standard_normal(signal.shape)).reshape(
            n, *self.observable.shape
        )

    @property
    def _modes(self) -> FloatArray:
        """Orthonormal rows, shape (d, number of entries)."""
        d, kind = self.options.dimension, self.options.kind
        if kind == "spectrum":
            return _cosines(_BINS)[1 : d + 1]
        if kind == "image":
            waves = _cosines(_IMAGE_SIDE)
            return np.stack([np.outer(waves[i], waves[j]).ravel() for i, j in _IMAGE_MODES[:d]])
        return np.eye(d)

    def summary_statistics(self, x: DataArray) -> FloatArray:
        """Unbiased estimates of theta, for sets followed by the number of events; sufficient."""
        values = np.asarray(x, dtype=np.float64)
        if self.options.kind == "set":
            count = values[..., -1].sum(axis=1, keepdims=True)
            return np.concatenate([values[..., :-1].sum(axis=1) / count, count], axis=1)
        return values.reshape(len(values), -1) @ self._modes.T

    def log_likelihood(self, x: DataArray, theta: FloatArray) -> FloatArray:
        values, sigma = np.asarray(x, dtype=np.float64), self.options.noise
        if self.options.kind == "set":
            present = values[..., -1:]
            z = (values[..., :-1] - np.asarray(theta)[:, None]) / sigma
            log_density = present * (-0.5 * z**2 - np.log(sigma) - 0.5 * np.log(2 * np.pi))
            total: FloatArray = log_density.sum(axis=(1, 2)) - np.log(3.0)
            return total
        z = (values.reshape(len(values), -1) - np.asarray(theta) @ self._modes) / sigma
        result: FloatArray = (-0.5 * z**2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)).sum(axis=1)
        return result

    def exact_posterior(self, prior: Prior, infer: Sequence[str]) -> Posterior:
        if prior.constraints or any(
            not isinstance(p.distribution, Uniform | Fixed) for p in prior.parameters
        ):
            raise self._unknown(prior)
        columns = self.parameters.indices(infer)

        def centre_and_width(x: DataArray) -> tuple[FloatArray, FloatArray]:
            summaries = self.summary_statistics(x)
            centre = summaries[:, columns]
            count = summaries[:, -1:] if self.options.kind == "set" else np.ones((len(x), 1))
            return centre, np.broadcast_to(self.options.noise / np.sqrt(count), centre.shape)

        return TruncatedNormalPosterior(self._context(prior, infer), centre_and_width)


class ToyBimodalOptions(SimulatorOptions):
    """Options of `toy-bimodal`."""

    noise: float = Field(0.25, gt=0, description="Standard deviation of the noise.")


class ToyBimodal(ToySimulator):
    """The square of theta plus noise: two modes of opposite sign."""

    name = "toy-bimodal"
    summary = "The square of one parameter plus noise; exact posterior with two modes known."
    Options = ToyBimodalOptions
    fiducial: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "two-modes": {"theta": 2.0},
        "merged": {"theta": 0.0},
    }

    @property
    def parameters(self) -> ParameterSpace:
        return ParameterSpace(
            [
                Parameter(
                    "theta", Uniform(-3.0, 3.0), label=r"\theta", description="Root of the signal."
                )
            ]
        )

    @property
    def observable(self) -> Observable:
        return Observable("vector", (1,), label="x", names=("x",))

    def _simulate(self, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        noise: float = self.options.noise
        return theta**2 + noise * rng.standard_normal(theta.shape)

    def log_likelihood(self, x: DataArray, theta: FloatArray) -> FloatArray:
        return self._log_density(np.asarray(theta), x)[:, 0]

    def exact_posterior(self, prior: Prior, infer: Sequence[str]) -> Posterior:
        return GridPosterior(self._context(prior, infer), self._log_density)

    def _log_density(self, theta: FloatArray, x: DataArray) -> FloatArray:
        sigma = self.options.noise
        z = (np.asarray(x, dtype=np.float64) - theta**2) / sigma
        result: FloatArray = -0.5 * z**2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
        return result


class ToyTwoStageOptions(SimulatorOptions):
    """Options of `toy-two-stage`."""

    hits: int = Field(4, ge=1, le=64, description="Number of hits.")
    spread: float = Field(
        0.5,
        gt=0,
        description="Spread of the hits around the position.",
        json_schema_extra={"unit": "mm"},
    )
    resolution: float = Field(
        0.2, gt=0, description="Readout noise.", json_schema_extra={"unit": "mm"}
    )
    monitor: float = Field(
        0.3,
        gt=0,
        description="Noise of the monitor of the offset.",
        json_schema_extra={"unit": "mm"},
    )


class ToyTwoStage(ToySimulator):
    """Hits around a position (latent), read out with a common offset."""

    name = "toy-two-stage"
    summary = "Hits with a common offset that enters only the readout; exact posterior known."
    Options = ToyTwoStageOptions
    observe_only = ("offset",)
    observe_options = ("resolution", "monitor")
    fiducial: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "centre": {"position": 0.0, "offset": 0.0},
        "shifted": {"position": 1.0, "offset": -0.5},
    }

    @property
    def parameters(self) -> ParameterSpace:
        return ParameterSpace(
            [
                Parameter(
                    "position",
                    Normal(0.0, 1.0),
                    unit="mm",
                    label=r"\mu",
                    description="Mean of the hits.",
                ),
                Parameter(
                    "offset",
                    Normal(0.0, 0.5),
                    unit="mm",
                    label="b",
                    role="nuisance",
                    description="Misalignment of the readout.",
                ),
            ]
        )

    @property
    def observable(self) -> Observable:
        names = (*(f"hit_{k}" for k in range(1, self.options.hits + 1)), "monitor")
        return Observable(
            "vector", (self.options.hits + 1,), unit="mm", label="readout", names=names
        )

    def _simulate_latent(self, theta: FloatArray, rng: np.random.Generator) -> Latents:
        noise = rng.standard_normal((len(theta), self.options.hits))
        return {"hits": theta[:, :1] + self.options.spread * noise}

    def _observe(self, z: Latents, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        hits, offset = np.asarray(z["hits"], dtype=np.float64), theta[:, 1:2]
        readout = hits + offset + self.options.resolution * rng.standard_normal(hits.shape)
        monitor = offset + self.options.monitor * rng.standard_normal(offset.shape)
        return np.concatenate([readout, monitor], axis=1)

    @property
    def _model(self) -> tuple[FloatArray, FloatArray]:
        """Design matrix (n_data, 2) and variances (n_data,)."""
        hits, o = self.options.hits, self.options
        design = np.array([[1.0, 1.0]] * hits + [[0.0, 1.0]])
        return design, np.array([o.spread**2 + o.resolution**2] * hits + [o.monitor**2])

    def log_likelihood(self, x: DataArray, theta: FloatArray) -> FloatArray:
        design, variance = self._model
        residual = np.asarray(x, dtype=np.float64) - np.asarray(theta) @ design.T
        terms = -0.5 * residual**2 / variance - 0.5 * np.log(2 * np.pi * variance)
        result: FloatArray = terms.sum(axis=1)
        return result

    def exact_posterior(self, prior: Prior, infer: Sequence[str]) -> Posterior:
        if prior.constraints:
            raise self._unknown(prior)
        design, variance = self._model
        precision, mean = np.zeros(2), np.zeros(2)
        free = []
        for k, parameter in enumerate(prior.parameters):
            law = parameter.distribution
            if isinstance(law, Normal) and not np.isfinite(law.bounds).any():
                precision[k], mean[k] = 1 / law.sd**2, law.mean
                free.append(k)
            elif isinstance(law, Fixed):
                mean[k] = law.value
            else:
                raise self._unknown(prior)
        constant = design @ np.where(precision == 0, mean, 0.0)
        design, precision, mean = design[:, free], precision[free], mean[free]
        information = np.diag(precision) + design.T @ (design / variance[:, None])
        covariance: FloatArray = np.linalg.inv(information).astype(np.float64)
        matrix = covariance @ (design / variance[:, None]).T
        offset = covariance @ (precision * mean) - matrix @ constant
        kept = [free.index(k) for k in self.parameters.indices(infer)]
        return GaussianPosterior(
            self._context(prior, infer), matrix[kept], offset[kept], covariance[np.ix_(kept, kept)]
        )


def _cosines(n: int) -> FloatArray:
    """Orthonormal cosine modes (DCT-II), shape (n, n)."""
    k, i = np.mgrid[0:n, 0:n]
    waves: FloatArray = np.sqrt(2 / n) * np.cos(np.pi * k * (i + 0.5) / n)
    waves[0] /= np.sqrt(2)
    return waves
