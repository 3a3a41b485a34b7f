"""The options of `beamdump-alp`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic.config import JsonDict

from sbi_physics import SimulatorOptions
from sbi_physics.errors import ContractError
from sbi_physics_beamdump.geometry import Geometry, changed_geometry
from sbi_physics_beamdump.quantities import Angle, Energy, Fraction, Length
from sbi_physics_beamdump.smearing import AngleSmearing

_METRES: JsonDict = {"unit": "m"}
_CHANGES = ("z_min", "z_max", "z_cal", "x_min", "x_max", "y_min", "y_max", "e_min")


def _edge(text: str) -> Any:
    return Field(
        None, description=f"{text}; unset: as the geometry has it.", json_schema_extra=_METRES
    )


class BeamdumpOptions(SimulatorOptions):
    """Options of `beamdump-alp`: production, detector, resolution and number of events."""

    geometry: Literal["on-axis", "off-axis", "ship-like"] = Field(
        "on-axis",
        description="Decay volume and calorimeter: 'on-axis' and 'off-axis' of arXiv:2308.01353, "
        "'ship-like' of arXiv:2407.20329. The next options change it.",
    )
    z_min: Length | None = _edge("Begin of the decay volume along the beam")
    z_max: Length | None = _edge("End of the decay volume along the beam")
    z_cal: Length | None = _edge("Plane of the calorimeter, not before z_max")
    x_min: Length | None = _edge("Low edge of the calorimeter (and of a box-shaped volume) in x")
    x_max: Length | None = _edge("High edge of the calorimeter (and of a box-shaped volume) in x")
    y_min: Length | None = _edge("Low edge of calorimeter and volume in y")
    y_max: Length | None = _edge("High edge of calorimeter and volume in y")
    e_min: Energy = Field(
        1.0,
        ge=0.01,
        le=100.0,
        description="Least energy of each photon.",
        json_schema_extra={"unit": "GeV"},
    )
    separation_min: Length = Field(
        0.1, ge=0, le=10.0, description="Least distance of the hits.", json_schema_extra=_METRES
    )
    production: str = Field(
        "parametric",
        description="B mesons: 'parametric' (fitted to Pythia 8.3, 400 GeV protons), or the path "
        "of a table with columns pdg, px, py, pz (csv with a header, or npz; GeV).",
    )
    sigma_e: Fraction = Field(
        0.01, ge=0, le=1.0, description="Relative energy resolution sigma_E / E."
    )
    sigma_hit: Length = Field(
        0.001,
        ge=0,
        le=1.0,
        description="Resolution of a hit in x and in y.",
        json_schema_extra=_METRES,
    )
    sigma_angle: Angle = Field(
        0.001,
        ge=0,
        le=0.5,
        description="Angular resolution of a photon, such as 1mrad.",
        json_schema_extra={"unit": "rad"},
    )
    angle_smearing: AngleSmearing = Field(
        "azimuth",
        description="'azimuth': sigma_angle in the polar angle and in the azimuth, as published; "
        "close to the beam it keeps azimuths better than a calorimeter can. 'tangent': in the "
        "slopes p_x/p_z and p_y/p_z, which is what a calorimeter measures.",
    )
    detector: Literal["fixed", "amortized"] = Field(
        "fixed",
        description="'amortized': sigma_e and sigma_angle are drawn for each set (log-uniformly, "
        "0.005 to 0.2 and 0.5 to 20 mrad) and stand in the data, so that one network answers for "
        "every detector; the options sigma_e and sigma_angle are not used.",
    )
    events: int = Field(3, ge=1, le=64, description="Events of a set; the largest number.")
    min_events: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Least number of events of a set: each number up to `events` is then equally "
        "likely. Unset: always `events`.",
    )
    derived: bool = Field(
        False,
        description="Add to the ten published features of an event what follows from them: three "
        "mass estimates, two of the vertex and the ALP's slopes.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        try:
            self.detector_geometry()
        except ContractError as error:
            raise ValueError(str(error)) from error
        if self.min_events is not None and self.min_events > self.events:
            raise ValueError(f"min_events = {self.min_events} is above events = {self.events}")
        return self

    def detector_geometry(self) -> Geometry:
        """The geometry with all changes."""
        changes = {k: getattr(self, k) for k in _CHANGES if getattr(self, k) is not None}
        return changed_geometry(self.geometry, {**changes, "separation_min": self.separation_min})
