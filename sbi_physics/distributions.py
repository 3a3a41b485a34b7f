r"""One-dimensional distributions with exact truncation.

Every family is truncatable in closed form: for a base distribution with CDF :math:`F`, on
:math:`[a, b]`,

.. math:: u = \frac{F(x) - F(a)}{F(b) - F(a)}, \qquad p(x) = \frac{f(x)}{F(b) - F(a)} .

Classes are frozen records; `cdf`, `ppf` and `log_pdf` are vectorised over any shape.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sbi_physics.distribution_base import Distribution
from sbi_physics.errors import ContractError, unknown_name
from sbi_physics.mirrored import Mirrored
from sbi_physics.types import FloatArray

__all__ = [
    "FAMILIES",
    "Distribution",
    "Fixed",
    "Log10Normal",
    "LogNormal",
    "LogUniform",
    "Mirrored",
    "Normal",
    "Uniform",
    "distribution_from_dict",
]

_LN10 = math.log(10.0)
_MIN_LOG_MASS = -700.0  # below, differences of CDFs underflow


@dataclass(frozen=True)
class _Interval(Distribution):
    """Uniform in a coordinate (`x` or `ln x`) between two finite ends."""

    low: float
    high: float

    def __post_init__(self) -> None:
        # The width must be finite too: -1e308 to 1e308 overflows.
        if not (self.low < self.high and math.isfinite(self.high - self.low)):
            raise ContractError(
                f"{type(self).__name__} needs finite low < high, got low={self.low}, "
                f"high={self.high}"
            )

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def truncate(self, low: float, high: float) -> Self:
        new_low, new_high = self._overlap(low, high)
        return replace(self, low=new_low, high=new_high)


@dataclass(frozen=True)
class Uniform(_Interval):
    """Uniform on `[low, high]`."""

    kind: ClassVar[str] = "uniform"

    def cdf(self, x: ArrayLike) -> FloatArray:
        return np.clip((np.asarray(x, np.float64) - self.low) / (self.high - self.low), 0.0, 1.0)

    def ppf(self, u: ArrayLike) -> FloatArray:
        values = self.low + np.asarray(u, np.float64) * (self.high - self.low)
        return np.clip(values, self.low, self.high)

    def log_pdf(self, x: ArrayLike) -> FloatArray:
        return np.where(self.contains(x), -math.log(self.high - self.low), -np.inf)


@dataclass(frozen=True)
class LogUniform(_Interval):
    """Uniform in the logarithm of the value, between positive `low` and `high`."""

    kind: ClassVar[str] = "log-uniform"
    natural_scale: ClassVar[str] = "log10"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ContractError(f"LogUniform needs low > 0, got low={self.low}")

    @property
    def _log_width(self) -> float:
        return math.log(self.high) - math.log(self.low)

    def cdf(self, x: ArrayLike) -> FloatArray:
        values = np.clip(np.asarray(x, np.float64), self.low, self.high)
        return np.clip((np.log(values) - math.log(self.low)) / self._log_width, 0.0, 1.0)

    def ppf(self, u: ArrayLike) -> FloatArray:
        values = np.exp(math.log(self.low) + np.asarray(u, np.float64) * self._log_width)
        return np.clip(values, self.low, self.high)

    def log_pdf(self, x: ArrayLike) -> FloatArray:
        values = np.asarray(x, np.float64)
        inside = self.contains(values)
        return np.where(
            inside, -np.log(np.where(inside, values, 1.0)) - math.log(self._log_width), -np.inf
        )


@dataclass(frozen=True)
class _GaussianBase(Distribution):
    """Normal in a monotone coordinate `t(x)`, truncated to `[low, high]` in `x`."""

    @property
    @abstractmethod
    def _location(self) -> float: ...

    @property
    @abstractmethod
    def _width(self) -> float: ...

    @staticmethod
    @abstractmethod
    def _to_coordinate(x: FloatArray) -> FloatArray: ...

    @staticmethod
    @abstractmethod
    def _from_coordinate(t: FloatArray) -> FloatArray: ...

    @staticmethod
    @abstractmethod
    def _log_slope(x: FloatArray) -> FloatArray:
        """Log of dt/dx."""

    def _standard(self, x: ArrayLike) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            coordinate = self._to_coordinate(np.asarray(x, np.float64))
        return (coordinate - self._location) / self._width

    @property
    def _ends(self) -> tuple[float, float]:
        return float(self._standard(self.bounds[0])), float(self._standard(self.bounds[1]))

    def _flipped(self) -> bool:
        # In the upper tail 1 - CDF keeps the precision that CDF loses.
        return self._ends[0] > 0.0

    def _log_mass(self) -> float:
        a, b = self._ends
        if self._flipped():
            a, b = -b, -a
        low, high = special.log_ndtr(a), special.log_ndtr(b)
        return float(high + np.log1p(-np.exp(low - high)))

    def cdf(self, x: ArrayLike) -> FloatArray:
        a, b = self._ends
        z = np.clip(self._standard(np.clip(x, *self.bounds)), a, b)
        if self._flipped():
            share = (special.ndtr(-a) - special.ndtr(-z)) / (special.ndtr(-a) - special.ndtr(-b))
        else:
            share = (special.ndtr(z) - special.ndtr(a)) / (special.ndtr(b) - special.ndtr(a))
        return np.asarray(np.clip(share, 0.0, 1.0), np.float64)

    def ppf(self, u: ArrayLike) -> FloatArray:
        a, b = self._ends
        share = np.asarray(u, np.float64)
        if self._flipped():
            z = -special.ndtri(special.ndtr(-a) - share * (special.ndtr(-a) - special.ndtr(-b)))
        else:
            z = special.ndtri(special.ndtr(a) + share * (special.ndtr(b) - special.ndtr(a)))
        values = self._from_coordinate(self._location + self._width * np.clip(z, a, b))
        return np.clip(values, *self.bounds)

    def log_pdf(self, x: ArrayLike) -> FloatArray:
        values = np.asarray(x, np.float64)
        z = self._standard(values)
        inside = self.contains(values) & np.isfinite(z)  # z is infinite at the ends 0 and inf
        z = np.where(inside, z, 0.0)
        constant = -0.5 * math.log(2 * math.pi) - math.log(self._width) - self._log_mass()
        slope = self._log_slope(np.where(inside, values, 1.0))
        return np.where(inside, constant - 0.5 * z**2 + slope, -np.inf)

    def _check(self) -> None:
        if not (math.isfinite(self._location) and 0 < self._width < math.inf):
            raise ContractError(f"{self} needs a finite centre and a positive finite width")
        if not self.bounds[0] < self.bounds[1]:
            raise ContractError(f"{self} needs low < high")
        with np.errstate(divide="ignore"):
            log_mass = self._log_mass()
        if not log_mass > _MIN_LOG_MASS:
            raise ContractError(f"{self}: no probability is left between low and high")


@dataclass(frozen=True)
class Normal(_GaussianBase):
    """Normal with `mean` and standard deviation `sd`, truncated to `[low, high]`."""

    mean: float
    sd: float
    low: float = -math.inf
    high: float = math.inf
    kind: ClassVar[str] = "normal"

    def __post_init__(self) -> None:
        self._check()

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def _location(self) -> float:
        return self.mean

    @property
    def _width(self) -> float:
        return self.sd

    @staticmethod
    def _to_coordinate(x: FloatArray) -> FloatArray:
        return x

    @staticmethod
    def _from_coordinate(t: FloatArray) -> FloatArray:
        return t

    @staticmethod
    def _log_slope(x: FloatArray) -> FloatArray:
        return np.zeros_like(x)

    def truncate(self, low: float, high: float) -> Self:
        new_low, new_high = self._overlap(low, high)
        return replace(self, low=new_low, high=new_high)


@dataclass(frozen=True)
class _LogGaussian(_GaussianBase):
    """Normal in a logarithm of the value."""

    mu: float
    sigma: float
    low: float = 0.0
    high: float = math.inf
    natural_scale: ClassVar[str] = "log10"

    def __post_init__(self) -> None:
        if self.low < 0:
            raise ContractError(f"{self} needs low >= 0")
        self._check()

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def truncate(self, low: float, high: float) -> Self:
        new_low, new_high = self._overlap(low, high)
        return replace(self, low=new_low, high=new_high)

    @staticmethod
    def _to_coordinate(x: FloatArray) -> FloatArray:
        return np.log(x)

    @staticmethod
    def _from_coordinate(t: FloatArray) -> FloatArray:
        return np.exp(t)

    @staticmethod
    def _log_slope(x: FloatArray) -> FloatArray:
        return -np.log(x)


@dataclass(frozen=True)
class LogNormal(_LogGaussian):
    """Natural logarithm normal with mean `mu` and sd `sigma`; `low` and `high` are values."""

    kind: ClassVar[str] = "log-normal"

    @property
    def _location(self) -> float:
        return self.mu

    @property
    def _width(self) -> float:
        return self.sigma


@dataclass(frozen=True)
class Log10Normal(_LogGaussian):
    """Decimal logarithm normal with mean `mu` and sd `sigma` (dex); `low`, `high` are values."""

    kind: ClassVar[str] = "log10-normal"

    @property
    def _location(self) -> float:
        return self.mu * _LN10

    @property
    def _width(self) -> float:
        return self.sigma * _LN10


@dataclass(frozen=True)
class Fixed(Distribution):
    """One value: contributes no dimension to inference and nothing to a log density."""

    value: float
    kind: ClassVar[str] = "fixed"

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ContractError(f"a fixed value must be finite, got {self.value}")

    @property
    def bounds(self) -> tuple[float, float]:
        return self.value, self.value

    def cdf(self, x: ArrayLike) -> FloatArray:
        return np.full(np.shape(x), 0.5)

    def ppf(self, u: ArrayLike) -> FloatArray:
        return np.full(np.shape(u), self.value)

    def log_pdf(self, x: ArrayLike) -> FloatArray:
        return np.where(np.asarray(x, np.float64) == self.value, 0.0, -np.inf)

    def truncate(self, low: float, high: float) -> Self:
        if not low <= self.value <= high:
            raise ContractError(f"the fixed value {self.value:g} lies outside [{low:g}, {high:g}]")
        return self


FAMILIES: dict[str, type[Distribution]] = {
    family.kind: family for family in (Uniform, LogUniform, Normal, LogNormal, Log10Normal, Fixed)
}


def distribution_from_dict(data: Mapping[str, Any]) -> Distribution:
    """Rebuild a distribution from `Distribution.to_dict`.

    Raises:
        UnknownNameError: If the family is unknown.
        ContractError: If its numbers are missing, superfluous or unusable.
    """
    kind = str(data.get("kind", ""))
    if kind == Mirrored.kind and isinstance(data.get("base"), dict):
        return Mirrored(distribution_from_dict(data["base"]))
    if kind not in FAMILIES:
        raise unknown_name("distribution", kind, FAMILIES)
    family = FAMILIES[kind]
    try:
        return family(**{k: float(v) for k, v in data.items() if k != "kind"})
    except ContractError:
        raise
    except (TypeError, ValueError) as error:
        names = [f.name for f in fields(family)]
        raise ContractError(f"distribution {kind!r} takes numbers {names}, got {data}") from error
