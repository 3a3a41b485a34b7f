r"""Losses of label learning; all are sums over members of weighted means over events.

Events come from a density q, with :math:`q(z)/p(z|0) = \mathrm{tr}\, M G(z)` known. The network
predicts :math:`\hat G(x)` with :math:`\hat G_{00} = 1`.

- Regression: labels :math:`g = G/\mathrm{tr}\, M G`, prediction
  :math:`\hat g = \hat G/\mathrm{tr}\, M\hat G`, squared differences. At the minimum
  :math:`\hat g = E_q[g|x]`, hence :math:`\hat G(x) = E_0[G|x]`. For events from zero parameters
  tr MG = 1 and this is derivative learning (arXiv:2107.10859, 2410.07315); for a mixture all
  labels are bounded, and the identity tr M g = 1 is built in.
- Cross-entropy of the points of a mixture: labels :math:`y_k = a_k\, p(z|\theta_k)/q(z)` against
  :math:`\hat p_k \propto a_k\, v_k^T \hat G v_k/\sigma_k`.
- ALICE (arXiv:1808.00973): soft targets s = 1/(1 + r(z)) on events of zero and of one point.
- ROLR (arXiv:1805.00020): squared differences of r on events of zero, of 1/r on events of a point.

Repulsion between members in function space follows arXiv:2106.11642.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from sbi_physics.likelihood.gram import monomials
from sbi_physics.types import FloatArray
from sbi_physics_smeft.engines.network import GramNetwork, RatioNetwork

_TINY = 1e-12
_LARGEST = 15.0  # log ratios beyond it do not enter the exponentials of ROLR


class LabelLoss(ABC):
    """Splits a batch, averages over events and adds repulsion.

    Args:
        columns: Label columns of `u`; member weights follow.
        repulsive: Whether members repel each other.
        n_events: Training events.

    Attributes:
        mean_weight: Mean weight of a row; 1 unless fractional smearing repeats events.
    """

    def __init__(self, columns: int, *, repulsive: bool, n_events: int) -> None:
        self.columns, self.mean_weight = columns, 1.0
        self.repulsive, self.n_events = repulsive, n_events

    def __call__(self, u: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
        """Return the loss of a batch; `weight` is unused, members have their own."""
        labels, weights = u[:, : self.columns], u[:, self.columns :].T / self.mean_weight
        each, outputs = self.terms(labels, x)
        total = (each * weights).mean(dim=1).sum()
        if self.repulsive and len(outputs) > 1 and torch.is_grad_enabled():
            total = total + repulsion(outputs) / self.n_events
        return total

    @abstractmethod
    def terms(self, labels: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss terms (members, batch) and outputs (members, batch, k) of unit size."""


class GramRegression(LabelLoss):
    """Squared differences of g; with repulsion they count in units of their own spread."""

    def __init__(
        self,
        network: GramNetwork,
        trace: FloatArray,
        spread: FloatArray,
        *,
        repulsive: bool,
        n_events: int,
    ) -> None:
        super().__init__(len(trace), repulsive=repulsive, n_events=n_events)
        self.network = network
        self.trace = torch.from_numpy(trace.astype(np.float32))
        unit = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1.0), 0.0)
        self.unit = torch.from_numpy(unit.astype(np.float32))

    def terms(self, labels: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        gram = self.network(x)
        share = gram @ self.trace
        outputs = gram / share.clamp(min=_TINY)[..., None] * self.unit
        squares = (outputs - labels * self.unit) ** 2
        if self.repulsive:
            # A likelihood needs the spread of labels about their mean, not of the labels.
            residual = squares.detach().mean(dim=(0, 1)).clamp(min=_TINY)
            squares = 0.5 * squares / residual
        return squares.sum(dim=-1), outputs


class GramCrossEntropy(LabelLoss):
    """Which point of the mixture did an event come from? Soft labels, positive matrices."""

    def __init__(
        self,
        network: GramNetwork,
        points: FloatArray,
        shares: FloatArray,
        sigma: FloatArray,
        *,
        repulsive: bool,
        n_events: int,
    ) -> None:
        super().__init__(len(points), repulsive=repulsive, n_events=n_events)
        self.network = network
        rows = monomials(points / network.scale.numpy()[1:]) * (shares / sigma)[:, None]
        self.rows = torch.from_numpy(rows.astype(np.float32))

    def terms(self, labels: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs = (self.network(x) @ self.rows.T).clamp(min=_TINY).log()
        log_p = outputs - torch.logsumexp(outputs, dim=-1, keepdim=True)
        return -(labels * log_p).sum(dim=-1), log_p


class PointRatios(LabelLoss):
    """ALICE or ROLR at each basis point, on events of zero and of that point.

    Labels are log r_b(z) of all points, then the weight of the event for each point, then whether
    it is one of zero parameters.
    """

    def __init__(
        self,
        network: RatioNetwork | GramNetwork,
        points: FloatArray,
        sigma: FloatArray,
        kind: str,
        *,
        repulsive: bool,
        n_events: int,
    ) -> None:
        super().__init__(2 * len(points) + 1, repulsive=repulsive, n_events=n_events)
        self.network, self.kind, self.points = network, kind, len(points)
        self.rows = torch.empty(0)
        if isinstance(network, GramNetwork):
            rows = monomials(points / network.scale.numpy()[1:]) / sigma[:, None]
            self.rows = torch.from_numpy(rows.astype(np.float32))

    def terms(self, labels: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        b = self.points
        truth, counts, at_zero = labels[:, :b], labels[:, b : 2 * b], labels[:, 2 * b :]
        if isinstance(self.network, GramNetwork):
            found = (self.network(x) @ self.rows.T).clamp(min=_TINY).log()
        else:
            found = self.network(x)
        if self.kind == "alice":
            s = torch.sigmoid(-truth)
            value = s * softplus(found) + (1 - s) * softplus(-found)
        else:
            sign = torch.where(at_zero > 0, 1.0, -1.0)
            predicted = (sign * found).clamp(max=_LARGEST).exp()
            value = (predicted - (sign * truth).exp()) ** 2
        return (value * counts).sum(dim=-1), found


def repulsion(outputs: Tensor) -> Tensor:
    """Return the repulsive part of the loss times the number of events.

    Args:
        outputs: Functions of the members on one batch, shape (members, batch, k).
    """
    f = outputs.flatten(1)
    still = f.detach()
    squares = (f**2).sum(dim=1)[:, None] + (still**2).sum(dim=1) - 2 * f @ still.T
    squares = squares.clamp(min=0.0)
    m = len(f)
    apart = squares.detach()[~torch.eye(m, dtype=torch.bool)]
    width = apart.median().clamp(min=_TINY) / (2 * math.log(m + 1))
    kernel = torch.exp(-squares / (2 * width))
    total = kernel.sum(dim=1)
    return (total / total.detach() - 1).sum()
