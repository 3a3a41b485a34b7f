"""The simulator `alp-source`: any source behind a cluster, by configuration.

    z:  P(E)     survival through cluster -> background light -> Milky Way, a new field each time
    x:  counts   of a Cherenkov telescope, over a known background or with an off region

Redshift, position, cluster, background light, spectrum and instrument are options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from sbi_physics import DataFile, LogUniform, Parameter, ParameterSpace, Uniform
from sbi_physics.errors import DataFileError, OptionError
from sbi_physics.types import FloatArray
from sbi_physics_alp.alp_simulator import BUDGETS, COUPLING, MASS, AlpSimulator
from sbi_physics_alp.cells import Cells
from sbi_physics_alp.data_files import MissingDataError, found_files
from sbi_physics_alp.ebl import optical_depth
from sbi_physics_alp.field import Cluster
from sbi_physics_alp.instruments import (
    ON_OFF_RESPONSES,
    Counts,
    OnAndOff,
    carried_response,
    measured_response,
)
from sbi_physics_alp.milky_way import galactic_cells
from sbi_physics_alp.quantities import Energy, to_value
from sbi_physics_alp.response_options import (
    MADE_WITH,
    RESPONSES,
    ResponseOptions,
    changed_options,
    check_response_name,
    known_response,
)
from sbi_physics_alp.spectrum import bin_fluxes, cutoff_power_law, log_parabola

Range = tuple[float, float]


def _range(low: float, high: float, what: str, unit: str, limits: Range) -> Range:
    """A prior range as an option; both ends inside ``limits``."""
    field: Range = Field(
        (low, high),
        description=f"Prior of {what}, lowest and highest value, {limits[0]:g} to {limits[1]:g}.",
        json_schema_extra={"unit": unit, "limits": list(limits)},
    )
    return field


class AlpSourceOptions(ResponseOptions):
    """Options of `alp-source`; cluster parameters that are not set are those of Perseus."""

    redshift: float = Field(0.017559, ge=0.0, le=5.0, description="Redshift of the source.")
    position: tuple[float, float] | None = Field(
        None,
        description="Right ascension and declination (ICRS) of the source in deg, for the Milky "
        "Way's field on the way to us (needs gammaALPs, but for NGC 1275); none: no field there.",
        json_schema_extra={"unit": "deg"},
    )
    galactic_field: Literal["jansson12", "jansson12b", "jansson12c", "pshirkov"] = Field(
        "jansson12", description="Model of the Milky Way's regular field."
    )
    ebl: str = Field(
        "dominguez",
        description="Extragalactic background light: 'dominguez', a model of gammapy "
        "('franceschini', 'finke', 'franceschini17', 'saldana-lopez21'), 'ebltable:NAME', or the "
        "path of a file.",
    )
    spectrum: Literal["cutoff-power-law", "log-parabola"] = Field(
        "cutoff-power-law",
        description="Spectrum before absorption: amplitude (E/E0)^-index exp(-E/e_cut), or "
        "amplitude (E/E0)^-(index + curvature ln(E/E0)).",
    )
    reference_energy: Energy = Field(
        "300 GeV",
        description="Energy E0 of the amplitude, 5 GeV to 200 TeV.",
        json_schema_extra={"unit": "energy"},
    )
    background: Literal["known", "off"] = Field(
        "known",
        description="'known': counts of the on region over the response's background; 'off': "
        "counts of an on and an off region, where `response` is an OGIP spectrum, an npz file "
        "written by `python -m sbi_physics_alp.dl3`, or one of "
        f"{', '.join(map(repr, ON_OFF_RESPONSES))}; an --observation that has off counts brings "
        "both.",
    )
    sub_bins: int = Field(
        16, ge=1, le=100, description="Parts of each true-energy bin of an OGIP file, 1 to 100."
    )
    m_range: Range = _range(1.0, 1e3, "m_a, log-uniform", "neV", (1e-4, 1e4))
    g_range: Range = _range(0.1, 10.0, "g, log-uniform", "1e-11 GeV-1", (1e-4, 100.0))
    amplitude_range: Range = _range(
        10**-10.2, 1e-8, "amplitude, log-uniform", "TeV-1 cm-2 s-1", (1e-16, 1e-6)
    )
    index_range: Range = _range(1.0, 4.0, "index, uniform", "", (-2.0, 8.0))
    e_cut_range: Range = _range(100.0, 1e4, "e_cut, log-uniform", "GeV", (1.0, 1e7))
    curvature_range: Range = _range(-0.5, 1.5, "curvature, uniform", "", (-2.0, 5.0))

    @field_validator(
        "m_range", "g_range", "amplitude_range", "index_range", "e_cut_range", "curvature_range"
    )
    @classmethod
    def _prior_range_is_ordered(cls, ends: Range, info: ValidationInfo) -> Range:
        extra = cls.model_fields[str(info.field_name)].json_schema_extra
        assert isinstance(extra, dict)  # _range made the field
        low, high = (float(str(end)) for end in np.ravel(np.asarray(extra["limits"])))
        if not low <= ends[0] < ends[1] <= high:
            raise ValueError(f"accepted are two increasing values from {low:g} to {high:g}")
        return ends

    @model_validator(mode="after")
    def _instrument_fits(self) -> AlpSourceOptions:
        off = self.background == "off"
        try:
            check_response_name(self.response, ON_OFF_RESPONSES if off else RESPONSES)
        except ValueError as error:
            what = "with an off region, which observations with off counts bring" if off else ""
            raise ValueError(
                f"background {self.background!r} needs a response {what or 'without one'}; got "
                f"response={self.response!r}, {error}"
            ) from error
        return self

    @field_validator("response")
    @classmethod
    def _names_a_response(cls, response: str) -> str:
        """Which names are known depends on ``background``, see `_instrument_fits`."""
        return response


class AlpSource(AlpSimulator):
    """Photon-ALP mixing towards a source given by options."""

    name = "alp-source"
    summary = "photon-ALP mixing towards any source behind a cluster: redshift, field, instrument"
    citation = ("arXiv:1406.5972", "arXiv:1007.1459")
    Options = AlpSourceOptions
    observe_only = ("amplitude", "index", "e_cut", "curvature")
    budgets = BUDGETS

    def __init__(self, options: AlpSourceOptions | None = None, **values: object) -> None:
        super().__init__(options, **values)
        chosen: AlpSourceOptions = self.options
        self.observation_model = _instrument(chosen)
        self.cluster_prior = chosen.cluster_prior(Cluster())
        self._reference_gev = to_value(chosen.reference_energy, "GeV")
        energy = self.observation_model.response.true_centres_gev
        self.conversion = chosen.conversion(
            energy,
            self.cluster_prior.cluster,
            redshift=chosen.redshift,
            milky_way=_galaxy(chosen),
            tau=_tau(energy, chosen),
        )
        self._shape = "e_cut" if chosen.spectrum == "cutoff-power-law" else "curvature"
        vars(self)["observe_only"] = ("amplitude", "index", self._shape)
        vars(self)["fiducial"] = self._points()

    @property
    def parameters(self) -> ParameterSpace:
        chosen: AlpSourceOptions = self.options
        energy = chosen.reference_energy
        shape = (
            Parameter(
                "e_cut",
                LogUniform(*chosen.e_cut_range),
                unit="GeV",
                label=r"E_\mathrm{cut}",
                role="nuisance",
                description="Energy of the exponential cutoff.",
                support=(1.0, 1e7),
            )
            if self._shape == "e_cut"
            else Parameter(
                "curvature",
                Uniform(*chosen.curvature_range),
                label="b",
                role="nuisance",
                description="Growth of the spectral index with each unit of ln E.",
                support=(-2.0, 5.0),
            )
        )
        return ParameterSpace(
            [
                replace(MASS, distribution=LogUniform(*chosen.m_range)),
                replace(COUPLING, distribution=LogUniform(*chosen.g_range)),
                Parameter(
                    "amplitude",
                    LogUniform(*chosen.amplitude_range),
                    unit="TeV-1 cm-2 s-1",
                    label=r"\phi_0",
                    role="nuisance",
                    description=f"Flux of the source at {energy} before absorption.",
                    support=(0.0, 1e-6),
                ),
                Parameter(
                    "index",
                    Uniform(*chosen.index_range),
                    label=r"\Gamma",
                    role="nuisance",
                    description="Spectral index, positive for a falling spectrum.",
                    support=(-2.0, 8.0),
                ),
                shape,
                *self.cluster_prior.parameters,
            ]
        )

    def expected_signal(self, survival: FloatArray, theta: FloatArray) -> FloatArray:
        """Expected counts of the source in the on region, shape (n, n_reco).

        Args:
            survival: Survival probability of each true-energy bin, shape (n, n_true).
            theta: Parameter values, shape (n, d), the spectrum in columns 2 to 4.
        """
        model = cutoff_power_law if self._shape == "e_cut" else log_parabola
        flux = model(self.conversion.energy_gev, *theta.T[2:5], reference_gev=self._reference_gev)
        response = self.observation_model.response
        return response.fold(bin_fluxes(flux * survival, response.true_edges_gev))

    @classmethod
    def data_files(cls) -> Sequence[DataFile]:
        return found_files()

    @classmethod
    def observation_options(cls, path: Path) -> Mapping[str, Any]:
        """Counts with an off region are analysed with the response and background they carry."""
        carried = carried_response(path)
        return {} if carried is None else {"response": carried, "background": "off"}

    def _points(self) -> Mapping[str, Mapping[str, float]]:
        """The middle of the prior with and without conversion."""
        space = self.parameters
        spectrum = ("amplitude", "index", self._shape)
        middle = {n: float(space[n].distribution.ppf(0.5)) for n in ("m_a", "g", *spectrum)}
        middle.update(self.cluster_prior.values)
        return {"middle": middle, "no-alp": {**middle, "g": 0.0}}


def _instrument(options: AlpSourceOptions) -> Counts | OnAndOff:
    if options.background == "known":
        return Counts(known_response(options))
    instrument = measured_response(options.response, options.sub_bins)
    unused = changed_options(options, ("exposure", *MADE_WITH))
    if unused:
        raise OptionError(
            f"{', '.join(unused)} cannot be set: {options.response!r} brings its own"
        )
    return OnAndOff(instrument, sub_bins=options.sub_bins)


def _galaxy(options: AlpSourceOptions) -> Cells | None:
    if options.position is None:
        return None
    try:
        return galactic_cells(*options.position, options.galactic_field)
    except ValueError as error:
        raise OptionError(f"position: {error}") from error


def _tau(energy_gev: FloatArray, options: AlpSourceOptions) -> FloatArray:
    try:
        return optical_depth(energy_gev, options.redshift, options.ebl)
    except MissingDataError as error:
        raise DataFileError(str(error)) from error
    except ValueError as error:
        raise OptionError(f"ebl: {error}") from error
