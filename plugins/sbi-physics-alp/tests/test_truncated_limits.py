"""Limits of a truncated posterior: those of its observation, and of no other."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp.limits import MassCouplingMap, expected_limits
from sbi_physics_alp.no_signal import mass_divergence
from scipy.stats import truncnorm

import sbi_physics as sp
from sbi_physics import Engine, LogUniform, Observable, Parameter, Posterior, Simulator
from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.posterior import Draws
from sbi_physics.progress import SILENT

SD = 0.05


class Logarithms(Simulator):
    """Data are log10 of mass and coupling with normal noise."""

    name = "logarithms"
    fiducial = {"no-alp": {"m_a": 30.0, "g": 0.3}}

    @property
    def parameters(self):
        return sp.ParameterSpace(
            [Parameter("m_a", LogUniform(1.0, 1000.0)), Parameter("g", LogUniform(0.1, 10.0))]
        )

    @property
    def observable(self):
        return Observable("vector", (2,))

    def _simulate(self, theta, rng):
        return np.log10(theta) + SD * rng.standard_normal(theta.shape)


class Exact(Posterior):
    """Normal in the logarithms, cut off at the prior."""

    def _law(self, x):
        low, high = np.log10(self.prior.bounds.T)
        return truncnorm((low - x) / SD, (high - x) / SD, x, SD)

    def _draw(self, x, n, rng, log_prob, at):
        theta = 10.0 ** self._law(x[:, None]).rvs((len(x), n, 2), random_state=rng)
        return Draws(
            theta,
            self._log_prob_at(theta, x) if log_prob else None,
            None if at is None else self._log_prob_at(at, x),
        )

    def _log_prob_at(self, theta, x):
        density = self._law(x[:, None]).logpdf(np.log10(theta)) - np.log(theta * np.log(10))
        return density.sum(axis=-1)


class ExactEngine(Engine):
    name = "logarithms-exact"

    def _train(self, data, context, settings, seed, progress):
        return Exact(context)

    def _rebuild(self, context, config, weights):
        return Exact(context)


@pytest.fixture(scope="module")
def truncated():
    return sp.truncate(
        Logarithms(), [1.5, 0.0], ExactEngine(), rounds=2, simulations=100, seed=1, progress=SILENT
    )


def test_a_truncated_posterior_has_no_expected_limits(truncated):
    with pytest.raises(ContractError, match="an amortised posterior.*from truncated rounds"):
        expected_limits(truncated, Logarithms(), n_toys=2, rng=np.random.default_rng(1))


def test_limits_of_the_observation_are_those_of_the_untruncated_posterior(truncated):
    simulations = sp.simulate(Logarithms(), 20, seed=1, progress=SILENT)
    whole = ExactEngine().train(simulations, seed=1)
    wide, narrow = (
        MassCouplingMap.from_posterior(p, [1.5, 0.0], n_m=150, n_g=400) for p in (whole, truncated)
    )
    assert narrow.log10_g[-1] - narrow.log10_g[0] < 0.5 * (wide.log10_g[-1] - wide.log10_g[0])
    expected = 10 ** (truncnorm(-20, 20, 0.0, SD).ppf(0.95) - 11)
    for grid in (wide, narrow):
        middle = np.argmin(np.abs(np.log10(grid.m_ev) + 7.5))
        # Half a bin of g is 0.6 %.
        assert grid.upper_limits()[middle] == pytest.approx(expected, rel=0.01)
    with pytest.raises(ObservationError, match="any_observation"):
        MassCouplingMap.from_posterior(truncated, [1.6, 0.0])


def test_the_divergence_of_other_observations_is_refused(truncated):
    below = truncated.prior.parameters["g"].bounds[0] * 1.1
    assert mass_divergence(truncated, [1.5, 0.0], g11_below=below).shape == (1,)
    with pytest.raises(ObservationError, match="1 of 2"):
        mass_divergence(truncated, [[1.5, 0.0], [1.6, 0.0]], g11_below=below)
