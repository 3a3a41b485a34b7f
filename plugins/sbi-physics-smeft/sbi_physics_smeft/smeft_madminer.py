r"""The simulator `smeft-madminer`: events that MadMiner has analysed, from its HDF5 files.

A MadMiner file (arXiv:1907.10621) holds observations and, for each, the cross section at benchmark
points; that is all that labels need. It does not hold parton-level momenta, so events cannot be
measured again: `observe` returns what is stored. Benchmarks of nuisance parameters are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pydantic import Field

from sbi_physics import Observable, Parameter, ParameterSpace, Uniform
from sbi_physics.errors import DataFileError, ObservationError, OptionError
from sbi_physics.types import FloatArray, Latents
from sbi_physics_smeft.conventions import gram_from_weights, pack
from sbi_physics_smeft.eft_simulator import EftOptions, EftSimulator
from sbi_physics_smeft.weight_checks import check_gram, check_precision
from sbi_physics_smeft.weighted_events import WeightedEvents

_NEEDED = (
    "parameters/names",
    "parameters/val_ranges",
    "benchmarks/names",
    "benchmarks/values",
    "observables/names",
    "samples/observations",
    "samples/weights",
)


@dataclass(frozen=True, slots=True)
class MadMinerSample:
    """Content of a file.

    Attributes:
        events: Events; their records are the observations.
        parameters: Names of the coefficients.
        ranges: Their ranges, shape (d, 2).
        benchmarks: Points of the weights, by name, without nuisance parameters.
        observables: Names of the observations.
    """

    events: WeightedEvents
    parameters: tuple[str, ...]
    ranges: FloatArray
    benchmarks: dict[str, tuple[float, ...]]
    observables: tuple[str, ...]


def read_madminer(path: str | Path, *, max_label_error: float = 1e-4) -> MadMinerSample:
    """Read an analysed sample.

    Args:
        path: HDF5 file of MadMiner.
        max_label_error: Largest error of labels that rounding of the weights may cause, as in
            `lhe_events.read_lhe`.

    Raises:
        DataFileError: If there is no such file.
        ObservationError: If it is no analysed sample, or weights or observations are unusable.
        ContractError: If the benchmarks do not determine a quadratic.
    """
    if not Path(path).is_file():
        raise DataFileError(f"no MadMiner file at {path}")
    try:
        with h5py.File(path, "r") as file:
            missing = [name for name in _NEEDED if name not in file]
            if missing:
                raise ObservationError(
                    f"{path} has no {', '.join(missing)}: it is no sample analysed by MadMiner"
                )
            data: dict[str, Any] = {name: file[name][()] for name in _NEEDED}
            nuisance = np.zeros(len(data["benchmarks/names"]), dtype=np.bool_)
            if "benchmarks/is_nuisance" in file:
                nuisance = file["benchmarks/is_nuisance"][()].astype(np.bool_)
    except OSError as error:
        if isinstance(error, ObservationError):
            raise
        raise ObservationError(f"{path} is no readable HDF5 file: {error}") from error
    basis = np.asarray(data["benchmarks/values"], dtype=np.float64)[~nuisance]
    weights = np.asarray(data["samples/weights"], dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] not in (len(nuisance), len(basis)):
        raise ObservationError(
            f"samples/weights of {path} has shape {weights.shape} for {len(nuisance)} benchmarks"
        )
    weights = weights[:, ~nuisance] if weights.shape[1] == len(nuisance) else weights
    record = np.asarray(data["samples/observations"], dtype=np.float64)
    for name, values in (("weights", weights), ("observations", record)):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise ObservationError(
                f"samples/{name} of {path} are not finite in {int(bad.sum())} events, the first "
                f"is {int(bad.argmax())}"
            )
    return MadMinerSample(
        _events(weights, basis, record, max_label_error, str(path)),
        _strings(data["parameters/names"]),
        np.asarray(data["parameters/val_ranges"], dtype=np.float64),
        dict(
            zip(
                np.array(_strings(data["benchmarks/names"]))[~nuisance].tolist(),
                map(tuple, basis.tolist()),
                strict=True,
            )
        ),
        _strings(data["observables/names"]),
    )


def _events(
    weights: FloatArray, basis: FloatArray, record: FloatArray, max_error: float, source: str
) -> WeightedEvents:
    largest = weights.max(axis=1)
    if not (weights >= 0).all() or not (largest > 0).all():
        event = int(((weights < 0).any(axis=1) | (largest <= 0)).argmax())
        raise ObservationError(
            f"weights of event {event} of {source} are negative or all zero; a leading-order "
            "sample is needed"
        )
    tolerance = check_precision(weights, basis, max_error, source)
    # Any common factor will do; the matrix itself then says what theta = 0 has.
    gram, residual = gram_from_weights(weights / largest[:, None], basis)
    check_gram(
        gram, residual, np.abs(basis).max(axis=0), weights / largest[:, None], tolerance, source
    )
    at_zero = gram[:, 0, 0]
    if not (at_zero > tolerance).all():
        raise ObservationError(
            f"event {int(at_zero.argmin())} of {source} has no cross section at zero "
            "coefficients, which labels are relative to"
        )
    return WeightedEvents(pack(gram / at_zero[:, None, None]), largest * at_zero, record)


def _strings(values: Any) -> tuple[str, ...]:
    return tuple(
        v.decode("ascii", "replace").rstrip("\0 ") if isinstance(v, bytes) else str(v)
        for v in values
    )


class SmeftMadminerOptions(EftOptions):
    """Options of `smeft-madminer`."""

    file: str = Field(
        "", description="HDF5 file of a sample that MadMiner has analysed; there is no default."
    )
    luminosity: float = Field(
        300.0,
        gt=0,
        le=1e6,
        description="Integrated luminosity of a data set, above 0, at most 1e6.",
        json_schema_extra={"unit": "fb-1"},
    )
    k_factor: float = Field(
        1.0, gt=0, le=10, description="Factor of the cross section, above 0, at most 10."
    )
    max_label_error: float = Field(
        1e-4,
        gt=0,
        le=1,
        description="Largest error of labels from rounding of the weights, above 0, at most 1, "
        "relative to an event's largest weight.",
    )


class SmeftMadminer(EftSimulator):
    """Events of an analysed MadMiner sample."""

    name = "smeft-madminer"
    summary = "events and weights of a sample analysed by MadMiner, from its HDF5 file"
    citation = ("arXiv:1907.10621", "arXiv:1805.00013")
    Options = SmeftMadminerOptions
    observe_options = ("luminosity", "k_factor")
    sample: MadMinerSample

    def _prepare(self) -> None:
        if not self.options.file:
            raise OptionError(
                f"option 'file' of {self.name!r} must name an HDF5 file of MadMiner, got ''"
            )
        self.sample = read_madminer(
            self.options.file, max_label_error=self.options.max_label_error
        )
        points = self.sample.benchmarks.values()
        self.basis = [point for point in points if any(point)]

    @property
    def parameters(self) -> ParameterSpace:
        spans = np.array([*self.sample.benchmarks.values()])
        low = np.minimum(self.sample.ranges[:, 0], spans.min(axis=0))
        high = np.maximum(self.sample.ranges[:, 1], spans.max(axis=0))
        return ParameterSpace(
            [
                Parameter(
                    name,
                    Uniform(float(a), float(b)),
                    description=f"Coefficient {name} of {Path(self.options.file).name}.",
                    support=(min(0.0, 10 * float(down)), max(0.0, 10 * float(up))),
                )
                for name, (a, b), down, up in zip(
                    self.sample.parameters, self.sample.ranges, low, high, strict=True
                )
            ]
        )

    @property
    def observable(self) -> Observable:
        names = self.sample.observables
        return Observable("vector", (len(names),), names=names, label="observable")

    def _draw(self, vectors: FloatArray, rng: np.random.Generator) -> Latents:
        chosen = self.sample.events.draw(vectors, rng)
        return {
            "gram": self.sample.events.gram[chosen],
            "event": chosen,
            "observed": self.sample.events.record[chosen],
        }

    def _observe(self, z: Latents, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        return np.array(z["observed"], dtype=np.float64)

    def inclusive_gram(self) -> FloatArray:
        """Mean Gram matrix of the sample, which MadMiner's cuts have selected already."""
        sigma = self.sample.events.sigma_gram()
        return np.asarray(sigma / sigma[0, 0])

    def expected_sm_events(self) -> float:
        """Cross section of the sample times luminosity and K factor."""
        o = self.options
        return float(1000.0 * self.sample.events.weight.sum() * o.luminosity * o.k_factor)
