r"""Models whose intensity is quadratic in the parameters, :math:`R(x|\theta) = v^T G(x)\, v`.

Events are packed matrices G(x), exact or learned (see `gram`). The expected number comes from the
*integrated* matrix, :math:`\nu(\theta) = \nu_0\, v^T \bar G v / \bar G_{00}`, which is known from
the generator; the mean of G over a sample of events at zero is a poor stand-in, because few events
carry most of its quadratic entries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError
from sbi_physics.likelihood.gram import monomial_slopes, monomials, n_packed, pack
from sbi_physics.likelihood.model import EventModel
from sbi_physics.priors import Prior
from sbi_physics.types import FloatArray

FLOOR = 1e-9


class QuadraticModel(EventModel):
    """Rate and shape that are quadratic in the parameters.

    Args:
        prior: The parameters; their bounds are the box of all fits.
        gram: Integrated matrix over that at zero, shape (d + 1, d + 1) or packed: exact, with any
            backgrounds added as multiples of `background_gram`.
        expected_events: Expected number of events at zero parameters.
        event_gram: Mean of the events' matrices, in the same forms. Where it differs from `gram`
            (learned or finite samples), ratios are rescaled by v^T gram v / v^T event_gram v, so
            that the shape stays normalised and the rate exact. Default `gram`: no rescaling.
        floor: Ratios are raised to this value; learned ones may fall below zero.

    Raises:
        ContractError: If shapes disagree or the rate is not positive in the box's corners.
    """

    def __init__(
        self,
        prior: Prior,
        gram: ArrayLike,
        expected_events: float,
        *,
        event_gram: ArrayLike | None = None,
        floor: float = FLOOR,
    ) -> None:
        super().__init__(prior, expected_events)
        if not 0 < floor < 1:
            raise ContractError(f"the floor of ratios must lie between 0 and 1, got {floor:g}")
        self.gram = _normalised(gram, prior.d, "gram")
        self.event_gram = None
        if event_gram is not None:
            self.event_gram = _normalised(event_gram, prior.d, "event_gram")
        self.floor = floor

    def expected(self, theta: FloatArray) -> FloatArray:
        ratio: FloatArray = self._scale * (monomials(theta) @ self.gram)
        return ratio

    def log_ratio(self, theta: FloatArray, events: FloatArray) -> FloatArray:
        ratio = monomials(theta) @ self._checked(events).T
        np.maximum(ratio, self.floor, out=ratio)
        log: FloatArray = np.log(ratio, out=ratio)
        if self.event_gram is not None:
            m = monomials(theta)
            log += np.log((m @ self.gram) / (m @ self.event_gram))[:, None]
        return log

    def below_floor(self, theta: FloatArray, events: FloatArray) -> float:
        ratio = self._checked(events) @ monomials(theta)
        return float((ratio < self.floor).mean()) if len(ratio) else 0.0

    def summed_slopes(
        self, theta: FloatArray, events: FloatArray, weights: FloatArray | None
    ) -> tuple[float, FloatArray]:
        matrices = self._checked(events)
        m, slopes = monomials(theta), monomial_slopes(theta)
        ratio = matrices @ m
        # Where the floor holds the ratio is constant.
        held = ratio < self.floor
        np.maximum(ratio, self.floor, out=ratio)
        log = np.log(ratio)
        pull = np.where(held, 0.0, 1.0) / ratio
        if weights is None:
            value, count = float(log.sum()), float(len(matrices))
        else:
            value, count = float(log @ weights), float(weights.sum())
            pull *= weights
        gradient: FloatArray = (pull @ matrices) @ slopes
        if self.event_gram is not None:
            rate, sample = m @ self.gram, m @ self.event_gram
            value += count * float(np.log(rate / sample))
            gradient = gradient + count * (
                self.gram @ slopes / rate - self.event_gram @ slopes / sample
            )
        return value, gradient

    def expected_slopes(self, theta: FloatArray) -> tuple[float, FloatArray]:
        value = self._scale * float(monomials(theta) @ self.gram)
        return value, self._scale * (self.gram @ monomial_slopes(theta))

    @property
    def _scale(self) -> float:
        if self.reference_expected is None:  # pragma: no cover - the constructor asks for it
            raise ContractError("a quadratic model has an expected number of events")
        return self.reference_expected

    def _checked(self, events: FloatArray) -> FloatArray:
        if events.ndim != 2 or events.shape[1] != len(self.gram):
            raise ContractError(
                f"events must be packed matrices, shape (n, {len(self.gram)}) for "
                f"{self.prior.d} parameters, got {events.shape}"
            )
        return events


def _normalised(gram: ArrayLike, d: int, name: str) -> FloatArray:
    values = np.asarray(gram, dtype=np.float64)
    if values.ndim == 2:
        values = pack(values)
    if values.shape != (n_packed(d),):
        raise ContractError(
            f"{name} of {d} parameters must be ({d + 1}, {d + 1}) or packed ({n_packed(d)},), "
            f"got {np.shape(gram)}"
        )
    if not np.isfinite(values).all() or values[0] <= 0:
        raise ContractError(f"{name} must be finite with a positive first entry, got {values}")
    normalised: FloatArray = values / values[0]
    return normalised
