"""The simulator `alp-pks2155`: ALPs around PKS 2155-304, counts of a H.E.S.S.-like array.

    z:  P(E)      survival through a cluster around the source -> background light
    x:  n_on      ~ Poisson(R phi + mu_b),   phi_j = (flux of true-energy bin j) P(E_j)
        n_off     ~ Poisson(mu_b / alpha),   mu_b of each bin drawn from its posterior

Cluster field as commonly assumed for the search of arXiv:1311.3148: 1 muG, Kolmogorov turbulence
on scales of 1 to 10 kpc, constant density, 370 kpc. The Milky Way is left out. That cluster is
fixed here; `alp-source` takes others (settings in the README of the package).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from sbi_physics import (
    DataFile,
    LogUniform,
    Parameter,
    ParameterSpace,
    Uniform,
)
from sbi_physics.errors import OptionError
from sbi_physics.types import FloatArray
from sbi_physics_alp.alp_simulator import BUDGETS, COUPLING, MASS, AlpSimulator, ConversionOptions
from sbi_physics_alp.data_files import found_files
from sbi_physics_alp.field import Cluster
from sbi_physics_alp.instruments import (
    ON_OFF_RESPONSES,
    OnAndOff,
    carried_response,
    measured_response,
)
from sbi_physics_alp.levels import VARIED, ClusterPrior
from sbi_physics_alp.on_off import OnOffResponse, hess_like_response
from sbi_physics_alp.quantities import Exposure, to_value
from sbi_physics_alp.response_options import check_response_name
from sbi_physics_alp.spectrum import bin_fluxes, log_parabola

REDSHIFT = 0.116
REFERENCE_GEV = 500.0
CLUSTER = Cluster(
    b0=1.0,
    n0=1.0,
    n2=0.0,
    beta=0.0,
    eta=0.0,
    r_abell=370.0,
    k_l=2.0 * np.pi / 10.0,
    k_h=2.0 * np.pi,
    q=-11.0 / 3.0,
)
"""The cluster around the source; constant density of 1e-3 cm^-3 and field."""

_STEADY = {"amplitude": 5e-11, "index": 2.6, "curvature": 0.1}


class AlpPks2155Options(ConversionOptions):
    """Options of `alp-pks2155`."""

    response: str = Field(
        "embedded",
        description="Response and background: 'embedded' (parametrised, of the size of H.E.S.S.), "
        "'hess-pks2155-steady' (spectrum below $GAMMAPY_DATA), 'hess-dl3-pks2155-flare', "
        "'-steady' or '-all' (H.E.S.S. runs below $GAMMAPY_DATA, reduced by gammapy), the path "
        "of an OGIP spectrum, or of an npz file that `python -m sbi_physics_alp.dl3` wrote.",
    )
    exposure: Exposure | None = Field(
        None,
        description="Observation time of the embedded response, 1 min to 10000 h; none: 10 h. "
        "Files bring their own.",
        json_schema_extra={"unit": "time"},
    )
    sub_bins: int = Field(
        16,
        ge=1,
        le=100,
        description="Parts that each true-energy bin of a file is divided into, 1 to 100: files "
        "have about 10 bins a decade, too coarse for oscillations.",
    )

    @model_validator(mode="before")
    @classmethod
    def _leaves_the_cluster(cls, values: Any) -> Any:
        named = [n for n in (*VARIED, "level", "free") if isinstance(values, dict) and n in values]
        if named:
            raise ValueError(
                f"the cluster is fixed here, so that {', '.join(named)} cannot be set; use "
                "alp-source, with the settings for this source in the README of sbi-physics-alp "
                "('Other sources')"
            )
        return values

    @field_validator("response")
    @classmethod
    def _names_a_response(cls, response: str) -> str:
        return check_response_name(response, ("embedded", *ON_OFF_RESPONSES))


class AlpPks2155(AlpSimulator):
    """Photon-ALP mixing towards PKS 2155-304, on and off counts."""

    name = "alp-pks2155"
    summary = "photon-ALP mixing towards PKS 2155-304 seen by a H.E.S.S.-like array"
    citation = ("arXiv:1311.3148", "arXiv:1406.5972")
    Options = AlpPks2155Options
    observe_only = ("amplitude", "index", "curvature")
    fiducial: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "no-alp": {"m_a": 30.0, "g": 0.0, **_STEADY},
        "m30-g5": {"m_a": 30.0, "g": 5.0, **_STEADY},
        "m100-g10": {"m_a": 100.0, "g": 10.0, **_STEADY},
    }
    budgets = BUDGETS

    def __init__(self, options: AlpPks2155Options | None = None, **values: object) -> None:
        super().__init__(options, **values)
        self.instrument = _instrument(self.options)
        self.observation_model = OnAndOff(self.instrument, sub_bins=self.options.sub_bins)
        self.cluster_prior = ClusterPrior(CLUSTER)
        self.conversion = self.options.conversion(
            self.instrument.response.true_centres_gev,
            CLUSTER,
            redshift=REDSHIFT,
            milky_way=None,
        )

    @property
    def parameters(self) -> ParameterSpace:
        return ParameterSpace(
            [
                MASS,
                COUPLING,
                Parameter(
                    "amplitude",
                    LogUniform(1e-12, 1e-9),
                    unit="TeV-1 cm-2 s-1",
                    label=r"\phi_0",
                    role="nuisance",
                    description="Flux of the source at 500 GeV before absorption.",
                    support=(0.0, 1e-6),
                ),
                Parameter(
                    "index",
                    Uniform(1.5, 5.0),
                    label=r"\Gamma",
                    role="nuisance",
                    description="Spectral index at 500 GeV, positive for a falling spectrum.",
                    support=(-2.0, 8.0),
                ),
                Parameter(
                    "curvature",
                    Uniform(-0.5, 1.5),
                    label="b",
                    role="nuisance",
                    description="Growth of the spectral index with each unit of ln E.",
                    support=(-2.0, 5.0),
                ),
            ]
        )

    def expected_signal(self, survival: FloatArray, theta: FloatArray) -> FloatArray:
        """Expected counts of the source in the on region, shape (n, n_reco).

        Args:
            survival: Survival probability of each true-energy bin, shape (n, n_true).
            theta: Parameter values, shape (n, 5).
        """
        flux = log_parabola(self.conversion.energy_gev, *theta.T[2:], reference_gev=REFERENCE_GEV)
        response = self.instrument.response
        return response.fold(bin_fluxes(flux * survival, response.true_edges_gev))

    @classmethod
    def data_files(cls) -> Sequence[DataFile]:
        return found_files("hess-")

    @classmethod
    def observation_options(cls, path: Path) -> Mapping[str, Any]:
        """Counts with an off region are analysed with the response and background they carry."""
        carried = carried_response(path)
        return {} if carried is None else {"response": carried}


def _instrument(options: AlpPks2155Options) -> OnOffResponse:
    if options.response == "embedded":
        return hess_like_response(livetime_s=to_value(options.exposure or "10 h", "s"))
    if options.exposure is not None:
        raise OptionError(
            f"exposure={options.exposure!r} cannot be set: {options.response!r} brings its own"
        )
    return measured_response(options.response, options.sub_bins)
