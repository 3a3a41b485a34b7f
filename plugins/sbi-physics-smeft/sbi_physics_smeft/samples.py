r"""Weighted events of a mixture that stand for zero parameters, and what is made of them.

Expected limits, toys and comparisons of methods need events whose exact weights
:math:`p(z|\theta)/q(z)` are known, described as the method under test sees them: by matrices
learned from the data, by the mean matrix of a bin, or by anything that a likelihood takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics import Prior
from sbi_physics.errors import ContractError
from sbi_physics.likelihood import EventPool, QuadraticModel
from sbi_physics.types import DataArray, FloatArray
from sbi_physics_smeft.conventions import pack
from sbi_physics_smeft.eft_simulator import EftSimulator


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceSample:
    """Events of a simulator's proposal with weights to zero parameters.

    Attributes:
        simulator: Where they come from.
        x: Data, shape (n, features).
        gram: Packed exact matrices of the latent events, shape (n, entries).
        weight: Weights that sum to the expected number of events at zero, shape (n,).
    """

    simulator: EftSimulator
    x: DataArray
    gram: FloatArray
    weight: FloatArray

    @classmethod
    def draw(cls, simulator: EftSimulator, n: int, rng: np.random.Generator) -> Self:
        """Draw events, best of a mixture that covers the region asked about.

        Raises:
            ContractError: If events follow the parameters of their rows.
        """
        if simulator.options.proposal == "theta":
            raise ContractError(
                "a reference sample comes from proposal='mixture' or 'sm', these events follow "
                "the coefficients of their rows"
            )
        zero = np.zeros((n, len(simulator.parameters)))
        z = simulator.simulate_latent(zero, rng)
        x = simulator.observe(z, zero, rng)
        gram = np.asarray(simulator.labels(z)["gram"], dtype=np.float64)
        weight = 1 / (gram * simulator.sampling_matrix()).sum(axis=(1, 2))
        weight *= simulator.expected_sm_events() / weight.sum()
        return cls(simulator, x, pack(gram), weight)

    def model(
        self, events: ArrayLike | None = None, *, prior: Prior | None = None, floor: float = 1e-3
    ) -> QuadraticModel:
        """Return the likelihood of event sets described by matrices.

        Args:
            events: Packed matrices of these events, on which ratios are normalised; None for the
                exact ones, which need no normalisation.
            prior: Parameters whose bounds are the box of fits; default the simulator's.
            floor: Ratios below it are raised to it.
        """
        mean = None
        if events is not None:
            mean = self.weight @ np.asarray(events, np.float64) / self.weight.sum()
        return QuadraticModel(
            self.simulator.prior if prior is None else prior,
            self.simulator.fiducial_gram(),
            self.simulator.expected_sm_events(),
            event_gram=mean,
            floor=floor,
        )

    def pool(self, events: ArrayLike | None = None, *, prior: Prior | None = None) -> EventPool:
        """Return the events with exact weights, for toys, Asimov sets and separations.

        Args:
            events: What the likelihood under test sees of them; None for the exact matrices.
            prior: As in `model`.
        """
        return EventPool(self.model(prior=prior), self.gram, weight=self.weight, events=events)

    def binned(self, values: ArrayLike, edges: ArrayLike) -> FloatArray:
        """Return the mean matrix of each bin of a variable, shape (len(edges) + 1, entries).

        Events that are given the mean matrix of their bin turn the unbinned likelihood into that
        of a histogram, bins below and above the edges included.

        Args:
            values: The variable of these events, shape (n,).
            edges: Edges between bins, increasing.

        Raises:
            ContractError: If a bin is empty.
        """
        limits = np.asarray(edges, dtype=np.float64)
        bins = np.digitize(np.asarray(values, dtype=np.float64), limits)
        filled = np.bincount(bins, minlength=len(limits) + 1)
        if (filled == 0).any():
            raise ContractError(
                f"bins {np.flatnonzero(filled == 0).tolist()} of {len(filled)} hold no event: "
                "fewer edges, or more events"
            )
        sums = np.zeros((len(filled), self.gram.shape[1]))
        np.add.at(sums, bins, self.weight[:, None] * self.gram)
        means: FloatArray = sums / sums[:, :1]
        return means
