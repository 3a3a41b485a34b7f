"""From evaluated pairs to a Coverage record: tests, effects, scores and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sbi_physics.coverage import Coverage, PairCounts, ParameterSummary, Recovery
from sbi_physics.diagnostics.evaluation import Evaluation, block_name
from sbi_physics.diagnostics.expected_coverage import curve_effects
from sbi_physics.diagnostics.information import (
    Score,
    contraction,
    information_gain,
    mean_score,
    moment_gain,
    negative_log_likelihood,
    z_scores,
)
from sbi_physics.diagnostics.uniformity import anderson_darling, holm, location_scale
from sbi_physics.diagnostics.verdict import (
    Effect,
    TestResult,
    decide,
    marginal_effects,
    region_effects,
)
from sbi_physics.errors import ValidationError
from sbi_physics.priors import Prior
from sbi_physics.types import BoolArray, FloatArray

MIN_PAIRS = 20
"""Below this nothing is computed."""

MIN_PAIRS_VERDICT = 200
MIN_ESS = 200.0
MAX_UNUSABLE = 0.02
MAX_OUTSIDE = 0.20
N_RECOVERY = 500
COMBINATION = "Bonferroni over all tests (smallest Holm-adjusted p-value)"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The evaluated pairs of one block of parameters.

    Attributes:
        evaluation: Ranks, moments and quantiles.
        theta: True parameters in scaled coordinates, shape (pairs, param).
        log_q: Normalised log density at the truth in scaled coordinates, shape (pairs,), or None.
        log_prior: Log prior density at the truth in scaled coordinates, shape (pairs,), or None.
        truth_excluded: Pairs to whose truth the posterior gives zero density, shape (pairs,).
    """

    evaluation: Evaluation
    theta: FloatArray
    log_q: FloatArray | None
    log_prior: FloatArray | None
    truth_excluded: BoolArray


def assess(
    blocks: Sequence[Block],
    *,
    names: tuple[str, ...],
    prior: Prior | None,
    recovery: Recovery,
    n_draws: int,
    seed: int,
    has_data: bool,
    provenance: Mapping[str, Any],
) -> Coverage:
    """Test, measure and decide.

    Args:
        blocks: Evaluated blocks; together they cover all parameters. Scores are those of the
            largest one.
        names: All parameter names.
        prior: Prior of these parameters, if known.
        recovery: Truth and quantiles kept for plots.
        n_draws: Draws for each pair.
        seed: Recorded seed.
        has_data: Whether the draws are known to belong to given data.
        provenance: Recorded as is.

    Raises:
        ValidationError: If fewer than 20 pairs are usable.
    """
    pit: dict[str, FloatArray] = {}
    for block in blocks:
        # A parameter that occurs in several blocks is ranked in the first.
        pit |= {k: v for k, v in block.evaluation.pit.items() if k not in pit}
    counts = _counts(blocks, pit)
    if counts.usable < MIN_PAIRS:
        raise ValidationError(
            f"validation needs at least {MIN_PAIRS} usable pairs ({MIN_PAIRS_VERDICT} for a "
            "verdict); "
            f"{counts.usable} of {counts.pairs} have finite parameters and draws"
        )
    kernels = {block_name(names_) for block in blocks for names_ in block.evaluation.blocks}
    tests, effects = _tests(pit, kernels)
    main = max(blocks, key=lambda b: len(b.evaluation.names))
    nll, gain, gain_kind = _scores(main)
    has_density = (
        any(q.startswith("hpd") and q not in kernels for q in pit) or main.log_q is not None
    )
    verdict = decide(tests, effects, gain, _obstacles(counts, pit, has_data or has_density))
    return Coverage(
        verdict=verdict.verdict,
        labels=verdict.labels,
        reason=verdict.reason + _ess_note(verdict.verdict, counts),
        p_global=min(t.p_holm for t in tests),
        combination=COMBINATION,
        names=names,
        prior=prior,
        tests=tests,
        effects=effects,
        pit=pit,
        counts=counts,
        n_draws=n_draws,
        seed=seed,
        parameters=_parameters(blocks, names),
        recovery=recovery,
        log_q=main.log_q,
        log_prior=main.log_prior,
        nll=nll,
        gain=gain,
        gain_kind=gain_kind,
        provenance=provenance,
    )


def _tests(
    pit: Mapping[str, FloatArray], kernels: set[str]
) -> tuple[tuple[TestResult, ...], tuple[Effect, ...]]:
    tests: list[TestResult] = []
    effects: list[Effect] = []
    for quantity, values in pit.items():
        u = values[~np.isnan(values)]
        if len(u) < MIN_PAIRS:
            continue
        statistic, p_value = anderson_darling(u)
        family = quantity.partition(":")[0]
        detail = "region from a kernel density of part of the draws" if quantity in kernels else ""
        tests.append(
            TestResult(
                quantity, family, "Anderson-Darling", statistic, p_value, p_value, len(u), detail
            )
        )
        if family == "hpd":
            effects += region_effects(quantity, curve_effects(1.0 - u))
        else:
            effects += marginal_effects(quantity, location_scale(u))
    adjusted = holm([t.p_value for t in tests])
    return tuple(replace(t, p_holm=p) for t, p in zip(tests, adjusted, strict=True)), tuple(
        effects
    )


def _counts(blocks: Sequence[Block], pit: Mapping[str, FloatArray]) -> PairCounts:
    usable = np.all([b.evaluation.usable for b in blocks], axis=0)
    missing = np.any([np.isnan(v) for v in pit.values()], axis=0) & usable
    excluded = np.any([b.truth_excluded for b in blocks], axis=0) & usable
    ess = np.min([b.evaluation.ess for b in blocks], axis=0)
    known = ess[~np.isnan(ess)]
    return PairCounts(
        pairs=len(usable),
        usable=int(usable.sum()),
        density_missing=int(missing.sum()),
        truth_excluded=int(excluded.sum()),
        low_ess=int((known < MIN_ESS).sum()),
        median_ess=float(np.median(known)) if len(known) else np.nan,
        outside=float(np.mean([b.evaluation.outside.mean() for b in blocks])),
    )


def _obstacles(
    counts: PairCounts, pit: Mapping[str, FloatArray], can_see_prior: bool
) -> list[str]:
    found = []
    tested = min(int((~np.isnan(v)).sum()) for v in pit.values())
    if tested < MIN_PAIRS_VERDICT:
        found.append(f"only {tested} usable pairs; a verdict needs {MIN_PAIRS_VERDICT}")
    if counts.pairs - tested > MAX_UNUSABLE * counts.pairs:
        found.append(
            f"{counts.pairs - tested} of {counts.pairs} pairs have non-finite values "
            f"(more than {MAX_UNUSABLE:.0%}); find out where they come from"
        )
    if counts.median_ess < MIN_ESS:
        found.append(
            f"half of the observations have fewer than {counts.median_ess:.0f} effective draws; "
            "at least "
            f"{MIN_ESS:.0f} are needed"
        )
    if counts.outside > MAX_OUTSIDE:
        found.append(f"{counts.outside:.0%} of the draws lie outside the prior; reject them first")
    if not can_see_prior:
        found.append(
            "neither data nor densities were given, so a posterior that repeats the prior cannot "
            "be told"
        )
    return found


def _ess_note(verdict: str, counts: PairCounts) -> str:
    # Repeated draws from a small weighted pool break the exact uniformity of ranks.
    if verdict not in ("FAIL", "MARGINAL") or counts.low_ess <= MAX_UNUSABLE * counts.pairs:
        return ""
    return (
        f"; {counts.low_ess} observations have fewer than {MIN_ESS:.0f} effective draws, which "
        "can cause this by itself"
    )


def _scores(block: Block) -> tuple[Score | None, Score | None, str]:
    evaluation = block.evaluation
    usable = evaluation.usable
    if block.log_q is not None and np.count_nonzero(~np.isnan(block.log_q)) >= MIN_PAIRS:
        nll = negative_log_likelihood(block.log_q)
        if block.log_prior is None:
            return nll, None, ""
        return nll, information_gain(block.log_q, block.log_prior), "information"
    truth = block.theta[usable]
    gain = moment_gain(
        truth,
        evaluation.mean[usable],
        evaluation.covariance[usable],
        truth.mean(axis=0),
        np.atleast_2d(np.cov(truth, rowvar=False)),
    )
    return None, mean_score(gain), "moments"


def _parameters(blocks: Sequence[Block], names: tuple[str, ...]) -> tuple[ParameterSummary, ...]:
    found: dict[str, ParameterSummary] = {}
    for block in blocks:
        usable = block.evaluation.usable
        truth, mean = block.theta[usable], block.evaluation.mean[usable]
        variance = np.diagonal(block.evaluation.covariance, axis1=1, axis2=2)[usable]
        prior_variance = truth.var(axis=0)
        shrunk = contraction(variance, np.where(prior_variance > 0, prior_variance, np.nan))
        z = z_scores(truth, mean, variance)
        for j, name in enumerate(block.evaluation.names):
            known = z[~np.isnan(z[:, j]), j]
            low, middle, high = np.quantile(shrunk[:, j], (0.16, 0.5, 0.84)).tolist()
            found.setdefault(
                name,
                ParameterSummary(
                    name=name,
                    contraction=(low, middle, high),
                    z_mean=float(known.mean()) if len(known) else np.nan,
                    z_sd=float(known.std()) if len(known) else np.nan,
                    rmse=float(np.sqrt(np.mean((mean[:, j] - truth[:, j]) ** 2))),
                ),
            )
    return tuple(found[name] for name in names)
