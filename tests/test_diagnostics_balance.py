"""Balance and normalisation of ratio estimators with known ratios."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_engines import BoxRatio

from sbi_physics.diagnostics.balance import balance, check_balance
from sbi_physics.errors import ValidationError
from sbi_physics.store import Simulations
from sbi_physics.testing import ToyGaussian


@pytest.fixture(scope="module")
def pairs():
    posterior, rng = BoxRatio(2, 0.5, pool_size=2048), np.random.default_rng(1)
    theta = posterior.prior.sample(400, rng)
    x = theta + 0.5 * rng.standard_normal(theta.shape)
    return Simulations.from_arrays(
        theta, x, posterior.prior, posterior.observable, purpose="pairs", seed=5
    )


def test_the_exact_ratio_is_balanced_and_normalised(pairs):
    found = check_balance(BoxRatio(2, 0.5, pool_size=2048), pairs, seed=1)
    # Five standard errors of the sample itself.
    assert abs(found.balance - 1) < 5 * found.standard_error
    assert abs(found.mean_ratio - 1) < 5 * found.mean_ratio_error
    assert found.standard_error < 0.02
    assert not found.is_warning
    assert np.abs(found.log_normalizer_interval).max() < 0.02
    assert found.joint > 0.5 > found.marginal
    assert "fine" in found.summary()


def test_the_standard_error_is_that_of_repeated_samples():
    rng, found = np.random.default_rng(2), []
    exact = BoxRatio(1, 0.5)
    for _ in range(200):
        theta = exact.prior.sample(50, rng)
        x = theta + 0.5 * rng.standard_normal(theta.shape)
        other = exact.prior.sample(50 * 4, rng).reshape(50, 4, 1)
        points = np.concatenate([theta[:, None], other], axis=1)
        log_ratio = exact.log_ratio(points, x)
        found.append(balance(log_ratio[:, 0], log_ratio[:, 1:], np.zeros(50)))
    pulls = np.array([(b.balance - 1) / b.standard_error for b in found])
    # Mean and spread of 200 standard normal numbers, five standard errors each.
    assert abs(pulls.mean()) < 5 / np.sqrt(200)
    assert abs(pulls.std() - 1) < 5 / np.sqrt(400)


@pytest.mark.parametrize(("scale", "side"), [(1.0, "marginal"), (-1.0, "joint")])
def test_a_constant_in_the_ratio_is_seen(pairs, scale, side):
    found = check_balance(BoxRatio(2, 0.5, scale=scale, pool_size=2048), pairs, seed=1)
    assert found.is_warning
    assert (found.balance > 1) == (scale > 0)
    assert side in found.summary()
    assert found.log_normalizer == pytest.approx(scale, abs=0.02)
    assert found.mean_ratio / np.exp(scale) == pytest.approx(
        1, abs=5 * found.mean_ratio_error / found.mean_ratio
    )
    assert found.to_dict()["is_warning"] is True


def test_other_posteriors_and_broken_ratios_are_refused(pairs):
    with pytest.raises(ValidationError, match="not a posterior of a ratio engine"):
        check_balance(ToyGaussian().reference_posterior(), pairs)
    with pytest.raises(ValidationError, match="at least 20 pairs"):
        balance(np.zeros(10), np.zeros((10, 2)), np.zeros(10))
    with pytest.raises(ValidationError, match=r"got \(30,\), \(29,\) and"):
        balance(np.zeros(30), np.zeros(29), np.zeros(30))
    with pytest.raises(ValidationError, match="joint log ratios are NaN"):
        balance(np.full(30, np.nan), np.zeros((30, 2)), np.zeros(30))
