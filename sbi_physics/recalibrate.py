"""Mend a posterior on pairs of its own, on request and never silently.

The pairs of a recalibration are a third set, disjoint from training and validation: the mended
posterior remembers them, and `validate` refuses them. What is mended is the *average* over the
prior; no method here makes a posterior right at every observation (see `validate_local`).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from sbi_physics.diagnostics.ranks import pit_values
from sbi_physics.diagnostics.uniformity import location_scale
from sbi_physics.errors import ValidationError, unknown_name
from sbi_physics.pair_draws import draws_of, usable_pairs
from sbi_physics.posterior import Posterior
from sbi_physics.recalibrated import (
    METHODS,
    N_REFERENCE,
    SHELL_METHODS,
    AffinePosterior,
    RecalibratedPosterior,
    ShellPosterior,
)
from sbi_physics.seeding import check_seed, fresh_seed, generator
from sbi_physics.store import Simulations
from sbi_physics.types import DataArray, FloatArray

MIN_PAIRS: Final = 200
N_DRAWS: Final = 999

# Finer towards 1, where regions are quoted.
EDGES: Final = (*np.linspace(0.05, 0.9, 18).round(2).tolist(), 0.95, 0.975, 0.99)
"""Edges of the shells: nominal credibilities for `rank`, wanted ones for `conformal`."""

_LARGEST_FACTOR = 30.0
_NARROWEST = 8 / N_REFERENCE
_MUST_REACH = 0.95
_STREAM = 22


def recalibrate(
    posterior: Posterior | Any,
    pairs: Simulations,
    method: str = "rank",
    *,
    seed: int | None = None,
    training: Simulations | None = None,
) -> RecalibratedPosterior:
    """Return a corrected copy of a posterior.

    The methods:

    - `rank`: the probability of each highest-density shell is set to the fraction of pairs whose
      truth lies in it. Corrects the expected coverage; region shapes stay.
    - `conformal`: the same with shells placed by split-conformal quantiles: for the levels g in
      `EDGES` (up to the highest that draws resolve), the region `credibility(theta, x) <= g`
      contains the truth with probability between g and g + 1 / (n + 1) over the prior, for any
      posterior and any n.
    - `affine`: each parameter is shifted and stretched by the bias and width that its ranks show.
      Corrects pure bias and scale, and is the one to start with for posteriors that are far too
      narrow.

    Corrections inherit the statistical error of n pairs: take at least as many as the validation
    will have. A posterior may be recalibrated again, on further pairs.

    Args:
        posterior: A posterior with densities and one block of parameters; it is not changed.
        pairs: Fresh simulations, disjoint from those of training and validation; for example
            `simulate(..., purpose="test")`. At least 200.
        method: `rank`, `conformal` or `affine`.
        seed: Seed of reference draws and jitter; drawn and recorded when None.
        training: The training simulations, if at hand: shared ones are then found by content.

    Raises:
        UnknownNameError: If there is no such method.
        ValidationError: If the pairs cannot be used, are too few, or show that the posterior is
            too wrong for the method.
    """
    if method not in METHODS:
        raise unknown_name("recalibration method", method, METHODS)
    if not isinstance(posterior, Posterior) or len(posterior.blocks) > 1:
        raise ValidationError(
            f"{posterior!r} cannot be recalibrated: accepted are posteriors with one block of "
            "parameters (of a marginal engine, posterior.marginal(block))"
        )
    seed = fresh_seed() if seed is None else check_seed(seed)
    _, theta, x = usable_pairs(posterior, pairs, training)
    if len(x) < MIN_PAIRS:
        raise ValidationError(
            f"a recalibration needs at least {MIN_PAIRS} pairs, got {len(x)}; it carries their "
            "statistical error"
        )
    record: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "pairs": {
            "seed": pairs.seed,
            "purpose": pairs.purpose,
            "rounds": list(pairs.rounds),
            "n": len(x),
            "digest": pairs.digest(),
        },
    }
    if method in SHELL_METHODS:
        return _shells(posterior, theta, x, method, record)
    return _affine(posterior, theta, x, record)


def _shells(
    posterior: Posterior, theta: FloatArray, x: DataArray, method: str, record: dict[str, Any]
) -> ShellPosterior:
    ends = np.array([0.0, 1.0])
    # The same seed, so that the pairs are scored as the corrected posterior will score.
    plain = ShellPosterior(posterior, record, ends, ends)
    credibility = plain.nominal_credibility(theta[:, None], x, any_observation=True)[:, 0]
    if not np.isfinite(credibility).all():
        raise ValidationError(
            f"{int((~np.isfinite(credibility)).sum())} truths have a density of NaN"
        )
    n, edges = len(x), np.array([0.0, *EDGES, 1.0])
    if method == "rank":
        counts = np.histogram(credibility, edges)[0]
        # One pseudo-pair for each shell, spread as the posterior claims: no shell is ever empty.
        smoothed = (counts + len(counts) * np.diff(edges)) / (n + len(counts))
        nominal, calibrated = edges, np.concatenate([[0.0], np.cumsum(smoothed)])
        calibrated[-1] = 1.0
    else:
        order = np.ceil((n + 1) * edges[1:-1] - 1e-9).astype(int)
        inner = order <= n
        nominal = np.concatenate([[0.0], np.sort(credibility)[order[inner] - 1], [1.0]])
        calibrated = np.concatenate([[0.0], edges[1:-1][inner], [1.0]])
        # Levels whose region nearly fills the posterior are beyond the reference draws.
        while 1.0 - nominal[-2] < _NARROWEST and calibrated[-2] > _MUST_REACH:
            nominal, calibrated = np.delete(nominal, -2), np.delete(calibrated, -2)
    width = np.diff(nominal)
    factor = np.diff(calibrated) / np.maximum(width, 1e-12)
    if factor.max() > _LARGEST_FACTOR or width.min() < _NARROWEST:
        beyond = float(np.mean(credibility > 0.99))
        raise ValidationError(
            f"the posterior is too far from calibration for method {method!r}: {beyond:.1%} of "
            "the truths lie outside its 99 % regions, and one of its shells would have to hold "
            f"{factor.max():.0f} times its probability. Use method='affine' first, or train again"
        )
    return ShellPosterior(posterior, record, nominal, calibrated)


def _affine(
    posterior: Posterior, theta: FloatArray, x: DataArray, record: dict[str, Any]
) -> AffinePosterior:
    prior = posterior.prior
    shift, stretch = np.zeros(prior.d), np.ones(prior.d)
    plain = AffinePosterior(posterior, record, shift, stretch)  # refuses constraints at once
    rng = generator(int(record["seed"]), "validation", _STREAM)
    draws = draws_of(plain.base, x, N_DRAWS, prior.d, rng)
    for j, parameter in enumerate(prior.parameters):
        if parameter.is_fixed:
            continue
        u = pit_values(theta[:, j], draws[..., j], rng.random(len(x)))
        if np.isnan(u).any():
            raise ValidationError(f"draws of {parameter.name} are not finite")
        scores = location_scale(u)
        shift[j], stretch[j] = scores.location, scores.width
    return AffinePosterior(posterior, record, shift, stretch)
