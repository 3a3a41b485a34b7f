"""The simulator `alp-pks2155`: ALPs around PKS 2155-304, counts of a H.E.S.S.-like array.

    z:  P(E)      survival through a cluster around the source -> background light
    x:  n_on      ~ Poisson(R phi + mu_b),   phi_j = (flux of true-energy bin j) P(E_j)
        n_off     ~ Poisson(mu_b / alpha),   mu_b of each bin drawn from its posterior

Cluster field as commonly assumed for the search of arXiv:1311.3148: 1 muG, Kolmogorov turbulence
on scales of 1 to 10 kpc, constant density, 370 kpc. The Milky Way is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from sbi_physics import (
    DataFile,
    LogUniform,
    Observable,
    Parameter,
    ParameterSpace,
    Uniform,
)
from sbi_physics.errors import DataFileError, ObservationError, OptionError
from sbi_physics.types import DataArray, FloatArray, Latents
from sbi_physics_alp.alp_simulator import BUDGETS, COUPLING, MASS, AlpSimulator, ConversionOptions
from sbi_physics_alp.conversion import Conversion
from sbi_physics_alp.data_files import MissingDataError, found_files, public_name
from sbi_physics_alp.dl3 import PUBLIC_SETS, public_set
from sbi_physics_alp.field import Cluster
from sbi_physics_alp.levels import ClusterPrior
from sbi_physics_alp.observation import check_edges, find, read_arrays
from sbi_physics_alp.on_off import (
    OnOffObservation,
    OnOffResponse,
    hess_like_response,
    is_on_off_file,
    read_ogip,
)
from sbi_physics_alp.quantities import Exposure, to_value
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

_DL3_SUB_BINS = 2  # of 60 bins of true energy a decade
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
        self.cluster_prior = ClusterPrior(CLUSTER)
        self.conversion = Conversion(
            self.instrument.response.true_centres_gev,
            CLUSTER,
            redshift=REDSHIFT,
            milky_way=None,
            cell_mode=self.options.cell_mode,
            high_mass_cut=self.options.high_mass_cut,
            realisation=self.options.realisation,
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

    @property
    def observable(self) -> Observable:
        response = self.instrument.response
        return Observable(
            "spectrum",
            (2, *response.background.shape),
            unit="ct",
            edges=tuple(response.reco_edges_gev.tolist()),
            edge_unit="GeV",
            transform=("anscombe", "whiten"),
            label="counts",
            edge_label="reconstructed energy",
            names=("on", "off"),
        )

    def _observe(self, z: Latents, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        signal = self.expected_signal(np.asarray(z["survival"], dtype=np.float64), theta)
        background = self.instrument.draw_background(len(theta), rng)
        n_on = rng.poisson(signal + background)
        n_off = rng.poisson(background / self.instrument.alpha)
        return np.stack([n_on, n_off], axis=1).astype(np.float64)

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
        """An OGIP spectrum is analysed with the response and background it carries."""
        if path.suffix == ".npz" and not is_on_off_file(path):
            return {}
        return {"response": public_name(path) or str(path.resolve())}

    def read_observation(self, path: Path) -> DataArray:
        """Counts (on, off) from an npz file or an OGIP spectrum, shape (2, n_reco).

        An npz file has the arrays ``n_on``, ``n_off`` and, to be checked, ``edges_gev``. An OGIP
        spectrum carries its own response, which must be the one that this simulator was made with.
        """
        file = Path(path) if str(path) in PUBLIC_SETS else find(path)
        edges = self.instrument.response.reco_edges_gev
        if file.suffix == ".npz" and not is_on_off_file(file):
            n_on, n_off, file_edges = read_arrays(file, ("n_on", "n_off", "edges_gev"))
            if file_edges is not None:
                check_edges(file, file_edges, edges)
            if n_on is None or n_off is None or n_on.shape != n_off.shape:
                raise ObservationError(f"{file} needs arrays n_on and n_off of one shape")
            return self._stacked(n_on, n_off, file)
        measured = _measured(path, self.options.sub_bins)
        if not measured.instrument.agrees_with(self.instrument):
            raise ObservationError(
                f"{file} was taken with another response, exposure or background than this "
                f"simulator has; make it with response={str(path)!r}"
            )
        return self._stacked(measured.n_on, measured.n_off, file)

    def _stacked(self, n_on: FloatArray, n_off: FloatArray, file: Path) -> DataArray:
        x: DataArray = self.observable.check(np.stack([n_on, n_off]), str(file))[0]
        return x


def _instrument(options: AlpPks2155Options) -> OnOffResponse:
    if options.response == "embedded":
        return hess_like_response(livetime_s=to_value(options.exposure or "10 h", "s"))
    if options.exposure is not None:
        raise OptionError(
            f"exposure={options.exposure!r} cannot be set: {options.response!r} brings its own"
        )
    return _measured(options.response, options.sub_bins).instrument


def _measured(name_or_path: str | Path, sub_bins: int) -> OnOffObservation:
    """An observation with its response, from runs, from a file of ours or from an OGIP file."""
    if str(name_or_path) in PUBLIC_SETS:
        try:
            return public_set(str(name_or_path), sub_bins=_DL3_SUB_BINS)
        except MissingDataError as error:
            raise DataFileError(str(error)) from error
    file = find(name_or_path)
    if file.suffix == ".npz":
        return OnOffObservation.load(file)
    return read_ogip(file, sub_bins=sub_bins)
