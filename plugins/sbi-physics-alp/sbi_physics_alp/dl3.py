r"""Runs of a Cherenkov telescope (DL3 files), reduced by gammapy to counts and response.

Counts of a disk around the source, background from regions at the same distance from the pointing
(reflected regions), bins whose effective area is below a share of the largest left out, all runs
stacked. The result keeps everything a simulator needs, so gammapy is asked once.

    python -m sbi_physics_alp.dl3 $GAMMAPY_DATA/hess-dl3-dr1 --target 329.71694 -30.22559 \
        --runs 47802-47804,47827-47829 -o steady.npz
    sbi-physics run alp-pks2155 --observation steady.npz
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from sbi_physics_alp.data_files import cache_folder, keep, locate, sha256
from sbi_physics_alp.on_off import OnOffObservation, from_dataset

PKS2155_DEG = (329.71694, -30.22559)
"""Right ascension and declination (ICRS) of PKS 2155-304 in deg."""

_HESS = "hess-dl3-dr1"
_FLARE = tuple(range(33787, 33802))
_STEADY = (47802, 47803, 47804, 47827, 47828, 47829)
PUBLIC_SETS: dict[str, tuple[int, ...]] = {
    "hess-dl3-pks2155-flare": _FLARE,
    "hess-dl3-pks2155-steady": _STEADY,
    "hess-dl3-pks2155-all": (*_FLARE, *_STEADY),
}
"""Runs of the public H.E.S.S. test data on PKS 2155-304: the flare of July 2006, 2008, both."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reduction:
    """How runs are reduced.

    Attributes:
        target_deg: Right ascension and declination (ICRS) of the source in deg.
        radius_deg: Radius of the on region in deg.
        reco_tev: Lowest and highest reconstructed energy in TeV.
        reco_bins: Number of reconstructed-energy bins.
        true_tev: Lowest and highest true energy in TeV.
        true_bins: Number of true-energy bins.
        aeff_percent: Bins whose effective area is below this percentage of the largest are left
            out.
        containment_correction: Whether the effective area is reduced by the share of events that
            the point spread function leaves outside the disk; None: as the files say (yes where
            they are full-enclosure, no where they are point-like).
    """

    target_deg: tuple[float, float] = PKS2155_DEG
    radius_deg: float = 0.11
    reco_tev: tuple[float, float] = (0.1, 20.0)
    reco_bins: int = 24
    true_tev: tuple[float, float] = (0.05, 100.0)
    true_bins: int = 200
    aeff_percent: float = 10.0
    containment_correction: bool | None = None


def reduce_runs(folder: Path, runs: Sequence[int], reduction: Reduction) -> Any:
    """Reduce and stack runs; about one second each.

    Args:
        folder: Folder with the index files of the data (gammapy's data store).
        runs: Observation ids.
        reduction: Region, bins and mask.

    Returns:
        The stacked `SpectrumDatasetOnOff` of gammapy.

    Raises:
        ValueError: If a run is not in the folder.
    """
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from gammapy.data import DataStore
    from gammapy.datasets import Datasets, SpectrumDataset
    from gammapy.makers import (
        ReflectedRegionsBackgroundMaker,
        SafeMaskMaker,
        SpectrumDatasetMaker,
    )
    from gammapy.maps import MapAxis, RegionGeom
    from regions import CircleSkyRegion

    store = DataStore.from_dir(folder)
    known = set(store.obs_table["OBS_ID"].tolist())
    missing = [run for run in runs if run not in known]
    if missing or not runs:
        raise ValueError(f"{folder} has no runs {missing}; it has {sorted(known)}")
    disk = CircleSkyRegion(
        SkyCoord(*reduction.target_deg, unit="deg", frame="icrs"), reduction.radius_deg * u.deg
    )
    axis, true_axis = (
        MapAxis.from_energy_bounds(low * u.TeV, high * u.TeV, nbin=n, name=name)
        for (low, high), n, name in (
            (reduction.reco_tev, reduction.reco_bins, "energy"),
            (reduction.true_tev, reduction.true_bins, "energy_true"),
        )
    )
    empty = SpectrumDataset.create(
        geom=RegionGeom.create(disk, axes=[axis]), energy_axis_true=true_axis
    )
    background = ReflectedRegionsBackgroundMaker()
    mask = SafeMaskMaker(methods=["aeff-max"], aeff_percent=reduction.aeff_percent)
    reduced = Datasets()
    for observation in store.get_observations(list(runs), required_irf=["aeff", "edisp"]):
        maker = SpectrumDatasetMaker(
            selection=["counts", "exposure", "edisp"],
            containment_correction=(
                not observation.aeff.is_pointlike
                if reduction.containment_correction is None
                else reduction.containment_correction
            ),
            use_region_center=True,
        )
        dataset = maker.run(empty.copy(name=str(observation.obs_id)), observation)
        reduced.append(mask.run(background.run(dataset, observation), observation))
    return reduced.stack_reduce(name="stacked")


def observe_runs(
    folder: Path,
    runs: Sequence[int],
    reduction: Reduction | None = None,
    *,
    sub_bins: int = 1,
) -> OnOffObservation:
    """Counts, response and background of runs; reduced at first use and kept afterwards.

    Args:
        folder: Folder with the index files of the data.
        runs: Observation ids.
        reduction: Region, bins and mask; None: the defaults, for PKS 2155-304.
        sub_bins: Parts of each true-energy bin.
    """
    reduction = Reduction() if reduction is None else reduction
    key = {
        "index": [sha256(locate(folder / name)) for name in _INDEX],
        "runs": list(runs),
        "reduction": asdict(reduction),
        "sub_bins": sub_bins,
        "gammapy": metadata.version("gammapy"),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    kept = cache_folder() / f"runs-{digest}.npz"
    if kept.is_file():
        return OnOffObservation.load(kept)
    _log.info("reducing %d runs of %s", len(runs), folder)
    stacked = reduce_runs(folder, runs, reduction)
    about = {"data": folder.name, "runs": list(runs)}
    observation = from_dataset(stacked, sub_bins=sub_bins, metadata=about)
    keep(observation, kept)
    return observation


_INDEX = ("obs-index.fits.gz", "hdu-index.fits.gz")


def public_set(name: str, *, sub_bins: int = 1) -> OnOffObservation:
    """Counts, response and background of one of `PUBLIC_SETS`.

    Raises:
        MissingDataError: If the data are not below $GAMMAPY_DATA.
    """
    return observe_runs(locate(_HESS).parent, PUBLIC_SETS[name], sub_bins=sub_bins)


def run_numbers(text: str) -> list[int]:
    """Numbers of a list such as ``47802-47804,47827``.

    Example:
        >>> run_numbers("1-3,7")
        [1, 2, 3, 7]
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def main(arguments: Sequence[str] | None = None) -> None:
    """Reduce runs and write a file that simulators take as response and as observation."""
    parser = argparse.ArgumentParser(
        prog="python -m sbi_physics_alp.dl3", description=main.__doc__
    )
    default = Reduction()
    parser.add_argument("folder", type=Path, help="folder with obs-index and hdu-index files")
    parser.add_argument("--runs", type=run_numbers, required=True, help="such as 1-3,7")
    parser.add_argument(
        "--target", type=float, nargs=2, metavar=("RA", "DEC"), required=True, help="ICRS, deg"
    )
    parser.add_argument("--radius", type=float, default=default.radius_deg, help="on region, deg")
    for name, what in (("reco", "reconstructed"), ("true", "true")):
        low, high = getattr(default, f"{name}_tev")
        parser.add_argument(
            f"--{name}-tev", type=float, nargs=2, default=(low, high), help=f"{what} energies, TeV"
        )
        parser.add_argument(
            f"--{name}-bins", type=int, default=getattr(default, f"{name}_bins"), help="bins"
        )
    parser.add_argument(
        "--containment",
        choices=("files", "yes", "no"),
        default="files",
        help="correct the effective area for events outside the disk (default: as the files say)",
    )
    parser.add_argument("-o", dest="out", type=Path, required=True, help="npz file to write")
    given = parser.parse_args(arguments)
    reduction = Reduction(
        target_deg=tuple(given.target),
        radius_deg=given.radius,
        reco_tev=tuple(given.reco_tev),
        reco_bins=given.reco_bins,
        true_tev=tuple(given.true_tev),
        true_bins=given.true_bins,
        containment_correction={"files": None, "yes": True, "no": False}[given.containment],
    )
    found = observe_runs(given.folder, given.runs, reduction)
    found.save(given.out)
    on, off = int(np.sum(found.n_on)), int(np.sum(found.n_off))
    parser.exit(0, f"{given.out}: {on} on and {off} off counts in {found.n_on.size} bins\n")


if __name__ == "__main__":
    main()
