"""Regions at fixed parameters, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sbi_physics.confidence import STATISTICS, confidence_regions, frequentist_coverage
from sbi_physics.errors import UnknownNameError, ValidationError
from sbi_physics.progress import SILENT
from sbi_physics.simulate import simulate
from sbi_physics.testing import ToyGaussian, ToyTwoStage

WIDE = ToyGaussian(dimension=1, noise=0.3, half_width=3.0)


def test_flat_priors_far_away_give_frequentist_coverage():
    found = frequentist_coverage(
        WIDE.reference_posterior(), WIDE, [[0.0], [0.5]], n_toys=400, n_draws=199, seed=1
    )
    # At least six noise widths from the ends of the prior, credible equals confidence.
    assert not found.undercovers.any()
    assert not found.overcovers.any()
    assert found.coverage[:, 0] == pytest.approx(0.683, abs=5 * np.sqrt(0.683 * 0.317 / 400))


def test_an_informative_prior_undercovers_in_its_tail_as_computed():
    # theta ~ N(0, 1) with four hits and an offset: a shrunken posterior far from the centre.
    toy = ToyTwoStage()
    point = {"position": 2.5, "offset": 0.0}
    found = frequentist_coverage(
        toy.reference_posterior(), toy, [point], region="position", levels=(0.683,),
        n_toys=400, n_draws=199, seed=2,
    )  # fmt: skip
    # Posterior mean is linear in x: its law at the point is normal, with slope and spread that
    # 20000 toys give; the interval mean +- sd then covers with this probability.
    x = toy.simulate(np.repeat([[2.5, 0.0]], 20_000, axis=0), np.random.default_rng(3))
    draws = toy.reference_posterior().sample(x[:1], 100_000, np.random.default_rng(4))
    sd = float(draws.std())
    mean = toy.reference_posterior()._mean(x)[:, 0]
    half = sd * stats.norm.ppf(0.5 + 0.683 / 2)
    expected = float(np.mean(np.abs(mean - 2.5) <= half))
    assert expected < 0.6
    assert found.coverage[0, 0] == pytest.approx(expected, abs=5 * np.sqrt(0.25 / 400))


def test_bad_questions_are_refused():
    exact = WIDE.reference_posterior()
    with pytest.raises(UnknownNameError, match=r"unknown region 'theta'.*hpd, theta_1"):
        frequentist_coverage(exact, WIDE, [[0.0]], region="theta")
    with pytest.raises(ValidationError, match="outside the prior"):
        frequentist_coverage(exact, WIDE, [[9.0]])
    with pytest.raises(ValidationError, match=r"shape \(point, 1\) for theta_1"):
        frequentist_coverage(exact, WIDE, [[0.0, 1.0]])
    with pytest.raises(ValidationError, match="offset missing"):
        frequentist_coverage(ToyTwoStage().reference_posterior(), ToyTwoStage(), [{"position": 0}])
    with pytest.raises(UnknownNameError, match="posision"):
        frequentist_coverage(ToyTwoStage().reference_posterior(), ToyTwoStage(), [{"posision": 0}])
    with pytest.raises(ValidationError, match="at least 1"):
        frequentist_coverage(exact, WIDE, [[0.0]], n_toys=0)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_learned_regions_cover_in_the_tail_where_credible_ones_do_not(statistic):
    toy = ToyTwoStage()
    calibration = simulate(toy, 1000, seed=1, purpose="test", progress=SILENT)
    regions = confidence_regions(
        toy.reference_posterior(), calibration, level=0.8, statistic=statistic, seed=1
    )
    assert regions.level == 0.8
    for position in (0.0, 1.5):
        truth = np.repeat([[position, 0.0]], 400, axis=0)
        # The offset is a nuisance with its own prior: toys must draw it.
        rng = np.random.default_rng(5)
        truth[:, 1] = toy.prior.sample(400, rng)[:, 1]
        inside = regions.contains(np.array([[position]]), toy.simulate(truth, rng))
        assert inside.shape == (400, 1)
        # Toys: 0.02. Calibration on 500 pairs: 0.018 on average, about twice that off-centre.
        assert inside.mean() == pytest.approx(0.8, abs=3 * np.hypot(0.02, 0.036))


def test_regions_refuse_unknown_statistics_and_training_pairs():
    pairs = simulate(WIDE, 300, seed=1, purpose="test", progress=SILENT)
    with pytest.raises(UnknownNameError, match=r"statistic 'wald'.*waldo"):
        confidence_regions(WIDE.reference_posterior(), pairs, statistic="wald")
    with pytest.raises(ValidationError, match="overlap the training"):
        confidence_regions(WIDE.reference_posterior(), pairs, training=pairs)
