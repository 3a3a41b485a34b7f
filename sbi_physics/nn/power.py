r"""The power spectrum of binned data: oscillations along the bins, wherever they start.

Of values :math:`v_b` in bin order, zero-padded to N, the first K of

.. math:: A_k = \left|\sum_b v_b\, e^{-2\pi i k b/N}\right|, \qquad k = 0 \ldots N/2 .

Networks get transformed data, in which whitening has mixed the bins. The fitted transform is
undone first, and v is

- of data with a step for counts (`log1p`, `sqrt`, `anscombe`): :math:`\log_{10}(1 + x)` less that
  of the mean of the training data, whose slope would otherwise hide everything;
- of others, which are logarithms already or have a reason not to be: the data as they are, all
  over one number, the median spread of a bin, so that units do not matter.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from sbi_physics.errors import ContractError, OptionError
from sbi_physics.observables import Observable
from sbi_physics.transforms import POINTWISE, Transform

_UNEVEN = 0.01
"""Largest relative deviation of a bin's logarithmic width from the mean one."""

_LEAST = 1e-3
"""Lowest 1 + x that a logarithm is taken of; counts give 1 or more."""


def padded_length(observable: Observable, length: int | None) -> int:
    """Return the number of bins that a spectrum is zero-padded to.

    Args:
        observable: A spectrum.
        length: The number asked for; None for the power of two from twice the number of bins:
            with it the squares A_k^2 and the autocorrelation of v determine each other.

    Raises:
        OptionError: If it is below the number of bins.
    """
    bins = observable.shape[-1]
    if length is None:
        return 1 << (2 * bins - 1).bit_length()
    if length < bins:
        raise OptionError(
            f"power_length={length} cuts the {bins} bins of the data off; accepted: from {bins}"
        )
    return length


def kept_entries(observable: Observable, length: int, cutoff: float | None) -> int:
    """Return the number K of entries of a power spectrum that are kept.

    Args:
        observable: A spectrum.
        length: Bins after padding.
        cutoff: Frequency in oscillations per decade of the edges below which entries are kept,
            K = int(cutoff * decades / bins * length), not above length // 2 + 1; None keeps all.

    Raises:
        OptionError: If bins are not evenly spaced in their logarithm, or nothing would be kept.
    """
    everything = length // 2 + 1
    if cutoff is None:
        return everything
    bins, edges = observable.shape[-1], observable.edges
    if edges is None or edges[0] <= 0:
        found = "no edges" if edges is None else f"edges from {edges[0]:g} on"
        raise OptionError(
            f"power_cutoff={cutoff:g} counts oscillations per decade and needs positive bin "
            f"edges; the data have {found}. Leave it out to keep all frequencies"
        )
    widths = np.diff(np.log10(edges))
    mean = float(widths.mean())
    uneven = float(np.abs(widths / mean - 1).max())
    if uneven > _UNEVEN:
        raise OptionError(
            f"power_cutoff={cutoff:g} counts oscillations per decade, but the widths of the bins "
            f"in log10 differ by {100 * uneven:.2g} % from their mean (accepted: 1 %). "
            "Leave it out to keep all frequencies"
        )
    kept = int(cutoff * (math.log10(edges[-1]) - math.log10(edges[0])) / bins * length)
    if kept < 1:
        raise OptionError(
            f"power_cutoff={cutoff:g} keeps no entry of {length} padded bins; accepted: from "
            f"{1 / (mean * length):.3g} oscillations per decade"
        )
    return min(kept, everything)


class PowerSpectrum(nn.Module):
    """Transformed spectra to standardised A_k, (batch, [channels,] bins) -> (batch, channels K).

    Entries are standardised by their mean and spread in the last training batches (in training, in
    the batch). Nothing is learned in it.

    Args:
        observable: The spectrum.
        transform: Its fitted transform.
        length: Bins after padding.
        entries: Number K of entries kept.
    """

    mean: Tensor
    unmix: Tensor
    reference: Tensor

    def __init__(
        self, observable: Observable, transform: Transform, *, length: int, entries: int
    ) -> None:
        super().__init__()
        self.length, self.n_entries = length, entries
        self.n_out = math.prod(observable.shape[:-1]) * entries
        self._steps = tuple(s for s in observable.transform if s in POINTWISE)
        mean, unmix = transform.linear_inverse()
        arrays = transform.arrays()
        middle = torch.from_numpy(arrays["mean"]).double()
        if self._steps:
            reference, scale = self._logarithm(middle), 1.0
        else:
            reference = torch.zeros_like(middle)
            scale = float(np.median(arrays["sd"]))
        # With the weights in files: an inverse computed elsewhere may differ in its last bits.
        self.register_buffer("mean", torch.from_numpy(mean).float())
        self.register_buffer("unmix", torch.from_numpy(unmix).float())
        self.register_buffer("reference", reference.float())
        self._scale, self._mixed = scale, "whiten" in observable.transform
        self.standardise = nn.BatchNorm1d(self.n_out, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return standardised amplitudes, shape (batch, channels K), of transformed data."""
        out: Tensor = self.standardise(self.amplitudes(x).flatten(1))
        return out

    def amplitudes(self, x: Tensor) -> Tensor:
        """Return A_k of transformed data, shape (batch, [channels,] K)."""
        components: Tensor = torch.fft.rfft(self.values(x), n=self.length)
        return components[..., : self.n_entries].abs()

    def values(self, x: Tensor) -> Tensor:
        """Return what the spectrum is taken of, in bin order, of transformed data, same shape."""
        x = (x.flatten(1) @ self.unmix).reshape(x.shape) if self._mixed else x * self.unmix
        return (self._logarithm(x + self.mean) - self.reference) / self._scale

    def _logarithm(self, values: Tensor) -> Tensor:
        """log10(1 + x) of values behind the pointwise steps, or these themselves without steps."""
        for step in reversed(self._steps):
            values = _undone(step, values)
        return torch.log10((1 + values).clamp(min=_LEAST)) if self._steps else values


def power_spectrum(
    observable: Observable,
    transform: Transform | None,
    *,
    length: int | None,
    cutoff: float | None,
) -> PowerSpectrum:
    """Return the power spectrum of an observable's transformed data as a module.

    Args:
        observable: What the data are.
        transform: Their fitted transform.
        length: Bins after padding, see `padded_length`.
        cutoff: Oscillations per decade, see `kept_entries`.

    Raises:
        OptionError: If the data are no spectrum, or length or cutoff do not fit them.
        ContractError: If there is no transform.
    """
    if observable.kind != "spectrum":
        raise OptionError(
            "power_features needs spectrum data, whose entries are ordered bins, not "
            f"{observable.kind} data; accepted: 0"
        )
    if transform is None:
        raise ContractError("power_features needs the fitted transform of the data")
    padded = padded_length(observable, length)
    entries = kept_entries(observable, padded, cutoff)
    return PowerSpectrum(observable, transform, length=padded, entries=entries)


def _undone(step: str, values: Tensor) -> Tensor:
    if step == "log1p":
        return torch.expm1(values)
    if step == "sqrt":
        return values.square()
    return (values / 2).square() - 0.375
