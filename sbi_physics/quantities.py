"""What the names of tested quantities mean, in one place for records, figures and pages.

A quantity is named `family` or `family:parameters`: `sbc:m_a`, `hpd`, `hpd:m_a,g`, `tarp_u`,
`tarp_x`. Its probability integral transforms u are uniform for an exact posterior. For the
families of *regions* u says how credible the region is that just contains the truth, so their
distribution function is an expected-coverage curve: above the diagonal is conservative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sbi_physics.diagnostics.expected_coverage import central_credibility
from sbi_physics.types import FloatArray

_REGION_OF: Final[dict[str, str]] = {
    "hpd": "highest density",
    "tarp_u": "TARP (random points)",
    "tarp_x": "TARP (points near the data)",
}

EXPLANATIONS: Final[dict[str, str]] = {
    "sbc": "rank of the truth among the draws of one parameter (arXiv:1804.06788)",
    "hpd": "credibility of the smallest highest-density region that contains the truth "
    "(arXiv:2110.06581)",
    "tarp_u": "credibility of the ball about a reference point drawn without looking at the data "
    "that reaches the truth (arXiv:2302.03026)",
    "tarp_x": "the same with reference points near a regression on the data: also sees a "
    "posterior that ignores the data",
    "pair": "rank of the product of two parameters' deviations from the mean of the draws: sees "
    "wrong correlations",
    "loglik": "rank of the exact log likelihood of the truth (arXiv:2211.02383)",
    "moment": "first and second moments of the truth, and their dependence on the data, against "
    "those of the draws: also sees wrong correlations and errors that average out",
    "width_x": "squared deviations of the truth against those of the draws, as a function of the "
    "data: sees widths too small for some data and too large for others",
}
"""Family -> what it asks."""

EFFECT_MEANINGS: Final[dict[str, str]] = {
    "location": "truth minus posterior, in posterior standard deviations",
    "width": "true over claimed width; above 1 is over-confident",
    "deviation": "largest distance of the coverage curve from the diagonal",
    "area": "signed area between coverage curve and diagonal; negative is over-confident",
    "correlation": "true minus claimed correlation of two parameters",
    "x-slope": "slope of the bias on a feature of the data, in posterior standard deviations",
    "x-width": "relative change of the true over the claimed width with a feature of the data",
}
"""Kind of effect -> what its number means."""


def family(quantity: str) -> str:
    """Return the part before the colon.

    Examples:
        >>> family("hpd:m_a,g")
        'hpd'
    """
    return quantity.partition(":")[0]


def parameters_of(quantity: str) -> tuple[str, ...]:
    """Return the parameters after the colon; empty when the quantity is about all of them."""
    return tuple(name for name in quantity.partition(":")[2].split(",") if name)


def is_region(quantity: str) -> bool:
    """Whether the quantity is a family of nested regions: highest density, or TARP balls."""
    return family(quantity) in _REGION_OF


def region_credibility(quantity: str, u: FloatArray) -> FloatArray:
    """Return the credibility of the region that just contains each truth.

    Args:
        quantity: A family of regions.
        u: Its probability integral transforms. For `hpd` the rank of the density grows towards
            the centre of the region, so the credibility is 1 - u; for TARP the rank of the
            distance grows outwards, so u is the credibility.
    """
    return 1.0 - u if family(quantity) == "hpd" else u


def quantity_credibility(quantity: str, u: FloatArray) -> FloatArray:
    """Return the credibility of the region that just contains each truth.

    Args:
        quantity: Any quantity; regions are central intervals where it is not a family of regions.
        u: Its probability integral transforms.
    """
    return region_credibility(quantity, u) if is_region(quantity) else central_credibility(u)


def region_name(
    quantity: str, names: Sequence[str] = (), label: Callable[[str], str] = str, *, most: int = 4
) -> str:
    """Return a family of regions in words.

    Args:
        quantity: A family of regions.
        names: All parameters, which it is about when it names none; leave them out where that
            goes without saying.
        label: How to write a parameter.
        most: With more parameters than this only their number is given.

    Examples:
        >>> region_name("tarp_u", ["a", "b"])
        'a, b: TARP (random points)'
        >>> region_name("hpd")
        'highest density'
    """
    chosen = parameters_of(quantity) or tuple(names)
    kind = _REGION_OF[family(quantity)]
    if not chosen:
        return kind
    if len(chosen) > most:
        return f"{len(chosen)} parameters: {kind}"
    return f"{', '.join(label(n) for n in chosen)}: {kind}"
