r"""The simulator `smeft-lhe`: WZ events of any generator, read from LHE files with weights.

The density of the Standard Model is that of the sample: event k with probability proportional to
its weight :math:`w_k`, and at other coefficients to :math:`w_k v^T G_k v`. Events are drawn with
replacement; the latent `event` says which one a row is, so that an analysis can keep copies of one
event together. A sample is worth less where its weights vary more: `event_set` refuses to draw
data sets that would mostly repeat the same events.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from sbi_physics import DataFile
from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.types import DataArray, FloatArray, Latents
from sbi_physics_smeft import detector
from sbi_physics_smeft.conventions import unpack
from sbi_physics_smeft.lhe_events import points_from_header, read_lhe
from sbi_physics_smeft.smeft_wz import WzOptions, WzSimulator
from sbi_physics_smeft.weighted_events import WeightedEvents
from sbi_physics_smeft.wz_events import kinematics

EXAMPLE: Final = Path(__file__).parent / "data" / "example.lhe.gz"
"""300 events of the built-in generator, made by scripts/make_example.py."""

_SMEARINGS: Final = 20
_LEAST_SIZE: Final = 50.0


class SmeftLheOptions(WzOptions):
    """Options of `smeft-lhe`."""

    files: tuple[str, ...] = Field(
        (),
        description="LHE files of one process, plain or gzip, or .npz files that "
        "WeightedEvents.save has written; empty for 300 example events.",
    )
    points: Mapping[str, tuple[float, float, float]] = Field(
        {},
        description="Weight id -> (C_HWB, C_W, C_Hq3) in TeV-2; empty to take them from the "
        "reweighting commands in the header.",
    )
    header_names: tuple[str, str, str] = Field(
        ("SMEFT 1", "SMEFT 2", "SMEFT 3"),
        description="Block and entry of C_HWB, C_W and C_Hq3 in the header's commands.",
    )
    max_label_error: float = Field(
        1e-4,
        gt=0,
        le=1,
        description="Largest error of labels from rounding of the printed weights, above 0, at "
        "most 1, relative to an event's largest weight.",
    )


class SmeftLhe(WzSimulator):
    """WZ events from LHE files with reweighting weights."""

    name = "smeft-lhe"
    summary = "WZ events from LHE files with weights at several Wilson coefficients"
    citation = ("arXiv:2410.07315", "arXiv:hep-ph/0609017", "arXiv:1405.1067")
    Options = SmeftLheOptions

    def __init__(self, options: SmeftLheOptions | None = None, **values: object) -> None:
        super().__init__(options, **values)
        self.sample: WeightedEvents = self._read()
        direction = self.sample.record[:, 1]
        if self._is_parton and not direction.all():
            raise ObservationError(
                f"{int((direction == 0).sum())} of {len(direction)} events have no single "
                "incoming quark, so level 'parton' has no production angle; use level 'detector'"
            )
        self._momenta = self.sample.record[:, 2:].reshape(-1, 4, 3)

    @classmethod
    def data_files(cls) -> tuple[DataFile, ...]:
        return (DataFile("example", str(EXAMPLE), EXAMPLE.is_file(), "reinstall this package"),)

    def _read(self) -> WeightedEvents:
        o = self.options
        files = tuple(o.files) or (str(EXAMPLE),)
        stored = [f for f in files if Path(f).suffix == ".npz"]
        if stored and len(stored) != len(files):
            raise ContractError(
                f"option 'files' of {self.name!r} mixes .npz and LHE files: {', '.join(files)}"
            )
        if stored:
            parts = [WeightedEvents.load(f) for f in files]
            n = sum(len(part) for part in parts)
            return WeightedEvents(
                np.concatenate([part.gram for part in parts]),
                np.concatenate([part.weight * (len(part) / n) for part in parts]),
                np.concatenate([part.record for part in parts]),
            )
        points = o.points or points_from_header(files[0], o.header_names)
        return read_lhe(files, points, max_label_error=o.max_label_error)

    def _draw(self, vectors: FloatArray, rng: np.random.Generator) -> Latents:
        chosen = self.sample.draw(vectors, rng)
        charge, direction = self.sample.record[chosen, :2].T
        z: Latents = {
            "gram": self.sample.gram[chosen],
            "charge": charge.astype(np.int64),
            "event": chosen,
            "momenta": self._momenta[chosen].astype(np.float32),
        }
        if self._is_parton:
            k = kinematics(self._momenta[chosen], direction.astype(np.int64))
            z |= {"sqrt_s": k.sqrt_s, "cos_theta": k.cos_theta, "decay": k.decay}
        return z

    def sigma_gram(self) -> FloatArray:
        """Cross section of the sample in pb, with its branching ratios, shape (4, 4)."""
        return self.sample.sigma_gram()

    def inclusive_gram(self) -> FloatArray:
        sigma = self.sigma_gram()
        return np.asarray(sigma / sigma[0, 0])

    def fiducial_gram(self) -> FloatArray:
        """Mean Gram matrix of selected events in the Standard Model, shape (4, 4), 00 entry 1.

        Each event counts with the share of 20 measurements that pass (fixed seed).
        """
        accepted = self._acceptance_gram()
        return np.asarray(accepted / accepted[0, 0])

    def acceptance(self) -> float:
        """Share of the Standard Model's cross section that passes the selection."""
        return float(self._acceptance_gram()[0, 0])

    def expected_sm_events(self) -> float:
        """Cross section of the sample times acceptance, luminosity and K factor."""
        o = self.options
        return float(
            1000.0 * self.sigma_gram()[0, 0] * o.luminosity * o.k_factor * self.acceptance()
        )

    def event_set(self, theta: ArrayLike, rng: np.random.Generator) -> DataArray:
        """Draw the data of one experiment, as `EftSimulator.event_set`.

        Raises:
            ContractError: If the sample is worth less than 50 times the events asked for: data
                sets would share too many events to be independent.
        """
        expected = float(self.expected_events(np.asarray(theta, dtype=np.float64)[None])[0])
        size = self.sample.effective_size(theta) * self.acceptance()
        if size < _LEAST_SIZE * expected:
            raise ContractError(
                f"the sample is worth {size:.0f} selected events at these coefficients; data sets "
                f"of {expected:.0f} need {_LEAST_SIZE * expected:.0f}. Give more files or a lower "
                "luminosity"
            )
        return super().event_set(theta, rng)

    def _acceptance_gram(self) -> FloatArray:
        if self._is_parton or not self.options.selection:
            return self.inclusive_gram()
        if not hasattr(self, "_accepted"):
            rng = np.random.default_rng(1902_05759)
            passed = detector.passes(np.repeat(self._momenta, _SMEARINGS, axis=0), rng)
            share = passed.reshape(-1, _SMEARINGS).mean(axis=1)
            weight = self.sample.weight * share / self.sample.weight.sum()
            self._accepted: FloatArray = unpack(weight @ self.sample.gram)
        return self._accepted
