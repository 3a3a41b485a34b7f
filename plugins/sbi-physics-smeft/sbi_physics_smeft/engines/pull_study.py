r"""How large are an ensemble's pulls, and how well is that known?

Errors of one training are strongly correlated between events: an ensemble gives one answer,
however many events it is asked at. So simulations and training are repeated, and the errors of
mean and width of the pulls are taken from the scatter between replicas.

With M members and a right spread, pulls follow Student's law of M - 1 degrees of freedom, scaled
by :math:`\sqrt{1 + 1/M}` for the noise of the mean itself: for M = 20 a width of 1.08.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import sbi_physics as sp
from sbi_physics import Engine
from sbi_physics.errors import ContractError, ValidationError
from sbi_physics.likelihood.gram import pack
from sbi_physics.progress import SILENT, Progress
from sbi_physics.seeding import generator
from sbi_physics.types import FloatArray, IntArray
from sbi_physics_smeft.eft_simulator import EftSimulator
from sbi_physics_smeft.engines.gram_posterior import GramPosterior
from sbi_physics_smeft.engines.pulls import error_and_spread

_IDEAL = 0.6745  # median |pull| of a normal law
_EVENTS, _STREAM, _FEWEST = 1000, 41, 4


@dataclass(frozen=True, slots=True, eq=False)
class PullStudy:
    """Pulls of R(x|theta) of independent ensembles at the same events.

    Errors are those of a jackknife over replicas.

    Attributes:
        error: Mean of the members minus the exact ratio, shape (replica, event).
        spread: Spread of the members, shape (replica, event).
        members: Number of members of each ensemble.
    """

    error: FloatArray
    spread: FloatArray
    members: int

    @property
    def pulls(self) -> FloatArray:
        """Pulls, shape (replica, event)."""
        return self.error / self.spread

    @property
    def mean(self) -> tuple[float, float]:
        """Mean pull and its error; 0 where the ensembles have no common bias."""
        return _jackknife(lambda rows: float(self.pulls[rows].mean()), len(self.error))

    @property
    def width(self) -> tuple[float, float]:
        """Standard deviation of the pulls about zero and its error; compare `ideal_width`."""
        return _jackknife(lambda k: float(np.sqrt((self.pulls[k] ** 2).mean())), len(self.error))

    @property
    def ideal_width(self) -> float:
        """Width for a right spread: Student's law of M - 1 degrees, and the noise of the mean."""
        m = self.members
        return float(np.sqrt((1 + 1 / m) * (m - 1) / (m - 3))) if m > 3 else np.inf

    def within(self, spreads: float) -> tuple[float, float]:
        """Fraction of pulls below a number of spreads, and its error; compare `ideal_within`."""
        inside = np.abs(self.pulls) < spreads
        return _jackknife(lambda rows: float(inside[rows].mean()), len(inside))

    def ideal_within(self, spreads: float) -> float:
        """The fraction for a right spread, by the same law as `ideal_width`."""
        from scipy import stats

        scale = np.sqrt(1 + 1 / self.members)
        return float(1 - 2 * stats.t.sf(spreads / scale, self.members - 1))

    @property
    def ratio(self) -> tuple[float, float]:
        """Root mean square error over root mean square spread, and its error."""

        def value(rows: IntArray) -> float:
            return float(np.sqrt((self.error[rows] ** 2).mean() / (self.spread[rows] ** 2).mean()))

        return _jackknife(value, len(self.error))

    @property
    def factor(self) -> tuple[float, float]:
        """Scale factor of the spread that makes the median absolute pull right, and its error."""
        size = np.abs(self.pulls)
        return _jackknife(lambda rows: float(np.median(size[rows])) / _IDEAL, len(size))

    def summary(self) -> str:
        """Return the pulls as plain text, what a right spread would give in brackets."""

        def shown(name: str, found: tuple[float, float], ideal: float) -> str:
            return f"{name} {found[0]:.2f} ± {found[1]:.2f} ({ideal:.2f})"

        parts = [
            shown("mean", self.mean, 0.0),
            shown("width", self.width, self.ideal_width),
            *(shown(f"within {k}", self.within(k), self.ideal_within(k)) for k in (1, 2)),
            shown("error/spread", self.ratio, np.sqrt(1 + 1 / self.members)),
        ]
        return f"{', '.join(parts)}; {len(self.error)} ensembles of {self.members}"


def pull_study(
    simulator: EftSimulator,
    engine: Engine,
    settings: Mapping[str, Any],
    theta: ArrayLike,
    *,
    n_events: int,
    replicas: int,
    seed: int,
    n_tests: int = _EVENTS,
    progress: Progress = SILENT,
) -> PullStudy:
    """Train ensembles on independent simulations and compare their spread with their error.

    Args:
        simulator: One whose ratio is known (`exact_gram`): `smeft-toy`, or `smeft-wz` at parton
            level.
        engine: `smeft-derivative` or `smeft-morphing`.
        settings: Its settings; `members` at least 4, and better 20.
        theta: Parameter point of the ratio, shape (d,).
        n_events: Training events of each ensemble.
        replicas: Independent ensembles, at least 4.
        seed: Seed of everything.
        n_tests: Events where pulls are taken, half from zero parameters and half from `theta`.
        progress: Where to show progress.

    Raises:
        ContractError: If the simulator does not know its ratio.
        ValidationError: If there are too few replicas or members.
    """
    if not hasattr(simulator, "exact_gram"):
        raise ContractError(
            f"{simulator.name!r} does not know its ratio: use smeft-toy or smeft-wz"
        )
    if replicas < _FEWEST:
        raise ValidationError(f"errors of pulls need {_FEWEST} replicas or more, got {replicas}")
    point = np.asarray(theta, dtype=np.float64).reshape(-1)
    rng = generator(seed, "validation", _STREAM)
    truths = np.zeros((n_tests, len(point)))
    truths[n_tests // 2 :] = point
    x = type(simulator)(**_as_drawn(simulator)).simulate(truths, rng)
    exact = pack(simulator.exact_gram(x))
    found = []
    with progress.task("ensembles", replicas, "ensemble") as task:
        for k in range(replicas):
            own = int(generator(seed, "validation", _STREAM, k + 1).integers(2**31))
            events = sp.simulate(simulator, n_events, seed=own, progress=SILENT)
            posterior = engine.train(events, settings, seed=own)
            if not isinstance(posterior, GramPosterior):
                raise ContractError(f"engine {engine.name!r} learns no matrices of events")
            members = posterior.member_coefficients(x)
            found.append(error_and_spread(members, exact, point))
            task.advance()
    errors, spreads = (np.array(values) for values in zip(*found, strict=True))
    return PullStudy(errors, spreads, len(members))


def _as_drawn(simulator: EftSimulator) -> dict[str, Any]:
    """Options of the simulator of ordinary data, each event from its own row's parameters."""
    return {**simulator.options.model_dump(), "proposal": "theta"}


def _jackknife(value: Callable[[IntArray], float], n: int) -> tuple[float, float]:
    """A statistic of all replicas and its jackknife error."""
    every = np.arange(n)
    left = np.array([value(np.delete(every, i)) for i in range(n)])
    return value(every), float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))
