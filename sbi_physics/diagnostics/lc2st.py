r"""Local classifier two-sample test (L-C2ST, arXiv:2306.03580) with exchange of labels.

A classifier :math:`d(\theta, x)` learns to tell pairs :math:`(\theta_q, x)`, with
:math:`\theta_q \sim q(\theta|x)`, from pairs :math:`(\theta^*, x)` of the simulator. At an
observation :math:`x_o` the statistic is

.. math:: t = \mathrm{mean}_s\,(d(\theta_s, x_o) - \tfrac12)^2, \qquad \theta_s \sim q(\theta|x_o).

If q is exact, truth and draws of one observation are exchangeable, so the classifier is retrained
with one point of each observation, chosen at random, in the place of the truth; the p-value
:math:`(1 + \#\{t_b \ge t\}) / (B + 1)` then holds at any number of pairs, with no test pairs held
back, because :math:`t` is evaluated on draws that no classifier saw.

The classifier is least squares on fixed features: powers of :math:`\theta`, alone and times the
data features, and a layer of random tanh units (Rahimi and Recht 2007). Refitting with other
labels is then one matrix product instead of a hundred trainings. :math:`\theta` enters
standardised by the mean and covariance of other draws of :math:`q(\theta|x)`, so that narrow
posteriors and wide ones look alike. The ridge is scanned, and the largest :math:`t` in units of
its mean under the null is calibrated by the same exchanges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sbi_physics.errors import ValidationError
from sbi_physics.types import FloatArray, IntArray

N_NULL: Final = 999
RIDGES: Final = (0.1, 1.0)
"""Ridges in units of the features' mean square. Measured on Gaussians: smaller ones add noise."""

N_HIDDEN: Final = 64
N_FEATURES: Final = 5
_CLIP_POINTS = 8.0
_CLIP_FEATURES = 3.0
_FLOOR = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class LocalTest:
    """The test at one observation.

    Attributes:
        statistic: Mean squared deviation of the class probability from one half, for the ridge
            that deviates most.
        null_mean: Its mean over exchanged labels.
        p_value: Probability of at least this much for a posterior that is exact everywhere.
        probability: Probability, for each draw at the observation, that it is one of q rather
            than of the simulator, shape (draw,): above one half where q puts too much.
        typicality: Fraction of the pairs whose data features lie further out (in Mahalanobis
            distance) than the observation's: 0 means that the classifier extrapolates.
    """

    statistic: float
    null_mean: float
    p_value: float
    probability: FloatArray
    typicality: float


def standardised(points: FloatArray, reference: FloatArray) -> FloatArray:
    """Centre and whiten points of each observation by other draws of the same posterior.

    Args:
        points: Shape (batch, point, param).
        reference: Draws that are none of the points, shape (batch, draw, param).

    Returns:
        Shape (batch, point, param), clipped to +-8.
    """
    mean = reference.mean(axis=1, keepdims=True)
    shifted = reference - mean
    covariance = shifted.transpose(0, 2, 1) @ shifted / reference.shape[1]
    d = points.shape[2]
    # Draws that do not vary (constants) must not be divided by zero.
    scale = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / d
    root = np.linalg.cholesky(covariance + (1e-9 * scale + _FLOOR) * np.eye(d))
    white = np.linalg.solve(root, (points - mean).transpose(0, 2, 1)).transpose(0, 2, 1)
    return np.clip(white, -_CLIP_POINTS, _CLIP_POINTS)


def local_c2st(
    points: FloatArray,
    features: FloatArray,
    at: FloatArray,
    features_at: FloatArray,
    rng: np.random.Generator,
    *,
    n_null: int = N_NULL,
    ridges: Sequence[float] = RIDGES,
) -> tuple[LocalTest, ...]:
    """Test a posterior at some observations.

    Args:
        points: The truth and then draws of q for each pair, in coordinates found without knowing
            which is the truth (see `standardised`), shape (pairs, 1 + draws, param).
        features: Data features of the pairs, shape (pairs, feature); the first five are used.
        at: Draws of q at the observations, in the same coordinates, shape (obs, draw, param).
        features_at: Data features of the observations, shape (obs, feature).
        rng: Source of the hidden layer and of the exchanges.
        n_null: Number of exchanges; the smallest p-value is 1 / (n_null + 1).
        ridges: Ridges to scan.

    Returns:
        One test for each observation.

    Raises:
        ValidationError: If shapes disagree or numbers are not finite.
    """
    _check(points, features, at, features_at)
    n, k, d = points.shape
    used = features[:, :N_FEATURES]
    centre, spread = used.mean(axis=0), used.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    layer = _Layer.draw(d, used.shape[1], rng)
    scaled = (used - centre) / spread
    design = layer(points, scaled)
    flat = design.reshape(n * k, -1)
    mean, size = flat.mean(axis=0), flat.std(axis=0)
    size = np.where(size > _FLOOR, size, np.inf)
    design = (design - mean) / size
    flat = design.reshape(n * k, -1)
    values, vectors = np.linalg.eigh(flat.T @ flat / (n * k))
    values = np.maximum(values, 0.0)
    # What each point would contribute if it were the truth: half the mean of the others minus it.
    contrast = (design.mean(axis=1, keepdims=True) - design) @ vectors * (0.5 * k / (k - 1))
    gradient = _exchanged(contrast, rng, n_null)
    scaled_at = (features_at[:, :N_FEATURES] - centre) / spread
    distances = _mahalanobis(scaled, scaled)
    further = distances[None] > _mahalanobis(scaled_at, scaled)[:, None]
    tests = []
    for i in range(len(at)):
        basis = ((layer(at[i : i + 1], scaled_at[i : i + 1])[0] - mean) / size) @ vectors
        tests.append(_test(gradient, values, basis, ridges, float(further[i].mean())))
    return tuple(tests)


def _test(
    gradient: FloatArray,
    values: FloatArray,
    basis: FloatArray,
    ridges: Sequence[float],
    typicality: float,
) -> LocalTest:
    second = basis.T @ basis / len(basis)
    t = np.empty((len(ridges), len(gradient)))
    for row, ridge in enumerate(ridges):
        weights = 0.5 * gradient / (values + ridge)
        t[row] = ((weights @ second) * weights).sum(axis=1)
    null_mean = t[:, 1:].mean(axis=1)
    relative = t / np.where(null_mean > 0, null_mean, 1.0)[:, None]
    largest = relative.max(axis=0)
    best = int(np.argmax(relative[:, 0]))
    # Rounding must not break ties between equal statistics in favour of a deviation.
    at_least = np.count_nonzero(largest[1:] >= largest[0] * (1.0 - 1e-12))
    score = basis @ (0.5 * gradient[0] / (values + ridges[best]))
    return LocalTest(
        statistic=float(t[best, 0]),
        null_mean=float(null_mean[best]),
        p_value=(1.0 + at_least) / len(gradient),
        probability=np.clip(0.5 + score, 0.0, 1.0),
        typicality=typicality,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """Features of points and data: powers, powers times data, random units."""

    points: FloatArray
    data: FloatArray
    offset: FloatArray

    @classmethod
    def draw(cls, d: int, f: int, rng: np.random.Generator) -> _Layer:
        # Arguments of unit scale for standardised points; offsets spread the units' steps.
        return cls(
            rng.standard_normal((d, N_HIDDEN)) * np.sqrt(2.0 / d),
            rng.standard_normal((f, N_HIDDEN)) / np.sqrt(max(f, 1)),
            rng.uniform(-2.0, 2.0, N_HIDDEN),
        )

    def __call__(self, points: FloatArray, features: FloatArray) -> FloatArray:
        """Shape (batch, point, number of features)."""
        x = np.clip(features, -_CLIP_FEATURES, _CLIP_FEATURES)[:, None]
        rows, columns = np.triu_indices(points.shape[2])
        powers = np.concatenate([points, points[..., rows] * points[..., columns]], axis=-1)
        products = powers[..., :, None] * x[..., None, :]
        hidden = np.tanh(points @ self.points + x @ self.data + self.offset)
        return np.concatenate([powers, products.reshape(*powers.shape[:2], -1), hidden], axis=-1)


def _exchanged(contrast: FloatArray, rng: np.random.Generator, n_null: int) -> FloatArray:
    """Mean contrast of the truth (first row) and of random exchanges, (1 + n_null, feature)."""
    n, k, width = contrast.shape
    chosen: IntArray = rng.integers(k, size=(n_null, n))
    total = np.zeros((n_null, width))
    for point in range(k):
        total += (chosen == point).astype(np.float64) @ contrast[:, point]
    return np.concatenate([contrast[:, 0].mean(axis=0)[None], total / n])


def _mahalanobis(points: FloatArray, cloud: FloatArray) -> FloatArray:
    """Squared distance from the cloud's mean in its own metric, shape (points,)."""
    if cloud.shape[1] == 0:
        return np.zeros(len(points))
    inverse = np.linalg.pinv(np.atleast_2d(np.cov(cloud.T)), rcond=1e-9)
    shifted = points - cloud.mean(axis=0)
    squared: FloatArray = np.einsum("ni,ij,nj->n", shifted, inverse, shifted)
    return squared


def _check(
    points: FloatArray, features: FloatArray, at: FloatArray, features_at: FloatArray
) -> None:
    if points.ndim != 3 or points.shape[1] < 2 or len(points) < 2:
        raise ValidationError(
            "points must have shape (pairs, 1 + draws, param) with at least two pairs and one "
            f"draw, got {points.shape}"
        )
    if at.ndim != 3 or at.shape[2] != points.shape[2] or at.shape[1] < 1:
        raise ValidationError(
            f"draws at the observations must have shape (obs, draw, {points.shape[2]}), got "
            f"{at.shape}"
        )
    if features.shape[:1] != points.shape[:1] or features.ndim != 2:
        raise ValidationError(
            f"features must have shape ({len(points)}, feature), got {features.shape}"
        )
    if features_at.shape != (len(at), features.shape[1]):
        raise ValidationError(
            f"features of the observations must have shape ({len(at)}, {features.shape[1]}), got "
            f"{features_at.shape}"
        )
    named = {"points": points, "features": features, "at": at, "features_at": features_at}
    for name, values in named.items():
        if not np.isfinite(values).all():
            raise ValidationError(f"{name} has {int((~np.isfinite(values)).sum())} values that "
                                  "are not finite")  # fmt: skip
