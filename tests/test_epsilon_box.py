"""The box of one round: modes, floors, open ends, scales and marginals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from sample_truncation import NOISE, SIGMAS, X, rounds_of, toy, truncated

import sbi_physics as sp
from sbi_physics.engine import Engine
from sbi_physics.epsilon_box import POOL_POINTS, stretched
from sbi_physics.errors import ContractError
from sbi_physics.posterior import Draws, Posterior


def test_two_modes_are_both_kept():
    bimodal = sp.simulator("toy-bimodal", noise=0.05)
    posterior = truncated(simulator=bimodal, x=[4.0], rounds=2)
    ((low, high),) = rounds_of(posterior)[0].next_box.values()
    assert low < -2 < 2 < high


class Decay(sp.Simulator):
    """The logarithm of a lifetime, measured."""

    name = "decay"
    parameters = sp.ParameterSpace(
        [
            sp.Parameter("tau", sp.LogUniform(1e-3, 1e3), unit="ns"),
            sp.Parameter("shift", sp.Normal(0.0, 1.0)),
        ]
    )
    observable = sp.Observable("vector", (2,))

    def _simulate(self, theta, rng):
        values = np.column_stack([np.log10(theta[:, 0]), theta[:, 1]])
        return values + 0.1 * rng.standard_normal(values.shape)


class Known(Posterior):
    """Density prior x likelihood, unnormalised; draws of the prior, as of a poor sampler."""

    normalized = False

    def _log_prob_at(self, theta, x):
        centre = np.column_stack([x[:, 0], x[:, 1]])[:, None]
        values = np.stack([np.log10(theta[..., 0]), theta[..., 1]], axis=-1)
        return self.prior.log_prob(theta) - 0.5 * (((values - centre) / 0.1) ** 2).sum(axis=-1)

    def _draw(self, x, n, rng, log_prob, at):
        return Draws(self.prior.sample(len(x) * n, rng).reshape(len(x), n, -1))


class KnownEngine(Engine):
    name = "known"

    def _train(self, data, context, settings, seed, progress):
        return Known(context)

    def _rebuild(self, context, config, weights):
        return Known(context)


class Floored(Known):
    """A normal likelihood on a floor of 1e-4 of its peak that draws do not visit.

    As of a network: what holds less mass than one simulation in thousands is not learned.
    """

    def _log_prob_at(self, theta, x):
        return self.prior.log_prob(theta) + np.logaddexp(
            -0.5 * (((theta - x[:, None]) / NOISE) ** 2).sum(axis=-1), np.log(1e-4)
        )

    def _draw(self, x, n, rng, log_prob, at):
        return Draws(x[:, None] + NOISE * rng.standard_normal((len(x), n, 2)))


class FlooredEngine(KnownEngine):
    name = "floored"

    def _train(self, data, context, settings, seed, progress):
        return Floored(context)


def test_a_floor_that_no_mass_supports_does_not_keep_the_box_wide():
    posterior = truncated(FlooredEngine(), rounds=1)
    (only,) = rounds_of(posterior)
    assert only.above == only.evaluated  # the likelihood alone would cut nothing off
    for centre, (low, high) in zip(X, only.next_box.values(), strict=True):
        for reach in (centre - low, high - centre):
            # 1.1 times the true end, with a standard deviation of 0.02 from the quantile.
            assert SIGMAS * NOISE < reach < 1.2 * SIGMAS * NOISE


def test_the_range_of_the_mass_is_that_of_the_likelihood_for_normal_posteriors():
    rng = np.random.default_rng(5)
    for epsilon in (1e-6, 1e-3):
        reaches = np.array(
            [np.abs(stretched(rng.standard_normal((8192, 2)), epsilon)) for _ in range(20)]
        )
        expected = 1.1 * np.sqrt(-2 * np.log(epsilon))
        # 80 values of relative spread 2 %: a quantile's is sqrt(q (1 - q) / n) / density / 2.33.
        assert reaches.mean() == pytest.approx(expected, rel=4 * 0.02 / np.sqrt(80))
        assert (reaches > expected / 1.1).all()


def test_a_log_uniform_parameter_is_truncated_in_its_logarithm_and_an_open_end_in_its_quantile():
    posterior = truncated(KnownEngine(), Decay(), [1.0, 0.5], rounds=2)
    prior = Decay().prior
    box = rounds_of(posterior)[0].next_box
    low, high = np.log10(box["tau"])
    spacing = POOL_POINTS**-0.5
    for reach in (1.0 - low, high - 1.0):
        # log10 tau is uniform over 6 decades
        assert SIGMAS * 0.1 - 6 * spacing < reach < SIGMAS * 0.1 + 6 * spacing
    ends = prior.to_unit(np.column_stack(list(box.values())))[:, 1]
    true = stats.norm.cdf([0.5 - SIGMAS * 0.1, 0.5 + SIGMAS * 0.1])
    assert np.abs(ends - true).max() < spacing
    assert ends[0] < true[0] < true[1] < ends[1]


def test_an_end_that_the_data_leave_open_stays_open():
    posterior = truncated(KnownEngine(), Decay(), [1.0, 9.0], rounds=2)
    low, high = rounds_of(posterior)[0].next_box["shift"]
    assert np.isfinite(low)
    assert high == np.inf
    text = json.dumps(posterior.context.truncation.to_dict(), allow_nan=False)
    back = sp.Prior(Decay().parameters).truncate(
        type(posterior.context.truncation).from_dict(json.loads(text), np.zeros(2)).box
    )
    assert back.bounds[1, 1] == np.inf


class Marginals(Posterior):
    """Separate answers for single parameters, as marginal engines give them."""

    def __init__(self, context, simulator):
        super().__init__(context)
        self.simulator = simulator

    @property
    def blocks(self):
        return (("theta_2",), ("theta_1",))

    def marginal(self, names):
        return self.simulator.exact_posterior(self.context.simulation_prior, names)

    def _draw(self, x, n, rng, log_prob, at):
        raise NotImplementedError

    _log_prob_at = None


class MarginalEngine(Engine):
    name = "marginals"

    def _train(self, data, context, settings, seed, progress):
        return Marginals(context, toy())

    _rebuild = None


Marginals.__abstractmethods__ = frozenset()
MarginalEngine.__abstractmethods__ = frozenset()


def test_marginal_engines_are_truncated_block_by_block():
    posterior = truncated(MarginalEngine(), rounds=2)
    box = rounds_of(posterior)[0].next_box
    spacing = 2 / POOL_POINTS
    for name, centre in zip(("theta_1", "theta_2"), X, strict=True):
        reach = np.abs(np.array(box[name]) - centre)
        assert (np.abs(reach - SIGMAS * NOISE) < 2 * spacing).all()


class Broken(KnownEngine):
    def _train(self, data, context, settings, seed, progress):
        posterior = Known(context)
        posterior._log_prob_at = lambda theta, x: np.full(theta.shape[:2], np.nan)
        return posterior


def test_a_density_that_is_not_finite_is_an_error_not_a_box():
    with pytest.raises(ContractError, match="not finite in round 0: .* NaN"):
        truncated(Broken(), Decay(), [1.0, 0.5])
