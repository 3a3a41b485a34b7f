"""The record of truncated rounds: which boxes, how many simulations, and for which observation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from sbi_physics.errors import ObservationError
from sbi_physics.types import BoolArray, DataArray

Box = dict[str, tuple[float, float]]
"""Lower and upper end of each inferred parameter, in its unit."""


@dataclass(frozen=True, slots=True)
class TruncationRound:
    """One round.

    Attributes:
        box: Where parameters were drawn; empty for the whole prior.
        volume: Prior mass inside the box, relative to the whole prior (1 in the first round).
        simulated: Simulations made for this round, failed ones included.
        reused: Valid simulations of earlier rounds that lie inside the box.
        trained_on: Valid simulations trained on, reused ones included.
        evaluated: Points at which the posterior of the observation was evaluated.
        above: How many of them were above the threshold.
        next_box: Range of these points, padded.
        next_volume: Prior mass of that box.
        loss: Validation loss, if anything was trained.
        seconds: Wall-clock time of the round.
    """

    box: Box
    volume: float
    simulated: int
    reused: int
    trained_on: int
    evaluated: int
    above: int
    next_box: Box
    next_volume: float
    loss: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {**asdict(self), "box": _listed(self.box), "next_box": _listed(self.next_box)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        boxes = {name: _box(data[name]) for name in ("box", "next_box")}
        return cls(**{**data, **boxes})


@dataclass(frozen=True, slots=True, eq=False)
class Truncation:
    """Every round behind a posterior, and the observation they closed in on.

    Attributes:
        observation: The observation, float32, shape observable.shape.
        epsilon: Likelihood relative to the best point below which points were cut off.
        rounds: The rounds, the posterior's own last.
        stopped: Why there was no further round: `converged` (the box would have lost less than
            half of its volume) or `rounds` (as many as asked for); empty between rounds.
        final: Whether the last round only trained on more simulations (`final_simulations`).
    """

    observation: DataArray
    epsilon: float
    rounds: tuple[TruncationRound, ...]
    stopped: str = ""
    final: bool = False

    @property
    def box(self) -> Box:
        """Where the posterior's prior was truncated to; empty if it never was."""
        return self.rounds[-1].box

    def is_for(self, x: DataArray) -> BoolArray:
        """Which observations (batch, *shape) are the one the rounds closed in on."""
        same: BoolArray = (x == self.observation).reshape(len(x), -1).all(axis=1)
        return same

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description, without the observation."""
        return {
            "epsilon": self.epsilon,
            "stopped": self.stopped,
            "final": self.final,
            "rounds": [r.to_dict() for r in self.rounds],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], observation: DataArray) -> Self:
        """Rebuild from `to_dict` and the observation."""
        rounds = tuple(TruncationRound.from_dict(r) for r in data["rounds"])
        return cls(observation, data["epsilon"], rounds, data["stopped"], data.get("final", False))


def refusal(valid: BoolArray, box: Box, remedy: str) -> ObservationError:
    """Return the error about observations that a truncated posterior does not hold for.

    Args:
        valid: Which of the observations it holds for, shape (batch,).
        box: Where its prior was truncated to.
        remedy: What to do to have them all the same.
    """
    ends = ", ".join(f"{name} {low:.4g} to {high:.4g}" for name, (low, high) in box.items())
    return ObservationError(
        f"{int((~valid).sum())} of {len(valid)} observations are not the one that truncated "
        f"rounds closed in on; outside of {ends or 'the prior'} this posterior says nothing. "
        f"Truncate for that observation, or {remedy} to have the posterior under the truncated "
        "prior"
    )


def _listed(box: Box) -> dict[str, list[float | None]]:
    # JSON has no infinities; an end the prior leaves open is null.
    return {k: [float(v) if np.isfinite(v) else None for v in ends] for k, ends in box.items()}


def _box(data: Mapping[str, list[float | None]]) -> Box:
    return {
        k: (-np.inf if low is None else low, np.inf if high is None else high)
        for k, (low, high) in data.items()
    }
