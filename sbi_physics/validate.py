"""The one entrance to validation: is this posterior calibrated, and does it know anything?

`validate` draws from an amortised posterior for many simulated observations and compares the draws
with the true parameters; `validate_draws` does the same for draws made elsewhere. Both return a
`Coverage` record with one verdict.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.array_inputs import (
    N_DRAWS,
    equal_weights,
    parameter_names,
    pooled_moments,
    scaled,
)
from sbi_physics.assess import N_RECOVERY, Block, assess
from sbi_physics.coverage import Coverage, Recovery
from sbi_physics.diagnostics.evaluation import (
    QUANTILES,
    DrawBatch,
    Evaluation,
    block_name,
    check_draws,
    check_rows,
)
from sbi_physics.diagnostics.normalization import log_normalizer
from sbi_physics.diagnostics.verdict import REQUIREMENTS
from sbi_physics.errors import ValidationError, unknown_name
from sbi_physics.exact_likelihood import Likelihood
from sbi_physics.pair_checks import check_pairs, check_streams, core_versions, pair_provenance
from sbi_physics.posterior import Posterior
from sbi_physics.priors import Prior
from sbi_physics.progress import Progress, rich_progress
from sbi_physics.references import references_for, references_from_arrays
from sbi_physics.seeding import check_seed, fresh_seed, generator
from sbi_physics.store import Simulations
from sbi_physics.targets import Sampler, block_posteriors, resolve
from sbi_physics.types import DataArray, FloatArray

_BATCH = 100
_BATCH_VALUES = 8_000_000
_DRAW_STREAM = 0


def validate(
    posterior: Posterior | Sampler | Any,
    pairs: Simulations,
    *,
    n_draws: int = N_DRAWS,
    seed: int | None = None,
    max_pairs: int | None = None,
    blocks: Sequence[Sequence[str]] = (),
    training: Simulations | None = None,
    require: str = "exact",
    quantities: Sequence[str] = (),
    progress: Progress | None = None,
) -> Coverage:
    """Validate an amortised posterior on simulated pairs.

    Args:
        posterior: A posterior; or a native posterior of an ecosystem whose plugin is installed; or
            a function `sampler(x, n)` returning draws of the parameters of interest with shape
            (batch, n, param).
        pairs: Fresh simulations from the posterior's prior, never used in training.
        n_draws: Draws for each observation.
        seed: Seed of draws and jitter; drawn and recorded when None.
        max_pairs: Use only the first so many pairs.
        blocks: Blocks of parameters whose joint highest-density coverage is wanted besides the
            posterior's own; their density is estimated from the draws.
        training: The training simulations, if at hand: shared simulations are then found by
            content, and the regression behind `tarp_x` is fitted on them rather than on every
            fifth pair.
        require: `exact`, or `conservative` to fail over-confidence only.
        quantities: More quantities to rank: `pair` (products of the residuals of every two
            parameters) and `loglik` (exact log likelihood, where the simulator knows it and all
            its free parameters are inferred).
        progress: Where to show progress; default bars on a terminal.

    Returns:
        The verdict with every test, effect and score.

    Raises:
        ValidationError: If the pairs overlap the training simulations, come from another
            simulator, other options or another prior, or are too few; or if `loglik` is asked for
            and does not exist.
        UnknownNameError: If a block names an unknown parameter, or a requirement or quantity is
            unknown.
    """
    started = time.perf_counter()
    seed = fresh_seed() if seed is None else check_seed(seed)
    show = rich_progress() if progress is None else progress
    if n_draws < 1:
        raise ValidationError(f"n_draws must be at least 1, got {n_draws}")
    _check_choices(require, quantities, ("pair", "loglik"))
    target = resolve(posterior, pairs)
    check_streams(target, pairs, training)
    n = len(pairs) if max_pairs is None else min(len(pairs), max_pairs)
    if isinstance(target, Posterior):
        check_pairs(target, pairs)
        prior, sources = target.prior, block_posteriors(target)
    else:
        prior, sources = pairs.prior.select(pairs.parameters.interest), [target]
    for name in (name for block in blocks for name in block):
        if name not in prior.names:
            raise unknown_name("inferred parameter", name, prior.names)
    extra = tuple(tuple(b) for b in blocks)
    theta = pairs.theta[:n][:, pairs.parameters.indices(prior.names)]
    beside = references_for(pairs, training, prior, n, seed)
    likelihood = Likelihood(pairs, prior) if "loglik" in quantities else None
    evaluated, quantiles = [], np.full((n, len(QUANTILES), prior.d), np.nan)
    for source in sources:
        part = source.prior if isinstance(source, Posterior) else prior
        columns = prior.parameters.indices(part.names)
        joint = "hpd" if len(sources) == 1 else block_name(part.names)
        inside = tuple(b for b in extra if set(b) <= set(part.names))
        evaluation = Evaluation(
            part.names,
            seed,
            n,
            inside,
            joint,
            references=beside.points(part.names, joint.removeprefix("hpd")),
            features=beside.features,
            products="pair" in quantities,
            n_parts=len(sources),
        )
        evaluated.append(
            _evaluate(
                evaluation, source, part, pairs, theta[:, columns], n_draws, likelihood, show
            )
        )
        quantiles[..., columns] = evaluation.quantiles
    return assess(
        evaluated,
        names=prior.names,
        prior=prior,
        recovery=_recovery(theta, quantiles),
        n_draws=n_draws,
        seed=seed,
        has_data=True,
        provenance=pair_provenance(target, pairs, n, time.perf_counter() - started),
        require=require,
    )


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
    _check_choices(require, quantities, ("pair",))
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
    step = _batch_rows(samples.shape[1], d)
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
        recovery=_recovery(truth, evaluation.quantiles),
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


def _evaluate(
    evaluation: Evaluation,
    source: Posterior | Sampler,
    prior: Prior,
    pairs: Simulations,
    theta: FloatArray,
    n_draws: int,
    likelihood: Likelihood | None,
    progress: Progress,
) -> Block:
    """Draw for every observation, reduce, and score the truth."""
    n = evaluation.n_pairs
    truth, jacobian = prior.scaled(theta), prior.log_abs_det_scaled(theta)
    log_q = np.full(n, np.nan) if isinstance(source, Posterior) else None
    stream = zlib.crc32(",".join(prior.names).encode())
    step = _batch_rows(n_draws, prior.d)
    with progress.task("validating", n, "obs") as task:
        for batch, start in enumerate(range(0, n, step)):
            rows = slice(start, min(start + step, n))
            x = _unweighted(pairs, rows)
            rng = generator(evaluation.seed, "validation", _DRAW_STREAM, stream, batch)
            if log_q is not None and isinstance(source, Posterior):
                drawn, log_q[rows] = _drawn_from(source, x, theta[rows], n_draws, rng)
            else:
                values = _drawn_by(source, x, n_draws, prior.d)
                drawn = DrawBatch(truth[rows], prior.scaled(values), values)
            if likelihood is not None:
                points = np.concatenate([theta[rows, None], drawn.values], axis=1)
                drawn = replace(drawn, extra={"loglik": likelihood(x, points)})
            evaluation.add(rows, drawn)
            task.advance(rows.stop - rows.start)
    excluded = np.zeros(n, np.bool_) if log_q is None else np.isneginf(log_q)
    if log_q is not None:
        log_q = np.where(evaluation.usable, log_q, np.nan)
    return Block(evaluation, truth, log_q, prior.log_prob(theta) - jacobian, excluded)


def _drawn_from(
    posterior: Posterior, x: DataArray, theta: FloatArray, n_draws: int, rng: np.random.Generator
) -> tuple[DrawBatch, FloatArray]:
    """Draws of one batch, and the normalised log density of the truth in scaled coordinates."""
    prior = posterior.prior
    draws = posterior.draw(x, n_draws, rng, log_prob=True, at=theta[:, None])
    if draws.log_prob is None or draws.log_prob_at is None:
        raise ValidationError(f"{posterior!r} returned no log densities")
    log_q = draws.log_prob_at[:, 0] - prior.log_abs_det_scaled(theta)
    batch = DrawBatch(
        truth=prior.scaled(theta),
        draws=prior.scaled(draws.theta),
        values=draws.theta,
        log_q_truth=log_q,
        log_q_draws=draws.log_prob - prior.log_abs_det_scaled(draws.theta),
        ess=draws.ess,
        outside=1.0 - prior.contains(draws.theta).mean(axis=1),
    )
    if posterior.normalized:
        return batch, log_q
    constant = log_normalizer(
        lambda points: posterior.log_prob(points, x), draws.theta, prior, rng
    )
    return batch, log_q - constant


def _unweighted(pairs: Simulations, rows: slice) -> DataArray:
    read = pairs.read(rows, latents=())
    if read.weight is not None and not bool((read.weight == 1.0).all()):
        raise ValidationError(
            "the pairs carry importance weights: coverage needs unweighted draws from the prior"
        )
    return read.x


def _drawn_by(sampler: Any, x: DataArray, n_draws: int, d: int) -> FloatArray:
    drawn = np.asarray(sampler(x, n_draws), dtype=np.float64)
    if drawn.shape != (len(x), n_draws, d):
        raise ValidationError(
            f"the sampler returned draws of shape {drawn.shape} for {len(x)} observations; "
            f"expected ({len(x)}, {n_draws}, {d})"
        )
    return drawn


def _check_choices(require: str, quantities: Sequence[str], known: tuple[str, ...]) -> None:
    if require not in REQUIREMENTS:
        raise unknown_name("requirement", require, REQUIREMENTS)
    for quantity in quantities:
        if quantity not in known:
            raise unknown_name("quantity", quantity, known)


def _recovery(truth: FloatArray, quantiles: FloatArray) -> Recovery:
    kept = np.flatnonzero(
        np.isfinite(truth).all(axis=1) & np.isfinite(quantiles).all(axis=(1, 2))
    )[:N_RECOVERY]
    return Recovery(truth=truth[kept], quantiles=quantiles[kept])


def _batch_rows(n_draws: int, d: int) -> int:
    return max(1, min(_BATCH, _BATCH_VALUES // (n_draws * d)))
