"""The simulator `alp-ngc1275`: ALPs in the Perseus cluster, gamma rays of NGC 1275, CTAO counts.

    z:  P(E)     survival through cluster -> background light -> Milky Way, a new field each time
    x:  n        ~ Poisson(R phi + b),  phi_j = (flux of true-energy bin j) P(E_j)

Setup as in arXiv:2509.20578 (five parameters); field of arXiv:1603.06978.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy.special import gammaln, xlogy

from sbi_physics import (
    DataFile,
    LogUniform,
    Parameter,
    ParameterSpace,
    Uniform,
)
from sbi_physics.types import FloatArray
from sbi_physics_alp.alp_simulator import BUDGETS, COUPLING, MASS, AlpSimulator
from sbi_physics_alp.data_files import found_files
from sbi_physics_alp.field import Cluster
from sbi_physics_alp.instruments import Counts, LogResiduals
from sbi_physics_alp.milky_way import milky_way_cells
from sbi_physics_alp.response_options import ResponseOptions, known_response
from sbi_physics_alp.spectrum import bin_fluxes, cutoff_power_law

REDSHIFT = 0.017559
REFERENCE_GEV = 300.0
PERSEUS = Cluster()
"""The cluster around NGC 1275, as measured."""
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "icrc2023": {"response": "cta-prod3b-south-z20-50h"},
    "tmnre2025": {
        "level": "informed",
        "response": "cta-prod5-north-20deg-50h",
        "region": "map2deg",
        "exposure": "10 h",
        "energy_min": "20 GeV",
        "energy_max": "6 TeV",
        "reco_bins": 90,
        "true_bins_per_decade": 73,
    },
}
"""Published settings: PoS(ICRC2023) 449, and the public code behind arXiv:2509.20578."""

_FLARE = {"amplitude": 1.54e-9, "index": 2.11, "e_cut": 562.0}


class AlpNgc1275Options(ResponseOptions):
    """Options of `alp-ngc1275`."""

    preset: Literal["icrc2023", "tmnre2025"] | None = Field(
        None,
        description="Published settings, for the options that are not set. 'icrc2023': CTA South "
        "prod3b, 50 h, 200 bins; 'tmnre2025': the public analysis code of 2024-25, CTAO North "
        "prod5, 10 h, a whole map, 90 bins 20 GeV - 6 TeV, all seventeen parameters (with engine "
        "swyft-tmnre:alps and --rounds 4).",
        json_schema_extra={"later": True},
    )
    ranges: Literal["focused", "published"] | None = Field(
        None,
        description="Prior of mass, coupling and spectrum. 'focused': m_a 1 - 1000 neV, "
        "g 0.1 - 10, index 1 - 4, cutoff 0.1 - 10 TeV, where telescopes are "
        "sensitive; 'published': m_a 0.01 - 10^4 neV, g 0.01 - 10, index 0 - 4, "
        "cutoff 0.01 - 10 TeV, as in the analysis code behind arXiv:2509.20578; "
        "none: focused at level 'five', else published.",
        json_schema_extra={"later": True},
    )
    data: Literal["counts", "log-residual"] = Field(
        "counts",
        description="What networks see: 'counts'; 'log-residual', log10 of counts over those that "
        "the flare without ALPs would give, not below -1.15, as an option of the analysis code "
        "behind arXiv:2509.20578.",
        json_schema_extra={"later": True},
    )

    @model_validator(mode="before")
    @classmethod
    def _fills_in_the_preset(cls, values: Any) -> Any:
        """Options of the preset; those that are set win."""
        if isinstance(values, dict) and values.get("preset") in PRESETS:
            return {**PRESETS[values["preset"]], **values}
        return values


class AlpNgc1275(AlpSimulator):
    """Photon-ALP mixing towards NGC 1275 seen by CTAO."""

    name = "alp-ngc1275"
    summary = "photon-ALP mixing towards NGC 1275 (Perseus) seen by CTAO"
    citation = (
        "arXiv:2509.20578",
        "arXiv:1603.06978",
        "arXiv:1406.5972",
        "doi:10.5281/zenodo.5499840",
    )
    Options = AlpNgc1275Options
    observe_only = ("amplitude", "index", "e_cut")
    observe_options = ("exposure", "data")
    fiducial: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "m30-g2": {"m_a": 30.0, "g": 2.0, **_FLARE},
        "m30-g05": {"m_a": 30.0, "g": 0.5, **_FLARE},
        "m10-g2": {"m_a": 10.0, "g": 2.0, **_FLARE},
        "m100-g5": {"m_a": 100.0, "g": 5.0, **_FLARE},
        "no-alp": {"m_a": 30.0, "g": 0.0, **_FLARE},
    }
    budgets = BUDGETS

    def __init__(self, options: AlpNgc1275Options | None = None, **values: object) -> None:
        super().__init__(options, **values)
        # Found now, so that a missing file shows where the simulator is made.
        self.response = known_response(self.options)
        self.observation_model = Counts(self.response)
        self.cluster_prior = self.options.cluster_prior(PERSEUS)
        self._ranges = self.options.ranges or (
            "focused" if self.options.level == "five" else "published"
        )
        vars(self)["fiducial"] = {
            name: {**point, **self.cluster_prior.values}
            for name, point in type(self).fiducial.items()
        }
        self.conversion = self.options.conversion(
            self.response.true_centres_gev,
            self.cluster_prior.cluster,
            redshift=REDSHIFT,
            milky_way=milky_way_cells(),
        )
        if self.options.data == "log-residual":
            null = self.theta("no-alp")[None]
            absorbed = np.exp(-self.conversion.tau)[None]
            expected = self.expected_counts(absorbed, null)[0]
            self.observation_model = LogResiduals(self.response, expected)

    @property
    def parameters(self) -> ParameterSpace:
        wide = self._ranges == "published"
        return ParameterSpace(
            [
                replace(MASS, distribution=LogUniform(1e-2, 1e4)) if wide else MASS,
                replace(COUPLING, distribution=LogUniform(1e-2, 10.0)) if wide else COUPLING,
                Parameter(
                    "amplitude",
                    LogUniform(10**-10.2, 1e-8),
                    unit="TeV-1 cm-2 s-1",
                    label=r"\phi_0",
                    role="nuisance",
                    description="Flux of the source at 300 GeV before absorption.",
                    support=(0.0, 1e-6),
                ),
                Parameter(
                    "index",
                    Uniform(0.0, 4.0) if wide else Uniform(1.0, 4.0),
                    label=r"\Gamma",
                    role="nuisance",
                    description="Spectral index, positive for a falling spectrum.",
                    support=(-2.0, 8.0),
                ),
                Parameter(
                    "e_cut",
                    LogUniform(10.0, 1e4) if wide else LogUniform(100.0, 1e4),
                    unit="GeV",
                    label=r"E_\mathrm{cut}",
                    role="nuisance",
                    description="Energy of the exponential cutoff.",
                    support=(1.0, 1e7),
                ),
                *self.cluster_prior.parameters,
            ]
        )

    def expected_signal(self, survival: FloatArray, theta: FloatArray) -> FloatArray:
        """Expected counts of the source, shape (n, n_reco).

        Args:
            survival: Survival probability of each true-energy bin, shape (n, n_true).
            theta: Parameter values, shape (n, d), the spectrum in columns 2 to 4.
        """
        flux = cutoff_power_law(
            self.conversion.energy_gev, *theta.T[2:5], reference_gev=REFERENCE_GEV
        )
        return self.response.fold(bin_fluxes(flux * survival, self.response.true_edges_gev))

    def expected_counts(self, survival: FloatArray, theta: FloatArray) -> FloatArray:
        """Expected counts with background, shape (n, n_reco); arguments of `expected_signal`."""
        return self.expected_signal(survival, theta) + self.response.background

    @classmethod
    def data_files(cls) -> Sequence[DataFile]:
        return found_files("cta-")


def poisson_log_likelihood(counts: FloatArray, expected: FloatArray) -> FloatArray:
    """Sum over bins of log Poisson(counts; expected), shape (n,).

    With the `AlpNgc1275.expected_counts` of one fixed field, or without coupling, this is log
    p(x|theta); of random fields, log p(x|theta) is an average over fields that has no closed form.

    Args:
        counts: Counts, shape (n, n_reco) or (n_reco,).
        expected: Expected counts, shape (n, n_reco).
    """
    terms = xlogy(counts, expected) - expected - gammaln(counts + 1.0)
    return np.asarray(terms.sum(axis=-1))
