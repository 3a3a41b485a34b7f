"""From evaluated pairs to a Coverage record: tests, effects, scores and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sbi_physics.coverage import Coverage, PairCounts, ParameterSummary, Recovery
from sbi_physics.diagnostics.dependence import (
    correlation_effects,
    slope_effect,
    width_slope_effect,
)
from sbi_physics.diagnostics.evaluation import Evaluation, block_name
from sbi_physics.diagnostics.expected_coverage import (
    central_credibility,
    curve_effects,
)
from sbi_physics.diagnostics.information import (
    Score,
    contraction,
    information_gain,
    mean_score,
    moment_gain,
    negative_log_likelihood,
    z_scores,
)
from sbi_physics.diagnostics.local import map_if_possible
from sbi_physics.diagnostics.swap import min_p, own_p_values, rank_statistics
from sbi_physics.diagnostics.uniformity import (
    anderson_darling,
    holm,
    location_scale,
    under_coverage,
)
from sbi_physics.diagnostics.verdict import (
    ONE_SIDED,
    Effect,
    TestResult,
    decide,
    marginal_effects,
    region_effects,
)
from sbi_physics.errors import ValidationError
from sbi_physics.priors import Prior
from sbi_physics.quantities import quantity_credibility
from sbi_physics.types import BoolArray, FloatArray

MIN_PAIRS = 20
"""Below this nothing is computed."""

MIN_PAIRS_VERDICT = 200
MIN_ESS = 200.0
MAX_UNUSABLE = 0.02
MAX_OUTSIDE = 0.20
HOLM = "Bonferroni over all tests (smallest Holm-adjusted p-value)"
REGIONS = ("hpd", "tarp_u", "tarp_x")
"""Families of quantities that stand for joint regions."""


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
    require: str = "exact",
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
        require: `exact`, or `conservative` when only over-confidence may fail.

    Raises:
        ValidationError: If fewer than 20 pairs are usable.
    """
    pit: dict[str, FloatArray] = {}
    owned: list[tuple[Block, tuple[str, ...]]] = []
    for block in blocks:
        # A parameter that occurs in several blocks is ranked in the first.
        own = {k: v for k, v in block.evaluation.pit.items() if k not in pit}
        pit |= own
        owned.append((block, tuple(k for k, v in own.items() if _n_tested(v) >= MIN_PAIRS)))
    counts = _counts(blocks, pit)
    if counts.usable < MIN_PAIRS:
        raise ValidationError(
            f"validation needs at least {MIN_PAIRS} usable pairs ({MIN_PAIRS_VERDICT} for a "
            "verdict); "
            f"{counts.usable} of {counts.pairs} have finite parameters and draws"
        )
    kernels = {block_name(names_) for block in blocks for names_ in block.evaluation.blocks}
    single = _rank_tests(pit, kernels)
    p_global, combination = None, HOLM
    # Repeated draws from a small weighted pool are not exchangeable with the truth.
    if all(b.evaluation.labels is not None for b in blocks) and not _many_low_ess(counts):
        moments, p_global, combination = _swap(owned)
        single += moments
    tests = _adjusted(single)
    effects = _effects(pit, owned, {t.name for t in single})
    if p_global is None:
        p_global = min(t.p_holm for t in tests)
    if require == "conservative":
        one_sided = _adjusted(_one_sided_tests(pit))
        tests, p_global = tests + one_sided, min(t.p_holm for t in one_sided)
        combination = "Bonferroni over one-sided tests of under-coverage"
    main = max(blocks, key=lambda b: len(b.evaluation.names))
    nll, gain, gain_kind = _scores(main)
    has_density = (
        any(q.startswith("hpd") and q not in kernels for q in pit) or main.log_q is not None
    )
    obstacles = _obstacles(counts, pit, has_data or has_density)
    verdict = decide(tests, effects, gain, obstacles, p_global, require)
    return Coverage(
        verdict=verdict.verdict,
        labels=verdict.labels,
        reason=verdict.reason + _ess_note(verdict.verdict, counts),
        p_global=p_global,
        combination=combination,
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
        require=require,
        local=None
        if main.evaluation.features is None
        else map_if_possible(pit, main.evaluation.features),
    )


def _rank_tests(pit: Mapping[str, FloatArray], kernels: set[str]) -> tuple[TestResult, ...]:
    tests = []
    for quantity, values in pit.items():
        u = values[~np.isnan(values)]
        if len(u) < MIN_PAIRS:
            continue
        statistic, p = anderson_darling(u)
        family = quantity.partition(":")[0]
        detail = "region from a kernel density of part of the draws" if quantity in kernels else ""
        tests.append(
            TestResult(quantity, family, "Anderson-Darling", statistic, p, p, len(u), detail)
        )
    return tuple(tests)


def _one_sided_tests(pit: Mapping[str, FloatArray]) -> tuple[TestResult, ...]:
    """Do highest-density regions, and central intervals of each parameter, cover too little?"""
    tests = []
    for quantity, values in pit.items():
        u = values[~np.isnan(values)]
        family = quantity.partition(":")[0]
        if len(u) < MIN_PAIRS or family not in ("sbc", "hpd"):
            continue
        credibility = central_credibility(u) if family == "sbc" else 1.0 - u
        inside = np.clip(credibility, 1e-9, 1.0 - 1e-9)
        statistic, p = under_coverage(inside)
        name = f"{ONE_SIDED}:{quantity}"
        tests.append(TestResult(name, ONE_SIDED, "Fisher", statistic, p, p, len(u)))
    return tuple(tests)


def _swap(
    owned: Sequence[tuple[Block, tuple[str, ...]]],
) -> tuple[tuple[TestResult, ...], float, str]:
    """The moment tests and the combined p-value, from exchanging the truth with draws."""
    moments, combined, replicates = [], [], 0
    for block, quantities in owned:
        evaluation = block.evaluation
        if evaluation.labels is None or evaluation.moments is None:
            continue
        statistics = []
        for quantity in quantities:
            tested = ~np.isnan(evaluation.pit[quantity])
            statistics.append(
                rank_statistics(evaluation.ranks[quantity][tested], evaluation.labels[tested])
            )
        replicates = evaluation.labels.shape[1] - 1
        for family, quadratic in evaluation.moments.statistics().items():
            statistics.append(quadratic)
            p = float(own_p_values(quadratic)[0])
            k = len(evaluation.moments.tests[family])
            moments.append(
                TestResult(
                    evaluation.joint.replace("hpd", family, 1),
                    family,
                    "quadratic form",
                    float(quadratic[0]),
                    p,
                    p,
                    evaluation.moments.n_pairs,
                    f"{k} moments, p from {replicates} swaps",
                )
            )
        combined.append(min_p(np.stack(statistics)))
    rule = f"swap min-p (B={replicates})"
    if len(combined) > 1:
        rule = f"Bonferroni over {len(combined)} blocks of {rule}"
    return tuple(moments), min(1.0, len(combined) * min(combined)), rule


def _adjusted(tests: tuple[TestResult, ...]) -> tuple[TestResult, ...]:
    adjusted = holm([t.p_value for t in tests])
    return tuple(replace(t, p_holm=p) for t, p in zip(tests, adjusted, strict=True))


def _effects(
    pit: Mapping[str, FloatArray],
    owned: Sequence[tuple[Block, tuple[str, ...]]],
    tested: set[str],
) -> tuple[Effect, ...]:
    effects: list[Effect] = []
    for quantity in (q for q in pit if q in tested):
        u = pit[quantity][~np.isnan(pit[quantity])]
        family = quantity.partition(":")[0]
        if family in REGIONS:
            effects += region_effects(quantity, curve_effects(quantity_credibility(quantity, u)))
        elif family == "sbc":
            effects += marginal_effects(quantity, location_scale(u))
    found = {(e.kind, e.name) for e in effects}
    for block, quantities in owned:
        evaluation = block.evaluation
        usable = evaluation.usable
        more = [
            *correlation_effects(
                evaluation.names,
                block.theta[usable],
                evaluation.mean[usable],
                evaluation.covariance[usable],
            )
        ]
        for name in evaluation.names:
            if evaluation.features is not None and f"sbc:{name}" in quantities:
                u = evaluation.pit[f"sbc:{name}"][usable]
                data = evaluation.features[usable]
                slopes = (slope_effect(name, u, data), width_slope_effect(name, u, data))
                more += [slope for slope in slopes if slope is not None]
        effects += [e for e in more if (e.kind, e.name) not in found]
        found |= {(e.kind, e.name) for e in more}
    return tuple(effects)


def _n_tested(values: FloatArray) -> int:
    return int(np.count_nonzero(~np.isnan(values)))


def _counts(blocks: Sequence[Block], pit: Mapping[str, FloatArray]) -> PairCounts:
    usable = np.all([b.evaluation.usable for b in blocks], axis=0)
    missing = np.any([np.isnan(v) for v in _complete(pit).values()], axis=0) & usable
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


def _complete(pit: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Quantities that have a value for every good pair: some are held out of tarp_x."""
    return {k: v for k, v in pit.items() if not k.startswith("tarp_x")}


def _many_low_ess(counts: PairCounts) -> bool:
    return counts.low_ess > MAX_UNUSABLE * counts.pairs


def _obstacles(
    counts: PairCounts, pit: Mapping[str, FloatArray], can_see_prior: bool
) -> list[str]:
    found = []
    tested = min(_n_tested(v) for v in _complete(pit).values())
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
    if verdict not in ("FAIL", "MARGINAL") or not _many_low_ess(counts):
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
