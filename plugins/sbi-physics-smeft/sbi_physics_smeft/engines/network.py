r"""Perceptrons for many members at once, and heads that turn their outputs into matrices.

The *positive* head gives :math:`\hat G = L L^T/L_{00}^2` with L lower triangular and
:math:`L_{00} > 0`: a positive semidefinite matrix, so that no ratio :math:`v^T \hat G v` is ever
negative. Conditional means of positive matrices are positive: nothing is lost (for one parameter:
arXiv:2007.10356). Only the direction of L matters; where ratios to zero parameters are a thousand,
:math:`L_{00}` is small and no output has to be large. The *free* head gives the entries
themselves.

Inside, parameters are in units in which the entries are of order one.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from sbi_physics.likelihood.gram import n_parameters, triangle
from sbi_physics.types import BoolArray, FloatArray

_UNIT = math.log(math.e - 1)  # softplus of it is 1
_SMALLEST = 1e-4  # of L_00: ratios up to 1e8


class MemberPerceptron(nn.Module):
    """Independent perceptrons with SiLU activations, evaluated by batched matrix products.

    Args:
        n_in: Entries of an event.
        width: Width of the hidden layers.
        depth: Hidden layers.
        n_out: Outputs.
        members: Number of perceptrons.
    """

    def __init__(self, n_in: int, width: int, depth: int, n_out: int, members: int) -> None:
        super().__init__()
        sizes = [n_in, *[width] * depth, n_out]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for a, b in pairwise(sizes):
            bound = 1 / math.sqrt(a)
            self.weights.append(nn.Parameter((2 * torch.rand(members, a, b) - 1) * bound))
            self.biases.append(nn.Parameter((2 * torch.rand(members, 1, b) - 1) * bound))
        self.members = members

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs of all members, (batch, n_in) -> (members, batch, n_out)."""
        h = x.expand(self.members, *x.shape)
        last = len(self.weights) - 1
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if k < last:
                h = nn.functional.silu(h)
        return h


class GramNetwork(nn.Module):
    """Members that predict matrices G(x) with G_00 = 1, packed, in scaled parameters.

    Args:
        body: Networks with as many outputs as entries: (batch, n_in) -> (members, batch, entries).
        positive: Whether matrices are products L L^T.
        active: Entries that do not vanish identically, shape (entries,).
        scale: Unit of v = (1, theta), shape (d + 1,): G'_ab = scale_a scale_b G_ab.
    """

    active: Tensor
    scale: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(
        self, body: nn.Module, *, positive: bool, active: BoolArray, scale: FloatArray
    ) -> None:
        super().__init__()
        self.body, self.positive = body, positive
        self.size = n_parameters(len(active)) + 1
        rows, columns = triangle(self.size - 1)
        self.register_buffer("active", torch.from_numpy(active.astype(np.float32)))
        self.register_buffer("scale", torch.from_numpy(scale.astype(np.float64)))
        self.register_buffer("rows", torch.from_numpy(rows.copy()), persistent=False)
        self.register_buffer("columns", torch.from_numpy(columns.copy()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return packed matrices in scaled parameters, shape (members, batch, entries)."""
        raw = self.body(x)
        if not self.positive:
            first = torch.ones_like(raw[..., :1])
            return torch.cat([first, raw[..., 1:] * self.active[1:]], dim=-1)
        first = nn.functional.softplus(raw[..., :1] + _UNIT).clamp(min=_SMALLEST)
        # L^T in packed order: entry (a, b) of the upper triangle is L_ba. A row of L whose first
        # entry vanishes makes G_0b vanish.
        keep = torch.where(self.rows == 0, self.active, torch.ones_like(self.active))
        entries = torch.cat([first, raw[..., 1:] * keep[1:]], dim=-1)
        upper = raw.new_zeros(*raw.shape[:-1], self.size, self.size)
        upper[..., self.rows, self.columns] = entries
        product = upper.transpose(-1, -2) @ upper
        packed: Tensor = product[..., self.rows, self.columns] / first**2
        return packed

    def physical(self, packed: Tensor) -> Tensor:
        """Return packed matrices in physical parameters, float64."""
        unit = self.scale[self.rows] * self.scale[self.columns]
        physical: Tensor = packed.double() / unit
        return physical


class RatioNetwork(nn.Module):
    """Members that predict log ratios at the basis points, each by a network of its own.

    Args:
        body: Networks with one output, members x points of them.
        members: Number of members.
    """

    def __init__(self, body: nn.Module, members: int) -> None:
        super().__init__()
        self.body, self.members = body, members

    def forward(self, x: Tensor) -> Tensor:
        """Return log p(x|theta_b)/p(x|0), shape (members, batch, points)."""
        out: Tensor = self.body(x)[..., 0]
        ratios: Tensor = out.unflatten(0, (self.members, -1)).transpose(1, 2)
        return ratios
