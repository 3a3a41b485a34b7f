"""What is observed: counts over a known background, or counts of an on and an off region.

Both draw data from the expected counts of the source, describe them and read measured ones.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import xlogy

from sbi_physics import Observable
from sbi_physics.errors import ContractError, ObservationError, OptionError
from sbi_physics.types import DataArray
from sbi_physics_alp.data_files import locate, public_name
from sbi_physics_alp.dl3 import PUBLIC_SETS, public_set
from sbi_physics_alp.observation import check_edges, read_arrays, read_counts
from sbi_physics_alp.ogip import has_off_spectrum
from sbi_physics_alp.on_off import OnOffObservation, OnOffResponse, is_on_off_file, read_ogip
from sbi_physics_alp.response import Response

Array = np.ndarray[Any, np.dtype[np.float64]]

RESIDUAL_FLOOR = -1.15
"""Lowest residual in log10: counts of 7 % of the expected ones, or none."""

ON_OFF_RESPONSES = ("hess-pks2155-steady", *PUBLIC_SETS)
"""Names of public observations with an off region."""

_TINY = 1e-300  # expected counts of zero where there are none
_DL3_SUB_BINS = 2  # of 60 bins of true energy a decade


class Counts:
    """Counts of one region whose expected background is known: n ~ Poisson(R phi + b)."""

    def __init__(self, response: Response) -> None:
        self.response = response

    @property
    def observable(self) -> Observable:
        """Counts of each reconstructed-energy bin."""
        return _spectrum(self.response, self.response.background.shape)

    def draw(self, signal: Array, rng: np.random.Generator) -> Array:
        """Draw counts, shape (n, n_reco), for expected counts of the source of that shape."""
        return rng.poisson(signal + self.response.background).astype(np.float64)

    def statistic(self, x: Array, signal: Array) -> Array:
        """Cash statistic, -2 ln L relative to that of the data themselves, shape (n,).

        Args:
            x: Counts, shape (n_reco,) or (n, n_reco).
            signal: Expected counts of the source, shape (n, n_reco).
        """
        mu = np.maximum(signal + self.response.background, _TINY)
        terms = mu - x + xlogy(x, x / mu)
        return np.asarray(2.0 * terms.sum(axis=-1))

    def read(self, path: Path) -> DataArray:
        """Counts from an npz file (``counts``, optionally ``edges_gev``) or an OGIP spectrum."""
        counts = read_counts(path, self.response.reco_edges_gev)
        x: DataArray = self.observable.check(counts, str(path))[0]
        return x


class LogResiduals(Counts):
    """log10 of counts over those expected without ALPs, cut off below `RESIDUAL_FLOOR`.

    What the public code behind arXiv:2509.20578 hands to its networks, as an option. Bins that
    nothing is expected in are 0.

    Args:
        response: Response and background.
        expected: Expected counts without ALPs, with background, shape (n_reco,).
    """

    def __init__(self, response: Response, expected: Array) -> None:
        super().__init__(response)
        self._expected = expected

    @property
    def observable(self) -> Observable:
        """Residual of each reconstructed-energy bin."""
        counts = super().observable
        label = "log10 counts, residual"
        return replace(counts, unit="dex", transform=("standardize",), label=label)

    def draw(self, signal: Array, rng: np.random.Generator) -> Array:
        """Draw counts as residuals, shape (n, n_reco)."""
        return self.residuals(super().draw(signal, rng))

    def residuals(self, counts: Array) -> Array:
        """Counts as residuals, same shape (..., n_reco)."""
        seen = self._expected > 0.0
        ratio = np.divide(counts, self._expected, out=np.ones_like(counts), where=seen)
        return np.asarray(np.log10(np.maximum(ratio, 10.0**RESIDUAL_FLOOR)))

    def statistic(self, x: Array, signal: Array) -> Array:
        """Refused: the likelihood is one of counts.

        Raises:
            ContractError: Always.
        """
        raise ContractError("residuals have no likelihood of their own; use data=counts")

    def read(self, path: Path) -> DataArray:
        """Residuals of the counts in a file, see `Counts.read`."""
        counts = read_counts(path, self.response.reco_edges_gev)
        x: DataArray = self.observable.check(self.residuals(counts), str(path))[0]
        return x


class OnAndOff:
    """Counts of two regions: n_on ~ Poisson(R phi + mu_b), n_off ~ Poisson(mu_b / alpha).

    Args:
        instrument: Response and background measurement.
        sub_bins: Parts of each true-energy bin where OGIP files are read.
    """

    def __init__(self, instrument: OnOffResponse, *, sub_bins: int) -> None:
        self.instrument, self.response = instrument, instrument.response
        self._sub_bins = sub_bins

    @property
    def observable(self) -> Observable:
        """Counts of each reconstructed-energy bin, on and off."""
        return _spectrum(self.response, (2, *self.response.background.shape), ("on", "off"))

    def draw(self, signal: Array, rng: np.random.Generator) -> Array:
        """Draw counts, shape (n, 2, n_reco), for expected counts of the source (n, n_reco)."""
        background = self.instrument.draw_background(len(signal), rng)
        n_on = rng.poisson(signal + background)
        n_off = rng.poisson(background / self.instrument.alpha)
        return np.stack([n_on, n_off], axis=1).astype(np.float64)

    def statistic(self, x: Array, signal: Array) -> Array:
        """W statistic: -2 ln L with each bin's background at its best, as Cash's, shape (n,).

        The background mu_b (in off counts) solves alpha (1 + alpha) mu_b^2 - c mu_b - n_off s = 0
        with c = alpha (n_on + n_off) - (1 + alpha) s (arXiv:physics/0702156).

        Args:
            x: On and off counts, shape (2, n_reco) or (n, 2, n_reco).
            signal: Expected counts of the source, shape (n, n_reco).
        """
        alpha, n_on, n_off = self.instrument.alpha, x[..., 0, :], x[..., 1, :]
        a = alpha * (1.0 + alpha)
        c = alpha * (n_on + n_off) - (1.0 + alpha) * signal
        root = np.sqrt(c * c + 4.0 * a * n_off * signal)
        mu_off = np.maximum((c + root) / (2.0 * a), _TINY)
        mu_on = np.maximum(signal + alpha * mu_off, _TINY)
        terms = mu_on - n_on + xlogy(n_on, n_on / mu_on)
        terms = terms + mu_off - n_off + xlogy(n_off, n_off / mu_off)
        return np.asarray(2.0 * terms.sum(axis=-1))

    def read(self, path: Path) -> DataArray:
        """Counts (on, off), shape (2, n_reco).

        An npz file has the arrays ``n_on``, ``n_off`` and, to be checked, ``edges_gev``. An OGIP
        spectrum and a file of `dl3` carry their own response, which must be this one.

        Raises:
            DataFileError: If there is no such file.
            ObservationError: If it cannot be read or has another response.
        """
        file = path if str(path) in PUBLIC_SETS else locate(path, names=())
        if file.suffix == ".npz" and not is_on_off_file(file):
            n_on, n_off, edges = read_arrays(file, ("n_on", "n_off", "edges_gev"))
            if edges is not None:
                check_edges(file, edges, self.response.reco_edges_gev)
            if n_on is None or n_off is None or n_on.shape != n_off.shape:
                raise ObservationError(f"{file} needs arrays n_on and n_off of one shape")
            return self._stacked(n_on, n_off, file)
        try:
            measured = measured_counts(path, self._sub_bins)
        except ContractError as error:
            raise ObservationError(str(error)) from error
        if not measured.instrument.agrees_with(self.instrument):
            raise ObservationError(
                f"{file} was taken with another response, exposure or background than this "
                f"simulator has; make it with response={str(path)!r}"
            )
        return self._stacked(measured.n_on, measured.n_off, file)

    def _stacked(self, n_on: Array, n_off: Array, file: Path) -> DataArray:
        x: DataArray = self.observable.check(np.stack([n_on, n_off]), str(file))[0]
        return x


def measured_counts(name_or_path: str | Path, sub_bins: int) -> OnOffObservation:
    """An on-off observation with its response.

    Args:
        name_or_path: A name of `dl3.PUBLIC_SETS` or `data_files.PUBLIC_FILES`, the path of an npz
            file written by `dl3`, or of an OGIP spectrum.
        sub_bins: Parts of each true-energy bin of an OGIP file.

    Raises:
        ContractError: If the file has no on and off counts with their response.
        DataFileError: If the files are not there.
    """
    if str(name_or_path) in PUBLIC_SETS:
        return public_set(str(name_or_path), sub_bins=_DL3_SUB_BINS)
    file = locate(name_or_path, ON_OFF_RESPONSES)
    if file.suffix == ".npz":
        return OnOffObservation.load(file)
    return read_ogip(file, sub_bins=sub_bins)


def measured_response(name_or_path: str, sub_bins: int) -> OnOffResponse:
    """Response and background of an on-off observation that an option names.

    Args:
        name_or_path: The option ``response``, see `measured_counts`.
        sub_bins: Parts of each true-energy bin of an OGIP file.

    Raises:
        DataFileError: If the files are not there.
        OptionError: If the file is no such observation.
    """
    try:
        return measured_counts(name_or_path, sub_bins).instrument
    except ContractError as error:
        raise OptionError(f"response={name_or_path!r}: {error}") from error


def carried_response(path: Path) -> str | None:
    """Value of an option ``response`` for the response that a file of on and off counts carries.

    Args:
        path: An observation file; None is returned if it holds counts alone.
    """
    has_off = is_on_off_file(path) if path.suffix == ".npz" else has_off_spectrum(path)
    return (public_name(path) or str(path.resolve())) if has_off else None


def _spectrum(
    response: Response, shape: tuple[int, ...], names: tuple[str, ...] = ()
) -> Observable:
    return Observable(
        "spectrum",
        shape,
        unit="ct",
        edges=tuple(response.reco_edges_gev.tolist()),
        edge_unit="GeV",
        transform=("anscombe", "whiten"),
        label="counts",
        edge_label="reconstructed energy",
        names=names,
    )
