"""Exact posteriors with one planted defect each."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from sample_mutants import Mutants

from sbi_physics.posterior import Draws
from sbi_physics.testing import ExactPosterior, PosteriorCase, ToyGaussian

posterior_mutant = Mutants(PosteriorCase)


class Defective(ExactPosterior):
    """An exact posterior of the Gaussian toy with a planted defect."""

    def __init__(self, context=None, reference=None):
        if reference is None:
            toy = ToyGaussian(dimension=2, half_width=3.0, noise=0.5)
            reference = toy.reference_posterior()
            context = reference.context
        super().__init__(context, reference)

    def _draw(self, x, n, rng, log_prob, at):
        draws = super()._draw(x, n, rng, log_prob, at)
        return replace(draws, theta=self.spoil(draws.theta, x))

    def spoil(self, theta, x):
        return theta


@posterior_mutant("draws_are_inside_the_prior", "outside its prior")
class Leaking(Defective):
    def spoil(self, theta, x):
        return 1.5 * theta


@posterior_mutant("draws_are_inside_the_prior", "float64")
class SinglePrecision(Defective):
    def spoil(self, theta, x):
        return theta.astype(np.float32)


@posterior_mutant("draws_are_inside_the_prior", "non-finite")
class Holes(Defective):
    def spoil(self, theta, x):
        return np.where(theta > 2.9, np.nan, theta)


@posterior_mutant("draws_are_inside_the_prior", "shape")
class DrawsFirst(Defective):
    def draw(self, x, n, rng, **more):
        draws = super().draw(x, n, rng, **more)
        return replace(draws, theta=draws.theta.swapaxes(0, 1))


@posterior_mutant("same_generator_state_same_draws", "other draws for the same")
class OwnEntropy(Defective):
    def _draw(self, x, n, rng, log_prob, at):
        return super()._draw(x, n, np.random.default_rng(), log_prob, at)


@posterior_mutant("same_generator_state_same_draws", "ignores the generator")
class FixedPool(Defective):
    def _draw(self, x, n, rng, log_prob, at):
        return super()._draw(x, n, np.random.default_rng(0), log_prob, at)


@posterior_mutant("batched_equals_one_by_one", "in a batch and alone")
class BatchNormalised(Defective):
    def _log_prob_at(self, theta, x):
        return super()._log_prob_at(theta, x - x.mean(axis=0))


@posterior_mutant("batched_equals_one_by_one", "draws of")
class BatchCentred(Defective):
    def spoil(self, theta, x):
        return np.clip(theta - x.mean(axis=0), -3, 3)


@posterior_mutant("one_pass_equals_separate_calls", "draw and log_prob")
class UnconstrainedDensity(Defective):
    def _draw(self, x, n, rng, log_prob, at):
        draws = super()._draw(x, n, rng, log_prob, at)
        if draws.log_prob is None:
            return draws
        return replace(
            draws, log_prob=draws.log_prob - self.prior.log_abs_det_unconstrained(draws.theta)
        )


@posterior_mutant("one_pass_equals_separate_calls", "outside its prior")
class Borderless(Defective):
    def _log_prob_at(self, theta, x):
        low, high = self.prior.bounds.T
        return super()._log_prob_at(np.clip(theta, low, high), x)


@posterior_mutant("one_pass_equals_separate_calls", "no densities")
class Mute(Defective):
    def _draw(self, x, n, rng, log_prob, at):
        return Draws(super()._draw(x, n, rng, False, None).theta)


@posterior_mutant("densities_are_normalised", "integrates to")
class Unnormalised(Defective):
    def _log_prob_at(self, theta, x):
        return super()._log_prob_at(theta, x) + 0.3


@posterior_mutant("densities_match_draws", "do not follow its density")
class WiderDraws(Defective):
    def spoil(self, theta, x):
        centre = theta.mean(axis=1, keepdims=True)
        return np.clip(centre + 1.3 * (theta - centre), -3, 3)


@posterior_mutant("densities_match_draws", "do not follow its density")
class ShiftedDraws(Defective):
    def spoil(self, theta, x):
        return np.clip(theta + 0.15, -3, 3)


@posterior_mutant("unusable_observations_are_refused", "a NaN")
class Forgiving(Defective):
    def draw(self, x, n, rng, **more):
        return super().draw(np.nan_to_num(x), n, rng, **more)


@posterior_mutant("unusable_observations_are_refused", "a wrong shape")
class Cutting(Defective):
    def draw(self, x, n, rng, **more):
        return super().draw(np.asarray(x)[..., :2], n, rng, **more)


@posterior_mutant("drawing_leaves_no_trace", "cache.npy")
class Caching(Defective):
    def _log_prob_at(self, theta, x):
        np.save("cache.npy", theta)
        return super()._log_prob_at(theta, x)


@posterior_mutant("drawing_leaves_no_trace", "NumPy's global")
class GlobalDraws(Defective):
    def draw(self, x, n, rng, **more):
        np.random.random()
        return super().draw(x, n, rng, **more)


@posterior_mutant("saved_and_loaded_elsewhere_is_the_same", "after loading")
class Forgetful(Defective):
    """Its defect is not in what it saves."""

    def spoil(self, theta, x):
        return np.clip(theta + 0.3, -3, 3)


@posterior_mutant("saved_and_loaded_elsewhere_is_the_same", "weights.pkl")
class Pickling(Defective):
    def save(self, folder):
        path = super().save(folder)
        (path / "weights.pkl").write_bytes(b"")
        return path


def spoiled(**defect):
    def make():
        posterior = Defective()
        shift, scale = defect.get("shift", 0.0), defect.get("scale", 1.0)

        def spoil(theta, x):
            centre = theta.mean(axis=1, keepdims=True)
            return np.clip(centre + shift + scale * (theta - centre), -3, 3)

        posterior.spoil = spoil
        return posterior

    return make


# The verdict's own power is tested with the validator; these defects are far beyond its threshold.
for _defect in ({"shift": 0.3}, {"scale": 0.6}, {"scale": 1.6}):
    posterior_mutant("passes_the_validator", "FAIL", n_pairs=500)(spoiled(**_defect))


@posterior_mutant("passes_the_validator", "x-dependent", n_pairs=500)
class PriorItself(Defective):
    def _draw(self, x, n, rng, log_prob, at):
        theta = self.prior.sample(len(x) * n, rng).reshape(len(x), n, -1)
        density = self._log_prob_at(theta, x) if log_prob else None
        return Draws(theta, density, None if at is None else self._log_prob_at(at, x))

    def _log_prob_at(self, theta, x):
        return self.prior.log_prob(theta)


posterior_mutant("spoilt_copies_are_rejected", "use more pairs", n_pairs=40)(Defective)
