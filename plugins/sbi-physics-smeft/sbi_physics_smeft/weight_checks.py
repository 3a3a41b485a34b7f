"""What must hold of the weights of reweighted events before they can be labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from sbi_physics.errors import ObservationError
from sbi_physics.types import FloatArray
from sbi_physics_smeft.conventions import monomials

_DIGITS_FROM: Final = 2000
_MOST_DIGITS: Final = 16
_RESIDUAL: Final = 1e-5
_NEGATIVE: Final = 1e-6


def check_weights(weights: FloatArray, ids: Sequence[str], reference: int, source: str) -> None:
    """Weights are finite, none is negative, and that of theta = 0 is positive.

    Args:
        weights: Shape (n, B).
        ids: Names of the B weights.
        reference: Which is that of theta = 0.
        source: Where they come from, for messages.

    Raises:
        ObservationError: Naming event, weight and value.
    """
    accepted = weights >= 0
    accepted[:, reference] = weights[:, reference] > 0
    accepted &= np.isfinite(weights)
    if accepted.all():
        return
    event, column = np.argwhere(~accepted)[0]
    what = "positive" if column == reference else "zero or positive"
    raise ObservationError(
        f"weight {ids[column]!r} of event {event} of {source} is {weights[event, column]:g}, must "
        f"be {what} ({(~accepted).any(axis=1).sum()} such events). Negative weights come from "
        "higher orders, where labels are no ratios of squared amplitudes: use a leading-order "
        "sample; a zero at theta = 0 cannot be reweighted from"
    )


def significant_digits(values: FloatArray) -> int:
    """How many digits numbers were printed with, at most 16."""
    sample = [float(v) for v in np.ravel(values)[:_DIGITS_FROM]]
    for digits in range(1, _MOST_DIGITS):
        if all(float(f"{v:.{digits - 1}e}") == v for v in sample):
            return digits
    return _MOST_DIGITS


def check_precision(
    weights: FloatArray, basis: FloatArray, max_label_error: float, source: str
) -> float:
    """Rounding of the printed weights does not spoil the labels.

    Args:
        weights: Shape (n, B).
        basis: Points, shape (B, d).
        max_label_error: Largest accepted error.
        source: Where they come from, for messages.

    Returns:
        Bound on the error of labels in units of the largest coefficients, relative to the largest
        weight of an event.

    Raises:
        ObservationError: If it exceeds `max_label_error`, with the digits found and needed.
    """
    digits = significant_digits(weights)
    scale = np.abs(basis).max(axis=0)
    inverse = np.linalg.pinv(monomials(basis / np.where(scale > 0, scale, 1.0)))
    # Of a weight and of the one it is divided by.
    amplification = 2 * float(np.abs(inverse).sum(axis=1).max())
    error = amplification * 0.5 * 10.0 ** (1 - digits)
    if error > max_label_error:
        needed = int(np.ceil(1 + np.log10(amplification * 0.5 / max_label_error)))
        raise ObservationError(
            f"weights of {source} are printed with {digits} significant digits, which alone "
            f"allows errors of {error:.1g} in the labels; accepted: {max_label_error:g} (here: "
            f"{needed} digits). Write more digits (pylhe writes 5 by default), or pass "
            "max_label_error"
        )
    return error


def check_gram(
    gram: FloatArray,
    residual: FloatArray,
    scale: FloatArray,
    relative: FloatArray,
    tolerance: float,
    source: str,
) -> None:
    """Weights are a quadratic, and a positive one.

    Args:
        gram: Gram matrices, shape (n, d+1, d+1).
        residual: Relative residual of each event, shape (n,).
        scale: Largest absolute coefficients of the basis, shape (d,).
        relative: Weights over that of theta = 0, shape (n, B).
        tolerance: Error from rounding, from `check_precision`.
        source: Where they come from, for messages.

    Raises:
        ObservationError: If not, with the number of events and the worst.
    """
    bad = residual > max(_RESIDUAL, tolerance)
    if bad.any():
        raise ObservationError(
            f"weights of {int(bad.sum())} of {len(gram)} events of {source} are not quadratic in "
            f"the coefficients: residual {residual.max():.2g} in event {int(residual.argmax())}, "
            f"accepted {max(_RESIDUAL, tolerance):.1g}. Was more than one insertion in an "
            "amplitude, a width or a coupling reweighted too, or is a point wrong?"
        )
    size = np.concatenate([[1.0], scale])
    scaled = gram * size[:, None] * size
    smallest = np.linalg.eigvalsh(scaled)[:, 0]
    allowed = np.maximum(
        _NEGATIVE * np.trace(scaled, axis1=1, axis2=2),
        len(size) * tolerance * relative.max(axis=1),
    )
    bad = smallest < -allowed
    if bad.any():
        worst = int((smallest / allowed).argmin())
        raise ObservationError(
            f"{int(bad.sum())} of {len(gram)} events of {source} would have a negative cross "
            f"section at some coefficients: smallest eigenvalue {smallest[worst]:.2g} in event "
            f"{worst}, accepted -{allowed[worst]:.1g}. Is each weight at the point it is said to "
            "be?"
        )
