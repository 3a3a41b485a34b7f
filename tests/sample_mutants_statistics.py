"""Simulators whose stages, summaries, likelihoods or references contradict their data."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from sample_mutants import Mutants

from sbi_physics.testing import ReferencePoint, SimulatorCase, ToyGaussian, ToyTwoStage

mutant = Mutants(SimulatorCase)
STORED = ReferencePoint("offset", (0.5, -0.25), (0.3, 0.3))


@mutant("reference_points_are_reproduced", "mean of summary number 1", reference_points=[STORED])
class Miscalibrated(ToyGaussian):
    def _simulate(self, theta, rng):
        return super()._simulate(theta, rng) + np.r_[0.0, 0.1]


@mutant("reference_points_are_reproduced", "the spread", reference_points=[STORED])
def smeared():
    return ToyGaussian(noise=0.36)


@mutant("stages_compose", "differ")
class TwoTruths(ToyTwoStage):
    def _simulate(self, theta, rng):
        return super()._simulate(theta, rng) * 1.3


@mutant("redrawing_keeps_the_distribution", "new observe-only parameters")
@mutant("observe_only_parameters_stay_out_of_the_latents", "wrong posterior")
class OffsetInLatents(ToyTwoStage):
    def _simulate_latent(self, theta, rng):
        return {**super()._simulate_latent(theta, rng), "offset": theta[:, 1].copy()}

    def _observe(self, z, theta, rng):
        return super()._observe(z, np.stack([theta[:, 0], z["offset"]], axis=1), rng)


@mutant("observe_options_stay_out_of_the_latents", "depend on the option 'spread'")
class OptionOfTheLatents(ToyTwoStage):
    observe_options = ("resolution", "spread")


@mutant("observe_options_stay_out_of_the_latents", "has no option 'gain'")
class OptionThatIsNone(ToyTwoStage):
    observe_options = ("resolution", "gain")


@mutant("redrawing_keeps_the_distribution", "the same parameters")
class WearingOut(ToyTwoStage):
    """Observing twice is not the same as observing once."""

    def _observe(self, z, theta, rng):
        z["hits"] = np.asarray(z["hits"]) + 1.0
        return super()._observe(z, theta, rng) - 1.0


@mutant("redrawing_gives_new_data", "ignores the generator")
class NoiseInLatents(ToyTwoStage):
    def _observe(self, z, theta, rng):
        return super()._observe(z, theta, np.random.default_rng(3))


@mutant("redrawing_gives_new_data", "not a function")
class RestlessReadout(ToyTwoStage):
    def _observe(self, z, theta, rng):
        return super()._observe(z, theta, np.random.default_rng())


@mutant("summaries_have_one_row_for_each_input", "expected finite numbers")
class Transposed(ToyGaussian):
    def summary_statistics(self, x):
        return super().summary_statistics(x).T


@mutant("summaries_have_one_row_for_each_input", "label 'sum'")
class Summed(ToyTwoStage):
    def labels(self, z):
        return {"sum": np.asarray(z["hits"]).sum(axis=0)}


@mutant("log_likelihood_fits_the_simulator", "expected finite")
class OneNumber(ToyGaussian):
    def log_likelihood(self, x, theta):
        return super().log_likelihood(x, theta).sum()


@mutant("log_likelihood_fits_the_simulator", "squared score")
class TooSharp(ToyGaussian):
    def log_likelihood(self, x, theta):
        return 1.5 * super().log_likelihood(x, theta)


@mutant("log_likelihood_fits_the_simulator", "mean score")
class Shifted(ToyGaussian):
    def log_likelihood(self, x, theta):
        return super().log_likelihood(x + 0.1, theta)


@mutant("reference_posterior_fits_the_simulator", "not calibrated")
class ReferenceOfAnother(ToyGaussian):
    def reference_posterior(self):
        return ToyGaussian(noise=0.2).reference_posterior()


@mutant("reference_posterior_fits_the_simulator", "parameters of interest")
class ReferenceOfAll(ToyTwoStage):
    def reference_posterior(self):
        return self.exact_posterior(self.prior, self.parameters.names)
