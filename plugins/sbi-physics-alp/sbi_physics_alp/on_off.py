"""Counts of an on region and an off region, with the response that belongs to them.

    n_on ~ Poisson(R phi + mu_b),    n_off ~ Poisson(mu_b / alpha)

The background mu_b of a bin is not known; given off counts c, it is drawn from its posterior under
the Jeffreys prior, mu_b = alpha Gamma(c + 1/2).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from sbi_physics.errors import ContractError
from sbi_physics_alp.data_files import NOT_READ, load_arrays
from sbi_physics_alp.ogip import inspect_spectrum
from sbi_physics_alp.response import Response

Array = np.ndarray[Any, np.dtype[np.float64]]

FORMAT = 1
"""Version of the layout of on-off files."""


@dataclass(frozen=True)
class OnOffResponse:
    """Response and background measurement of an on-off observation.

    Attributes:
        response: Maps fluxes to counts of the on region; its background is alpha times the off
            counts.
        alpha: Ratio of on to off acceptance, shape (n_reco,).
        off_counts: Off counts that the background of simulations is drawn from, shape (n_reco,).
    """

    response: Response
    alpha: Array
    off_counts: Array

    def __post_init__(self) -> None:
        n = self.response.background.shape
        if self.alpha.shape != n or self.off_counts.shape != n:
            raise ValueError(
                f"alpha {self.alpha.shape} and off_counts {self.off_counts.shape} must have the "
                f"shape {n} of the reconstructed-energy bins"
            )
        if not ((self.alpha > 0).all() and (self.off_counts >= 0).all()):
            raise ValueError("alpha must be positive and off_counts must not be negative")

    def draw_background(self, n: int, rng: np.random.Generator) -> Array:
        """Expected background counts of the on region, shape (n, n_reco)."""
        shape = (n, self.off_counts.size)
        return np.asarray(self.alpha * rng.standard_gamma(self.off_counts + 0.5, size=shape))

    def agrees_with(self, other: OnOffResponse) -> bool:
        """Whether both describe the same instrument and background measurement."""
        mine, its = self.response, other.response
        pairs = (
            (mine.matrix, its.matrix),
            (mine.reco_edges_gev, its.reco_edges_gev),
            (self.alpha, other.alpha),
            (self.off_counts, other.off_counts),
        )
        return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-9) for a, b in pairs)


@dataclass(frozen=True)
class OnOffObservation:
    """Measured counts with their response.

    Attributes:
        n_on: Counts of the on region, shape (n_reco,).
        n_off: Counts of the off region, shape (n_reco,).
        instrument: Response and background.
    """

    n_on: Array
    n_off: Array
    instrument: OnOffResponse

    def save(self, path: str | Path) -> Path:
        """Write an npz file without pickles: counts, response and background."""
        path = Path(path)
        response, instrument = self.instrument.response, self.instrument
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                on_off_format=np.array(FORMAT),
                n_on=self.n_on,
                n_off=self.n_off,
                edges_gev=response.reco_edges_gev,
                alpha=instrument.alpha,
                off_counts=instrument.off_counts,
                matrix=response.matrix,
                true_edges_gev=response.true_edges_gev,
                livetime_s=np.array(response.livetime_s),
                metadata=np.array(json.dumps(response.metadata)),
            )
        return path

    @classmethod
    def load(cls, path: str | Path) -> OnOffObservation:
        """Read a file written by `save`.

        Raises:
            ContractError: If it is another file.
        """
        data = load_arrays(Path(path))
        if "on_off_format" not in data or data["on_off_format"] != FORMAT:
            raise ContractError(
                f"{path} is not an on-off observation of format {FORMAT}, which `python -m "
                f"sbi_physics_alp.dl3` writes; it has the arrays {sorted(data)}"
            )
        response = Response(
            data["matrix"],
            data["alpha"] * data["off_counts"],
            data["edges_gev"],
            data["true_edges_gev"],
            float(data["livetime_s"]),
            json.loads(str(data["metadata"])),
        )
        instrument = OnOffResponse(response, data["alpha"], data["off_counts"])
        return cls(data["n_on"], data["n_off"], instrument)


def is_on_off_file(path: Path) -> bool:
    """Whether an npz file was written by `OnOffObservation.save`."""
    try:
        return "on_off_format" in load_arrays(path)
    except ContractError:
        return False


def read_ogip(path: Path, *, sub_bins: int = 16) -> OnOffObservation:
    """Read an OGIP spectrum (PHA file with its BKG, ARF and RMF files) with gammapy.

    Bins at both ends that the file's quality mask leaves out are dropped. ALP spectra oscillate
    within the file's bins of true energy, so each is divided; all parts keep the area and
    migration of the whole.

    Args:
        path: The PHA file.
        sub_bins: Parts of each true-energy bin.

    Raises:
        ContractError: If it is no such file, does not name the others, or its mask has gaps.
        DataFileError: If a file that it names is missing.
    """
    from gammapy.datasets import SpectrumDatasetOnOff

    path = Path(path)
    inspect_spectrum(path).check_on_off()
    try:
        dataset = SpectrumDatasetOnOff.read(path, name=path.name)
    except NOT_READ as error:
        raise ContractError(f"gammapy cannot read {path} or a file it names: {error}") from error
    return from_dataset(dataset, sub_bins=sub_bins, metadata={"file": path.name})


def from_dataset(
    dataset: Any, *, sub_bins: int = 1, metadata: dict[str, Any] | None = None
) -> OnOffObservation:
    """Take counts and response out of a `SpectrumDatasetOnOff` of gammapy.

    Args:
        dataset: The dataset; bins at both ends outside its quality mask are dropped.
        sub_bins: Parts of each true-energy bin, which keep the area and migration of the whole.
        metadata: Where the numbers come from; values that JSON can hold.

    Raises:
        ContractError: If the bins that may be used are not one range, or have no off region.
    """
    axis = dataset.counts.geom.axes["energy"]
    used = _used_range(
        dataset.mask_safe.data.reshape(-1), axis.edges.to_value("GeV"), dataset.name
    )
    exposure = dataset.exposure.quantity.to_value("cm2 s").reshape(-1)
    migration = dataset.edisp.get_edisp_kernel(energy_axis=axis).pdf_matrix[:, used]
    true_edges = dataset.exposure.geom.axes["energy_true"].edges.to_value("GeV")
    n_on, n_off, alpha = (
        np.asarray(a.data.reshape(-1)[used], dtype=np.float64)
        for a in (dataset.counts, dataset.counts_off, dataset.alpha)
    )
    if not (np.isfinite(alpha) & (alpha > 0)).all():
        raise ContractError(
            f"{dataset.name} has no off region in bins {np.flatnonzero(~(alpha > 0)).tolist()}: "
            f"the acceptance (BACKSCAL) of the on and of the off region must be positive"
        )
    response = Response(
        matrix=np.repeat((exposure[:, None] * migration).T, sub_bins, axis=1),
        background=alpha * n_off,
        reco_edges_gev=axis.edges.to_value("GeV")[used.start : used.stop + 1],
        true_edges_gev=divide_bins(true_edges, sub_bins),
        livetime_s=float(dataset.exposure.meta["livetime"].to_value("s")),
        metadata={**(metadata or {}), "sub_bins": sub_bins},
    )
    return OnOffObservation(n_on, n_off, OnOffResponse(response, alpha, n_off))


def _used_range(safe: np.ndarray[Any, np.dtype[np.bool_]], edges_gev: Array, name: str) -> slice:
    """The one range of bins that may be used.

    A masked bin in between would leave a hole in the energy axis, which neither responses nor
    observables have.
    """
    inside = np.flatnonzero(safe)
    if inside.size == 0:
        raise ContractError(f"{name} has no bin that may be used: QUALITY masks all {safe.size}")
    used = slice(int(inside[0]), int(inside[-1]) + 1)
    gaps = np.flatnonzero(~safe[used]) + used.start
    if gaps.size:
        listed = ", ".join(f"{i} ({edges_gev[i]:g} - {edges_gev[i + 1]:g} GeV)" for i in gaps)
        raise ContractError(
            f"{name} has masked bins (QUALITY) between bins that may be used: {listed}, counted "
            f"from 0. Accepted is one range of bins, masked at its ends only; mask all bins below "
            f"or above as well, or join the masked ones with their neighbours"
        )
    return used


def divide_bins(edges: Array, parts: int) -> Array:
    """Edges of bins each divided into ``parts`` of equal logarithmic width."""
    if parts < 1:
        raise ValueError(f"a bin is divided into at least 1 part; got {parts}")
    log_edges = np.log(np.asarray(edges, dtype=np.float64))
    position = np.arange((log_edges.size - 1) * parts + 1) / parts
    divided = np.exp(np.interp(position, np.arange(log_edges.size), log_edges))
    divided[::parts] = edges  # exactly
    return np.asarray(divided)


def hess_like_response(
    *, livetime_s: float = 36000.0, true_bins_per_decade: int = 100
) -> OnOffResponse:
    """An instrument of the size of H.E.S.S., from published formulas and round numbers.

    Effective area as parametrised in MNRAS 402 (2010) 1342, appendix B (1.2e5 m^2 at 1 TeV);
    ln(E_reco / E_true) Gaussian with a width of 0.15; background in the on region of 4e-3 s^-1
    above 0.5 TeV with an index of 2.2; off region of 12 times the acceptance. No measured data
    enter.

    Args:
        livetime_s: Observation time in s.
        true_bins_per_decade: Bins of true energy a decade, 0.2 - 50 TeV.
    """
    reco = np.geomspace(20e3 / 10**1.6, 20e3, 9)  # 0.5 - 20 TeV
    n_true = int(np.ceil(true_bins_per_decade * np.log10(50e3 / 200.0)))
    true = np.geomspace(200.0, 50e3, n_true + 1)
    energy_mev = 1e3 * np.sqrt(true[1:] * true[:-1])
    area_cm2 = 6.85e9 * energy_mev**-0.0891 * np.exp(-5e5 / energy_mev)
    migration = np.diff(ndtr(np.log(reco[:, None] * 1e3 / energy_mev) / 0.15), axis=0)
    per_bin = 4e-3 * livetime_s * -np.diff((reco / 500.0) ** -1.2)
    alpha = np.full(8, 1.0 / 12.0)
    response = Response(
        matrix=migration * (area_cm2 * livetime_s),
        background=per_bin,
        reco_edges_gev=reco,
        true_edges_gev=true,
        livetime_s=livetime_s,
        metadata={"name": "embedded", "description": "H.E.S.S.-like, parametrised"},
    )
    return OnOffResponse(response, alpha, per_bin / alpha)
