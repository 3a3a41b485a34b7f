"""The exact engine goes the way of every engine: simulations in, a saved posterior out."""

from __future__ import annotations

import numpy as np
import pytest

import sbi_physics as sp
from sbi_physics.errors import TrainingError
from sbi_physics.progress import SILENT


@pytest.fixture
def simulations():
    def make(name, n=64, *, prior=None, **options):
        toy = sp.simulator(name, **options)
        return sp.simulate(toy, n, prior=prior, seed=1, progress=SILENT)

    return make


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("toy-gaussian", {}),
        ("toy-gaussian", {"kind": "set", "dimension": 3}),
        ("toy-bimodal", {"noise": 0.5}),
        ("toy-two-stage", {"hits": 2}),
    ],
)
def test_the_posterior_is_the_simulators_own(simulations, name, options):
    train = simulations(name, **options)
    posterior = sp.train(train, "exact", seed=1)
    reference = sp.simulator(name, **options).reference_posterior()
    x, theta = (
        train.x[:5],
        train.theta[:5, train.parameters.indices(posterior.prior.names)][:, None],
    )
    np.testing.assert_array_equal(posterior.log_prob(theta, x), reference.log_prob(theta, x))
    assert posterior.context.engine == "exact"
    assert posterior.context.simulations["digest"] == train.digest()


def test_it_saves_and_loads_through_the_registry(simulations, tmp_path):
    train = simulations("toy-gaussian", kind="spectrum")
    posterior = sp.train(train, "exact", seed=1, infer=("theta_2",))
    posterior.save(tmp_path / "posterior")
    loaded = sp.load_posterior(tmp_path / "posterior")
    assert loaded.prior == posterior.prior
    a, b = (p.draw(train.x[:4], 50, np.random.default_rng(2)).theta for p in (posterior, loaded))
    np.testing.assert_array_equal(a, b)


def test_ensembles_of_exact_posteriors_are_exact(simulations, tmp_path):
    train = simulations("toy-gaussian")
    one = sp.train(train, "exact", seed=1)
    three = sp.train(train, "exact", seed=1, settings={"ensemble": 3})
    theta = train.theta[:5, None]
    np.testing.assert_allclose(
        three.log_prob(theta, train.x[:5]), one.log_prob(theta, train.x[:5])
    )
    three.save(tmp_path / "three")
    loaded = sp.load_posterior(tmp_path / "three")
    np.testing.assert_allclose(
        loaded.log_prob(theta, train.x[:5]), one.log_prob(theta, train.x[:5])
    )


def test_a_truncated_prior_gives_the_truncated_posterior(simulations):
    toy = sp.simulator("toy-gaussian")
    train = simulations("toy-gaussian", prior=toy.prior.truncate({"theta_1": (0.0, 0.1)}))
    posterior = sp.train(train, "exact", seed=1)
    draws = posterior.draw(train.x[:5], 100, np.random.default_rng(3)).theta
    assert draws[..., 0].min() >= 0
    assert draws[..., 0].max() <= 0.1


def test_bare_arrays_are_refused(simulations):
    train = simulations("toy-gaussian")
    bare = sp.Simulations.from_arrays(
        train.theta, train.x, prior=train.prior, observable=train.observable
    )
    with pytest.raises(TrainingError, match="bare arrays"):
        sp.train(bare, "exact", seed=1)
