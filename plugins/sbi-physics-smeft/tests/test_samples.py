"""Weighted reference samples: weights, models, pools and histograms."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_smeft.samples import ReferenceSample
from sbi_physics_smeft.smeft_toy import SmeftToy

from sbi_physics.errors import ContractError
from sbi_physics.likelihood import LikelihoodRatio, pack, separation

TOY = SmeftToy(alpha=1.0, proposal="mixture")


def sample(n=40_000, seed=1):
    return ReferenceSample.draw(TOY, n, np.random.default_rng(seed))


def test_weights_turn_the_mixture_into_the_background():
    found = sample()
    assert found.weight.sum() == pytest.approx(1000.0)
    n = found.weight.sum() ** 2 / (found.weight**2).sum()
    mean = found.weight @ found.x[:, 0] / found.weight.sum()
    assert mean == pytest.approx(0.0, abs=5 * np.hypot(1.0, 0.7) / np.sqrt(n))
    # The mean of the labels is the integrated matrix.
    average = found.weight @ found.gram / found.weight.sum()
    spread = np.sqrt(found.weight**2 @ (found.gram[:, 2] - average[2]) ** 2) / 1000
    np.testing.assert_allclose(average, [1, 0, 1], atol=5 * spread)


def test_bins_hold_their_mean_and_a_fine_histogram_is_the_exact_ratio():
    found = sample()
    edges = np.linspace(-3, 3, 121)
    means = found.binned(found.x[:, 0], edges)
    assert means.shape == (122, 3)
    middle = 0.5 * (edges[1:] + edges[:-1])[:, None]
    exact = pack(TOY.exact_gram(middle))[:, 2]
    populated = np.abs(middle[:, 0]) < 2
    # some 200 labels with a spread of 3 in each bin
    np.testing.assert_allclose(means[1:-1][populated, 2], exact[populated], atol=5 * 3 / 200**0.5)
    coarse = found.binned(found.x[:, 0], [0.0])
    above = found.x[:, 0] >= 0
    expected = found.weight[above] @ found.gram[above] / found.weight[above].sum()
    np.testing.assert_allclose(coarse[1], expected)


def test_histograms_separate_less_than_the_exact_ratio_and_more_than_the_rate():
    found, test = sample(seed=2), sample(seed=3)
    exact = pack(TOY.exact_gram(test.x))
    values = test.x[:, 0]
    z = {}
    for name, edges in (("fine", np.linspace(-3, 4, 60)), ("coarse", np.array([0.5]))):
        events = found.binned(found.x[:, 0], edges)[np.digitize(values, edges)]
        z[name] = separation(
            LikelihoodRatio(test.model(events)), test.pool(events), [0.0], [[0.4]]
        )[0, 0]
    z["exact"] = separation(LikelihoodRatio(test.model(exact)), test.pool(exact), [0.0], [[0.4]])[
        0, 0
    ]
    rate = LikelihoodRatio(test.model(), terms="rate")
    z["rate"] = separation(rate, test.pool(), [0.0], [[0.4]])[0, 0]
    assert z["rate"] < z["coarse"] < z["fine"]
    assert z["fine"] == pytest.approx(z["exact"], rel=0.02)


def test_unusable_samples_are_refused():
    with pytest.raises(ContractError, match="proposal='mixture'"):
        ReferenceSample.draw(SmeftToy(), 10, np.random.default_rng(1))
    found = sample(100)
    with pytest.raises(ContractError, match=r"bins \[3\] of 4 hold no event"):
        found.binned(found.x[:, 0], [-1.0, 0.0, 50.0])
