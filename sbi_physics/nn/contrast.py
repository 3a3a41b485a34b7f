r"""Losses of ratio estimation on contrastive pairs made inside a batch.

A classifier :math:`f(\theta, x)` sees joint pairs and pairs with parameters of other rows. At the
minimum, with K other rows for each x,

- A: binary cross-entropy (arXiv:1903.04057), :math:`f = \log p(x|\theta)/p(x)`;
- B: one out of K + 1 (arXiv:2002.03712), f up to a function of x;
- C: one out of K + 1 or none (arXiv:2210.06170), f as for A.

The balance regulariser :math:`\lambda (E_{joint}\sigma(f) + E_{other}\sigma(f) - 1)^2` makes
posteriors conservative (arXiv:2208.13624).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sbi_physics.errors import TrainingError


def rolled(u: Tensor, shifts: Tensor) -> Tensor:
    """Return the rows followed by K cyclically shifted copies, shape (batch, 1 + K, d).

    A shift that is no multiple of the batch size never pairs a row with itself.
    """
    n = len(u)
    index = (torch.arange(n)[:, None] + shifts[None, :]) % n
    index = index.to(u.device)
    return torch.cat([u[:, None, :], u[index]], dim=1)


def shifts(n: int, k: int, *, random: bool) -> Tensor:
    """Return up to k different shifts of n rows, at random or always the same, for `rolled`."""
    k = min(k, n - 1)
    return torch.randperm(n - 1)[:k] + 1 if random else torch.arange(1, k + 1)


def pair_weights(weight: Tensor, shifts: Tensor) -> Tensor:
    """Return the weights of the pairs made by `rolled`, shape (batch, 1 + K).

    A contrastive pair carries the weights of both of its rows.
    """
    partners = rolled(weight[:, None], shifts)[..., 0]
    return torch.cat([partners[:, :1], weight[:, None] * partners[:, 1:]], dim=1)


def contrastive_loss(
    logits: Tensor, variant: str, *, gamma: float, balance: float, weights: Tensor | None = None
) -> Tensor:
    """Return the loss of a batch.

    Args:
        logits: Classifier outputs, shape (batch, 1 + K): the joint pair first.
        variant: `A`, `B` or `C`.
        gamma: Odds of any joint pair against none (variant C).
        balance: Strength of the balance regulariser.
        weights: Importance weights of all pairs, shape (batch, 1 + K); variant A only.
    """
    joint, other = logits[:, 0], logits[:, 1:]
    w_joint, w_other = (None, None) if weights is None else (weights[:, 0], weights[:, 1:])
    if variant == "A":
        value = 0.5 * (_mean(softplus(-joint), w_joint) + _mean(softplus(other), w_other))
    elif weights is not None:
        raise TrainingError(
            f"ratio estimation of variant {variant!r} cannot use weighted simulations; "
            "set variant to 'A'"
        )
    elif variant == "B":
        value = (torch.logsumexp(logits, dim=1) - joint).mean()
    else:
        value = _none_or_one(joint, other, gamma).mean()
    if balance > 0:
        total = _mean(torch.sigmoid(joint), w_joint) + _mean(torch.sigmoid(other), w_other)
        value = value + balance * (total - 1) ** 2
    return value


def _none_or_one(joint: Tensor, other: Tensor, gamma: float) -> Tensor:
    """NRE-C: the class "none" sees K other rows, the class "one" the joint and K - 1 others."""
    k = other.shape[1]
    log_gamma, log_k = math.log(gamma), math.log(k)
    none = torch.full_like(joint, log_k)[:, None]
    with_joint = torch.cat([joint[:, None], other[:, : k - 1]], dim=1)
    log_none = log_k - torch.logsumexp(torch.cat([log_gamma + other, none], dim=1), dim=1)
    log_one = log_gamma + joint
    log_one = log_one - torch.logsumexp(torch.cat([log_gamma + with_joint, none], dim=1), dim=1)
    return -(log_none + gamma * log_one) / (1 + gamma)


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    return values.mean() if weight is None else (values * weight).sum() / weight.sum()
