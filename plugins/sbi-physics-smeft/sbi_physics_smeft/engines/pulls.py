"""Are the errors that an ensemble claims as large as those it makes?

Where the exact ratio is known (toys, parton level), the pull of a member mean is
(mean - exact)/(spread of members). Ensembles that share one data set usually claim too little;
without this test no error band should be called calibrated. `pull_study` says how well the answer
itself is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sbi_physics.errors import ValidationError
from sbi_physics.likelihood.gram import monomials
from sbi_physics.types import FloatArray

_IDEAL = 0.6745  # median |pull| of a normal law


@dataclass(frozen=True, slots=True)
class PullTest:
    """Pulls of R(x|theta) over events.

    Attributes:
        rms_error: Root mean square of mean - exact.
        rms_spread: Root mean square of the members' spread.
        median_pull: Median absolute pull; 0.67 where the spread is right.
        within: Fractions of events within 1 and 2 spreads; 0.683 and 0.954 where it is right.
        factor: Scale factor of the spread that makes the median pull right (post hoc: fix it on
            other events than those it is used for).
        members: Number of members.
    """

    rms_error: float
    rms_spread: float
    median_pull: float
    within: tuple[float, float]
    factor: float
    members: int

    def __str__(self) -> str:
        return (
            f"rms error {self.rms_error:.3g}, rms spread {self.rms_spread:.3g}, median |pull| "
            f"{self.median_pull:.2f} (ideal 0.67), within 1 and 2 spreads {self.within[0]:.2f}, "
            f"{self.within[1]:.2f}; {self.members} members"
        )


def pull_test(members: FloatArray, exact: FloatArray, theta: FloatArray) -> PullTest:
    """Compare the spread of members with their error.

    Args:
        members: Packed matrices by member, shape (members, n, entries), as
            `GramPosterior.member_coefficients` gives them.
        exact: Exact ones, shape (n, entries), of events whose density weighs the result.
        theta: Parameter point, shape (d,).

    Raises:
        ValidationError: If there are fewer than three members or shapes disagree.
    """
    error, spread = error_and_spread(members, exact, theta)
    pulls = np.abs(error / spread)
    median = float(np.median(pulls))
    return PullTest(
        rms_error=float(np.sqrt((error**2).mean())),
        rms_spread=float(np.sqrt((spread**2).mean())),
        median_pull=median,
        within=(float((pulls < 1).mean()), float((pulls < 2).mean())),
        factor=median / _IDEAL,
        members=len(members),
    )


def error_and_spread(
    members: FloatArray, exact: FloatArray, theta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return mean - exact of R(x|theta) and the members' spread, shapes (n,).

    Arguments and errors are those of `pull_test`.
    """
    if members.ndim != 3 or len(members) < 3 or members.shape[1:] != exact.shape:
        raise ValidationError(
            "a pull test needs at least three members with matrices like the exact ones, got "
            f"{members.shape} and {exact.shape}"
        )
    m = monomials(theta)
    ratios = members @ m
    spread = np.maximum(ratios.std(axis=0, ddof=1), 1e-300)
    return ratios.mean(axis=0) - exact @ m, spread
