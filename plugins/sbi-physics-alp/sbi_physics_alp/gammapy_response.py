"""Responses computed by gammapy from instrument response files, once, and kept.

gammapy is needed only where no kept response fits, and never inside a simulation. The matrix is
R[i, j] = exposure_j K[j, i] with gammapy's exposure and energy migration K of a
`SpectrumDataset`, so that R phi + b is what gammapy predicts.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sbi_physics.errors import ContractError
from sbi_physics_alp.data_files import NOT_FITS, cache_folder, keep, locate, sha256
from sbi_physics_alp.response import Response, reco_energy_edges, true_energy_edges

Array = np.ndarray[Any, np.dtype[np.float64]]
Region = Literal["on", "map2deg"]

_SOURCE_DEG = (49.95042, 41.51167)
"""Where the source is put (ICRS): counts depend on its offset from the pointing alone."""

_NEEDED = {
    "aeff": "effective area",
    "edisp": "energy dispersion",
    "bkg": "background",
    "psf": "point spread function",
}
_CUT_TOLERANCE = 1e-3  # relative; files hold angles in single precision
_REFERENCE_LIVETIME_S = 180000.0  # of kept responses; R and b are proportional to it


@dataclass(frozen=True, slots=True)
class Selection:
    """What is observed, and how finely.

    Attributes:
        region: ``on``: counts in a disk around the source. ``map2deg``: counts of a whole map of
            2 x 2 deg with the source on axis, as in the public code of arXiv:2509.20578, which
            has 120 times the background.
        radius_deg: Radius of the disk in deg, for ``on``. Of full-enclosure files the effective
            area is reduced by the share of events that the point spread function leaves outside;
            point-like files have been made for one radius, which this must be.
        offset_deg: Angle between the source and the pointing direction in deg, for ``on``.
        true_bins_per_decade: Bins of true energy a decade, 5 GeV - 200 TeV.
        reco_low_gev: Lowest reconstructed energy in GeV.
        reco_high_gev: Highest reconstructed energy in GeV.
        reco_bins: Number of reconstructed-energy bins.
    """

    region: Region = "on"
    radius_deg: float = 0.1
    offset_deg: float = 0.5
    true_bins_per_decade: int = 100
    reco_low_gev: float = 10.0
    reco_high_gev: float = 1e5
    reco_bins: int = 200

    @property
    def true_edges_gev(self) -> Array:
        """Edges of the true-energy bins in GeV."""
        return true_energy_edges(bins_per_decade=self.true_bins_per_decade)

    @property
    def reco_edges_gev(self) -> Array:
        """Edges of the reconstructed-energy bins in GeV."""
        return reco_energy_edges(self.reco_low_gev, self.reco_high_gev, self.reco_bins)


def load_response(
    name_or_path: str | Path, selection: Selection | None = None, *, livetime_s: float = 180000.0
) -> Response:
    """Response of an instrument response file, computed at first use and kept afterwards.

    Args:
        name_or_path: A name of `data_files.PUBLIC_FILES` or a path of a FITS file.
        selection: Region and energy bins; None: the defaults.
        livetime_s: Observation time in s.

    Raises:
        ContractError: If the file has no such response, see `read_irfs`.
        MissingDataError: If there is no such file.
    """
    selection = Selection() if selection is None else selection
    path = locate(name_or_path)
    key = {
        "sha256": sha256(path),
        "selection": asdict(selection),
        "gammapy": metadata.version("gammapy"),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    kept = cache_folder() / f"response-{digest}.npz"
    if kept.is_file():
        return Response.load(kept).with_livetime(livetime_s)
    response = build_response(path, selection, livetime_s=_REFERENCE_LIVETIME_S)
    response.metadata.update(key, file=path.name)
    keep(response, kept)
    return response.with_livetime(livetime_s)


def build_response(path: Path, selection: Selection, *, livetime_s: float) -> Response:
    """Compute a response with gammapy.

    Args:
        path: Full-enclosure or point-like instrument response file (FITS).
        selection: Region and energy bins.
        livetime_s: Observation time in s.

    Raises:
        ContractError: If the file has no such response, see `read_irfs`.
    """
    dataset, observation = spectrum_dataset(path, selection, livetime_s=livetime_s)
    axis = dataset.counts.geom.axes["energy"]
    exposure = dataset.exposure.quantity.to_value("cm2 s").reshape(-1)
    migration = dataset.edisp.get_edisp_kernel(energy_axis=axis).pdf_matrix
    background = dataset.background.data.reshape(-1)
    if selection.region == "map2deg":
        background = _map_background(observation, axis)
    return Response(
        matrix=(exposure[:, None] * migration).T,
        background=background,
        reco_edges_gev=selection.reco_edges_gev,
        true_edges_gev=selection.true_edges_gev,
        livetime_s=livetime_s,
    )


def spectrum_dataset(path: Path, selection: Selection, *, livetime_s: float) -> tuple[Any, Any]:
    """Return gammapy's `SpectrumDataset` of the disk around the source, and the observation."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from gammapy.data import FixedPointingInfo, Observation
    from gammapy.datasets import SpectrumDataset
    from gammapy.makers import SpectrumDatasetMaker
    from gammapy.maps import MapAxis, RegionGeom
    from regions import CircleSkyRegion

    source = SkyCoord(*_SOURCE_DEG, unit="deg", frame="icrs")
    on = selection.region == "on"
    offset = (selection.offset_deg if on else 0.0) * u.deg
    pointing = FixedPointingInfo(fixed_icrs=source.directional_offset_by(0.0 * u.deg, offset))
    irfs = read_irfs(path, selection)
    observation = Observation.create(pointing=pointing, livetime=livetime_s * u.s, irfs=irfs)
    axis = MapAxis.from_energy_edges(selection.reco_edges_gev * u.GeV, name="energy")
    true_axis = MapAxis.from_energy_edges(selection.true_edges_gev * u.GeV, name="energy_true")
    disk = CircleSkyRegion(source, selection.radius_deg * u.deg)
    maker = SpectrumDatasetMaker(
        selection=["exposure", "edisp", "background"],
        # Losses outside the disk are in point-like files already; a whole map has none.
        containment_correction=on and not irfs["aeff"].is_pointlike,
        use_region_center=True,
    )
    empty = SpectrumDataset.create(
        geom=RegionGeom.create(disk, axes=[axis]), energy_axis_true=true_axis
    )
    return maker.run(empty, observation), observation


def read_irfs(path: Path, selection: Selection) -> dict[str, Any]:
    """Instrument response functions of a file, checked to be those that a selection needs.

    Raises:
        ContractError: If it is no FITS file, lacks one of them, was made for another disk, or the
            source is outside the field that it covers.
    """
    from gammapy.irf import load_irf_dict_from_file

    try:
        irfs: dict[str, Any] = load_irf_dict_from_file(path)
    except NOT_FITS as error:
        raise ContractError(f"{path} is no FITS file: {error}") from error
    except (KeyError, ValueError) as error:  # point-like, without area or cut
        raise ContractError(f"gammapy cannot read the responses of {path}: {error}") from error
    whole = "aeff" in irfs and not irfs["aeff"].is_pointlike and selection.region == "on"
    missing = [k for k in _NEEDED if k not in irfs and (k != "psf" or whole)]
    if missing:
        raise ContractError(
            f"{path} has no {' and no '.join(f'{_NEEDED[k]} ({k})' for k in missing)}; accepted "
            f"is a FITS file of instrument response functions (gamma-astro-data-formats)"
        )
    if irfs["aeff"].is_pointlike:
        if selection.region != "on":
            raise ContractError(
                f"{path} is point-like: its effective area counts events near the source only, "
                f"and has no counts of a whole map; use region 'on'"
            )
        check_cut(irfs["rad_max"], selection.radius_deg, path)
    offset = selection.offset_deg if selection.region == "on" else 0.0
    check_offset(irfs["aeff"], offset, path)
    return irfs


def check_cut(rad_max: Any, radius_deg: float, path: Path | str) -> None:
    """Check that the disk is the one that point-like responses were made for.

    Their effective area counts events within a cut. Background is counted in the disk, so that
    another one would compare a signal and a background of two regions.

    Args:
        rad_max: The cut, as gammapy has it.
        radius_deg: Radius of the disk in deg.
        path: Where the responses come from, for the error.

    Raises:
        ContractError: If the cut depends on energy or is another one.
    """
    cuts = rad_max.quantity.to_value("deg")
    low, high = float(cuts.min()), float(cuts.max())
    if high - low > _CUT_TOLERANCE * high:
        raise ContractError(
            f"{path} is point-like with a cut (RAD_MAX) that depends on energy, from {low:g} to "
            f"{high:g} deg; accepted are full-enclosure files and one cut for all energies"
        )
    if abs(high - radius_deg) > _CUT_TOLERANCE * high:
        raise ContractError(
            f"{path} is point-like, made for an on region (RAD_MAX) of {high:g} deg; the on "
            f"region has {radius_deg:g} deg and must have the same"
        )


def check_offset(aeff: Any, offset_deg: float, path: Path | str) -> None:
    """Check that the source is in the field that an effective area covers.

    Raises:
        ContractError: If it is outside.
    """
    largest = float(aeff.axes["offset"].bounds[1].to_value("deg"))
    if offset_deg > largest:
        raise ContractError(
            f"the source is {offset_deg:.4g} deg from the pointing direction; {path} covers "
            f"offsets up to {largest:g} deg"
        )


def _map_background(observation: Any, axis: Any) -> Array:
    """Background counts of a map of 2 x 2 deg, pixels of 0.02 deg, shape (n_reco,)."""
    from gammapy.datasets import MapDataset
    from gammapy.makers import MapDatasetMaker
    from gammapy.maps import WcsGeom

    centre = observation.pointing.fixed_icrs
    geometry = WcsGeom.create(skydir=centre, width=2.0, binsz=0.02, frame="icrs", axes=[axis])
    dataset = MapDatasetMaker(selection=["background"]).run(
        MapDataset.create(geometry), observation
    )
    return np.asarray(dataset.background.data.sum(axis=(1, 2)))
