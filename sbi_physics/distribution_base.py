"""What every one-dimensional distribution can do."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError
from sbi_physics.types import FloatArray


@dataclass(frozen=True)
class Distribution(ABC):
    """A distribution on the interval `bounds`; subclasses give its CDF, inverse and density."""

    kind: ClassVar[str]
    natural_scale: ClassVar[str] = "linear"

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """Lower and upper end of the support."""

    @abstractmethod
    def cdf(self, x: ArrayLike) -> FloatArray:
        """Cumulative probability at `x`, clipped to [0, 1]."""

    @abstractmethod
    def ppf(self, u: ArrayLike) -> FloatArray:
        """Value at cumulative probability `u`, always inside the support."""

    @abstractmethod
    def log_pdf(self, x: ArrayLike) -> FloatArray:
        """Log density at `x`; `-inf` outside the support."""

    @abstractmethod
    def truncate(self, low: float, high: float) -> Self:
        """Return the same family restricted to `[low, high]`, renormalised."""

    def contains(self, x: ArrayLike) -> Any:
        """Whether `x` lies in the closed support."""
        values = np.asarray(x, dtype=np.float64)
        return (values >= self.bounds[0]) & (values <= self.bounds[1])

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description (`distribution_from_dict` reads it)."""
        return {"kind": self.kind, **{k: _json_number(float(v)) for k, v in asdict(self).items()}}

    def _overlap(self, low: float, high: float) -> tuple[float, float]:
        new_low, new_high = max(low, self.bounds[0]), min(high, self.bounds[1])
        if not new_low < new_high:
            raise ContractError(
                f"cannot truncate {self} to [{low:g}, {high:g}]: nothing of its support "
                f"[{self.bounds[0]:g}, {self.bounds[1]:g}] is left"
            )
        return new_low, new_high


def _json_number(value: float) -> float | str:
    # JSON has no infinities; float() reads these words back.
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
