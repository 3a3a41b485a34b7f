"""The posterior in numbers: medians, equal-tailed intervals, and whether the prior cut it off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sbi_physics.parameters import Parameter
from sbi_physics.priors import Prior
from sbi_physics.types import FloatArray

LEVELS: Final = (0.5, 0.16, 0.84, 0.025, 0.975)
"""Quantiles of the median and of the 68 and 95 % equal-tailed intervals."""

_TOUCH: Final = 0.2
"""An edge is touched when it lies closer to the 95 % interval than this share of the distance from
the interval's end to the median. For a normal posterior that is an edge within 2.35 standard
deviations of the median, where the density is 6 % of its maximum. (Chosen.)"""


@dataclass(frozen=True, slots=True)
class ParameterRow:
    """One parameter of the posterior, in physical units.

    Attributes:
        name: Parameter name.
        label: LaTeX label without dollar signs; may be empty.
        unit: Unit of all values.
        median: Posterior median.
        interval_68: Equal-tailed 68 % interval.
        interval_95: Equal-tailed 95 % interval.
        truth: True value, if known.
        edges: Ends of the prior that the posterior reaches: `lower`, `upper`, both or none. An
            interval that ends at the prior's edge says more about the prior than about the data.
    """

    name: str
    label: str
    unit: str
    median: float
    interval_68: tuple[float, float]
    interval_95: tuple[float, float]
    truth: float | None
    edges: tuple[str, ...]


def summarize(
    samples: FloatArray, prior: Prior, truth: FloatArray | None = None
) -> tuple[ParameterRow, ...]:
    """Summarize posterior samples.

    Args:
        samples: Samples in physical units, shape (n, param).
        prior: Prior of the same parameters.
        truth: True values, shape (param,), if known.
    """
    rows = []
    for j, parameter in enumerate(prior.parameters):
        median, low68, high68, low95, high95 = np.quantile(samples[:, j], LEVELS).tolist()
        rows.append(
            ParameterRow(
                name=parameter.name,
                label=parameter.label,
                unit=parameter.unit,
                median=median,
                interval_68=(low68, high68),
                interval_95=(low95, high95),
                truth=None if truth is None else float(truth[j]),
                edges=_touched(parameter, low95, median, high95),
            )
        )
    return tuple(rows)


def _touched(parameter: Parameter, low: float, median: float, high: float) -> tuple[str, ...]:
    """Compare in the parameter's scale: a log-uniform prior starts where its logarithm does."""
    ends = (*parameter.bounds, low, median, high)
    if parameter.scale == "log10":
        with np.errstate(divide="ignore"):
            ends = tuple(np.log10(ends).tolist())
    lower, upper, low, median, high = ends
    touched = []
    if low - lower < _TOUCH * (median - low):
        touched.append("lower")
    if upper - high < _TOUCH * (high - median):
        touched.append("upper")
    return tuple(touched)
