r"""Densities by flow matching: a learned velocity carries normal noise to the posterior.

With data at :math:`t = 0`, noise :math:`\epsilon \sim N(0, 1)` at :math:`t = 1` and straight paths
:math:`z_t = (1 - t) z + t \epsilon`, sbi's network learns the mean velocity
:math:`v(z_t, t; x) = E[\epsilon - z\,|\,z_t, x]` by least squares (arXiv:2210.02747,
arXiv:2209.03003). Then

.. math:: \frac{dz}{dt} = v, \qquad
    \log q(z|x) = \log N(z_1) + \int_0^1 \nabla\cdot v(z_t, t; x)\, dt .

The prior is a standard normal in the coordinates of the networks, so the network learns what is
added to the velocity that leaves this prior as it is, and an untrained one draws from the prior.

Both integrals take a fixed number of Runge-Kutta steps, shorter towards the data, where narrow
posteriors bend the paths: unlike with an adaptive solver, the result for an observation does not
depend on the others of its batch.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from sbi.neural_nets.net_builders.vector_field_nets import build_vector_field_estimator
from torch import Tensor, nn

from sbi_physics.nn.coordinates import log_normal, to_normal
from sbi_physics.nn.density import ConditionalDensity
from sbi_physics.nn.device import seeded

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(z, time) -> velocity, same shape as z."""

_BUILD_ROWS = 8
_VALIDATION_SEED = 20_221_006
_VALIDATION_TIMES = 8


class VelocityDensity(ConditionalDensity):
    """A flow-matching estimator of sbi behind a summary network.

    Args:
        embedding: Summary network, (batch, *shape) -> (batch, n_features).
        estimator: sbi's `FlowMatchingEstimator`, conditioned on the features.
        d: Number of parameters.
        steps: Runge-Kutta steps between noise and data.
    """

    def __init__(self, embedding: nn.Module, estimator: nn.Module, d: int, steps: int) -> None:
        super().__init__(embedding)
        self.estimator = estimator
        self._d, self._steps = d, steps

    def training_loss(
        self, u: Tensor, x: Tensor, weight: Tensor | None, *, power: float
    ) -> Tensor:
        """Return the mean squared error of the velocity, at one random time for each row.

        Times are uniform numbers to a power. Of a posterior with width s, in units of the prior's,
        times below s alone show its shape, and they dominate the error: uniform times would
        spend a share s of the training on it.
        """
        z = to_normal(u)
        return self._error(z, self.embedding(x), weight, torch.rand_like(z[:, 0]) ** power)

    def held_out_loss(
        self, u: Tensor, x: Tensor, weight: Tensor | None, *, power: float
    ) -> Tensor:
        """Return the same error with always the same noise and times evenly spread alike."""
        z, features = to_normal(u), self.embedding(x)
        with seeded(_VALIDATION_SEED, u.device):
            shift = torch.rand_like(z[:, 0])
            errors = [
                self._error(z, features, weight, ((k + shift) / _VALIDATION_TIMES) ** power)
                for k in range(_VALIDATION_TIMES)
            ]
        return torch.stack(errors).mean()

    def log_q(self, z: Tensor, features: Tensor) -> Tensor:
        points = z[:, None] if z.dim() == 2 else z
        shape = points.shape
        velocity = self._velocity(features, shape[1])
        with warnings.catch_warnings():
            # torch compiles its first forward derivatives by a function that it has deprecated.
            warnings.filterwarnings("ignore", message="`torch.jit.script(_method)?` is deprecated")
            z_1, log_det = _integrate(
                lambda y, time: _with_divergence(velocity, y, time),
                (points.flatten(0, 1), z.new_zeros(shape[0] * shape[1])),
                _times(self._steps, z.device),
            )
        log_q = (log_normal(z_1).sum(dim=-1) + log_det).reshape(shape[:2])
        return log_q[:, 0] if z.dim() == 2 else log_q

    def draw(self, n: int, features: Tensor) -> Tensor:
        velocity = self._velocity(features, n)
        noise = torch.randn(len(features) * n, self._d, device=features.device)
        (z,) = _integrate(
            lambda y, time: (velocity(y, time),),
            (noise,),
            _times(self._steps, features.device).flip(0),
        )
        return z.reshape(len(features), n, self._d)

    def _velocity(self, features: Tensor, k: int) -> Velocity:
        """The velocity at k points for each row of features, in the order of the rows."""
        condition = features.repeat_interleave(k, dim=0)
        return lambda z, time: self.estimator(z, condition, time)

    def _error(self, z: Tensor, features: Tensor, weight: Tensor | None, times: Tensor) -> Tensor:
        errors: Tensor = self.estimator.loss(z, features, times)  # type: ignore[operator]
        return errors.mean() if weight is None else (errors * weight).sum() / weight.sum()


def build_velocity(d: int, n_features: int, options: Mapping[str, Any]) -> nn.Module:
    """Build an untrained flow-matching estimator with sbi's own builder.

    Args:
        d: Number of parameters.
        n_features: Size of the condition.
        options: `vector_field`, `hidden_features`, `num_layers`, `time_features`.
    """
    estimator: nn.Module = build_vector_field_estimator(
        torch.zeros(_BUILD_ROWS, d),
        torch.zeros(_BUILD_ROWS, n_features),
        estimator_type="flow",
        z_score_x="none",
        z_score_y="none",
        net=options["vector_field"],
        hidden_features=options["hidden_features"],
        num_layers=options["num_layers"],
        time_embedding_dim=options["time_features"],
        time_emb_type="sinusoidal",
        gaussian_baseline=True,
    )
    return estimator


def _times(steps: int, device: torch.device) -> Tensor:
    """Grid from 0 (data) to 1 (noise), its steps growing linearly."""
    return torch.linspace(0, 1, steps + 1, device=device) ** 2


def _integrate(
    slope: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    state: tuple[Tensor, ...],
    times: Tensor,
) -> tuple[Tensor, ...]:
    """Take classical Runge-Kutta steps over a grid; the slope sees the first part of the state."""
    for start, stop in itertools.pairwise(times):
        h = stop - start
        k1 = slope(state[0], start)
        k2 = slope(state[0] + 0.5 * h * k1[0], start + 0.5 * h)
        k3 = slope(state[0] + 0.5 * h * k2[0], start + 0.5 * h)
        k4 = slope(state[0] + h * k3[0], stop)
        state = tuple(
            y + h / 6 * (a + 2 * (b + c) + e)
            for y, a, b, c, e in zip(state, k1, k2, k3, k4, strict=True)
        )
    return state


def _with_divergence(velocity: Velocity, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Velocity and its divergence, exact, by one forward derivative for each parameter."""
    divergence = z.new_zeros(len(z))
    value = z
    for i, direction in enumerate(_axes(z)):
        both = torch.func.jvp(lambda y: velocity(y, time), (z,), (direction,))
        value, divergence = both[0], divergence + both[1][:, i]
    return value, divergence


def _axes(z: Tensor) -> Iterator[Tensor]:
    for i in range(z.shape[-1]):
        direction = torch.zeros_like(z)
        direction[:, i] = 1
        yield direction
