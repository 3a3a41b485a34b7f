"""Options that choose a response with a known background, and the response they mean."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from sbi_physics.errors import OptionError
from sbi_physics_alp.alp_simulator import ClusterOptions
from sbi_physics_alp.data_files import PUBLIC_FILES
from sbi_physics_alp.embedded import EMBEDDED, embedded_response
from sbi_physics_alp.gammapy_response import Selection, load_response
from sbi_physics_alp.observation import find
from sbi_physics_alp.quantities import Energy, Exposure, to_value
from sbi_physics_alp.response import Response

RESPONSES = (*EMBEDDED, *(name for name in PUBLIC_FILES if name.startswith("cta-")))
"""Names that the option ``response`` knows."""

_BINNING = ("region", "true_bins_per_decade", "energy_min", "energy_max", "reco_bins")


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


def known_response(options: ResponseOptions) -> Response:
    """The response that options describe, without true energies that contribute to no count.

    Raises:
        DataFileError: If a file is missing.
        OptionError: If bins are set that the file brings.
    """
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
