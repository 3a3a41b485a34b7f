"""Engine `swyft-tmnre`: accuracy, blocks, losses, storage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sbi_physics_swyft.backend import swyft
from sbi_physics_swyft.posteriors import JointPosterior, NetworkMarginals
from sbi_physics_swyft.ratio_network import RatioNetwork, joint_heads, marginal_heads
from sbi_physics_swyft.tmnre import MarginalRatioEngine, MarginalRatioSettings, SwyftLoss

import sbi_physics as sp
from sbi_physics.ensemble import MarginalEnsemble
from sbi_physics.errors import OptionError, TrainingError
from sbi_physics.nn.contrast import contrastive_loss
from sbi_physics.nn.coordinates import to_normal
from sbi_physics.testing import ToyGaussian, ToyOrdered

pytestmark = pytest.mark.engine

SINGLES = (("theta_1",), ("theta_2",))
PAIR = ("theta_1", "theta_2")


def _train(toy, n, **settings):
    settings = {"pool_size": 2048, **settings}
    return MarginalRatioEngine().train(sp.simulate(toy, n, seed=1), settings, seed=1)


def _network(names, heads, batch_norm=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = RatioNetwork(
            torch.nn.Flatten(),
            5,
            names,
            heads,
            width=16,
            blocks=2,
            dropout=0.1,
            batch_norm=batch_norm,
        )
        return network.eval()


@pytest.fixture(scope="module")
def toy():
    return ToyGaussian()


@pytest.fixture(scope="module")
def joint(toy):
    return _train(toy, 3000, max_epochs=20)


@pytest.fixture(scope="module")
def marginals(toy):
    return _train(toy, 3000, max_epochs=20, heads="marginals", pool_size=8192)


@pytest.fixture(scope="module")
def pairs(toy):
    return sp.simulate(toy, 200, seed=1, purpose="pairs")


def _excess(exact, posterior, points, x):
    return float((exact.log_prob(points, x) - posterior.log_prob(points, x)).mean())


def test_the_joint_posterior_is_close_to_the_exact_one(toy, joint, pairs):
    assert isinstance(joint, JointPosterior)
    assert joint.blocks == (PAIR,)
    assert _excess(toy.reference_posterior(), joint, pairs.theta[:, None], pairs.x) < 0.15


def test_every_marginal_is_close_to_the_exact_one(toy, marginals, pairs):
    assert isinstance(marginals, NetworkMarginals)
    assert marginals.blocks == (*SINGLES, PAIR)
    for block in marginals.blocks:
        part, exact = marginals.marginal(block), toy.exact_posterior(toy.prior, block)
        points = pairs.theta[:, pairs.parameters.indices(block)][:, None]
        assert _excess(exact, part, points, pairs.x) < 0.15, block


def test_seven_parameters_are_answered_in_pairs_and_by_themselves():
    toy = ToyGaussian(dimension=7)
    posterior = _train(toy, 64, max_epochs=1, batch_size=32, pool_size=256)
    assert len(posterior.blocks) == 7 + 21
    x = sp.simulate(toy, 3, seed=1, purpose="pairs").x
    draws = posterior.draw(x, 20, np.random.default_rng(1), log_prob=True)
    assert draws.theta.shape == (3, 20, 7)
    assert toy.prior.contains(draws.theta).all()
    pair = posterior.marginal(("theta_3", "theta_7"))
    assert pair.draw(x, 20, np.random.default_rng(1)).theta.shape == (3, 20, 2)
    with pytest.raises(TrainingError, match="at most 6"):
        _train(toy, 64, max_epochs=1, heads="joint", batch_size=32)


def test_one_parameter_is_a_joint_posterior_whatever_is_asked_for(toy):
    simulations = sp.simulate(toy, 64, seed=1)
    for heads in ("auto", "marginals"):
        posterior = MarginalRatioEngine().train(
            simulations, {"max_epochs": 1, "heads": heads}, infer=["theta_2"], seed=1
        )
        assert isinstance(posterior, JointPosterior)
        assert posterior.blocks == (("theta_2",),)


def test_constraints_between_parameters_need_a_joint_head():
    simulations = sp.simulate(ToyOrdered(), 64, seed=1)
    with pytest.raises(TrainingError, match="'a < b / 2'.*heads to 'joint'"):
        MarginalRatioEngine().train(simulations, {"heads": "marginals"}, seed=1)
    posterior = MarginalRatioEngine().train(
        simulations, {"max_epochs": 1, "pool_size": 256}, seed=1
    )
    draws = posterior.sample(simulations.x[:2], 50, np.random.default_rng(1))
    assert posterior.prior.contains(draws).all()


def test_binary_ratios_average_to_one_over_the_prior(toy, pairs):
    binary = _train(toy, 3000, max_epochs=20, variant="A", contrasts=4)
    theta = np.broadcast_to(toy.prior.sample(4000, np.random.default_rng(1)), (50, 4000, 2))
    mean = np.exp(binary.log_ratio(theta, pairs.x[:50])).mean(axis=1)
    assert np.median(mean) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("heads", [joint_heads, marginal_heads])
def test_evaluation_gives_what_the_estimators_of_swyft_give(heads, batch_norm):
    names = ("a", "b", "c")
    network = _network(names, heads(names), batch_norm)
    channels = network.channels()
    u, x = torch.randn(6, 3), torch.randn(6, 5)
    with torch.no_grad():
        for head in network.heads:
            native = network.estimators[head.name](x, to_normal(u))
            assert isinstance(native, swyft.LogRatioSamples)
            for k, block in enumerate(head.blocks):
                assert tuple(native.parnames[k]) == block
                points = to_normal(u)[:, network.columns(block)][:, None]
                ours = channels[block](points, x)[:, 0]
                torch.testing.assert_close(ours, native.logratios[:, k], rtol=1e-4, atol=1e-5)


def test_the_loss_is_that_of_swyft():
    # One contrast, shifted by one: the pairs swyft makes by rolling the batch.
    class Module(swyft.SwyftModule):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, sample, contrast):
            x, z = swyft.equalize_tensors(sample["x"], contrast["z"])
            return [self.network.estimators[h.name](x, z) for h in self.network.heads]

    names = ("a", "b", "c")
    network = _network(names, marginal_heads(names))
    u, x = torch.randn(32, 3), torch.randn(32, 5)
    with torch.no_grad():
        # torch.roll(z, 1) puts row i - 1 beside x of row i: a shift of n - 1 rows.
        native = Module(network)._calc_loss({"x": x, "z": to_normal(u)}) / 6
        rolls = torch.tensor([31])
        logits = network.logits(u, x, rolls)
        ours = torch.nn.functional.softplus(-logits[:, 0]).mean()
        ours = ours + torch.nn.functional.softplus(logits[:, 1]).mean() - 2 * math.log(2)
        torch.testing.assert_close(ours, native, rtol=1e-4, atol=1e-5)
        same = SwyftLoss(network, MarginalRatioSettings(variant="A", contrasts=1), random=False)(
            u.flip(0), x.flip(0), None
        )
        torch.testing.assert_close(same, native, rtol=1e-4, atol=1e-5)


def test_knowing_nothing_costs_nothing_and_weights_count_rows():
    names = ("a", "b")
    network = _network(names, marginal_heads(names))
    for estimator in network.estimators.values():
        torch.nn.init.zeros_(estimator.classifier.net.final_layer.weights)
        torch.nn.init.zeros_(estimator.classifier.net.final_layer.bias)
    loss = SwyftLoss(network, MarginalRatioSettings(variant="A", contrasts=3), random=False)
    u, x = torch.randn(8, 2), torch.randn(8, 5)
    with torch.no_grad():
        assert loss(u, x, None).item() == pytest.approx(0.0, abs=1e-6)
        assert loss(u, x, torch.rand(8)).item() == pytest.approx(0.0, abs=1e-6)
    network = _network(names, marginal_heads(names))
    loss = SwyftLoss(network, MarginalRatioSettings(variant="A", contrasts=3), random=False)
    with torch.no_grad():
        plain, ones = loss(u, x, None), loss(u, x, torch.ones(8))
        torch.testing.assert_close(plain, ones)
        assert not torch.isclose(loss(u, x, torch.linspace(0.1, 3.0, 8)), plain)


def test_contrastive_pairs_are_new_at_every_epoch(toy):
    simulations = sp.simulate(toy, 40, seed=1)
    settings = MarginalRatioEngine().settings(batch_size=20)
    data = sp.TrainingData(simulations, infer=toy.parameters.names, settings=settings, seed=1)
    orders = [np.concatenate([b.u[:, 0] for b in data.epoch(k)]) for k in (0, 1)]
    assert not np.array_equal(*orders)
    assert np.array_equal(np.sort(orders[0]), np.sort(orders[1]))


@pytest.mark.parametrize("which", ["joint", "marginals"])
def test_stored_weights_rebuild_the_same_posterior(which, request, pairs, tmp_path):
    posterior = request.getfixturevalue(which)
    loaded = sp.load_posterior(posterior.save(tmp_path / "posterior"))
    assert loaded.blocks == posterior.blocks
    points = pairs.theta[:20, None]
    difference = posterior.log_prob(points, pairs.x[:20]) - loaded.log_prob(points, pairs.x[:20])
    assert np.abs(difference).max() == 0.0


class LogBins(ToyGaussian):
    """Bins over two decades."""

    def __init__(self):
        super().__init__(kind="spectrum")

    @property
    def observable(self):
        found = super().observable
        return replace(found, edges=tuple(np.geomspace(30.0, 3000.0, found.shape[-1] + 1)))


def test_the_published_networks_are_a_preset_and_are_stored(tmp_path):
    toy = LogBins()
    engine = MarginalRatioEngine().with_preset("alps")
    settings = engine.settings()
    assert (settings.learning_rate, settings.batch_size, settings.schedule) == (
        5e-3,
        512,
        "plateau",
    )
    assert (settings.stop_after_epochs, settings.max_epochs) == (30, 3000)
    limits = {"max_epochs": 2, "batch_size": 128, "pool_size": 256}
    posterior = engine.train(sp.simulate(toy, 300, seed=1), limits, seed=1)
    assert posterior.blocks == (*SINGLES, PAIR)
    network = posterior.network.embedding
    linear = {
        name: [m.out_features for m in part.modules() if isinstance(m, torch.nn.Linear)]
        for name, part in network.named_children()
    }
    assert linear == {"data": [256, 128, 64], "power": [], "features": [256, 32, 4]}
    # int(3 * 2 decades / 24 bins * 2048)
    assert network.power.n_entries == 512
    assert posterior.network.n_features == 68
    loaded = sp.load_posterior(posterior.save(tmp_path / "posterior"))
    pairs = sp.simulate(toy, 10, seed=1, purpose="pairs")
    densities = [p.log_prob(pairs.theta[:, None], pairs.x) for p in (posterior, loaded)]
    assert np.array_equal(*densities)


def test_marginal_ensembles_average_block_by_block_and_are_stored(toy, pairs, tmp_path):
    posterior = _train(toy, 256, max_epochs=2, heads="marginals", ensemble=2, pool_size=256)
    assert isinstance(posterior, MarginalEnsemble)
    theta, x = pairs.theta[:5, None, :1], pairs.x[:5]
    members = [m.marginal(("theta_1",)).log_ratio(theta, x) for m in posterior.members]
    mean = posterior.marginal(("theta_1",)).log_ratio(theta, x)
    np.testing.assert_allclose(np.exp(mean), np.mean(np.exp(members), axis=0), rtol=1e-6)
    loaded = sp.load_posterior(posterior.save(tmp_path / "posterior"))
    assert isinstance(loaded, MarginalEnsemble)
    points = pairs.theta[:5, None]
    assert np.array_equal(loaded.log_prob(points, x), posterior.log_prob(points, x))


def test_marginal_posteriors_are_validated_block_by_block(marginals, pairs):
    coverage = sp.validate(marginals, pairs, n_draws=99, seed=1)
    assert {"hpd:theta_1", "hpd:theta_2", "hpd:theta_1,theta_2"} <= set(coverage.regions)
    assert coverage.names == PAIR
    assert coverage.counts.median_ess >= 200
    assert coverage.verdict in ("PASS", "MARGINAL")


def test_more_contrasts_than_rows_are_refused():
    with pytest.raises(OptionError, match="contrasts=300 needs a larger batch_size than 256"):
        MarginalRatioEngine().settings(contrasts=300)


def test_a_study_of_a_marginal_posterior_is_complete(tmp_path):
    study = sp.run(
        "toy-gaussian",
        "swyft-tmnre",
        directory=tmp_path / "run",
        settings={"heads": "marginals", "max_epochs": 2, "pool_size": 1024},
        budget="quick",
        simulations=300,
        pairs=200,
        draws=99,
        samples=300,
        seed=1,
    )
    assert study.posterior.blocks == (*SINGLES, PAIR)
    assert study.samples.shape == (300, 2)
    assert "hpd:theta_1,theta_2" in study.coverage.pit
    assert study.report_path.stat().st_size > 10_000


@pytest.mark.parametrize("heads", ["joint", "marginals"])
@pytest.mark.parametrize("variant", ["A", "B", "C"])
def test_the_loss_is_computed_where_the_network_is(toy, joint, heads, variant):
    # Meta tensors hold no numbers, but mixing them with others fails as on an accelerator.
    engine = MarginalRatioEngine()
    settings = engine.settings(heads=heads, variant=variant)
    network = engine._build(joint.context, settings, 0).to("meta")
    u, x = torch.zeros(64, 2, device="meta"), torch.zeros(64, 2, device="meta")
    for loss in engine._losses(network, settings):
        assert loss(u, x, None).device.type == "meta"


def test_moving_a_posterior_moves_its_channels(joint, marginals, pairs):
    for posterior in (joint, marginals):
        before = posterior.log_prob(pairs.theta[:5, None], pairs.x[:5])
        posterior.to("auto").to("cpu")
        assert np.array_equal(posterior.log_prob(pairs.theta[:5, None], pairs.x[:5]), before)
    part = marginals.parts[PAIR]
    before = part.channel
    part.to("cpu")
    assert part.channel is not before


@pytest.mark.parametrize("heads", ["joint", "marginals"])
def test_the_binary_loss_of_swyft_learns_too(toy, pairs, heads):
    settings = {"variant": "A", "contrasts": 4, "batch_norm": True}
    fitted = _train(toy, 2000, max_epochs=12, heads=heads, **settings)
    part = fitted.marginal(PAIR) if heads == "marginals" else fitted
    exact = toy.exact_posterior(toy.prior, PAIR)
    assert _excess(exact, part, pairs.theta[:, None], pairs.x) < 0.2


def test_the_balance_of_several_blocks_is_that_of_each():
    names = ("a", "b", "c")
    network = _network(names, marginal_heads(names))
    u, x = torch.randn(50, 3), torch.randn(50, 5)
    settings = MarginalRatioSettings(variant="A", contrasts=3, balance=10.0)
    rolls = torch.tensor([1, 2, 3])
    with torch.no_grad():
        together = SwyftLoss(network, settings, random=False)(u, x, None)
        logits = network.logits(u, x, rolls)
        alone = [contrastive_loss(logits[..., k], "A", gamma=1.0, balance=10.0) for k in range(6)]
    torch.testing.assert_close(together, 2 * (torch.stack(alone).mean() - math.log(2)))
