"""Named parameters with units, and ordered collections of them."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, overload

import numpy as np

from sbi_physics.distributions import Distribution, Fixed, distribution_from_dict
from sbi_physics.errors import ContractError, unknown_name
from sbi_physics.types import FloatArray

SCALES = ("linear", "log10")
ROLES = ("interest", "nuisance")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a simulator.

    Attributes:
        name: A Python identifier, used in every API, file and command.
        distribution: Prior distribution, in `unit`.
        unit: Unit string that astropy parses; empty for dimensionless.
        label: LaTeX label without dollar signs; defaults to the name.
        scale: `linear` or `log10`, the coordinate of plots, highest-density regions and distances;
            empty for the distribution's natural one.
        role: `interest` (inferred) or `nuisance` (marginalised by simulating it).
        description: One sentence.
        support: Closed interval on which the simulator is defined, in `unit`; defaults to the
            prior's support. May be wider than the prior, for example to admit a coupling of
            exactly zero.
    """

    name: str
    distribution: Distribution
    unit: str = ""
    label: str = ""
    scale: str = ""
    role: str = "interest"
    description: str = ""
    support: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or keyword.iskeyword(self.name):
            raise ContractError(f"parameter name {self.name!r} is not a Python identifier")
        if not self.scale:
            object.__setattr__(self, "scale", self.distribution.natural_scale)
        if self.scale not in SCALES:
            raise ContractError(
                f"parameter {self.name!r}: scale {self.scale!r} is not one of {SCALES}"
            )
        if self.role not in ROLES:
            raise ContractError(
                f"parameter {self.name!r}: role {self.role!r} is not one of {ROLES}"
            )
        if self.scale == "log10" and self.distribution.bounds[0] < 0:
            raise ContractError(f"parameter {self.name!r}: scale 'log10' needs a positive prior")
        low, high = self.valid_range
        if not low <= self.bounds[0] <= self.bounds[1] <= high:
            raise ContractError(
                f"parameter {self.name!r}: the prior on [{self.bounds[0]:g}, {self.bounds[1]:g}] "
                f"leaves the support [{low:g}, {high:g}]"
            )

    @property
    def is_fixed(self) -> bool:
        """Whether the parameter is held at one value."""
        return isinstance(self.distribution, Fixed)

    @property
    def bounds(self) -> tuple[float, float]:
        """Ends of the prior's support."""
        return self.distribution.bounds

    @property
    def valid_range(self) -> tuple[float, float]:
        """Ends of the interval on which the simulator is defined."""
        return self.bounds if self.support is None else self.support

    @property
    def axis_label(self) -> str:
        """Label with unit for plot axes (matplotlib mathtext)."""
        symbol = f"${self.label}$" if self.label else self.name
        return f"{symbol} [{self.unit}]" if self.unit else symbol

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {
            "name": self.name,
            "distribution": self.distribution.to_dict(),
            "unit": self.unit,
            "label": self.label,
            "scale": self.scale,
            "role": self.role,
            "description": self.description,
            "support": None if self.support is None else [str(float(s)) for s in self.support],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        values = dict(data)
        support = values.get("support")
        values["support"] = None if support is None else (float(support[0]), float(support[1]))
        values["distribution"] = distribution_from_dict(values["distribution"])
        return cls(**values)


class ParameterSpace(Sequence[Parameter]):
    """An ordered, immutable collection of parameters with unique names."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._items = tuple(parameters)
        names = [p.name for p in self._items]
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise ContractError(f"parameter names must be unique, repeated: {', '.join(repeated)}")

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._items)

    @overload
    def __getitem__(self, key: int | str) -> Parameter: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Parameter]: ...
    def __getitem__(self, key: int | str | slice) -> Parameter | Sequence[Parameter]:
        """Return a parameter by position or name."""
        return self._items[self.index(key) if isinstance(key, str) else key]

    def __contains__(self, value: object) -> bool:
        """Whether a parameter, or one of this name, is in the collection."""
        return value in self.names if isinstance(value, str) else value in self._items

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParameterSpace) and self._items == other._items

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"ParameterSpace({', '.join(self.names)})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(p.name for p in self._items)

    @property
    def interest(self) -> tuple[str, ...]:
        """Names of the free parameters with role `interest`."""
        return tuple(p.name for p in self._items if p.role == "interest" and not p.is_fixed)

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the position of a name (or parameter).

        Raises:
            UnknownNameError: If there is none, with the nearest match.
        """
        name = value.name if isinstance(value, Parameter) else value
        names = self.names[start:stop]
        if name not in names:
            raise unknown_name("parameter", str(name), self.names)
        return names.index(name) + start

    def indices(self, names: Iterable[str]) -> list[int]:
        """Return the positions of several names."""
        return [self.index(n) for n in names]

    def select(self, names: Iterable[str]) -> ParameterSpace:
        """Return the named parameters, in the order given."""
        return ParameterSpace(self[n] for n in names)

    def replace(self, **parameters: Parameter) -> ParameterSpace:
        """Return a copy with some parameters replaced, by name."""
        for name in parameters:
            self.index(name)
        return ParameterSpace(parameters.get(p.name, p) for p in self._items)

    def with_interest(self, names: Iterable[str]) -> ParameterSpace:
        """Return a copy in which exactly the named parameters have role `interest`."""
        wanted = {self[n].name for n in names}
        fixed = sorted(n for n in wanted if self[n].is_fixed)
        if fixed:
            raise ContractError(f"cannot infer a fixed parameter: {', '.join(fixed)}")
        if not wanted:
            raise ContractError("at least one parameter must be inferred")
        return ParameterSpace(
            replace(p, role="interest" if p.name in wanted else "nuisance") for p in self._items
        )

    def fix(self, values: Mapping[str, float]) -> ParameterSpace:
        """Return a copy with some parameters held at a value.

        Raises:
            UnknownNameError: If a name is unknown.
            ContractError: If a value lies outside the range in which the simulator is defined.
        """
        fixed = {}
        for name, value in values.items():
            parameter = self[name]
            low, high = parameter.valid_range
            if not low <= float(value) <= high:
                unit = f" {parameter.unit}" if parameter.unit else ""
                raise ContractError(
                    f"cannot fix {name} = {value:g}{unit}: accepted is [{low:g}, {high:g}]{unit}"
                )
            fixed[name] = replace(
                parameter,
                distribution=Fixed(float(value)),
                role="nuisance",
                scale="linear",
                support=parameter.valid_range,
            )
        return self.replace(**fixed)

    def vector(self, values: Mapping[str, float]) -> FloatArray:
        """Return values in order; fixed parameters may be omitted.

        Raises:
            ContractError: If a free parameter is missing.
        """
        for name in values:
            self.index(name)
        missing = [p.name for p in self._items if p.name not in values and not p.is_fixed]
        if missing:
            raise ContractError(f"values are missing for {', '.join(missing)}")
        return np.array(
            [float(values.get(p.name, p.bounds[0])) for p in self._items], dtype=np.float64
        )

    def check_range(self, theta: FloatArray, subject: str = "theta") -> None:
        """Check that values are finite and inside the range where the simulator is defined.

        Args:
            theta: Values with shape (batch, param).
            subject: What to call the values in the message.

        Raises:
            ContractError: Naming the parameter, value, unit and range.
        """
        if theta.ndim != 2 or theta.shape[1] != len(self):
            raise ContractError(
                f"{subject} has shape {theta.shape}, expected (batch, {len(self)}) "
                f"for {', '.join(self.names)}"
            )
        for column, parameter in zip(theta.T, self._items, strict=True):
            low, high = parameter.valid_range
            bad = ~((column >= low) & (column <= high) & np.isfinite(column))
            if bad.any():
                unit = f" {parameter.unit}" if parameter.unit else ""
                raise ContractError(
                    f"{subject}: {parameter.name} = {column[bad][0]:g}{unit} in row "
                    f"{int(np.argmax(bad))} is outside [{low:g}, {high:g}]{unit}"
                )

    def to_list(self) -> list[dict[str, Any]]:
        """Return a JSON-ready description."""
        return [p.to_dict() for p in self._items]

    @classmethod
    def from_list(cls, data: Iterable[Mapping[str, Any]]) -> Self:
        """Rebuild from `to_list`."""
        return cls(Parameter.from_dict(d) for d in data)
