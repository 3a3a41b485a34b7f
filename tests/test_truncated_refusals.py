"""A posterior of truncated rounds answers for its observation only, whatever it is asked."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

import sbi_physics as sp
from sbi_physics.diagnostics.balance import check_balance
from sbi_physics.ensemble import EnsemblePosterior, RatioEnsemble
from sbi_physics.errors import ObservationError
from sbi_physics.marginal import MarginalPosterior
from sbi_physics.progress import SILENT
from sbi_physics.ratio import RatioPosterior
from sbi_physics.testing.toys import ToyGaussian

NOISE = 0.02
X = [0.3, -0.1]
OTHER = [0.31, -0.1]
REFUSAL = r"1 of 1 observations are not the one .*outside of theta_1 .*any_observation=True"


def rng():
    return np.random.default_rng(1)


@pytest.fixture(scope="module")
def truncated():
    return sp.truncate(
        ToyGaussian(noise=NOISE), X, "exact", rounds=2, simulations=300, seed=1, progress=SILENT
    )


@pytest.fixture(scope="module")
def pairs(truncated):
    prior = truncated.context.simulation_prior
    simulator = ToyGaussian(noise=NOISE)
    return sp.simulate(simulator, 240, prior=prior, seed=2, purpose="pairs", progress=SILENT)


class Ratio(RatioPosterior):
    """The exact likelihood as a ratio."""

    def _log_ratio(self, u, xt):
        theta = self.prior.from_unconstrained(u)
        theta = theta[None] if theta.ndim == 2 else theta
        return -0.5 * (((xt[:, None] - theta) / NOISE) ** 2).sum(axis=-1)


def ratio_of(posterior):
    context = posterior.context
    transform = replace(context.observable, transform=()).fit_transform(np.zeros((2, 2)))
    return Ratio(replace(context, transform=transform), pool_size=512)


def marginals_of(posterior):
    """Exact marginals of the truncated prior; only the whole carries the record."""
    prior = posterior.context.simulation_prior
    parts = {
        (name,): ToyGaussian(noise=NOISE).exact_posterior(prior, (name,))
        for name in posterior.prior.names
    }
    return MarginalPosterior(posterior.context, parts)


KINDS = {
    "plain": lambda p: p,
    "ensemble": lambda p: EnsemblePosterior([p, p]),
    "ratio": ratio_of,
    "ratio ensemble": lambda p: RatioEnsemble([ratio_of(p), ratio_of(p)]),
    "marginals": marginals_of,
}

QUESTIONS = {
    "sample": lambda p, x, **more: p.sample(x, 5, rng(), **more),
    "draw": lambda p, x, **more: p.draw(x, 5, rng(), **more).theta,
    "log_prob": lambda p, x, **more: p.log_prob([X], x, **more),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_other_observations_are_refused(truncated, kind, question):
    posterior, ask = KINDS[kind](truncated), QUESTIONS[question]
    assert np.isfinite(ask(posterior, X)).all()
    with pytest.raises(ObservationError, match=REFUSAL):
        ask(posterior, OTHER)
    assert np.isfinite(ask(posterior, OTHER, any_observation=True)).all()


@pytest.mark.parametrize("kind", ["ratio", "ratio ensemble"])
def test_learned_ratios_of_other_observations_are_refused(truncated, kind):
    posterior = KINDS[kind](truncated)
    assert np.isfinite(posterior.log_ratio([X], X)).all()
    with pytest.raises(ObservationError, match=REFUSAL):
        posterior.log_ratio([X], OTHER)
    assert np.isfinite(posterior.log_ratio([X], OTHER, any_observation=True)).all()


def test_a_mixture_is_valid_where_all_of_its_members_are(truncated):
    elsewhere = replace(truncated.context.truncation, observation=np.float32([OTHER])[0])
    other = ToyGaussian(noise=NOISE).exact_posterior(
        truncated.context.simulation_prior, truncated.prior.names
    )
    other.context = replace(truncated.context, truncation=elsewhere)
    amortised = ToyGaussian(noise=NOISE).exact_posterior(
        truncated.context.simulation_prior, truncated.prior.names
    )
    assert EnsemblePosterior([amortised, truncated]).valid_for([X, OTHER]).tolist() == [
        True,
        False,
    ]
    assert not EnsemblePosterior([truncated, other]).valid_for([X, OTHER]).any()
    with pytest.raises(ObservationError, match="2 of 2"):
        EnsemblePosterior([truncated, other]).log_prob([X], [X, OTHER])


def test_only_posteriors_without_rounds_are_amortised(truncated):
    amortised = ToyGaussian(noise=NOISE).reference_posterior()
    assert amortised.is_amortised
    assert np.isfinite(amortised.log_prob([X], OTHER)).all()
    assert not truncated.is_amortised
    assert not EnsemblePosterior([truncated]).is_amortised


@pytest.mark.parametrize("ensemble", [1, 2])
def test_a_loaded_posterior_refuses_too(tmp_path, ensemble):
    made = sp.truncate(
        ToyGaussian(noise=NOISE),
        X,
        "exact",
        rounds=2,
        simulations=300,
        settings={"ensemble": ensemble},
        seed=1,
        progress=SILENT,
    )
    loaded = sp.load_posterior(made.save(tmp_path / "posterior"))
    for one in (loaded, *getattr(loaded, "members", ())):
        np.testing.assert_array_equal(one.log_prob([X], X), made.log_prob([X], X))
        with pytest.raises(ObservationError, match=REFUSAL):
            one.log_prob([X], OTHER)


# --- what needs other observations still has them -----------------------------------------------


@pytest.mark.parametrize("method", ["rank", "affine"])
def test_recalibrated_posteriors_are_fitted_and_refuse(truncated, pairs, method):
    mended = sp.recalibrate(truncated, pairs, method=method, seed=1)
    assert np.isfinite(mended.log_prob([X], X)).all()
    with pytest.raises(ObservationError, match=REFUSAL):
        mended.log_prob([X], OTHER)
    if method == "rank":
        assert 0 < mended.credibility([X], X).item() < 1
        for ask in (mended.credibility, mended.nominal_credibility):
            with pytest.raises(ObservationError, match=REFUSAL):
                ask([X], OTHER)


@pytest.mark.parametrize("statistic", ["waldo", "ratio"])
def test_confidence_regions_are_calibrated_and_refuse(truncated, pairs, statistic):
    regions = sp.confidence_regions(truncated, pairs, statistic=statistic, degree=0, seed=1)
    assert regions.contains([X], X).all()
    with pytest.raises(ObservationError, match=REFUSAL):
        regions.contains([X], OTHER)
    # Away from the edges, where nothing is cut off, they cover as stated: 200 toys, 4 sigma.
    x = ToyGaussian(noise=NOISE).simulate(np.tile(X, (200, 1)), rng())
    covered = regions.contains([X], x, any_observation=True).mean()
    assert abs(covered - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 200)


@pytest.mark.parametrize("region", ["hpd", "theta_1"])
def test_coverage_at_a_point_is_measured(truncated, region):
    found = sp.frequentist_coverage(
        truncated, ToyGaussian(noise=NOISE), [X], region=region, n_toys=50, n_draws=99, seed=1
    )
    assert (found.coverage > 0.3).all()


def test_the_balance_of_a_truncated_ratio_is_measured(truncated, pairs):
    assert np.isfinite(check_balance(ratio_of(truncated), pairs, seed=1).balance).all()


def test_a_truncated_posterior_that_is_not_normalised_is_validated(pairs, truncated):
    class Unnormalised(type(truncated)):
        normalized = False

    posterior = copy.copy(truncated)
    posterior.__class__ = Unnormalised
    coverage = sp.validate(posterior, pairs, n_draws=99, seed=1, progress=SILENT)
    assert coverage.verdict in ("PASS", "MARGINAL")
