"""The toy against its closed form, and the three ways of drawing events."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_smeft.conventions import ratio, sampling_ratio
from sbi_physics_smeft.smeft_toy import SmeftToy
from scipy import integrate, stats

import sbi_physics as sp
from sbi_physics.errors import OptionError

N = 200_000


def draw(simulator, theta, seed=1, n=N):
    rng = np.random.default_rng(seed)
    points = np.full((n, 1), float(theta))
    z = simulator.simulate_latent(points, rng)
    return z, simulator.observe(z, points, rng)


def published_cdf(x, theta, alpha):
    """Arxiv:2410.07315 with sqrt(1 + 0.49) and sqrt(0.01 + 0.49) for its 1.22 and 0.71."""
    background = stats.norm(0, np.sqrt(1.49)).cdf(x)
    signal = stats.norm(alpha, np.sqrt(0.5)).cdf(x)
    return (background + theta**2 * signal) / (1 + theta**2)


@pytest.mark.parametrize(("theta", "alpha"), [(0.0, 2.0), (1.0, 2.0), (-1.7, 1.0), (1.0, 3.0)])
def test_data_follow_the_published_density(theta, alpha):
    _, x = draw(SmeftToy(alpha=alpha), theta, n=20_000)
    assert stats.kstest(x[:, 0], lambda v: published_cdf(v, theta, alpha)).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_the_likelihood_is_normalised_and_gives_the_ratio(alpha):
    toy = SmeftToy(alpha=alpha)
    x = np.linspace(-12, 14, 20_001)
    theta = np.full((len(x), 1), 1.3)
    density = np.exp(toy.log_likelihood(x[:, None], theta))
    assert integrate.simpson(density, x) == pytest.approx(1.0, abs=1e-9)
    r = toy.log_likelihood(x[:, None], theta) - toy.log_likelihood(x[:, None], 0 * theta)
    assert toy.exact_log_ratio(x[:, None], [1.3]) == pytest.approx(r, abs=1e-12)


def test_the_label_tail_is_the_documented_one():
    # Largest value and mean square of L under the background, in closed form.
    for alpha, largest, square in ((1.0, 16.6, 11.72), (2.0, 75.4, 52.9), (3.0, 942, 652.7)):
        toy = SmeftToy(alpha=alpha)
        z = np.linspace(alpha - 2, alpha + 2, 400_001)
        label = toy.latent_ratio(z)
        assert label.max() == pytest.approx(largest, rel=2e-3)
        mean = integrate.simpson(label**2 * stats.norm.pdf(z), z)
        assert mean == pytest.approx(square, rel=2e-3)


def test_the_mean_label_at_given_data_is_the_exact_ratio():
    toy = SmeftToy(alpha=1.0)
    z, x = draw(toy, 0.0)
    label = toy.labels(z)["gram"][:, 1, 1]
    inside = np.abs(x[:, 0] - 1.2) < 0.1
    expected = toy.exact_gram(x[inside])[:, 1, 1].mean()
    error = label[inside].std() / np.sqrt(inside.sum())
    assert label[inside].mean() == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize(
    "options",
    [
        {"proposal": "sm"},
        {"proposal": "mixture"},
        {"proposal": "mixture", "mixture_points": ((-2.0,), (0.5,)), "sm_share": 0.3},
        {"proposal": "theta"},
    ],
)
def test_the_sampling_matrix_is_the_density_events_were_drawn_from(options):
    # E_q[p_0/q f] = E_0[f] for any f; here f = 1 and f = [z > 1.8], Gaussian tail area.
    toy = SmeftToy(**options)
    rng = np.random.default_rng(3)
    z = toy.simulate_latent(toy.prior.sample(N, rng), rng)
    labels = toy.labels(z)
    weight = 1.0 / sampling_ratio(labels["gram"], toy.sampling_matrix())
    # Bounded by one over the share of the Standard Model: here one over E[1/(1 + theta^2)].
    assert weight.max() < 1.0 / min(toy.options.sm_share, 0.5) + 0.01
    for f, exact in ((np.ones(N), 1.0), (z["z"] > 1.8, stats.norm.sf(1.8))):
        values = weight * f
        assert values.mean() == pytest.approx(exact, abs=4 * values.std() / np.sqrt(N) + 1e-12)


def test_the_mixture_has_the_shares_asked_for_and_says_whence_an_event_came():
    toy = SmeftToy(proposal="mixture", mixture_points=((1.0,), (2.0,)), sm_share=0.4)
    z, _ = draw(toy, 0.0)
    share = np.bincount(z["source"], minlength=3) / N
    assert share == pytest.approx([0.4, 0.3, 0.3], abs=0.005)  # 4.5 standard errors
    own, _ = draw(SmeftToy(), 0.5, n=10)
    assert (own["source"] == -1).all()
    # Events of the third source are half signal (weight 4) ... four fifths of it.
    signal = z["z"][z["source"] == 2] > 1.5
    expected = (stats.norm.sf(1.5) + 4 * stats.norm(2, 0.1).sf(1.5)) / 5
    assert signal.mean() == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(len(signal)))


def test_a_data_set_has_the_expected_number_of_events_and_ignores_the_proposal():
    toy = SmeftToy(proposal="sm", sm_events=500)
    rng = np.random.default_rng(2)
    sets = [toy.event_set([1.5], rng) for _ in range(200)]
    expected = 500 * (1 + 1.5**2)
    assert toy.expected_events([[1.5]])[0] == pytest.approx(expected)
    assert np.mean([len(s) for s in sets]) == pytest.approx(
        expected, abs=4 * np.sqrt(expected / 200)
    )
    x = np.concatenate(sets)[:, 0]
    assert stats.kstest(x[::20], lambda v: published_cdf(v, 1.5, 2.0)).pvalue > 1e-4


def test_stores_of_labels_are_made_by_name(tmp_path):
    simulator = sp.simulator("smeft-toy", proposal="mixture")
    simulations = sp.simulate(simulator, 300, store=tmp_path / "s", seed=1)
    rows = simulations.read(slice(0, 300))
    gram = simulations.simulator.labels(rows.z)["gram"]
    assert gram.shape == (300, 2, 2)
    assert ratio(gram, [1.0]) == pytest.approx(1 + simulator.latent_ratio(rows.z["z"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixture_points": ((1.0, 2.0),)}, r"\(1.0, 2.0\) has 2 numbers, expected 1 \(theta\)"),
        ({"mixture_points": ((1000.0,),)}, "mixture_points"),
        ({"sm_share": 0.0}, r"accepted: \(0, 1\]"),
        ({"proposal": "smm"}, "'theta', 'sm' or 'mixture'"),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises((OptionError, ValueError), match=message):
        SmeftToy(**options)
