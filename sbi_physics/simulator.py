r"""The simulator contract.

A simulator draws data :math:`x \sim p(x|\theta)`. Many have two stages,

.. math:: p(x|\theta) = \int dz\, p(x|z, \theta)\, p(z|\theta),

an expensive latent part and a cheap observation; writing both lets training redraw the cheap one
at every epoch.

To write one, subclass `Simulator`, give it a `name`, an `Options` model, `parameters` and
`observable`, and implement either `_simulate`, or `_simulate_latent` and `_observe`. The public
methods check shapes, ranges and types for you.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, ValidationError

from sbi_physics.constraints import Constraint
from sbi_physics.errors import ContractError, OptionError, unknown_name
from sbi_physics.observables import Observable
from sbi_physics.option_messages import explain_options
from sbi_physics.parameters import ParameterSpace
from sbi_physics.priors import Prior
from sbi_physics.types import DataArray, FloatArray, Latents

if TYPE_CHECKING:
    from pathlib import Path

    from sbi_physics.posterior import Posterior


BUILD_ERRORS: Final = (ValueError, LookupError, OSError)
"""What a simulator raises about options or files that its own checks did not think of."""


class SimulatorOptions(BaseModel):
    """Base of all option models: unknown fields are errors, instances never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much work a run spends.

    Attributes:
        simulations: Training simulations.
        pairs: Fresh simulations for validation.
        draws: Posterior draws for each of them.
        training: Overrides of common `TrainingSettings` fields, the same for every engine.
    """

    simulations: int
    pairs: int = 1000
    draws: int = 999
    training: Mapping[str, Any] = field(default_factory=dict)


DEFAULT_BUDGETS: Mapping[str, Budget] = {
    "quick": Budget(simulations=5_000),
    "standard": Budget(simulations=50_000),
    "thorough": Budget(
        simulations=500_000, pairs=4000, training={"max_epochs": 40, "ensemble": 5}
    ),
}


@dataclass(frozen=True, slots=True)
class SimulatorIdentity:
    """What makes two simulators the same: name, version and resolved options."""

    name: str
    version: str
    options: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {"name": self.name, "version": self.version, "options": dict(self.options)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        return cls(name=data["name"], version=data["version"], options=dict(data["options"]))


@dataclass(frozen=True, slots=True)
class DataFile:
    """An optional data file a simulator can use.

    Attributes:
        name: What it is, as the user would name it in an option.
        path: Where it was looked for or found; None when no place is known.
        found: Whether it is there.
        how_to_get: The command or address that provides it.
    """

    name: str
    path: str | None
    found: bool
    how_to_get: str


class Simulator(ABC):
    """A stochastic map from parameters to data, vectorised over a batch.

    Class attributes:
        name: Kebab-case name, as registered.
        version: Raised whenever the same seed would give other data.
        summary: One line.
        citation: What to cite when using it.
        Options: Pydantic model of the options; the CLI, run files and docs show its fields. Put
            the unit of a number in `json_schema_extra={"unit": ...}`. An option that joins a
            released simulator, with a default that changes nothing, has
            `json_schema_extra={"later": True}`: at its default it is no part of the identity, so
            that stores made before it existed still match.
        observe_only: Two-stage simulators: parameters that enter only the observation.
        observe_options: Two-stage simulators: options that enter only the observation, so that a
            scan over them simulates the latents once.
        max_failure_fraction: Largest accepted fraction of non-finite simulations.
        fiducial: Named benchmark points, name -> parameter -> value.
        budgets: What `quick`, `standard` and `thorough` mean here.

    Raises:
        OptionError: On construction, if an option is unknown or out of range.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = ""
    citation: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[SimulatorOptions]] = SimulatorOptions
    observe_only: ClassVar[tuple[str, ...]] = ()
    observe_options: ClassVar[tuple[str, ...]] = ()
    max_failure_fraction: ClassVar[float] = 0.0
    fiducial: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    budgets: ClassVar[Mapping[str, Budget]] = DEFAULT_BUDGETS

    def __init__(self, options: SimulatorOptions | None = None, **values: Any) -> None:
        self.options: Any = make_options(self.name, self.Options, options, values)

    def __repr__(self) -> str:
        changed = self.options.model_dump(exclude_defaults=True)
        listed = ", ".join(f"{k}={v!r}" for k, v in changed.items())
        return f"{type(self).__name__}({listed})"

    # What authors write ------------------------------------------------------

    @property
    @abstractmethod
    def parameters(self) -> ParameterSpace:
        """The parameters, in the order of theta's columns."""

    @property
    @abstractmethod
    def observable(self) -> Observable:
        """The data."""

    @property
    def constraints(self) -> Sequence[Constraint | str]:
        """Predicates of the prior."""
        return ()

    def _simulate(self, theta: FloatArray, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """One-stage simulators: return x with shape (n, *observable.shape)."""
        return self._observe(self._simulate_latent(theta, rng), theta, rng)

    def _simulate_latent(self, theta: FloatArray, rng: np.random.Generator) -> Latents:
        """Two-stage simulators: return latents, each with leading axis n."""
        raise ContractError(
            f"simulator {self.name!r} implements neither _simulate nor _simulate_latent"
        )

    def _observe(
        self, z: Latents, theta: FloatArray, rng: np.random.Generator
    ) -> np.ndarray[Any, Any]:
        """Two-stage simulators: return x from latents."""
        raise ContractError(f"simulator {self.name!r} does not implement _observe")

    # Optional abilities ------------------------------------------------------

    def log_likelihood(self, x: DataArray, theta: FloatArray) -> FloatArray:
        """Exact log p(x|theta), shape (n,), where it exists."""
        raise self._cannot("log_likelihood")

    def reference_posterior(self) -> Posterior:
        """Exact amortised posterior, where it exists."""
        raise self._cannot("reference_posterior")

    def read_observation(self, path: Path) -> DataArray:
        """Read a real observation, shape observable.shape."""
        raise self._cannot("read_observation")

    def summary_statistics(self, x: DataArray) -> FloatArray:
        """Classical summary numbers, shape (n, k)."""
        raise self._cannot("summary_statistics")

    def labels(self, z: Latents) -> Latents:
        """Learning targets that are functions of the latents."""
        raise self._cannot("labels")

    @classmethod
    def observation_options(cls, path: Path) -> Mapping[str, Any]:
        """Options that an observation file implies, such as the instrument response it carries.

        A study uses them where the user sets no option of that name.
        """
        return {}

    @classmethod
    def data_files(cls) -> Sequence[DataFile]:
        """Optional data files and whether they are there, for `show` and `doctor`."""
        return ()

    def can(self, ability: str) -> bool:
        """Whether an optional ability is implemented."""
        return getattr(type(self), ability) is not getattr(Simulator, ability)

    # What users call (never overridden) --------------------------------------

    @property
    def prior(self) -> Prior:
        """The prior over all parameters."""
        return Prior(self.parameters, self.constraints)

    @property
    def is_two_stage(self) -> bool:
        """Whether data can be redrawn from stored latents."""
        return type(self)._simulate_latent is not Simulator._simulate_latent

    @property
    def identity(self) -> SimulatorIdentity:
        """Name, version and resolved options."""
        values = self.options.model_dump(mode="json")
        for name, info in type(self.options).model_fields.items():
            extra = info.json_schema_extra
            later = isinstance(extra, dict) and extra.get("later", False)
            if later and getattr(self.options, name) == info.get_default(
                call_default_factory=True
            ):
                del values[name]
        return SimulatorIdentity(self.name, self.version, values)

    def simulate(self, theta: ArrayLike, rng: np.random.Generator) -> DataArray:
        """Simulate data.

        Args:
            theta: Parameter values in physical units, shape (n, d), columns as `parameters`.
            rng: Source of randomness.

        Returns:
            Data, float32, shape (n, *observable.shape); rows may be non-finite where the
            simulation failed.

        Raises:
            ContractError: If theta is outside the range where the simulator is defined, or x has a
                wrong shape.
        """
        points = self._checked(theta)
        return self._checked_data(self._simulate(points, rng), len(points))

    def simulate_latent(self, theta: ArrayLike, rng: np.random.Generator) -> Latents:
        """Simulate the latent stage for theta with shape (n, d); each array has leading axis n."""
        points = self._checked(theta)
        latents = {k: np.asarray(v) for k, v in self._simulate_latent(points, rng).items()}
        for key, values in latents.items():
            if values.shape[:1] != (len(points),):
                raise ContractError(
                    f"simulator {self.name!r} returned latent {key!r} of shape {values.shape} "
                    f"for {len(points)} points"
                )
        return latents

    def observe(self, z: Latents, theta: ArrayLike, rng: np.random.Generator) -> DataArray:
        """Draw data, shape (n, *observable.shape), from stored latents."""
        points = self._checked(theta)
        return self._checked_data(self._observe(z, points, rng), len(points))

    def theta(self, point: str | Mapping[str, float]) -> FloatArray:
        """Return parameter values, shape (d,), of a fiducial point (by name) or of a mapping.

        Raises:
            UnknownNameError: If the point or a parameter is unknown.
            ContractError: If a value is missing or out of range.
        """
        if isinstance(point, str):
            if point not in self.fiducial:
                raise unknown_name(f"fiducial point of {self.name!r}", point, self.fiducial)
            point = {
                k: v for k, v in self.fiducial[point].items() if not self.parameters[k].is_fixed
            }
        vector = self.parameters.vector(point)
        self.parameters.check_range(vector[None], f"point of {self.name!r}")
        return vector

    def native(self, ecosystem: str) -> Any:
        """Return this simulator as another ecosystem's objects (`"sbi"`, `"swyft"`, ...)."""
        from sbi_physics import registry

        return registry.native_simulator(self, ecosystem)

    def _checked(self, theta: ArrayLike) -> FloatArray:
        points = np.array(theta, dtype=np.float64)
        self.parameters.check_range(points, f"theta of {self.name!r}")
        return points

    def _checked_data(self, x: ArrayLike, n: int) -> DataArray:
        data = np.asarray(x)
        expected = (n, *self.observable.shape)
        if data.shape != expected:
            raise ContractError(
                f"simulator {self.name!r} returned x of shape {data.shape}; "
                f"its observable says {expected}"
            )
        with np.errstate(over="ignore"):  # beyond float32 is infinite: a failed row
            return data.astype(np.float32)

    def _cannot(self, ability: str) -> ContractError:
        return ContractError(f"simulator {self.name!r} does not provide {ability}()")


def make_options(
    owner: str,
    model: type[Any],
    options: Any | None,
    values: Mapping[str, Any],
    noun: str = "option",
) -> Any:
    """Build an options or settings model with errors a person can act on.

    Args:
        owner: Name of the simulator or engine, for messages.
        model: The pydantic model.
        options: An instance to start from, or None for the defaults.
        values: Fields to set on top.
        noun: What the fields are called.

    Raises:
        OptionError: Naming field, value, what is accepted and the nearest field name.
    """
    if options is not None and not isinstance(options, model):
        raise OptionError(
            f"{owner!r} takes {noun}s of type {model.__name__}, got {type(options).__name__}"
        )
    base = {} if options is None else options.model_dump()
    try:
        return model(**{**base, **values})
    except ValidationError as error:
        raise OptionError(explain_options(owner, model, error, noun)) from error
