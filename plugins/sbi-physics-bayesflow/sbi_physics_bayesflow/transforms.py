r"""BayesFlow's coupling transforms with torch: affine, and the rational-quadratic spline.

The spline (arXiv:1906.04032, eq. 4 to 8) lives in a box whose place and size are learned too;
outside it goes on as the straight line through the corners.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, softmax, softplus

_UNIT = math.log(math.e - 1.0)
"""softplus of this is one: transforms start at the identity."""


def affine(parameters: Tensor, moved: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """Scale and shift.

    Args:
        parameters: Raw scales, then shifts, shape (..., 2 d).
        moved: Points, shape (..., d).
        inverse: Whether to go back.

    Returns:
        The result, and the log determinant, shape (...).
    """
    raw, shift = parameters.chunk(2, dim=-1)
    scale = softplus(torch.asinh(raw) + _UNIT)
    log_det = scale.log().sum(dim=-1)
    if inverse:
        return (moved - shift) / scale, -log_det
    return moved * scale + shift, log_det


def spline(layer: Any, parameters: Tensor, moved: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """Transform with a rational-quadratic spline.

    Args:
        layer: BayesFlow's `SplineTransform`, whose constants are used.
        parameters: Raw parameters, shape (..., d * layer.params_per_dim).
        moved: Points, shape (..., d).
        inverse: Whether to go back.

    Returns:
        The result, and the log determinant, shape (...).
    """
    bins: int = layer.bins
    raw = parameters.unflatten(-1, (-1, layer.params_per_dim))
    left, bottom = raw[..., 0:1] + layer.default_left, raw[..., 1:2] + layer.default_bottom
    size = torch.asinh(softplus(raw[..., 2:4] + float(layer._shift)))
    width = (layer.default_width - layer.min_width) * size[..., 0:1] + layer.min_width
    height = (layer.default_height - layer.min_height) * size[..., 1:2] + layer.min_height
    across = left + _edges(raw[..., 4 : 4 + bins], width, layer.min_bin_width)
    up = bottom + _edges(raw[..., 4 + bins : 4 + 2 * bins], height, layer.min_bin_height)
    scale = height / width
    slopes = softplus(raw[..., 4 + 2 * bins :] + _UNIT)
    slopes = torch.cat([scale, slopes, scale], dim=-1)

    point = moved[..., None]
    known = up if inverse else across
    upper = torch.searchsorted(known.detach().contiguous(), point.detach().contiguous())
    inside = (upper > 0) & (upper <= bins)
    lower = (upper - 1).clamp(0, bins - 1)
    x0, x1 = across.gather(-1, lower), across.gather(-1, lower + 1)
    y0, y1 = up.gather(-1, lower), up.gather(-1, lower + 1)
    d0, d1 = slopes.gather(-1, lower), slopes.gather(-1, lower + 1)
    # Points outside are put on an edge, where everything is finite, and replaced below.
    held = torch.where(inside, point, y0 if inverse else x0)
    spread, log_slope = _rational_quadratic(held, (x0, x1), (y0, y1), (d0, d1), inverse)
    if inverse:
        line, log_line = (point - bottom) / scale + left, -scale.log()
    else:
        line, log_line = (point - left) * scale + bottom, scale.log()
    result = torch.where(inside, spread, line)
    log_det = torch.where(inside, log_slope, log_line)
    return result[..., 0], log_det[..., 0].sum(dim=-1)


def _edges(raw: Tensor, total: Tensor, least: float) -> Tensor:
    """Edges of bins of at least a size, from zero to the total, shape (..., bins + 1)."""
    sizes = (total - raw.shape[-1] * least) * softmax(raw, dim=-1) + least
    return pad(sizes.cumsum(dim=-1), (1, 0))


def _rational_quadratic(
    point: Tensor,
    x: tuple[Tensor, Tensor],
    y: tuple[Tensor, Tensor],
    slopes: tuple[Tensor, Tensor],
    inverse: bool,
) -> tuple[Tensor, Tensor]:
    """Evaluate the spline, or its inverse, in one bin each; returns also the log of the slope."""
    dx, dy = x[1] - x[0], y[1] - y[0]
    mean = dy / dx
    bend = slopes[0] + slopes[1] - 2 * mean
    if inverse:
        above = point - y[0]
        a = dy * (mean - slopes[0]) + above * bend
        b = dy * slopes[0] - above * bend
        c = -mean * above
        part = 2 * c / (-b - torch.sqrt((b**2 - 4 * a * c).clamp(min=0.0)))
        result = part * dx + x[0]
    else:
        part = (point - x[0]) / dx
        top = dy * (mean * part**2 + slopes[0] * part * (1 - part))
        result = y[0] + top / (mean + bend * part * (1 - part))
    rest = 1 - part
    log_slope = (
        2 * mean.log()
        + torch.log(slopes[1] * part**2 + 2 * mean * part * rest + slopes[0] * rest**2)
        - 2 * torch.log(mean + bend * part * rest)
    )
    return result, -log_slope if inverse else log_slope
