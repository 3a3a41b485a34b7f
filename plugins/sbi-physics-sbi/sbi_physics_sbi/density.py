"""Conditional density networks: a summary network, then one of sbi's density estimators."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from sbi.neural_nets import posterior_nn
from torch import Tensor, nn

from sbi_physics.nn.density import ConditionalDensity

ESTIMATORS = ("zuko_nsf", "nsf", "maf", "maf_rqs", "zuko_maf", "zuko_nice", "mdn")
"""Estimators with a fast inverse (measured in benchmarks/bench_sbi.py)."""

_TAIL_BOUND = 5.0
_BUILD_ROWS = 8


class EstimatorDensity(ConditionalDensity):
    """A density estimator of sbi behind a summary network.

    Args:
        embedding: Summary network, (batch, *shape) -> (batch, n_features).
        estimator: Density estimator of sbi, conditioned on the features.
    """

    def __init__(self, embedding: nn.Module, estimator: nn.Module) -> None:
        super().__init__(embedding)
        self.estimator = estimator

    def log_q(self, z: Tensor, features: Tensor) -> Tensor:
        # sbi wants the axis of several points for one condition in front.
        points = z[None] if z.dim() == 2 else z.transpose(0, 1).contiguous()
        log_q: Tensor = self.estimator.log_prob(points, condition=features)  # type: ignore[operator]
        return log_q[0] if z.dim() == 2 else log_q.T

    def draw(self, n: int, features: Tensor) -> Tensor:
        return sampled(self.estimator, n, features).transpose(0, 1)


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
