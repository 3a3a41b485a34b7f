"""Conditional density networks: a summary network, then one of sbi's density estimators."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from sbi.neural_nets import posterior_nn
from torch import Tensor, nn

from sbi_physics.nn.coordinates import from_normal, log_normal, log_slope, to_normal

ESTIMATORS = ("zuko_nsf", "nsf", "maf", "maf_rqs", "zuko_maf", "zuko_nice", "mdn")
"""Estimators with a fast inverse (measured in benchmarks/bench_sbi.py)."""

_TAIL_BOUND = 5.0
_BUILD_ROWS = 8


class ConditionalDensity(nn.Module):
    """A density q(z|x) of normal coordinates z, with the data summarised once per observation.

    Args:
        embedding: Summary network, (batch, *shape) -> (batch, n_features).
        estimator: Density estimator of sbi, conditioned on the features.
    """

    def __init__(self, embedding: nn.Module, estimator: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.estimator = estimator

    def loss(self, u: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
        """Return minus the mean of log q(theta|x)/p(theta), in nats.

        Args:
            u: Unconstrained parameters, shape (batch, d).
            x: Transformed data, shape (batch, *shape).
            weight: Importance weights, shape (batch,), or None.
        """
        z = to_normal(u)
        log_q: Tensor = self.estimator.log_prob(z[None], condition=self.embedding(x))[0]  # type: ignore[operator]
        gain = log_q - log_normal(z).sum(dim=-1)
        return -gain.mean() if weight is None else -(gain * weight).sum() / weight.sum()

    def log_prob(self, u: Tensor, features: Tensor) -> Tensor:
        """Return log densities of u, shape (batch, k), at u (batch, k, d), features (batch, f)."""
        z = to_normal(u)
        log_q: Tensor = self.estimator.log_prob(  # type: ignore[operator]
            z.float().transpose(0, 1).contiguous(), condition=features
        )
        return log_q.T.double() + log_slope(z)

    def sample(self, n: int, features: Tensor) -> Tensor:
        """Draw n unconstrained points u for each row of features, shape (batch, n, d), float64."""
        z = sampled(self.estimator, n, features)
        return from_normal(z.transpose(0, 1).double())


def sampled(estimator: Any, n: int, condition: Tensor) -> Tensor:
    """Return draws of an estimator of sbi, shape (n, batch, d)."""
    with warnings.catch_warnings():
        # nflows inverts linear layers by a function that torch has deprecated.
        warnings.filterwarnings("ignore", message="torch.triangular_solve is deprecated")
        draws: Tensor = estimator.sample((n,), condition=condition)
    return draws


def build_estimator(name: str, d: int, n_features: int, options: Mapping[str, Any]) -> nn.Module:
    """Build an untrained estimator with sbi's own builder.

    Args:
        name: One of `ESTIMATORS`.
        d: Number of parameters.
        n_features: Size of the condition.
        options: `hidden_features`, `hidden_layers`, `num_transforms`, `num_bins`,
            `num_components`.
    """
    width, layers = options["hidden_features"], options["hidden_layers"]
    arguments: dict[str, Any] = {
        "hidden_features": [width] * layers if name.startswith("zuko") else width,
        "num_transforms": options["num_transforms"],
        "num_bins": options["num_bins"],
        "num_components": options["num_components"],
    }
    if not name.startswith("zuko") and name != "mdn":
        arguments["num_blocks"] = layers
        arguments["tail_bound"] = _TAIL_BOUND
    # Parameters have a standard normal prior and features come out of a network, so that nothing
    # needs standardising and the builder only looks at shapes.
    builder = posterior_nn(name, z_score_theta="none", z_score_x="none", **arguments)
    with warnings.catch_warnings():
        # One parameter: MAFs are then Gaussian, which sbi warns of; our documentation says so.
        warnings.filterwarnings("ignore", message="In one-dimensional output space")
        estimator: nn.Module = builder(
            torch.zeros(_BUILD_ROWS, d), torch.zeros(_BUILD_ROWS, n_features)
        )
    return estimator
