r"""Checks of a posterior's promises.

Density and draws are compared through importance sampling in unconstrained coordinates with a
Student-t proposal g fitted to the draws: :math:`E_g[q/g] = 1` if q is normalised, and weighted
means of any function must equal the means over the draws.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from scipy import special

from sbi_physics import registry
from sbi_physics.errors import ConformanceError, ObservationError
from sbi_physics.posterior import Posterior
from sbi_physics.progress import SILENT
from sbi_physics.testing import two_sample
from sbi_physics.testing.cases import NotApplicable, PosteriorCase
from sbi_physics.testing.state import differences, snapshot, watch
from sbi_physics.types import DataArray, FloatArray
from sbi_physics.validate import validate
from sbi_physics.validate_arrays import validate_draws

_LOG_PROB_TOLERANCE = 0.01
_N_SIGMA = 5.0
_N_PROPOSALS = 8000
_N_REFERENCE = 2000
_DEGREES = 3.0
_MIN_ESS = 200.0
_NORM_TOLERANCE = 0.1
_MOMENT_TOLERANCE = 0.1
_OBSERVATIONS = 4

_RELOAD = """
import sys
import numpy as np
from sbi_physics import load_posterior
given = np.load(sys.argv[2])
posterior = load_posterior(sys.argv[1])
draws = posterior.draw(given["x"], given["theta"].shape[1], np.random.default_rng(5))
np.savez(sys.argv[3], theta=draws.theta, log_prob=posterior.log_prob(given["theta"], given["x"]))
"""


def draws_are_inside_the_prior(case: PosteriorCase) -> None:
    """Draws are finite float64 of shape (observation, draw, parameter), inside the prior."""
    draws = case.posterior.draw(case.x, 100, case.rng(1))
    expected = (len(case.x), 100, case.posterior.prior.d)
    if draws.theta.shape != expected or draws.theta.dtype != np.float64:
        raise ConformanceError(
            f"{case.name} gave draws of shape {draws.theta.shape}, {draws.theta.dtype}; expected "
            f"{expected}, float64"
        )
    if not np.isfinite(draws.theta).all():
        raise ConformanceError(f"{case.name} gave non-finite draws")
    outside = ~case.posterior.prior.contains(draws.theta)
    if outside.any():
        worst = draws.theta[outside][0]
        raise ConformanceError(
            f"{case.name} drew {worst}, outside its prior ({outside.mean():.2%} of draws)"
        )


def same_generator_state_same_draws(case: PosteriorCase) -> None:
    """Draws are a function of observation and generator state; another state gives other draws."""
    x = case.x[:_OBSERVATIONS]
    first, again, other = (case.posterior.draw(x, 50, case.rng(k)).theta for k in (2, 2, 3))
    if not np.array_equal(first, again):
        raise ConformanceError(f"{case.name} gave other draws for the same generator state")
    if np.array_equal(first, other):
        raise ConformanceError(
            f"{case.name} ignores the generator: two states gave the same draws"
        )


def batched_equals_one_by_one(case: PosteriorCase) -> None:
    """Observations answered together get the same densities and distributions as one by one."""
    x, posterior = case.x[:_OBSERVATIONS], case.posterior
    together = posterior.draw(x, 400, case.rng(4)).theta
    density = posterior.log_prob(together[:, :50], x)
    for i in range(len(x)):
        alone = posterior.log_prob(together[i : i + 1, :50], x[i : i + 1])[0]
        _close(
            density[i], alone, f"log_prob of {case.name} for observation {i} in a batch and alone"
        )
        p = two_sample.p_value(
            together[i], posterior.draw(x[i : i + 1], 400, case.rng(5, i)).theta[0]
        )
        if p < two_sample.LIMIT:
            raise ConformanceError(
                f"draws of {case.name} for observation {i} differ in a batch and alone (p = "
                f"{p:.1e})"
            )


def one_pass_equals_separate_calls(case: PosteriorCase) -> None:
    """`draw(log_prob=True, at=...)` and `log_prob` agree; outside the prior is no density."""
    x, posterior = case.x[:_OBSERVATIONS], case.posterior
    truth = case.truth[:_OBSERVATIONS, None]
    draws = posterior.draw(x, 50, case.rng(6), log_prob=True, at=truth)
    if draws.log_prob is None or draws.log_prob_at is None:
        raise ConformanceError(f"{case.name} returned no densities although asked for them")
    _close(draws.log_prob, posterior.log_prob(draws.theta, x), f"draw and log_prob of {case.name}")
    _close(
        draws.log_prob_at, posterior.log_prob(truth, x), f"draw(at=) and log_prob of {case.name}"
    )
    for column, (low, high) in enumerate(posterior.prior.bounds):
        for end, sign in ((low, -1), (high, 1)):
            if np.isfinite(end):
                outside = draws.theta[:, :1].copy()
                outside[..., column] = end + sign * max(1e-3 * abs(end), 1e-3)
                if not np.isneginf(posterior.log_prob(outside, x)).all():
                    raise ConformanceError(
                        f"{case.name} gives density to {posterior.prior.names[column]} = "
                        f"{outside[0, 0, column]:g}, outside its prior"
                    )


def densities_are_normalised(case: PosteriorCase) -> None:
    """The density integrates to one over the prior."""
    _needs_joint_density(case)
    if not case.posterior.normalized:
        raise NotApplicable("the posterior says that its densities are not normalised")
    usable = 0
    for i in range(_OBSERVATIONS):
        comparison = _Comparison.of(case, i)
        if comparison.ess < _MIN_ESS:
            continue
        usable += 1
        weights = np.exp(comparison.log_weights)
        integral, error = weights.mean(), weights.std() / np.sqrt(len(weights))
        if abs(integral - 1) > _N_SIGMA * error + _NORM_TOLERANCE:
            raise ConformanceError(
                f"the density of {case.name} for observation {i} integrates to {integral:.3f} +- "
                f"{error:.3f}"
            )
    _require(usable)


def densities_match_draws(case: PosteriorCase) -> None:
    """Draws follow the density: same means, spreads and mean log density."""
    _needs_joint_density(case)
    usable = 0
    for i in range(_OBSERVATIONS):
        comparison = _Comparison.of(case, i)
        if comparison.ess < _MIN_ESS:
            continue
        usable += 1
        name, pull = comparison.worst_moment()
        if pull > _N_SIGMA:
            raise ConformanceError(
                f"draws of {case.name} for observation {i} do not follow its density: {name} is "
                f"{pull:.1f} "
                "standard errors off"
            )
    _require(usable)


def unusable_observations_are_refused(case: PosteriorCase) -> None:
    """Non-finite or misshapen observations raise `ObservationError`; a single one is fine."""
    posterior, one = case.posterior, case.x[0]
    broken = one.copy()
    broken.reshape(-1)[0] = np.nan
    longer = np.concatenate([one, one], axis=-1)
    for what, x in (("a NaN", broken[None]), ("a wrong shape", longer[None])):
        try:
            posterior.draw(x, 2, case.rng(7))
        except ObservationError:
            continue
        raise ConformanceError(f"{case.name} accepted an observation with {what}")
    alone = posterior.draw(one, 20, case.rng(8)).theta
    if not np.array_equal(alone, posterior.draw(one[None], 20, case.rng(8)).theta):
        raise ConformanceError(f"{case.name} treats an observation without batch axis differently")


def drawing_leaves_no_trace(case: PosteriorCase) -> None:
    """Drawing and evaluating change no global state and write no file."""
    x, truth = case.x[:_OBSERVATIONS], case.truth[:_OBSERVATIONS, None]
    case.posterior.draw(x, 10, case.rng(9), log_prob=True, at=truth)
    before = snapshot()
    with watch() as activity:
        case.posterior.draw(x, 10, case.rng(9), log_prob=True, at=truth)
        case.posterior.log_prob(truth, x)
    found = [*differences(before, snapshot()), *activity.written, *activity.left]
    if found:
        raise ConformanceError(f"drawing from {case.name} changed {', '.join(found)}")


def saved_and_loaded_elsewhere_is_the_same(case: PosteriorCase) -> None:
    """Loaded in a new process, it gives the same draws and densities; nothing is pickled."""
    posterior = case.posterior
    if posterior.context.engine not in registry.current().engines:
        raise NotApplicable(
            f"engine {posterior.context.engine!r} is not registered, so loading cannot find it"
        )
    x = case.x[:_OBSERVATIONS]
    theta = posterior.draw(x, 50, np.random.default_rng(5)).theta
    density = posterior.log_prob(theta, x)
    with tempfile.TemporaryDirectory() as folder:
        target, given, found = (Path(folder) / n for n in ("posterior", "given.npz", "found.npz"))
        posterior.save(target)
        strange = [
            p.name
            for p in target.rglob("*")
            if p.is_file() and p.suffix not in (".json", ".safetensors")
        ]
        if strange:
            raise ConformanceError(
                f"{case.name} saved {', '.join(strange)}; only JSON and safetensors are safe"
            )
        np.savez(given, x=x, theta=theta)
        command = [sys.executable, "-c", _RELOAD, str(target), str(given), str(found)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConformanceError(f"{case.name} cannot be loaded in a new process: {reason}")
        with np.load(found) as loaded:
            _close(
                density,
                loaded["log_prob"],
                f"densities of {case.name} before saving and after loading",
            )
            _close(theta, loaded["theta"], f"draws of {case.name} before saving and after loading")


def passes_the_validator(case: PosteriorCase) -> None:
    """On fresh pairs the validator's verdict is `PASS` or `MARGINAL`."""
    coverage = validate(
        case.posterior, case.pairs, n_draws=case.n_draws, seed=case.seed, progress=SILENT
    )
    if coverage.verdict not in ("PASS", "MARGINAL"):
        labels = f" ({', '.join(coverage.labels)})" if coverage.labels else ""
        raise ConformanceError(
            f"{case.name}: the verdict is {coverage.verdict}{labels}: {coverage.reason}"
        )


def spoilt_copies_are_rejected(case: PosteriorCase) -> None:
    """The validator rejects shifted, narrowed and widened copies, and the prior in its place."""
    posterior, prior = case.posterior, case.posterior.prior
    draws = posterior.draw(case.x, case.n_draws, case.rng(12)).theta
    u = prior.to_unconstrained(draws)
    centre, spread = u.mean(axis=1, keepdims=True), u.std(axis=1, keepdims=True)
    guesses = prior.sample(len(draws) * case.n_draws, case.rng(13)).reshape(draws.shape)
    copies = {
        "a copy shifted by half its width": prior.from_unconstrained(u + 0.5 * spread),
        "a copy of 0.6 times the width": prior.from_unconstrained(centre + 0.6 * (u - centre)),
        "a copy of 1.7 times the width": prior.from_unconstrained(centre + 1.7 * (u - centre)),
        "the prior instead": guesses,
    }
    for what, spoilt in copies.items():
        coverage = validate_draws(case.truth, spoilt, x=case.x, prior=prior, rng=case.rng(14))
        if coverage.verdict not in ("FAIL", "UNINFORMATIVE"):
            raise ConformanceError(
                f"the verdict on {what} of {case.name} is {coverage.verdict} with {len(draws)} "
                "pairs, "
                "so the verdict on the posterior itself means little: use more pairs"
            )


@dataclass
class _Comparison:
    """Draws of one observation and the density at proposals around them."""

    posterior: Posterior
    x: DataArray
    u: FloatArray
    ess_draws: float
    proposals: FloatArray
    log_proposal: FloatArray

    @classmethod
    def of(cls, case: PosteriorCase, i: int) -> _Comparison:
        posterior, x = case.posterior, case.x[i : i + 1]
        draws = posterior.draw(x, _N_REFERENCE, case.rng(10, i))
        u = posterior.prior.to_unconstrained(draws.theta[0])
        ess = float(_N_REFERENCE if draws.ess is None else min(_N_REFERENCE, draws.ess[0]))
        proposals, log_proposal = _student_around(u, case.rng(11, i))
        return cls(posterior, x, u, ess, proposals, log_proposal)

    def log_density(self, u: FloatArray) -> FloatArray:
        """Log density of unconstrained points, shape (k,)."""
        theta = self.posterior.prior.from_unconstrained(u)
        density = self.posterior.log_prob(theta[None], self.x)[0]
        result: FloatArray = density - self.posterior.prior.log_abs_det_unconstrained(theta)
        return result

    @cached_property
    def log_q(self) -> FloatArray:
        return self.log_density(self.proposals)

    @cached_property
    def log_weights(self) -> FloatArray:
        return self.log_q - self.log_proposal

    @property
    def ess(self) -> float:
        """Effective number of proposals."""
        weights = special.softmax(self.log_weights)
        return float(1 / (weights**2).sum())

    def worst_moment(self) -> tuple[str, float]:
        """Name of the moment that differs most, and by how many standard errors."""
        weights = special.softmax(self.log_weights)
        names = self.posterior.prior.names
        q_floor = self.log_q.max() - 40.0  # zero-weight proposals may have density -inf
        rows = {
            **{
                f"the mean of {n}": (self.u[:, k], self.proposals[:, k])
                for k, n in enumerate(names)
            },
            "the mean log density": (self.log_density(self.u), np.maximum(self.log_q, q_floor)),
        }
        for k, n in enumerate(names):
            centre = self.u[:, k].mean()
            rows[f"the spread of {n}"] = (
                (self.u[:, k] - centre) ** 2,
                (self.proposals[:, k] - centre) ** 2,
            )
        worst = ("", 0.0)
        for name, (drawn, proposed) in rows.items():
            mean = float((weights * proposed).sum())
            variance = (
                float((weights**2 * (proposed - mean) ** 2).sum()) + drawn.var() / self.ess_draws
            )
            # What approximate samplers (pools, float32) may add, in units of its own spread.
            error = np.sqrt(variance) + _MOMENT_TOLERANCE / _N_SIGMA * drawn.std()
            pull = abs(float(drawn.mean()) - mean) / max(float(error), 1e-12)
            if not pull <= worst[1]:
                worst = (name, pull)
        return worst


def _student_around(u: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Draws of a Student t with the mean and covariance of points u, and its log density."""
    d = u.shape[1]
    covariance = np.atleast_2d(np.cov(u.T)) + 1e-9 * np.eye(d)
    root = np.linalg.cholesky(covariance)
    scale = np.sqrt(rng.chisquare(_DEGREES, _N_PROPOSALS) / _DEGREES)
    z = rng.standard_normal((_N_PROPOSALS, d)) / scale[:, None]
    log_norm = (
        special.gammaln((_DEGREES + d) / 2)
        - special.gammaln(_DEGREES / 2)
        - 0.5 * d * np.log(_DEGREES * np.pi)
        - np.log(np.diag(root)).sum()
    )
    log_density = log_norm - 0.5 * (_DEGREES + d) * np.log1p((z**2).sum(axis=1) / _DEGREES)
    return u.mean(axis=0) + z @ root.T, log_density


def _needs_joint_density(case: PosteriorCase) -> None:
    if len(case.posterior.blocks) > 1:
        raise NotApplicable("the posterior answers for marginals, not for the joint density")


def _require(usable: int) -> None:
    if not usable:
        raise NotApplicable("importance sampling is too noisy in this many dimensions to tell")


def _close(a: FloatArray, b: FloatArray, subject: str) -> None:
    """Demand agreement to 0.01, except in 2 % of the entries (float32 steps in far tails)."""
    if np.shape(a) != np.shape(b):
        raise ConformanceError(f"{subject} differ in shape: {np.shape(a)} and {np.shape(b)}")
    distance = np.abs(np.asarray(a) - np.asarray(b))
    distance[np.asarray(a) == np.asarray(b)] = 0.0  # equal infinities
    if not (distance > _LOG_PROB_TOLERANCE).mean() <= 0.02 or np.isnan(distance).any():
        raise ConformanceError(f"{subject} differ by up to {np.nanmax(distance):.3g}")


PROMISES: Final = (
    draws_are_inside_the_prior,
    same_generator_state_same_draws,
    batched_equals_one_by_one,
    one_pass_equals_separate_calls,
    densities_are_normalised,
    densities_match_draws,
    unusable_observations_are_refused,
    drawing_leaves_no_trace,
    saved_and_loaded_elsewhere_is_the_same,
)
"""Checks that hold for every posterior, well trained or not."""

POSTERIOR_CHECKS: Final = (*PROMISES, passes_the_validator, spoilt_copies_are_rejected)
"""All checks of a posterior, in the order of a report."""
