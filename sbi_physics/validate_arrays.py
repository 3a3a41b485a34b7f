"""Posterior draws made elsewhere, validated as arrays: `validate_draws`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.array_inputs import (
    check_choices,
    equal_weights,
    parameter_names,
    pooled_moments,
    scaled,
)
from sbi_physics.assess import Block, assess
from sbi_physics.coverage import Coverage, Recovery
from sbi_physics.diagnostics.evaluation import (
    DrawBatch,
    Evaluation,
    batch_rows,
    check_draws,
    check_rows,
)
from sbi_physics.errors import ValidationError, unknown_name
from sbi_physics.pair_checks import core_versions
from sbi_physics.priors import Prior
from sbi_physics.progress import SILENT, Progress
from sbi_physics.references import references_from_arrays


def validate_draws(
    theta: ArrayLike,
    draws: ArrayLike,
    *,
    x: ArrayLike | None = None,
    log_prob_true: ArrayLike | None = None,
    log_prob_draws: ArrayLike | None = None,
    normalized: bool = False,
    weights: ArrayLike | None = None,
    prior: Prior | None = None,
    names: Sequence[str] = (),
    blocks: Sequence[Sequence[str]] = (),
    require: str = "exact",
    quantities: Sequence[str] = (),
    progress: Progress = SILENT,
    rng: np.random.Generator,
) -> Coverage:
    """Validate posterior draws made elsewhere.

    Args:
        theta: True parameters in physical units, drawn from the prior, shape (batch, param).
        draws: Independent posterior draws for the observation of each, shape (batch, draw, param).
        x: The observations, shape (batch, ...); entries that are not finite count as average.
        log_prob_true: Log posterior density of each truth, shape (batch,); may lack a constant
            that depends on the observation only.
        log_prob_draws: Log posterior density of the draws with the same constants, shape (batch,
            draw).
        normalized: Whether these densities include the right normalising constant.
        weights: Weights of the draws, shape (batch, draw).
        prior: Prior of the parameters: gives names, units, scales and the reference of the
            information gain.
        names: Parameter names, when there is no prior.
        blocks: Blocks of parameters whose joint highest-density coverage is wanted, estimated from
            the draws.
        require: `exact`, or `conservative` to fail over-confidence only.
        quantities: `pair` ranks products of the residuals of every two parameters too.
        progress: Where to show progress; nowhere by default.
        rng: Source of randomness; one integer is drawn from it and recorded as the seed.

    Raises:
        ValidationError: If shapes do not fit together, a truth lies outside the prior, or there
            are too few pairs.
        UnknownNameError: If a block, requirement or quantity is unknown.

    Examples:
        >>> rng = np.random.default_rng(1)
        >>> theta = rng.normal(size=(400, 1))
        >>> x = theta + 0.5 * rng.normal(size=(400, 1))
        >>> draws = 0.8 * x[:, None] + np.sqrt(0.2) * rng.normal(size=(400, 999, 1))
        >>> validate_draws(theta, draws, x=x, rng=rng).verdict
        'PASS'
    """
    started = time.perf_counter()
    check_choices(require, quantities, ("pair",))
    seed = int(rng.integers(2**31))
    truth, samples = check_draws(theta, draws)
    n, n_draws, d = samples.shape
    own, drawn, w = (
        None if a is None else np.asarray(a, np.float64)
        for a in (log_prob_true, log_prob_draws, weights)
    )
    check_rows(
        {
            "log_prob_true": (own, (n,)),
            "log_prob_draws": (drawn, (n, n_draws)),
            "weights": (w, (n, n_draws)),
        }
    )
    if own is None and drawn is not None:
        raise ValidationError("log_prob_draws needs log_prob_true, with the same constants")
    data = None if x is None else np.asarray(x)
    if data is not None and (data.dtype.kind not in "buif" or data.ndim == 0 or len(data) != n):
        raise ValidationError(
            f"x must hold real numbers for {n} observations, got {data.dtype} of shape "
            f"{data.shape}"
        )
    labels = parameter_names(prior, names, d)
    if prior is not None and not (prior.contains(truth) | ~np.isfinite(truth).all(axis=1)).all():
        row = int(np.argmin(prior.contains(truth)))
        raise ValidationError(
            f"the true parameters of pair {row} lie outside the prior: {truth[row].tolist()}"
        )
    for name in (name for block in blocks for name in block):
        if name not in labels:
            raise unknown_name("parameter", name, labels)
    ess = None
    if w is not None:
        samples, drawn, w, ess = equal_weights(samples, drawn, w, seed)
    mean, spread = pooled_moments(truth, samples)
    unit = np.where(spread > 0, spread, 1.0)
    scaled_truth, jacobian = scaled(prior, truth, unit)
    beside = references_from_arrays(
        scaled_truth, data, prior, labels, (mean / unit, spread / unit), seed
    )
    evaluation = Evaluation(
        labels,
        seed,
        n,
        tuple(tuple(b) for b in blocks),
        references=beside.points(labels),
        features=beside.features,
        products="pair" in quantities,
    )
    step = batch_rows(samples.shape[1], d)
    with progress.task("validating", n, "obs") as task:
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            scaled_draws, draws_jacobian = scaled(prior, samples[rows], unit)
            evaluation.add(
                rows,
                DrawBatch(
                    truth=scaled_truth[rows],
                    draws=scaled_draws,
                    values=samples[rows],
                    log_q_truth=None if own is None else own[rows] - jacobian[rows],
                    log_q_draws=None if drawn is None else drawn[rows] - draws_jacobian,
                    weights=None if w is None else w[rows],
                    ess=None if ess is None else ess[rows],
                    outside=None
                    if prior is None
                    else 1.0 - prior.contains(samples[rows]).mean(axis=1),
                ),
            )
            task.advance(rows.stop - rows.start)
    usable = evaluation.usable
    block = Block(
        evaluation,
        scaled_truth,
        np.where(usable, own - jacobian, np.nan) if own is not None and normalized else None,
        None if prior is None else prior.log_prob(truth) - jacobian,
        np.zeros(n, np.bool_) if own is None else np.isneginf(own),
    )
    return assess(
        [block],
        names=labels,
        prior=prior,
        recovery=Recovery.of(truth, evaluation.quantiles),
        n_draws=samples.shape[1],
        seed=seed,
        has_data=x is not None,
        provenance={
            "engine": "draws",
            "seconds": time.perf_counter() - started,
            "versions": core_versions(),
        },
        require=require,
    )
