"""Maps and expected limits of posteriors of two and of more parameters, against closed forms.

The observation is log10 g + SLOPE log10(m_a / 30 neV) with Gaussian noise, priors are uniform in
the logarithms: given the mass, the posterior of log10 g is a truncated normal.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sbi_physics_alp.limits import MassCouplingMap, expected_limits
from scipy.stats import norm, truncnorm

from sbi_physics import (
    LogUniform,
    Observable,
    Parameter,
    ParameterSpace,
    Posterior,
    Simulator,
    Uniform,
)
from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.marginal import MarginalPosterior
from sbi_physics.posterior import Draws, PosteriorContext
from sbi_physics.truncation import Truncation, TruncationRound

NOISE, SLOPE = 0.2, 0.3
POINT = {"m_a": 30.0, "g": 1.0, "index": 2.0}
PLANE, ALL = ("m_a", "g"), ("m_a", "g", "index")


class Ruler(Simulator):
    name = "ruler"
    summary = "reads the coupling off a scale that shifts with the mass"
    fiducial = {"one": POINT}

    @property
    def parameters(self):
        return ParameterSpace(
            [
                Parameter("m_a", LogUniform(1.0, 1000.0)),
                Parameter("g", LogUniform(0.1, 10.0)),
                Parameter("index", Uniform(1.0, 4.0), role="nuisance"),
            ]
        )

    @property
    def observable(self):
        return Observable(kind="vector", shape=(1,))

    def _simulate(self, theta, rng):
        mean = np.log10(theta[:, 1]) + SLOPE * np.log10(theta[:, 0] / 30.0)
        return (mean + NOISE * rng.standard_normal(len(theta)))[:, None]


SIMULATOR = Ruler()


def given_the_mass(x, m_nev):
    """Posterior of log10 g."""
    centre = x - SLOPE * np.log10(m_nev / 30.0)
    return truncnorm((-1.0 - centre) / NOISE, (1.0 - centre) / NOISE, centre, NOISE)


class Exact(Posterior):
    """The exact posterior of some of the three parameters."""

    def __init__(self, names, ess=None, **context):
        prior = SIMULATOR.prior.select(names)
        super().__init__(PosteriorContext("test", prior, SIMULATOR.observable, **context))
        self.ess = ess

    def _log_prob_at(self, theta, x):
        m, g = (theta[..., self.prior.names.index(name)] for name in PLANE)
        pull = (np.log10(g) + SLOPE * np.log10(m / 30.0) - x) / NOISE
        return -0.5 * pull**2 + self.prior.log_prob(theta)

    def _draw(self, x, n, rng, log_prob, at):
        theta = np.stack([self._one(float(row[0]), n, rng) for row in x])
        ess = None if self.ess is None else np.full(len(x), self.ess)
        return Draws(theta, ess=ess)

    def _one(self, x, n, rng):
        log_m = rng.uniform(0.0, 3.0, 20 * n)
        log_g = rng.normal(x - SLOPE * (log_m - np.log10(30.0)), NOISE)
        inside = np.flatnonzero(np.abs(log_g) < 1.0)[:n]
        columns = {
            "m_a": 10 ** log_m[inside],
            "g": 10 ** log_g[inside],
            "index": rng.uniform(1.0, 4.0, n),
        }
        return np.stack([columns[name] for name in self.prior.names], axis=1)


def limits(posterior, n_toys, **options):
    """Expected limits in log10 of 1e-11 GeV^-1, and the toys they come from."""
    found = expected_limits(
        posterior, SIMULATOR, "one", n_toys=n_toys, rng=np.random.default_rng(5), **options
    )
    theta = np.repeat(SIMULATOR.theta("one")[None], n_toys, axis=0)
    toys = SIMULATOR.simulate(theta, np.random.default_rng(5))[:, 0].astype(np.float64)
    return found, np.log10(found.limits) + 11.0, toys


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_evaluated_limits_are_the_quantiles_of_every_toy(level):
    found, log_limits, toys = limits(Exact(PLANE), 400, level=level, n_m=6)
    assert found.limits.shape == (400, 6)
    m = 10 ** (0.25 + 0.5 * np.arange(6.0))
    np.testing.assert_allclose(found.m_ev, m * 1e-9)
    exact = given_the_mass(toys[:, None], m[None]).ppf(level)
    # Bins of 0.033 in log10 g, linear within: a hundredth of the noise.
    np.testing.assert_allclose(log_limits, exact, atol=0.01 * NOISE)


def test_bands_are_the_quantiles_over_toys():
    n = 400
    found, log_limits, _ = limits(Exact(PLANE), n, n_m=6)
    bands = found.bands()
    # A limit rises with x, so that its quantile p is the limit at the quantile p of x.
    for name, p, z in (("low68", 0.16, -0.9945), ("median", 0.5, 0.0), ("high68", 0.84, 0.9945)):
        exact = given_the_mass(NOISE * z, found.m_ev * 1e9).ppf(0.95)
        below = (log_limits < exact).mean(axis=0)
        error = np.sqrt(p * (1.0 - p) / n)
        assert (np.abs(below - p) < 4.0 * error).all(), name
        above = np.log10(bands[name]) + 11.0
        shares = (log_limits < above).mean(axis=0)
        np.testing.assert_allclose(shares, p, atol=1.0 / n)


def test_limits_of_more_parameters_are_drawn():
    n_m, each = 6, 1000
    found, log_limits, toys = limits(Exact(ALL), 60, n_m=n_m, draws_per_column=each)
    # The centre moves by 0.15 within a column: closed forms at 40 of its masses, axes
    # (toy, column, mass).
    offset = 0.5 * ((np.arange(40) + 0.5) / 40.0 - 0.5)
    m_nev = found.m_ev[:, None] * 1e9 * 10**offset
    centre = toys[:, None, None] - SLOPE * np.log10(m_nev / 30.0)
    start = norm.cdf((-1.0 - centre) / NOISE)
    whole = (norm.cdf((1.0 - centre) / NOISE) - start).sum(axis=-1)
    below = (norm.cdf((log_limits[..., None] - centre) / NOISE) - start).sum(axis=-1)
    draws = n_m * each * whole / whole.sum(axis=1, keepdims=True)
    pull = (below / whole - 0.95) / np.sqrt(0.95 * 0.05 / draws)
    assert np.abs(pull).max() < 5.0
    # As good as so many draws, neither better nor worse: 360 pulls know their spread to 4 %.
    assert pull.std() == pytest.approx(1.0, abs=0.2)


def test_toys_are_the_same_for_every_posterior_and_draws_those_of_the_seed():
    first, again = (limits(Exact(ALL), 3, n_m=4)[0] for _ in range(2))
    np.testing.assert_array_equal(first.limits, again.limits)
    plane = limits(Exact(PLANE), 3, n_m=4)[0]
    # 1000 draws a column know log10 of a limit to 0.014; the toys differ by 0.2.
    near = np.abs(np.log10(first.limits / plane.limits))
    assert near.max() < 0.08


def test_blocks_answer_by_their_marginal():
    whole = Exact(ALL).context
    parts = {(name,): Exact((name,)) for name in ALL} | {PLANE: Exact(PLANE)}
    blocks = MarginalPosterior(whole, parts)
    x = np.array([0.1])
    a, b = (MassCouplingMap.from_posterior(p, x, n_m=5) for p in (blocks, Exact(PLANE)))
    np.testing.assert_array_equal(a.mass, b.mass)
    assert np.isinf(a.draws).all()
    # The product of single parameters would be blind to their correlation.
    singles = MarginalPosterior(whole, {(name,): Exact((name,)) for name in ALL})
    with pytest.raises(ContractError, match="blocks m_a; g; index, not for m_a and g jointly"):
        MassCouplingMap.from_posterior(singles, x)


def test_a_drawn_map_says_how_many_draws_it_is_made_of():
    x = np.array([0.1])
    found = MassCouplingMap.from_posterior(Exact(ALL), x, n_m=5, draws_per_column=200)
    assert found.draws.sum() == pytest.approx(1000.0)
    # Ratio engines draw from weighted points.
    starved = MassCouplingMap.from_posterior(Exact(ALL, ess=100.0), x, n_m=5, draws_per_column=200)
    np.testing.assert_allclose(starved.draws, 0.1 * found.draws)
    assert np.isnan(starved.upper_limits()).all()


def test_a_truncated_posterior_has_no_expected_limits():
    box = {"g": (0.5, 2.0)}
    rounds = (TruncationRound(box, 0.3, 10, 0, 10, 10, 5, box, 0.3, None, 1.0),)
    truncated = Exact(PLANE, truncation=Truncation(np.array([0.1], np.float32), 1e-4, rounds))
    with pytest.raises(ContractError, match="truncated rounds and holds for their observation"):
        limits(truncated, 2)
    own = MassCouplingMap.from_posterior(truncated, np.array([0.1], np.float32), n_m=3)
    assert own.mass.sum() == pytest.approx(1.0)
    for names in (PLANE, ALL):
        other = Exact(names)
        other.context = replace(other.context, truncation=truncated.context.truncation)
        with pytest.raises(ObservationError, match="not the one that truncated rounds closed in"):
            MassCouplingMap.from_posterior(other, np.array([0.4]))


def test_no_toys_and_no_level_are_refused():
    with pytest.raises(ContractError, match="n_toys is 0; accepted is a number from 1"):
        limits(Exact(PLANE), 0)
    with pytest.raises(ContractError, match="between 0 and 1; got 95"):
        limits(Exact(PLANE), 2, level=95)
    with pytest.raises(ContractError, match="draws_per_column is 0"):
        limits(Exact(ALL), 2, draws_per_column=0)
