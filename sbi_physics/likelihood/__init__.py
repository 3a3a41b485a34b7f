r"""Frequentist answers from likelihood ratios of event sets, exact or learned.

For events :math:`x_1 \dots x_n` with intensity
:math:`\lambda(x|\theta) = \nu(\theta)\, p(x|\theta)`,

.. math:: -2\ln\frac{L(\theta)}{L(0)} = 2\,[\nu(\theta) - \nu(0)]
          - 2\sum_e \ln\frac{\lambda(x_e|\theta)}{\lambda(x_e|0)} .

- `model`: what a model of the intensity must give; one made of functions.
- `gram`: quadratic dependence on the parameters as a matrix for each event, and its conventions.
- `quadratic`: the model that is quadratic in its parameters.
- `ratio`: `LikelihoodRatio`: rate and shape, shape or rate only, with an uncertain normalisation.
- `fit`: the minimum, from several starts.
- `scans`: slices and profiles, intervals and regions.
- `pool`: simulated events that toys and Asimov sets of any parameter point are drawn from.
- `hypotheses`: expected significance by the statistic's own law, for comparing methods.
- `toys`: the statistic's distribution: coverage, critical values, Neyman regions.

Figures of the results are in `sbi_physics.plots`. Names are imported at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbi_physics.likelihood.fit import Fit
    from sbi_physics.likelihood.gram import (
        background_gram,
        gram_from_polynomial,
        gram_to_derivatives,
        gram_to_polynomial,
        pack,
        unpack,
    )
    from sbi_physics.likelihood.hypotheses import separation
    from sbi_physics.likelihood.model import EventModel, FunctionModel
    from sbi_physics.likelihood.pool import EventPool
    from sbi_physics.likelihood.quadratic import QuadraticModel
    from sbi_physics.likelihood.ratio import EventSet, LikelihoodRatio
    from sbi_physics.likelihood.scans import Interval, Scan, chi2_threshold, interval, scan
    from sbi_physics.likelihood.toys import ToyStatistics, run_toys

_HOMES = {
    "fit": ("Fit",),
    "gram": (
        "background_gram",
        "gram_from_polynomial",
        "gram_to_derivatives",
        "gram_to_polynomial",
        "pack",
        "unpack",
    ),
    "model": ("EventModel", "FunctionModel"),
    "pool": ("EventPool",),
    "quadratic": ("QuadraticModel",),
    "ratio": ("EventSet", "LikelihoodRatio"),
    "scans": ("Interval", "Scan", "chi2_threshold", "interval", "scan"),
    "hypotheses": ("separation",),
    "toys": ("ToyStatistics", "run_toys"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "EventModel",
    "EventPool",
    "EventSet",
    "Fit",
    "FunctionModel",
    "Interval",
    "LikelihoodRatio",
    "QuadraticModel",
    "Scan",
    "ToyStatistics",
    "background_gram",
    "chi2_threshold",
    "gram_from_polynomial",
    "gram_to_derivatives",
    "gram_to_polynomial",
    "interval",
    "pack",
    "run_toys",
    "scan",
    "separation",
    "unpack",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
