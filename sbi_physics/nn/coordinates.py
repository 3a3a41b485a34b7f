r"""Normal coordinates of the prior, in which the networks work.

The core hands out :math:`u = \operatorname{logit} F(\theta)`. Networks see
:math:`z = \Phi^{-1}(F(\theta))`, with

.. math:: \log\left|\frac{dz}{du}\right| = \log\Phi(z) + \log\Phi(-z) - \log\varphi(z),

so that every parameter has a standard normal prior. A flow that starts at the identity starts at
the prior, and a posterior that is flat up to the edge of the prior is Gaussian instead of having
the logistic tails of u. Moreover
:math:`\log q(\theta|x)/p(\theta) = \log q(z|x) - \log\varphi(z)`: losses are minus an
information gain in nats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def to_normal(u: Tensor) -> Tensor:
    """Map logit coordinates to normal ones, any shape, same dtype."""
    # The tail probability of the smaller side keeps full relative precision.
    tail = torch.sigmoid(-_wide(u).abs())
    z: Tensor = -torch.sign(u) * torch.special.ndtri(tail).to(u)
    return z


def from_normal(z: Tensor) -> Tensor:
    """Inverse of `to_normal`."""
    wide = _wide(z)
    u: Tensor = torch.special.log_ndtr(wide) - torch.special.log_ndtr(-wide)
    return u.to(z)


def log_slope(z: Tensor) -> Tensor:
    """Log of |dz/du| summed over the last axis."""
    wide = _wide(z)
    slope: Tensor = torch.special.log_ndtr(wide) + torch.special.log_ndtr(-wide) - log_normal(wide)
    return slope.sum(dim=-1)


def _wide(t: Tensor) -> Tensor:
    """In double precision; on the processor if the device has none."""
    return (t.cpu() if t.device.type == "mps" else t).double()


def log_normal(z: Tensor) -> Tensor:
    """Log density of a standard normal, elementwise."""
    return -0.5 * z**2 - _HALF_LOG_2PI
