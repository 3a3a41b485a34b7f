r"""A distribution seen in a mirror: the value is minus that of another distribution.

.. math:: x = -y, \qquad F_x(x) = 1 - F_y(-x), \qquad p_x(x) = p_y(-x) .

For quantities that are negative by convention and whose size is known on a log scale, such as the
index of a falling power spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.distribution_base import Distribution
from sbi_physics.types import FloatArray


@dataclass(frozen=True)
class Mirrored(Distribution):
    """Minus a value drawn from `base`."""

    base: Distribution
    kind: ClassVar[str] = "mirrored"

    @property
    def bounds(self) -> tuple[float, float]:
        low, high = self.base.bounds
        return -high, -low

    def cdf(self, x: ArrayLike) -> FloatArray:
        return 1.0 - self.base.cdf(-np.asarray(x, np.float64))

    def ppf(self, u: ArrayLike) -> FloatArray:
        return -self.base.ppf(1.0 - np.asarray(u, np.float64))

    def log_pdf(self, x: ArrayLike) -> FloatArray:
        return self.base.log_pdf(-np.asarray(x, np.float64))

    def truncate(self, low: float, high: float) -> Self:
        return type(self)(self.base.truncate(-high, -low))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "base": self.base.to_dict()}
