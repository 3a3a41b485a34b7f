"""The one entrance to validation: is this posterior calibrated, and does it know anything?

`validate` draws from an amortised posterior for many simulated observations and compares the draws
with the true parameters; `validate_arrays` does the same for draws made elsewhere. Both return a
`Coverage` record with one verdict.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sbi_physics.array_inputs import N_DRAWS, check_choices
from sbi_physics.assess import Block, assess
from sbi_physics.coverage import Coverage, Recovery
from sbi_physics.diagnostics.evaluation import (
    QUANTILES,
    DrawBatch,
    Evaluation,
    batch_rows,
    block_name,
)
from sbi_physics.diagnostics.normalization import log_normalizer
from sbi_physics.errors import ValidationError, unknown_name
from sbi_physics.exact_likelihood import Likelihood
from sbi_physics.pair_checks import check_pairs, check_streams, pair_provenance
from sbi_physics.posterior import Posterior
from sbi_physics.priors import Prior
from sbi_physics.progress import Progress, rich_progress
from sbi_physics.references import references_for
from sbi_physics.seeding import check_seed, fresh_seed, generator
from sbi_physics.store import Simulations
from sbi_physics.targets import Sampler, block_posteriors, resolve
from sbi_physics.types import DataArray, FloatArray

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
    check_choices(require, quantities, ("pair", "loglik"))
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
        recovery=Recovery.of(theta, quantiles),
        n_draws=n_draws,
        seed=seed,
        has_data=True,
        provenance=pair_provenance(target, pairs, n, time.perf_counter() - started),
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
    step = batch_rows(n_draws, prior.d)
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
    draws = posterior.draw(x, n_draws, rng, log_prob=True, at=theta[:, None], any_observation=True)
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
        lambda points: posterior.log_prob(points, x, any_observation=True), draws.theta, prior, rng
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
