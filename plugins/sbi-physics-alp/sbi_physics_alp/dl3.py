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
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from sbi_physics.errors import ContractError, DataFileError, OptionError, SbiPhysicsError
from sbi_physics_alp.data_files import cache_folder, keep, locate, sha256
from sbi_physics_alp.gammapy_response import check_cut, check_offset
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
        ContractError: If the source is outside the field of a run, no region for the background
            fits there, or point-like files were made for another region.
        DataFileError: If the folder has no index files.
        OptionError: If a run is not in the folder.
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

    index_files(folder)
    store = DataStore.from_dir(folder)
    known = set(store.obs_table["OBS_ID"].tolist())
    missing = sorted(set(runs) - known)
    if missing or not runs:
        raise OptionError(
            f"{folder} has no runs {run_list(missing)}; it has {run_list(known)}"
            if runs
            else f"no runs are given; {folder} has {run_list(known)}"
        )
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
    observations = store.get_observations(list(runs), required_irf=["aeff", "edisp"])
    for observation in observations:
        _check_field(observation, reduction, disk.center)
    for observation in observations:
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
        with_off = background.run(dataset, observation)
        if with_off.counts_off is None:
            raise ContractError(
                f"no region for the background fits into run {observation.obs_id}: as far from "
                f"the pointing direction as the source there is no room for another disk of "
                f"{reduction.radius_deg:g} deg"
            )
        reduced.append(mask.run(with_off, observation))
    return reduced.stack_reduce(name="stacked")


def _check_field(observation: Any, reduction: Reduction, source: Any) -> None:
    """Check that a run covers the source, and with responses made for the region."""
    where = f"run {observation.obs_id}"
    separation = observation.get_pointing_icrs(observation.tmid).separation(source)
    check_offset(observation.aeff, float(separation.deg), where)
    if not observation.aeff.is_pointlike:
        return
    check_cut(observation.rad_max, reduction.radius_deg, where)
    if reduction.containment_correction:
        raise ContractError(
            f"the responses of {where} are point-like: losses outside the disk are in them "
            f"already, and cannot be corrected for again"
        )


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
        "index": [sha256(path) for path in index_files(folder)],
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


def index_files(folder: Path) -> list[Path]:
    """Paths of the files that list the runs of a folder.

    Raises:
        DataFileError: If one is missing.
    """
    paths = [folder / name for name in _INDEX]
    for path in paths:
        if not path.is_file():
            raise DataFileError(
                f"there is no {path}; accepted is a folder of runs with {' and '.join(_INDEX)}"
            )
    return paths


def public_set(name: str, *, sub_bins: int = 1) -> OnOffObservation:
    """Counts, response and background of one of `PUBLIC_SETS`.

    Raises:
        MissingDataError: If the data are not below $GAMMAPY_DATA.
    """
    return observe_runs(locate(_HESS).parent, PUBLIC_SETS[name], sub_bins=sub_bins)


def run_numbers(text: str) -> list[int]:
    """Numbers of a list such as ``47802-47804,47827``.

    Raises:
        OptionError: If it is no such list.

    Example:
        >>> run_numbers("1-3,7")
        [1, 2, 3, 7]
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not (
            first.isdecimal() and (last or first).isdecimal() and int(last or first) >= int(first)
        ):
            raise OptionError(
                f"runs {text!r}: {part!r} is no number or increasing range; accepted is a list "
                f"such as 47802-47804,47827"
            )
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def run_list(numbers: Iterable[int]) -> str:
    """Numbers as a list with ranges, what `run_numbers` reads.

    Example:
        >>> run_list([7, 1, 2, 3])
        '1-3,7'
    """
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reduce runs and write a file that simulators take as response and as observation."""
    parser = argparse.ArgumentParser(
        prog="python -m sbi_physics_alp.dl3", description=main.__doc__
    )
    default = Reduction()
    parser.add_argument("folder", type=Path, help="folder with obs-index and hdu-index files")
    parser.add_argument("--runs", required=True, help="such as 1-3,7")
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
    try:
        found = _reduce_and_save(given)
    except SbiPhysicsError as error:
        parser.error(str(error))
    on, off = int(np.sum(found.n_on)), int(np.sum(found.n_off))
    parser.exit(0, f"{given.out}: {on} on and {off} off counts in {found.n_on.size} bins\n")


def _reduce_and_save(given: argparse.Namespace) -> OnOffObservation:
    """What the arguments of the command ask for, all of them checked before the work."""
    runs = run_numbers(given.runs)
    if not given.out.resolve().parent.is_dir():
        raise OptionError(f"-o {given.out}: there is no folder {given.out.resolve().parent}")
    if given.out.suffix != ".npz":
        raise OptionError(f"-o {given.out}: accepted is the name of an npz file, ending in .npz")
    right_ascension, declination = given.target
    if not (0.0 <= right_ascension <= 360.0 and -90.0 <= declination <= 90.0):
        raise OptionError(
            f"--target {right_ascension:g} {declination:g} is no direction; accepted is a right "
            f"ascension of 0 to 360 deg and a declination of -90 to 90 deg"
        )
    for name in ("reco", "true"):
        low, high = getattr(given, f"{name}_tev")
        if not 0.0 < low < high:
            raise OptionError(
                f"--{name}-tev {low:g} {high:g}: accepted are two increasing positive energies"
            )
        if getattr(given, f"{name}_bins") < 1:
            raise OptionError(f"--{name}-bins {getattr(given, f'{name}_bins')}: at least 1")
    if not 0.0 < given.radius < 90.0:
        raise OptionError(f"--radius {given.radius:g}: accepted is more than 0 deg")
    reduction = Reduction(
        target_deg=(right_ascension, declination),
        radius_deg=given.radius,
        reco_tev=tuple(given.reco_tev),
        reco_bins=given.reco_bins,
        true_tev=tuple(given.true_tev),
        true_bins=given.true_bins,
        containment_correction={"files": None, "yes": True, "no": False}[given.containment],
    )
    found = observe_runs(given.folder, runs, reduction)
    found.save(given.out)
    return found


if __name__ == "__main__":
    main()
