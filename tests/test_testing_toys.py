"""The toys' posteriors are exact: against Bayes' theorem, grids and known entropies."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from sbi_physics.errors import ContractError, DataFileError, ObservationError, OptionError
from sbi_physics.testing import ToyBimodal, ToyGaussian, ToyTwoStage

TOYS = {
    "vector": lambda: ToyGaussian(),
    "spectrum": lambda: ToyGaussian(kind="spectrum", dimension=3),
    "image": lambda: ToyGaussian(kind="image", dimension=8),
    "set": lambda: ToyGaussian(kind="set"),
    "bimodal": ToyBimodal,
    "two-stage": ToyTwoStage,
}


@pytest.fixture(params=TOYS)
def toy(request):
    return TOYS[request.param]()


def test_posterior_times_evidence_is_likelihood_times_prior(toy):
    rng = np.random.default_rng(1)
    posterior = toy.exact_posterior(toy.prior, toy.parameters.names)
    x = toy.simulate(toy.prior.sample(50, rng), rng)
    log_evidence = []
    for _ in range(3):
        theta = toy.prior.sample(50, rng)
        joint = toy.log_likelihood(x, theta) + toy.prior.log_prob(theta)
        log_evidence.append(joint - posterior.log_prob(theta[:, None], x)[:, 0])
    np.testing.assert_allclose(log_evidence[1], log_evidence[0], atol=1e-9)
    np.testing.assert_allclose(log_evidence[2], log_evidence[0], atol=1e-9)


def test_draws_follow_the_density(toy):
    """Each parameter's draws against the CDF of its density integrated on a grid."""
    rng = np.random.default_rng(2)
    name = toy.parameters.names[0]
    posterior = toy.exact_posterior(toy.prior, (name,))
    x = toy.simulate(toy.prior.sample(5, rng), rng)
    draws = posterior.draw(x, 2000, rng).theta[..., 0]
    low, high = toy.prior.select((name,)).from_unit([[1e-9], [1 - 1e-9]])[:, 0]
    grid = np.linspace(low, high, 20_001)
    density = np.exp(posterior.log_prob(grid[:, None], x))
    for i in range(len(x)):
        cdf = np.concatenate([[0], np.cumsum(0.5 * (density[i, 1:] + density[i, :-1]))])
        cdf *= grid[1] - grid[0]
        assert cdf[-1] == pytest.approx(1, abs=1e-4)
        assert stats.kstest(np.interp(draws[i], grid, cdf), "uniform").pvalue > 1e-4


def test_three_gaussian_parameters_carry_the_published_information():
    """The exact loss of three parameters is -0.167 nats over 1000 pairs (entropy 2.079)."""
    toy, rng = ToyGaussian(dimension=3), np.random.default_rng(3)
    theta = toy.prior.sample(20_000, rng)
    posterior = toy.reference_posterior()
    loss = -posterior.log_prob(theta[:, None], toy.simulate(theta, rng)).mean()
    # One pair scatters by 1.2 nats: 0.04 over the 1000 pairs of the quoted number.
    assert loss == pytest.approx(-0.167, abs=0.12)


def test_far_observations_have_finite_densities_and_draws_at_the_edge():
    toy, rng = ToyGaussian(dimension=1), np.random.default_rng(4)
    posterior = toy.reference_posterior()
    x = np.array([[40.0], [-40.0]], np.float32)
    theta, log_prob = posterior.sample(x, 1000, rng, return_log_prob=True)
    assert np.isfinite(log_prob).all()
    assert (theta[0] > 0.98).all()
    assert (theta[1] < -0.98).all()
    # Near the edge the density is exponential with rate (40 - 1) / 0.3^2.
    assert (1 - theta[0]).mean() == pytest.approx(0.09 / 39, rel=0.1)


def test_truncated_and_fixed_priors_have_exact_posteriors_too():
    toy, rng = ToyGaussian(), np.random.default_rng(5)
    prior = toy.prior.truncate({"theta_1": (0.0, 0.2)})
    posterior = toy.exact_posterior(prior, ("theta_1",))
    theta = prior.sample(400, rng)
    draws = posterior.draw(toy.simulate(theta, rng), 99, rng).theta
    assert draws.min() >= 0
    assert draws.max() <= 0.2
    ranks = (draws < theta[:, None, :1]).mean(axis=1)
    assert stats.kstest(ranks[:, 0], "uniform").pvalue > 1e-3


def test_fixing_the_offset_sharpens_the_position():
    toy = ToyTwoStage()
    x = np.zeros((1, 5), np.float32)
    free = toy.reference_posterior()
    from sbi_physics.priors import Prior

    fixed = toy.exact_posterior(Prior(toy.parameters.fix({"offset": 0.3})), ("position",))
    rng = np.random.default_rng(6)
    a, b = (p.draw(x, 20_000, rng).theta[0, :, 0] for p in (free, fixed))
    assert b.std() < 0.9 * a.std()
    # Four hits of variance 0.29 around position + 0.3, prior N(0, 1).
    precision = 1 + 4 / 0.29
    assert b.mean() == pytest.approx(-0.3 * (4 / 0.29) / precision, abs=0.01)
    assert b.std() == pytest.approx(precision**-0.5, rel=0.03)


@pytest.mark.parametrize("toy", [ToyGaussian(), ToyTwoStage()], ids=["gaussian", "two-stage"])
def test_priors_without_a_closed_form_are_refused(toy):
    from sbi_physics.priors import Prior

    names = toy.parameters.names
    constrained = Prior(toy.parameters, [f"{names[0]} < {names[1]}"])
    with pytest.raises(ContractError, match="not known under"):
        toy.exact_posterior(constrained, names)


def test_options_decide_shape_and_fiducial_points():
    toy = ToyGaussian(dimension=3, kind="set", events=5, half_width=2.0)
    assert toy.observable.shape == (6, 4)
    np.testing.assert_allclose(toy.theta("offset"), [1.0, -0.5, 1.0])
    with pytest.raises(OptionError, match="noise"):
        ToyGaussian(noise=-1.0)


def test_sets_vary_in_size_and_are_zero_padded():
    toy, rng = ToyGaussian(kind="set"), np.random.default_rng(7)
    x = toy.simulate(toy.prior.sample(3000, rng), rng)
    counts = toy.observable.counts(x)
    assert set(counts) == {2, 3, 4}
    assert stats.chisquare(np.bincount(counts)[2:]).pvalue > 1e-4
    assert not x[x[..., -1] == 0].any()


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".json"])
def test_observations_are_read_from_small_files(tmp_path, suffix):
    toy, values = ToyGaussian(kind="spectrum"), np.linspace(-1, 1, 24)
    path = tmp_path / f"observation{suffix}"
    if suffix == ".npy":
        np.save(path, values)
    elif suffix == ".csv":
        np.savetxt(path, values[None], delimiter=",")
    else:
        path.write_text(json.dumps({"x": values.tolist()}))
    x = toy.read_observation(path)
    assert x.shape == (24,)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, values, rtol=1e-6)


def test_unreadable_observations_are_explained(tmp_path):
    toy = ToyGaussian()
    with pytest.raises(DataFileError, match=r"nothing\.npy"):
        toy.read_observation(tmp_path / "nothing.npy")
    for name, content, message in (
        ("short.csv", "1.0", r"shape \(\).*shape \(2,\)"),
        ("text.json", '{"y": [1, 2]}', "'x'"),
        ("words.csv", "a,b", "array of numbers"),
        ("data.txt", "1 2", r"txt: unknown file type '\.txt'"),
        ("nan.json", "[NaN, 1.0]", "not finite"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ObservationError, match=message):
            toy.read_observation(tmp_path / name)


def test_an_object_array_is_not_unpickled(tmp_path):
    path = tmp_path / "bad.npy"
    np.save(path, np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(ObservationError, match="pickle"):
        ToyGaussian().read_observation(path)
