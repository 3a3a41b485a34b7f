"""The simulator `beamdump-alp`: sets of diphoton events from ALPs of a proton beam dump.

    z: B -> K a at the origin, a -> gamma gamma inside the decay volume, photons in the calorimeter
    x: ten smeared numbers an event (ln E, hits, ln theta, phi)

Setup of arXiv:2308.01353. Each set holds a given number of accepted, unweighted events, whatever
the efficiency of its parameter point.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sbi_physics import (
    Budget,
    LogUniform,
    Observable,
    Parameter,
    ParameterSpace,
    Simulator,
)
from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.types import DataArray, FloatArray, Latents
from sbi_physics_beamdump.constants import M_A_MAX
from sbi_physics_beamdump.estimators import event_estimates, summaries
from sbi_physics_beamdump.observation import read_events
from sbi_physics_beamdump.options import BeamdumpOptions
from sbi_physics_beamdump.production import parametric, read_table
from sbi_physics_beamdump.sampler import EventSampler
from sbi_physics_beamdump.smearing import FEATURES, Resolution, smear

if TYPE_CHECKING:
    from sbi_physics_beamdump.exact import ExactPosterior

DERIVED = (
    "ln_m_gg",
    "ln_m_pointing",
    "ln_m_azimuth",
    "z_pointing",
    "z_azimuth",
    "slope_x",
    "slope_y",
)
"""Columns that the option `derived` adds."""

RESOLUTIONS = ("sigma_e", "sigma_angle")
"""Parameters that `detector="amortized"` adds; the data hold their natural logarithms."""

_MASS = Parameter(
    "m_a",
    LogUniform(0.1, 4.5),
    unit="GeV",
    label="m_a",
    description="Mass of the ALP.",
    support=(0.01, M_A_MAX),
)
_CTAU = Parameter(
    "ctau",
    LogUniform(0.1, 100.0),
    unit="m",
    label=r"c\tau_a",
    description="Proper lifetime of the ALP times c; the decay length is (ctau / m_a) p.",
    support=(0.05, 1e4),
)
_SIGMA_E = Parameter(
    "sigma_e",
    LogUniform(0.005, 0.2),
    label=r"\sigma_E/E",
    role="nuisance",
    description="Relative energy resolution; known, it stands in the data.",
    support=(1e-4, 1.0),
)
_SIGMA_ANGLE = Parameter(
    "sigma_angle",
    LogUniform(5e-4, 0.02),
    unit="rad",
    label=r"\sigma_\theta",
    role="nuisance",
    description="Angular resolution; known, it stands in the data.",
    support=(1e-5, 0.5),
)

_TRAINING = {"batch_size": 512, "learning_rate": 2e-3, "weight_decay": 0.0}
_BUDGETS = {
    "quick": Budget(simulations=20_000, training={**_TRAINING, "max_epochs": 40}),
    "standard": Budget(simulations=100_000, training={**_TRAINING, "max_epochs": 80}),
    "thorough": Budget(simulations=250_000, pairs=4000, training={**_TRAINING, "max_epochs": 200}),
}


class BeamdumpAlp(Simulator):
    """Sets of diphoton events from long-lived ALPs."""

    name = "beamdump-alp"
    summary = "ALP from B decays in a beam dump, a -> 2 photons in a calorimeter"
    citation = ("arXiv:2308.01353", "arXiv:2407.20329", "arXiv:2201.05170")
    Options = BeamdumpOptions
    observe_options = ("sigma_e", "sigma_hit", "sigma_angle", "angle_smearing", "derived")
    fiducial: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "m1": {"m_a": 1.0, "ctau": 1.0},
        "m02": {"m_a": 0.2, "ctau": 1.0},
        "m4": {"m_a": 4.0, "ctau": 1.0},
        "long-lived": {"m_a": 1.0, "ctau": 50.0},
    }
    budgets = _BUDGETS

    def __init__(self, options: BeamdumpOptions | None = None, **values: object) -> None:
        super().__init__(options, **values)
        chosen: BeamdumpOptions = self.options
        self.geometry = chosen.detector_geometry()
        # Read now, so that a missing table shows where the simulator is made.
        table = (
            parametric() if chosen.production == "parametric" else read_table(chosen.production)
        )
        self._sampler = EventSampler(self.geometry, table)
        if self._amortized:
            # On the instance: parameters, and with them these, depend on the options.
            vars(self)["observe_only"] = RESOLUTIONS
            middle = {"sigma_e": 0.05, "sigma_angle": 0.005}
            vars(self)["fiducial"] = {k: {**v, **middle} for k, v in self.fiducial.items()}

    @property
    def _amortized(self) -> bool:
        return bool(self.options.detector == "amortized")

    @property
    def parameters(self) -> ParameterSpace:
        detector = [_SIGMA_E, _SIGMA_ANGLE] if self._amortized else []
        return ParameterSpace([_MASS, _CTAU, *detector])

    @property
    def observable(self) -> Observable:
        names: tuple[str, ...] = FEATURES
        if self.options.derived:
            names += DERIVED
        if self._amortized:
            names += tuple(f"ln_{name}" for name in RESOLUTIONS)
        shape = (self.options.events, len(names) + 1)
        return Observable("set", shape, label="photon pair", names=names)

    def _simulate_latent(self, theta: FloatArray, rng: np.random.Generator) -> Latents:
        """True kinematics of every event, see `EventSampler.latents`."""
        size, least = self.options.events, self.options.min_events
        count = np.full(len(theta), size)
        if least is not None and least < size:
            count = rng.integers(least, size, size=len(theta), endpoint=True)
        return self._sampler.latents(theta[:, 0], theta[:, 1], count, size, rng)

    def _observe(self, z: Latents, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        sigma_e, sigma_angle = self.options.sigma_e, self.options.sigma_angle
        if self._amortized:
            sigma_e, sigma_angle = theta[:, 2], theta[:, 3]
        resolution = Resolution(
            sigma_e, self.options.sigma_hit, sigma_angle, self.options.angle_smearing
        )
        events = smear(z, resolution, self.geometry, rng)
        present = np.asarray(z["present"], dtype=np.float64)[..., None]
        columns = [events]
        if self.options.derived:
            columns.append(self._derived(np.concatenate([events, present], axis=-1)))
        if self._amortized:
            detector = np.log(theta[:, None, 2:]) * present
            columns.append(detector)
        return np.concatenate([*columns, present], axis=-1)

    def _derived(self, x: FloatArray) -> FloatArray:
        found = event_estimates(x, self.geometry)
        masses = (found.m_gg, found.m_pointing, found.m_azimuth)
        numbers = np.stack(
            [
                *(np.log(np.maximum(m, 1e-6)) for m in masses),
                found.z_pointing,
                found.z_azimuth,
                found.slope[..., 0],
                found.slope[..., 1],
            ],
            axis=-1,
        )
        return np.where(found.present[..., None], numbers, 0.0)

    def summary_statistics(self, x: DataArray) -> FloatArray:
        """Conventional estimates, shape (n, 8): the columns `estimators.SUMMARIES`.

        The vertex comes from azimuths where these are as good as the published smearing makes
        them, else from the pointing fit.
        """
        m, life = _MASS.bounds, _CTAU.bounds
        vertex = "azimuth" if self.options.angle_smearing == "azimuth" else "pointing"
        span = (life[0] / m[1], life[1] / m[0])
        return summaries(x, self.geometry, ctau_over_m=span, vertex=vertex)

    def reference_posterior(self) -> ExactPosterior:
        """Posterior of mass and lifetime from the numerical likelihood, see `exact`.

        Raises:
            ContractError: With a table of B mesons, or where a resolution is too small or too
                large for the likelihood's expansions.
        """
        from sbi_physics_beamdump.exact import exact_posterior  # compiled only where it is used

        return exact_posterior(self)

    def read_observation(self, path: Path) -> DataArray:
        """Events of a text table, one a line: see `observation.read_events`.

        With `detector="amortized"` the table does not say which detector it is from: refused.
        """
        if self._amortized:
            raise ContractError(
                "a table of events does not hold the resolutions that detector='amortized' needs "
                "in the data; append their logarithms to the array of a fixed detector"
            )
        size, least = self.options.events, self.options.min_events or self.options.events
        events = read_events(path, size)
        if (count := int(events[:, -1].sum())) < least:
            raise ObservationError(
                f"{path} has {count} events, the sets of this simulator have at least {least}; "
                f"set the option events={count} or min_events={count}"
            )
        if self.options.derived:
            columns = [events[:, :-1], self._derived(events[None])[0], events[:, -1:]]
            events = np.concatenate(columns, axis=1)
        x: DataArray = self.observable.check(events, str(path))[0]
        return x
