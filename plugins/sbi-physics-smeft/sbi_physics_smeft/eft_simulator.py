r"""What all simulators of this package share: labels, and from which density events are drawn.

One simulation is one event. Its latents hold the Gram matrix of `conventions`, so that
:math:`p(z|\theta)/p(z|0)` is known for every theta, whatever theta the event was drawn from. The
option `proposal` says which that is; all choices have a density quadratic in the coefficients,

.. math:: \frac{q(z)}{p(z|0)} = \mathrm{tr}\, M G(z), \qquad
    M \propto \sum_b a_b \frac{v_b v_b^T}{\sigma(\theta_b)} ,

with one term for the Standard Model, one for each point of a mixture, or an integral over the
prior. `EftSimulator.sampling_matrix` returns M, and with it the exact label p(z|0)/q(z).

Selection does not lose rows: latents are drawn given that the event passes,
:math:`p(z|\theta) A(z)/A(\theta)`, and `observe` draws :math:`p(x|z, \mathrm{passed})`, so
observing again is exact, and A(z) cancels in every ratio.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from sbi_physics import Prior, Simulator, SimulatorOptions
from sbi_physics.errors import ContractError, OptionError
from sbi_physics.types import BoolArray, DataArray, FloatArray, IntArray, Latents
from sbi_physics_smeft.conventions import ratio, unpack, vector

_NODES: Final = {1: 256, 2: 64, 3: 24}
_MOST_PASSES: Final = 10_000
_FEW: Final = 256


class EftOptions(SimulatorOptions):
    """Options that every simulator of this package has."""

    proposal: Literal["theta", "sm", "mixture"] = Field(
        "theta",
        description="What events are drawn from: 'theta', each from the coefficients of its own "
        "row, as any engine needs; 'sm', all from the Standard Model; 'mixture', from the "
        "Standard Model and mixture_points. The last two ignore theta: they are for engines that "
        "learn from labels.",
    )
    mixture_points: tuple[tuple[float, ...], ...] = Field(
        (),
        description="Points of the mixture besides the Standard Model, each a list of "
        "coefficients; empty for the simulator's morphing basis.",
    )
    sm_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of the Standard Model in the mixture, above 0, at most 1; the other "
        "points have equal shares of the rest.",
    )


class EftSimulator(Simulator):
    """Base of simulators whose density is quadratic in all parameters.

    Attributes:
        basis: Morphing basis besides the Standard Model.
    """

    basis: Sequence[tuple[float, ...]]

    def __init__(self, options: Any = None, **values: object) -> None:
        super().__init__(options, **values)
        self._prepare()
        d = len(self.parameters)
        points = self.options.mixture_points or self.basis
        wrong = [point for point in points if len(point) != d]
        if wrong:
            raise OptionError(
                f"option 'mixture_points' of {self.name!r}: {wrong[0]} has {len(wrong[0])} "
                f"numbers, expected {d} ({', '.join(self.parameters.names)})"
            )
        self.points: FloatArray = np.array([(0.0,) * d, *points])
        """Points of the mixture, shape (B, d); the first is the Standard Model."""
        self.parameters.check_range(self.points, f"mixture_points of {self.name!r}")

    # What subclasses write ---------------------------------------------------

    def _prepare(self) -> None:
        """Read what parameters and basis depend on, before they are asked for."""

    @abstractmethod
    def _draw(self, vectors: FloatArray, rng: np.random.Generator) -> Latents:
        """Draw one event for each row from v^T G v dsigma(0), before any selection.

        Args:
            vectors: (1, theta) of each row, shape (n, d+1).
            rng: Source of randomness.

        Returns:
            Latents, among them `gram`: packed Gram matrices, shape (n, m), with G_00 = 1.
        """

    def _passes(self, z: Latents, rng: np.random.Generator) -> BoolArray | None:
        """Whether each event passes the selection once, shape (n,); None if there is none."""
        return None

    @abstractmethod
    def inclusive_gram(self) -> FloatArray:
        """Mean Gram matrix at theta = 0 before selection, shape (d+1, d+1), 00 entry 1."""

    def fiducial_gram(self) -> FloatArray:
        """Mean Gram matrix of selected events at theta = 0, shape (d+1, d+1), 00 entry 1.

        The fiducial cross section is sigma(theta)/sigma(0) = v^T G v with this matrix.
        """
        return self.inclusive_gram()

    @abstractmethod
    def expected_sm_events(self) -> float:
        """Expected number of selected events at theta = 0."""

    # What they get -----------------------------------------------------------

    def labels(self, z: Latents) -> Latents:
        """Learning targets.

        Returns:
            `gram`: Gram matrices with G_00 = 1, shape (n, d+1, d+1); `source`: the mixture point
            each event was drawn from (0 is the Standard Model), -1 if from its row's theta.
        """
        return {"gram": unpack(z["gram"]), "source": np.asarray(z["source"])}

    def expected_events(self, theta: ArrayLike) -> FloatArray:
        """Expected number of selected events, shape (n,), at theta of shape (n, d)."""
        return self.expected_sm_events() * ratio(self.fiducial_gram(), self._checked(theta))

    def event_set(self, theta: ArrayLike, rng: np.random.Generator) -> DataArray:
        """Draw the data of one experiment, whatever the option `proposal`.

        Args:
            theta: Coefficients, shape (d,).
            rng: Source of randomness.

        Returns:
            Events, shape (n, *observable.shape); n is Poisson distributed around
            `expected_events`.
        """
        point = np.asarray(theta, dtype=np.float64)[None]
        n = int(rng.poisson(self.expected_events(point)[0]))
        points = np.repeat(point, n, axis=0)
        return self.observe(self._selected(points, "theta", rng), points, rng)

    def sampling_matrix(self, prior: Prior | None = None) -> FloatArray:
        """The matrix M with q(z)/p(z|0) = tr(M G(z)) for selected events, shape (d+1, d+1).

        Args:
            prior: What theta was drawn from; None for the simulator's own. Matters only where
                `proposal` is 'theta'.
        """
        if self.options.proposal == "theta":
            theta, weight = _quadrature(self.prior if prior is None else prior)
            per_event = weight / ratio(self.fiducial_gram(), theta)
        else:
            theta, weight = self.points, self._shares()
            per_event = weight / ratio(self.inclusive_gram(), theta)
        v = vector(theta)
        matrix = (v * per_event[:, None]).T @ v
        return np.asarray(matrix / (matrix * self.fiducial_gram()).sum())

    def _simulate_latent(self, theta: FloatArray, rng: np.random.Generator) -> Latents:
        return self._selected(theta, self.options.proposal, rng)

    def _selected(self, theta: FloatArray, proposal: str, rng: np.random.Generator) -> Latents:
        """Draw events until each row has one that passes."""
        z = self._proposed(theta, proposal, rng)
        passed = self._passes(z, rng)
        if passed is None:
            return z
        waiting = np.flatnonzero(~passed)
        for _ in range(_MOST_PASSES):
            if not waiting.size:
                return z
            # Calls cost more than events where few rows are left: several candidates for each.
            copies = 4 if waiting.size < _FEW else 1
            # The source is drawn anew too: the mixture is one density, selected as a whole.
            again = self._proposed(np.repeat(theta[waiting], copies, axis=0), proposal, rng)
            passed = np.asarray(self._passes(again, rng)).reshape(-1, copies)
            found = passed.any(axis=1)
            first = np.flatnonzero(found) * copies + passed[found].argmax(axis=1)
            for name, values in again.items():
                z[name][waiting[found]] = values[first]
            waiting = waiting[~found]
        raise ContractError(
            f"no event of {self.name!r} passed the selection in {_MOST_PASSES} attempts for "
            f"{waiting.size} of {len(theta)} rows; widen the selection"
        )

    def _proposed(self, theta: FloatArray, proposal: str, rng: np.random.Generator) -> Latents:
        n = len(theta)
        if proposal == "theta":
            points, source = theta, np.full(n, -1, dtype=np.int64)
        else:
            source = self._sources(n, rng)
            points = self.points[source]
        return {**self._draw(vector(points), rng), "source": source}

    def _sources(self, n: int, rng: np.random.Generator) -> IntArray:
        source: IntArray = rng.choice(len(self.points), n, p=self._shares()).astype(np.int64)
        return source

    def _shares(self) -> FloatArray:
        """Share of each point, shape (B,)."""
        others = len(self.points) - 1
        if self.options.proposal == "sm" or others == 0:
            share = 1.0
        else:
            share = float(self.options.sm_share)
        return np.array([share, *([(1.0 - share) / max(others, 1)] * others)])


def _quadrature(prior: Prior) -> tuple[FloatArray, FloatArray]:
    """Points, shape (k, d), and weights, shape (k,), that integrate over a prior."""
    node, weight = np.polynomial.legendre.leggauss(_NODES.get(prior.d, 8))
    grid = np.meshgrid(*[(node + 1.0) / 2.0] * prior.d, indexing="ij")
    weights = np.meshgrid(*[weight / 2.0] * prior.d, indexing="ij")
    theta = prior.from_unit(np.stack([g.ravel() for g in grid], axis=-1))
    product = np.prod([w.ravel() for w in weights], axis=0) * prior.contains(theta)
    return theta, np.asarray(product / product.sum())
