"""Options that choose a response with a known background, and the response they mean."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from sbi_physics.errors import ContractError, OptionError, nearest_name
from sbi_physics_alp.alp_simulator import ClusterOptions
from sbi_physics_alp.data_files import PUBLIC_FILES, locate
from sbi_physics_alp.embedded import EMBEDDED, embedded_response
from sbi_physics_alp.gammapy_response import Selection, load_response
from sbi_physics_alp.quantities import Energy, Exposure, Offset, OnRadius, to_value
from sbi_physics_alp.response import Response

RESPONSES = (*EMBEDDED, *(name for name in PUBLIC_FILES if name.startswith("cta-")))
"""Names that the option ``response`` knows, of responses with a known background."""

MADE_WITH = (
    "region",
    "on_radius",
    "offset",
    "true_bins_per_decade",
    "energy_min",
    "energy_max",
    "reco_bins",
)
"""Options that say how a response is computed; files that hold one have them in them."""


def check_response_name(response: str, names: tuple[str, ...]) -> str:
    """Return the value of an option ``response``: a path (it has a dot or slash) or a name.

    Raises:
        ValueError: If it is neither, with the names and the nearest of them.
    """
    if response in names or {"/", "."} & set(response):
        return response
    nearest = nearest_name(response, names)
    guess = f"; did you mean {nearest!r}?" if nearest else ""
    raise ValueError(f"accepted is a path or one of {', '.join(names)}{guess}")


def changed_options(options: ResponseOptions, names: tuple[str, ...]) -> list[str]:
    """Those of ``names`` that are not at their defaults."""
    changed = options.model_dump(exclude_defaults=True)
    return [name for name in names if name in changed]


class ResponseOptions(ClusterOptions):
    """What is known about the cluster, and the instrument."""

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
        description="'on': counts within on_radius of the source; 'map2deg': counts of a whole "
        "map of 2 x 2 deg, with 120 times the background (response files only).",
    )
    on_radius: OnRadius = Field(
        "0.1 deg",
        description="Radius of the on region, 0.01 to 1 deg (response files only). Point-like "
        "files were made for one, their RAD_MAX, which must be given.",
        json_schema_extra={"later": True, "unit": "angle"},
    )
    offset: Offset = Field(
        "0.5 deg",
        description="Angle between the source and the pointing direction, 0 to 10 deg (response "
        "files only, up to what they cover).",
        json_schema_extra={"later": True, "unit": "angle"},
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

    @field_validator("response")
    @classmethod
    def _names_a_response(cls, response: str) -> str:
        return check_response_name(response, RESPONSES)

    @field_validator("region")
    @classmethod
    def _region_fits(cls, region: str, info: ValidationInfo) -> str:
        if info.data.get("response") in EMBEDDED and region != "on":
            raise ValueError("it needs a response file; the embedded responses hold region 'on'")
        return region

    @field_validator("on_radius", "offset")
    @classmethod
    def _disk_is_used(cls, angle: str, info: ValidationInfo) -> str:
        default = cls.model_fields[str(info.field_name)].default
        if angle != default:
            if info.data.get("response") in EMBEDDED:
                raise ValueError(
                    f"the embedded responses hold {default}; it needs a response file"
                )
            if info.data.get("region") == "map2deg":
                raise ValueError("region 'map2deg' is a whole map with the source on axis")
        return angle

    @field_validator("energy_max")
    @classmethod
    def _range_is_ordered(cls, high: str, info: ValidationInfo) -> str:
        low = info.data.get("energy_min", high)
        if to_value(high, "GeV") <= to_value(low, "GeV"):
            raise ValueError(f"energy_max must be above energy_min, {low}")
        return high


def known_response(options: ResponseOptions) -> Response:
    """The response that options describe, without true energies that contribute to no count.

    Raises:
        DataFileError: If a file is missing.
        OptionError: If the file has no such response, or bins are set that it brings.
    """
    livetime_s = to_value(options.exposure, "s")
    selection = Selection(
        region=options.region,
        radius_deg=to_value(options.on_radius, "deg"),
        offset_deg=to_value(options.offset, "deg"),
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
    path = locate(options.response, RESPONSES)
    clash = changed_options(options, MADE_WITH) if path.suffix == ".npz" else []
    if clash:
        raise OptionError(
            f"{', '.join(clash)} cannot be set: {path} holds a response made with its own"
        )
    try:
        if path.suffix == ".npz":
            return Response.load(path).with_livetime(livetime_s).without_blind_bins()
        return load_response(path, selection, livetime_s=livetime_s).without_blind_bins()
    except ContractError as error:
        raise OptionError(f"response={options.response!r}: {error}") from error
