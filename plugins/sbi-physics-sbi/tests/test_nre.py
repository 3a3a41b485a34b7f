"""Engine `sbi-nre`: accuracy of all variants, pool evaluation, storage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sbi_physics_sbi.nre import NeuralRatioEngine
from sbi_physics_sbi.ratio_network import RatioNetwork, build_classifier

import sbi_physics as sp
from sbi_physics.errors import OptionError
from sbi_physics.nn.coordinates import to_normal
from sbi_physics.testing import ToyGaussian

pytestmark = pytest.mark.engine


def _train(toy, n, **settings):
    settings = {"pool_size": 2048, **settings}
    return NeuralRatioEngine().train(sp.simulate(toy, n, seed=1), settings, seed=1)


@pytest.fixture(scope="module")
def toy():
    return ToyGaussian()


@pytest.fixture(scope="module")
def posterior(toy):
    return _train(toy, 3000, max_epochs=15)


@pytest.fixture(scope="module")
def pairs(toy):
    return sp.simulate(toy, 200, seed=1, purpose="pairs")


def _excess(toy, posterior, pairs):
    points = pairs.theta[:, None]
    exact = toy.reference_posterior().log_prob(points, pairs.x)
    return float((exact - posterior.log_prob(points, pairs.x)).mean())


def test_the_posterior_is_close_to_the_exact_one(toy, posterior, pairs):
    assert _excess(toy, posterior, pairs) < 0.15


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "B"},
        {"variant": "C", "gamma": 2.0},
        {"variant": "A", "classifier": "mlp", "contrasts": 1},
    ],
    ids=str,
)
def test_every_variant_learns(toy, pairs, settings):
    fitted = _train(toy, 2000, max_epochs=12, **settings)
    gain = (
        toy.reference_posterior().log_prob(pairs.theta[:, None], pairs.x)[:, 0]
        - toy.prior.log_prob(pairs.theta)
    ).mean()
    # Nothing learned would cost the whole information gain, about 1.5 nats.
    assert _excess(toy, fitted, pairs) < 0.25 * gain


@pytest.mark.parametrize("variant", ["A", "C"])
def test_learned_ratios_average_to_one_over_the_prior(toy, pairs, variant):
    posterior = _train(toy, 3000, max_epochs=15, variant=variant, contrasts=8)
    theta = np.broadcast_to(toy.prior.sample(4000, np.random.default_rng(1)), (50, 4000, 2))
    mean = np.exp(posterior.log_ratio(theta, pairs.x[:50])).mean(axis=1)
    assert np.median(mean) == pytest.approx(1.0, abs=0.15)


def test_balance_makes_posteriors_wider(toy, pairs):
    widths = []
    for balance in (0.0, 100.0):
        fitted = _train(toy, 400, max_epochs=10, balance=balance)
        widths.append(fitted.sample(pairs.x, 200, np.random.default_rng(1)).std(axis=1).mean())
    assert widths[1] > widths[0]


@pytest.mark.parametrize("name", ["resnet", "mlp"])
def test_the_split_first_layer_gives_what_the_classifier_of_sbi_gives(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = build_classifier(name, 2, 5, width=16, blocks=2, dropout=0.1)
        network = RatioNetwork(torch.nn.Flatten(), classifier, 2).eval()
        z, features = torch.randn(7, 2), torch.randn(4, 5)
    with torch.no_grad():
        shared = network(z, features)
        own = network(z.expand(4, 7, 2), features)
        expected = classifier(z.repeat(4, 1), features.repeat_interleave(7, dim=0)).reshape(4, 7)
    torch.testing.assert_close(shared, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


def test_ratios_do_not_depend_on_how_observations_are_grouped(posterior, pairs):
    u = posterior.prior.to_unconstrained(posterior.prior.sample(500, np.random.default_rng(1)))
    xt = posterior._transform(pairs.x)
    together = posterior._log_ratio(u, xt)
    alone = np.concatenate([posterior._log_ratio(u, xt[i : i + 1]) for i in range(len(xt))])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    z = to_normal(torch.from_numpy(u)).float()
    with torch.no_grad():
        features = posterior.network.embedding(torch.from_numpy(xt[:3]))
        expected = posterior.network(z, features).numpy()
    np.testing.assert_allclose(together[:3], expected, atol=1e-4)


def test_stored_weights_rebuild_the_same_posterior(toy, posterior, tmp_path, pairs):
    loaded = sp.load_posterior(posterior.save(tmp_path / "posterior"))
    points = pairs.theta[:, None]
    difference = posterior.log_prob(points, pairs.x) - loaded.log_prob(points, pairs.x)
    assert np.abs(difference).max() == 0.0
    assert loaded.pool_size == 2048


def test_draws_stay_inside_the_prior_and_follow_the_generator(toy, posterior, pairs):
    first, again, other = (
        posterior.sample(pairs.x[:20], 50, np.random.default_rng(s)) for s in (1, 1, 2)
    )
    assert toy.prior.contains(first).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_more_contrasts_than_rows_are_refused(toy):
    with pytest.raises(OptionError, match="contrasts=300 needs a larger batch_size than 256"):
        NeuralRatioEngine().settings(contrasts=300)


def test_the_loss_is_computed_where_the_network_is(toy, posterior):
    # Meta tensors hold no numbers, but mixing them with others fails as on an accelerator.
    engine = NeuralRatioEngine()
    settings = engine.settings(variant="A")
    network = engine._build(posterior.context, settings, 0).to("meta")
    u, x = torch.zeros(64, toy.prior.d, device="meta"), torch.zeros(64, 2, device="meta")
    for loss in engine._losses(network, settings):
        assert loss(u, x, torch.ones(64, device="meta")).device.type == "meta"
