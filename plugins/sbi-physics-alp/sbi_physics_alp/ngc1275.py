"""The simulator `alp-ngc1275`: ALPs in the Perseus cluster, gamma rays of NGC 1275, CTAO counts.

    z:  P(E)     survival through cluster -> background light -> Milky Way, a new field each time
    x:  n        ~ Poisson(R phi + b),  phi_j = (flux of true-energy bin j) P(E_j)

Setup as in arXiv:2509.20578 (five parameters); field of arXiv:1603.06978.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator
from scipy.special import gammaln, xlogy

from sbi_physics import (
    DataFile,
    LogUniform,
    Observable,
    Parameter,
    ParameterSpace,
    Uniform,
)
from sbi_physics.errors import OptionError
from sbi_physics.types import DataArray, FloatArray, Latents
from sbi_physics_alp.alp_simulator import BUDGETS, COUPLING, MASS, AlpSimulator, ClusterOptions
from sbi_physics_alp.conversion import Conversion
from sbi_physics_alp.data_files import PUBLIC_FILES, found_files
from sbi_physics_alp.embedded import EMBEDDED, embedded_response
from sbi_physics_alp.field import Cluster
from sbi_physics_alp.gammapy_response import Selection, load_response
from sbi_physics_alp.milky_way import milky_way_cells
from sbi_physics_alp.observation import find, read_counts
from sbi_physics_alp.quantities import Energy, Exposure, to_value
from sbi_physics_alp.response import Response
from sbi_physics_alp.spectrum import bin_fluxes, cutoff_power_law

REDSHIFT = 0.017559
REFERENCE_GEV = 300.0
PERSEUS = Cluster()
"""The cluster around NGC 1275, as measured."""
RESPONSES = (*EMBEDDED, *(name for name in PUBLIC_FILES if name.startswith("cta-")))
"""Names that the option ``response`` knows."""

_FLARE = {"amplitude": 1.54e-9, "index": 2.11, "e_cut": 562.0}
_BINNING = ("region", "true_bins_per_decade", "energy_min", "energy_max", "reco_bins")


class AlpNgc1275Options(ClusterOptions):
    """Options of `alp-ngc1275`."""

    response: str = Field(
        "embedded",
        description="Instrument response: 'embedded' (CTAO North, parametrised), "
        "'embedded-south', 'cta-prod5-north-20deg-50h', 'cta-prod5-south-20deg-50h', "
        "'cta-prod3b-south-z20-50h' (files below $GAMMAPY_DATA), the path of a FITS response file "
        "or of an npz file saved by this package.",
    )
    exposure: Exposure = Field(
        "50 h",
        description="Observation time, 1 min to 10000 h.",
        json_schema_extra={"unit": "time"},
    )
    region: Literal["on", "map2deg"] = Field(
        "on",
        description="'on': counts within 0.1 deg of the source; 'map2deg': counts of a whole map "
        "of 2 x 2 deg, with 120 times the background (response files only).",
    )
    true_bins_per_decade: int = Field(
        100,
        ge=25,
        le=1000,
        description="Bins of true energy a decade, 25 to 1000; 200 for accurate work at m_a near "
        "100 neV, at twice the time.",
    )
    energy_min: Energy = Field(
        "10 GeV",
        description="Lowest reconstructed energy, 5 GeV to 200 TeV.",
        json_schema_extra={"unit": "energy"},
    )
    energy_max: Energy = Field(
        "100 TeV",
        description="Highest reconstructed energy, 5 GeV to 200 TeV.",
        json_schema_extra={"unit": "energy"},
    )
    reco_bins: int = Field(
        200, ge=2, le=2000, description="Number of reconstructed-energy bins, 2 to 2000."
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

    @field_validator("response")
    @classmethod
    def _names_a_response(cls, response: str) -> str:
        if response not in RESPONSES and not {"/", "."} & set(response):
            raise ValueError(f"accepted is a path or one of {', '.join(RESPONSES)}")
        return response

    @field_validator("region")
    @classmethod
    def _region_fits(cls, region: str, info: ValidationInfo) -> str:
        if info.data.get("response") in EMBEDDED and region != "on":
            raise ValueError("it needs a response file; the embedded responses hold region 'on'")
        return region

    @field_validator("energy_max")
    @classmethod
    def _range_is_ordered(cls, high: str, info: ValidationInfo) -> str:
        low = info.data.get("energy_min", high)
        if to_value(high, "GeV") <= to_value(low, "GeV"):
            raise ValueError(f"energy_max must be above energy_min, {low}")
        return high


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
        self.response = _response(self.options)
        self.cluster_prior = self.options.cluster_prior(PERSEUS)
        self._ranges = self.options.ranges or (
            "focused" if self.options.level == "five" else "published"
        )
        vars(self)["fiducial"] = {
            name: {**point, **self.cluster_prior.values}
            for name, point in type(self).fiducial.items()
        }
        self.conversion = Conversion(
            self.response.true_centres_gev,
            self.cluster_prior.cluster,
            redshift=REDSHIFT,
            milky_way=milky_way_cells(),
            cell_mode=self.options.cell_mode,
            high_mass_cut=self.options.high_mass_cut,
            realisation=self.options.realisation,
        )

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

    @property
    def observable(self) -> Observable:
        return Observable(
            "spectrum",
            self.response.background.shape,
            unit="ct",
            edges=tuple(self.response.reco_edges_gev.tolist()),
            edge_unit="GeV",
            transform=("anscombe", "whiten"),
            label="counts",
            edge_label="reconstructed energy",
        )

    def _observe(self, z: Latents, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        return rng.poisson(
            self.expected_counts(np.asarray(z["survival"], dtype=np.float64), theta)
        ).astype(np.float64)

    def expected_counts(self, survival: FloatArray, theta: FloatArray) -> FloatArray:
        """Expected counts with background, shape (n, n_reco).

        Args:
            survival: Survival probability of each true-energy bin, shape (n, n_true).
            theta: Parameter values, shape (n, d), the spectrum in columns 2 to 4.
        """
        flux = cutoff_power_law(
            self.conversion.energy_gev, *theta.T[2:5], reference_gev=REFERENCE_GEV
        )
        fluxes = bin_fluxes(flux * survival, self.response.true_edges_gev)
        return self.response.fold(fluxes) + self.response.background

    @classmethod
    def data_files(cls) -> Sequence[DataFile]:
        return found_files("cta-")

    def read_observation(self, path: Path) -> DataArray:
        """Counts from an npz file (``counts``, optionally ``edges_gev``) or an OGIP spectrum."""
        counts = read_counts(path, self.response.reco_edges_gev)
        x: DataArray = self.observable.check(counts, str(path))[0]
        return x


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


def _response(options: AlpNgc1275Options) -> Response:
    livetime_s = to_value(options.exposure, "s")
    selection = Selection(
        region=options.region,
        true_bins_per_decade=options.true_bins_per_decade,
        reco_low_gev=to_value(options.energy_min, "GeV"),
        reco_high_gev=to_value(options.energy_max, "GeV"),
        reco_bins=options.reco_bins,
    )
    if options.response in EMBEDDED:
        found = embedded_response(
            options.response,
            livetime_s=livetime_s,
            reco_edges_gev=selection.reco_edges_gev,
            true_edges_gev=selection.true_edges_gev,
        )
        return found.without_blind_bins()
    path = find(options.response)
    if path.suffix != ".npz":
        return load_response(
            options.response, selection, livetime_s=livetime_s
        ).without_blind_bins()
    changed = options.model_dump(exclude_defaults=True)
    clash = [name for name in _BINNING if name in changed]
    if clash:
        raise OptionError(f"{', '.join(clash)} cannot be set: the bins come from {path}")
    return Response.load(path).with_livetime(livetime_s).without_blind_bins()
