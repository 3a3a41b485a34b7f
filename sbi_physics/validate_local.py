"""Is this posterior right at *this* observation? The local classifier test (arXiv:2306.03580).

`validate` tests a posterior on average over the prior; `validate_local` asks about one observation
or a few, with the pairs around them as witnesses. See `diagnostics.lc2st` for the statistics.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.diagnostics.json_numbers import from_list, to_list
from sbi_physics.diagnostics.json_record import JsonRecord, check_schema
from sbi_physics.diagnostics.lc2st import N_NULL, LocalTest, local_c2st, standardised
from sbi_physics.diagnostics.uniformity import holm
from sbi_physics.diagnostics.verdict import ALPHA, ALPHA_WARNING
from sbi_physics.errors import ValidationError
from sbi_physics.pair_checks import pair_provenance
from sbi_physics.pair_draws import (
    Features,
    checked_features,
    data_features,
    draws_of,
    usable_pairs,
)
from sbi_physics.posterior import Posterior
from sbi_physics.priors import Prior
from sbi_physics.progress import Progress, rich_progress
from sbi_physics.seeding import check_seed, fresh_seed, generator
from sbi_physics.store import Simulations
from sbi_physics.targets import Sampler, block_posteriors, resolve
from sbi_physics.types import DataArray, FloatArray

SCHEMA: Final = 1
MIN_PAIRS: Final = 200
"""Fewer pairs cannot clear a posterior, though they may convict it."""

_DRAWS_EACH = 4
_REFERENCE = 64
_N_DRAWS = 1000
_MAX_UNUSABLE = 0.02
_STREAM = 20
_MIN_USABLE = 20


@dataclass(frozen=True, slots=True, eq=False)
class LocalResult:
    """The answer for one block of parameters at one observation.

    Attributes:
        observation: Position of the observation among those given.
        block: Names of the parameters.
        verdict: `PASS`, `MARGINAL`, `FAIL` or `INCONCLUSIVE`.
        reason: One sentence.
        statistic: Mean squared deviation of the class probability from one half.
        null_mean: Its mean for an exact posterior.
        p_value: Probability of at least this much for an exact posterior.
        p_holm: Adjusted for all observations and blocks given.
        typicality: Fraction of the pairs whose data lie further out than the observation.
        draws: Draws at the observation in physical units, shape (draw, param).
        probability: Probability that each is a draw of this posterior rather than of the exact
            one, shape (draw,): above one half where the posterior puts too much.
    """

    observation: int
    block: tuple[str, ...]
    verdict: str
    reason: str
    statistic: float
    null_mean: float
    p_value: float
    p_holm: float
    typicality: float
    draws: FloatArray
    probability: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class LocalValidation(JsonRecord):
    """The result of a local validation.

    Attributes:
        results: One for each observation and block.
        n_pairs: Usable pairs.
        n_unusable: Pairs left out because draws were not finite.
        n_null: Exchanges of labels behind each p-value.
        seed: Seed of draws and exchanges.
        provenance: Engine, simulator, hashes, versions, timing.
    """

    results: tuple[LocalResult, ...]
    n_pairs: int
    n_unusable: int
    n_null: int
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The worst verdict: FAIL, INCONCLUSIVE, MARGINAL or PASS."""
        found = {r.verdict for r in self.results}
        return next(v for v in ("FAIL", "INCONCLUSIVE", "MARGINAL", "PASS") if v in found)

    def summary(self) -> str:
        """Return the answers as plain text."""
        lines = [
            f"observation {r.observation}, {', '.join(r.block)}: {r.verdict}: {r.reason}"
            for r in self.results
        ]
        lines.append(f"{self.n_pairs} pairs, {self.n_null} exchanges, seed {self.seed}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "n_pairs": self.n_pairs,
            "n_unusable": self.n_unusable,
            "n_null": self.n_null,
            "seed": self.seed,
            "provenance": dict(self.provenance),
            "results": [
                {
                    **{name: getattr(r, name) for name in _PLAIN},
                    "block": list(r.block),
                    "draws": to_list(r.draws),
                    "probability": to_list(r.probability),
                }
                for r in self.results
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`.

        Raises:
            ValidationError: If the schema is another one.
        """
        check_schema(data, "local validation", SCHEMA)
        results = tuple(
            LocalResult(
                **{name: r[name] for name in _PLAIN},
                block=tuple(r["block"]),
                draws=from_list(r["draws"]).reshape(-1, len(r["block"])),
                probability=from_list(r["probability"]),
            )
            for r in data["results"]
        )
        plain = {k: data[k] for k in ("n_pairs", "n_unusable", "n_null", "seed", "provenance")}
        return cls(results, **plain)


_PLAIN = (
    "observation", "verdict", "reason", "statistic", "null_mean", "p_value", "p_holm",
    "typicality",
)  # fmt: skip


def validate_local(
    posterior: Posterior | Sampler | Any,
    pairs: Simulations,
    x_o: ArrayLike,
    *,
    seed: int | None = None,
    n_null: int | None = None,
    features: Features | None = None,
    training: Simulations | None = None,
    progress: Progress | None = None,
) -> LocalValidation:
    """Test a posterior at one observation, or at a few.

    An exact posterior is called FAIL in 1 % and MARGINAL in another 4 % of the runs, whatever the
    number of observations. A thousand pairs find a width wrong by 20 % or a bias of 0.2 standard
    deviations in two parameters. The test learns from pairs elsewhere, so that errors near an
    observation weigh on it too.

    Args:
        posterior: What `validate` accepts.
        pairs: Fresh simulations from the posterior's prior, never used in training.
        x_o: One observation, shape (*observable.shape), or several, shape (obs,
            *observable.shape).
        seed: Seed of draws and exchanges; drawn and recorded when None.
        n_null: Exchanges of labels; default 999, more for many observations. The smallest adjusted
            p-value is (number of tests) / (n_null + 1), so that too few could never reject.
        features: A function of data (batch, *shape) that returns the numbers on which errors may
            depend, (batch, feature); default the five leading principal components.
        training: The training simulations, if at hand: shared ones are then found by content.
        progress: Where to show progress; default bars on a terminal.

    Returns:
        A verdict for each observation and block of parameters.

    Raises:
        ValidationError: If the pairs cannot be used with this posterior, or are fewer than 20.
        ObservationError: If an observation is not finite or has another shape.
    """
    started = time.perf_counter()
    seed = fresh_seed() if seed is None else check_seed(seed)
    show = rich_progress() if progress is None else progress
    target = resolve(posterior, pairs)
    prior, theta, x = usable_pairs(target, pairs, training)
    observed = pairs.observable.check(x_o)
    if len(observed) == 0:
        raise ValidationError("validate_local needs at least one observation, got none")
    chosen = data_features(pairs, x) if features is None else features
    known = checked_features(chosen, x, "pairs")
    known_at = checked_features(chosen, observed, "observations")
    sources = block_posteriors(target) if isinstance(target, Posterior) else [target]
    n_tests = len(sources) * len(observed)
    enough = int(np.ceil(n_tests / ALPHA))
    n_exchanges = max(N_NULL, 5 * enough) if n_null is None else n_null
    if n_exchanges < enough:
        raise ValidationError(
            f"{n_tests} tests need n_null of at least {enough}, got {n_exchanges}: with fewer "
            f"exchanges no adjusted p-value can fall below {ALPHA:g}"
        )
    results: list[LocalResult] = []
    n_used = len(x)
    with show.task("local validation", len(sources), "block") as task:
        for k, source in enumerate(sources):
            part = source.prior if isinstance(source, Posterior) else prior
            truth = theta[:, prior.parameters.indices(part.names)]
            block = _Block(source, part, truth, x, observed, seed, k)
            tests = local_c2st(
                block.points,
                known[block.kept],
                block.at,
                known_at,
                generator(seed, "validation", _STREAM, k, 1),
                n_null=n_exchanges,
            )
            n_used = min(n_used, int(block.kept.sum()))
            results += [_result(i, block, test) for i, test in enumerate(tests)]
            task.advance()
    adjusted = holm([r.p_value for r in results])
    unusable = len(x) - n_used
    shared = _obstacles(n_used, unusable)
    results = [
        _decided(replace(r, p_holm=p), shared) for r, p in zip(results, adjusted, strict=True)
    ]
    return LocalValidation(
        results=tuple(results),
        n_pairs=n_used,
        n_unusable=unusable,
        n_null=n_exchanges,
        seed=seed,
        provenance=pair_provenance(target, pairs, len(x), time.perf_counter() - started),
    )


class _Block:
    """Standardised points of one block of parameters, at the pairs and at the observations."""

    def __init__(
        self,
        source: Posterior | Sampler,
        prior: Prior,
        truth: FloatArray,
        x: DataArray,
        observed: DataArray,
        seed: int,
        stream: int,
    ) -> None:
        rng = generator(seed, "validation", _STREAM, stream, 0)
        self.names = prior.names
        draws = prior.scaled(draws_of(source, x, _DRAWS_EACH + _REFERENCE, prior.d, rng))
        points = np.concatenate([prior.scaled(truth)[:, None], draws], axis=1)
        self.kept = np.asarray(np.isfinite(points).all(axis=(1, 2)))
        if self.kept.sum() < _MIN_USABLE:
            raise ValidationError(
                f"a local validation needs at least {_MIN_USABLE} usable pairs ({MIN_PAIRS} for "
                f"a verdict); {int(self.kept.sum())} of {len(x)} have finite draws"
            )
        points = points[self.kept]
        self.points = standardised(points[:, : 1 + _DRAWS_EACH], points[:, 1 + _DRAWS_EACH :])
        self.draws = draws_of(source, observed, _N_DRAWS + _REFERENCE, prior.d, rng)
        if not np.isfinite(self.draws).all():
            raise ValidationError("the posterior gave draws at an observation that are not finite")
        scaled = prior.scaled(self.draws)
        self.at = standardised(scaled[:, _REFERENCE:], scaled[:, :_REFERENCE])
        self.draws = self.draws[:, _REFERENCE:]


def _result(i: int, block: _Block, test: LocalTest) -> LocalResult:
    return LocalResult(
        observation=i,
        block=block.names,
        verdict="",
        reason="",
        statistic=test.statistic,
        null_mean=test.null_mean,
        p_value=test.p_value,
        p_holm=test.p_value,
        typicality=test.typicality,
        draws=block.draws[i],
        probability=test.probability,
    )


def _obstacles(n: int, unusable: int) -> list[str]:
    found = []
    if n < MIN_PAIRS:
        found.append(f"only {n} usable pairs; a verdict needs {MIN_PAIRS}")
    if unusable > _MAX_UNUSABLE * (n + unusable):
        found.append(f"{unusable} of {n + unusable} pairs have draws that are not finite")
    return found


def _decided(result: LocalResult, obstacles: Sequence[str]) -> LocalResult:
    finding = (
        f"a classifier tells its draws from the exact posterior's by "
        f"{np.sqrt(result.statistic):.3f} rms in probability, {np.sqrt(result.null_mean):.3f} "
        f"expected by chance (adjusted p = {result.p_holm:.2g})"
    )
    problems = list(obstacles)
    if result.typicality == 0.0:
        problems.append(
            "the observation lies further out than every simulated pair, where nothing was "
            "learned; is it described by the simulator and the prior at all?"
        )
    if problems:
        return replace(result, verdict="INCONCLUSIVE", reason="; ".join([*problems, finding]))
    if result.p_holm < ALPHA:
        return replace(result, verdict="FAIL", reason=finding)
    if result.p_holm < ALPHA_WARNING:
        note = f"{finding}; an exact posterior does so in 5 % of runs"
        return replace(result, verdict="MARGINAL", reason=note)
    return replace(result, verdict="PASS", reason=finding)
