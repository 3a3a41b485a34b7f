"""Engine `sbi-npe`: accuracy, edges, storage, protection of the process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sbi_physics_sbi.density import build_estimator, sampled
from sbi_physics_sbi.fmpe import FlowMatchingEngine
from sbi_physics_sbi.npe import DensitySettings, NeuralPosteriorEngine
from sbi_physics_sbi.nre import NeuralRatioEngine
from scipy import stats

import sbi_physics as sp
from sbi_physics.errors import ObservationError, OptionError
from sbi_physics.nn.device import device_of
from sbi_physics.nn.weights import to_arrays
from sbi_physics.testing import ToyGaussian

pytestmark = pytest.mark.engine

ESTIMATORS = ("zuko_nsf", "nsf", "maf", "maf_rqs", "zuko_maf", "zuko_nice", "mdn")


def _train(toy, n, seed=1, **settings):
    return NeuralPosteriorEngine().train(sp.simulate(toy, n, seed=seed), settings, seed=seed)


@pytest.fixture(scope="module")
def toy():
    return ToyGaussian()


@pytest.fixture(scope="module")
def posterior(toy):
    return _train(toy, 3000, max_epochs=15)


@pytest.fixture(scope="module")
def pairs(toy):
    return sp.simulate(toy, 300, seed=1, purpose="pairs")


def test_the_loss_is_minus_the_information_gain(toy, posterior, pairs):
    exact = toy.reference_posterior()
    gain = exact.log_prob(pairs.theta[:, None], pairs.x)[:, 0] - toy.prior.log_prob(pairs.theta)
    assert posterior.context.history.best_loss == pytest.approx(-gain.mean(), abs=0.25)


def test_the_density_is_close_to_the_exact_one(toy, posterior, pairs):
    points = pairs.theta[:, None]
    exact = toy.reference_posterior().log_prob(points, pairs.x)
    assert (exact - posterior.log_prob(points, pairs.x)).mean() < 0.15


def test_many_observations_at_once_give_what_single_ones_give(posterior, pairs):
    theta = pairs.theta[:40, None]
    together = posterior.log_prob(theta, pairs.x[:40])
    alone = [posterior.log_prob(theta[i : i + 1], pairs.x[i])[0] for i in range(40)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    draws = posterior.sample(pairs.x[:3], 2000, np.random.default_rng(1))
    single = posterior.sample(pairs.x[1], 2000, np.random.default_rng(2))[0]
    assert stats.ks_2samp(draws[1, :, 0], single[:, 0]).pvalue > 1e-3


def test_more_draws_than_one_pass_holds_are_put_together(posterior, pairs):
    draws = posterior.sample(pairs.x[0], 40_000, np.random.default_rng(1))
    assert draws.shape == (1, 40_000, 2)
    assert len(np.unique(draws[0, :, 0])) > 39_000


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("d", [1, 3])
def test_every_estimator_starts_near_the_prior_and_inverts(name, d):
    settings = DensitySettings().model_dump()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        estimator = build_estimator(name, d, 4, settings).eval()
        with torch.no_grad():
            z = sampled(estimator, 500, torch.zeros(6, 4))
            density = estimator.log_prob(z, condition=torch.zeros(6, 4))
    assert z.shape == (500, 6, d)
    assert density.shape == (500, 6)
    assert torch.isfinite(z).all()
    assert torch.isfinite(density).all()
    assert z.abs().max() < 20


def test_uninformative_data_return_the_prior_up_to_its_edges():
    toy = ToyGaussian(dimension=1, noise=1000.0)
    posterior = _train(toy, 4000, max_epochs=12)
    pairs = sp.simulate(toy, 200, seed=1, purpose="pairs")
    draws = posterior.sample(pairs.x, 200, np.random.default_rng(1)).ravel()
    # The share of training points in a tail of 5 % has a standard error of 0.4 %.
    for tail in (draws < -0.9, draws > 0.9):
        assert tail.mean() == pytest.approx(0.05, abs=0.015)
    assert stats.kstest(draws, "uniform", (-1, 2)).statistic < 0.04


def test_posteriors_at_the_edge_of_the_prior_are_calibrated(posterior, toy):
    rng = np.random.default_rng(4)
    theta = np.sign(rng.standard_normal((400, 2))) * rng.uniform(0.9, 1.0, (400, 2))
    x = toy.simulate(theta, rng)
    exact = toy.reference_posterior().log_prob(theta[:, None], x)
    assert (exact - posterior.log_prob(theta[:, None], x)).mean() < 0.3
    assert toy.prior.contains(posterior.sample(x, 100, rng)).all()


@pytest.mark.parametrize("name", ["zuko_nsf", "mdn", "maf"])
def test_stored_weights_rebuild_the_same_density(name, toy, tmp_path, pairs):
    trained = _train(toy, 300, max_epochs=2, density_estimator=name, embedding="mlp")
    loaded = sp.load_posterior(trained.save(tmp_path / "posterior"))
    points = pairs.theta[:, None]
    difference = trained.log_prob(points, pairs.x) - loaded.log_prob(points, pairs.x)
    assert np.abs(difference).max() == 0.0
    states = np.random.default_rng(1), np.random.default_rng(1)
    assert np.array_equal(
        trained.sample(pairs.x, 5, states[0]), loaded.sample(pairs.x, 5, states[1])
    )
    suffixes = {p.suffix for p in Path(tmp_path).rglob("*") if p.is_file()}
    assert suffixes <= {".json", ".safetensors"}


@pytest.mark.parametrize(
    "engine", [NeuralPosteriorEngine, NeuralRatioEngine, FlowMatchingEngine], ids=lambda e: e.name
)
def test_a_posterior_that_sees_power_spectra_is_rebuilt(engine, tmp_path):
    toy = ToyGaussian(kind="spectrum")
    settings = {"max_epochs": 2, "power_features": 3, "power_length": 64}
    trained = engine().train(sp.simulate(toy, 300, seed=1), settings, seed=1)
    loaded = sp.load_posterior(trained.save(tmp_path / "posterior"))
    pairs = sp.simulate(toy, 20, seed=1, purpose="pairs")
    densities = [p.log_prob(pairs.theta[:, None], pairs.x) for p in (trained, loaded)]
    assert np.array_equal(*densities)
    embedding = loaded.network.embedding
    assert (embedding.power.n_entries, embedding.features[-1].out_features) == (33, 3)
    # They reach the posterior.
    with torch.no_grad():
        embedding.features[-1].weight.add_(1.0)
    moved = loaded.log_prob(pairs.theta[:, None], pairs.x)
    assert not np.array_equal(moved, densities[0])


def test_the_fit_is_a_function_of_the_seed(toy, pairs):
    weights = [to_arrays(_train(toy, 300, seed=s, max_epochs=2).network) for s in (1, 1, 2)]
    assert all(np.array_equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert any(not np.array_equal(weights[0][k], weights[2][k]) for k in weights[0])


def test_training_and_sampling_leave_the_process_as_it_was(toy, tmp_path, monkeypatch, pairs):
    monkeypatch.chdir(tmp_path)
    torch.set_grad_enabled(False)
    try:
        state, legacy = torch.get_rng_state(), np.random.get_state(legacy=False)
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        fitted = _train(toy, 300, max_epochs=2)
        fitted.sample(pairs.x, 5, np.random.default_rng(1))
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)
    assert torch.equal(torch.get_rng_state(), state)
    assert str(np.random.get_state(legacy=False)) == str(legacy)
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
    assert list(tmp_path.iterdir()) == []


def test_nan_in_an_observation_is_refused_with_its_place(posterior, pairs):
    x = pairs.x[:5].copy()
    x[2, 0] = np.nan
    with pytest.raises(ObservationError, match=r"\(2, 0\)"):
        posterior.sample(x, 5, np.random.default_rng(1))


def test_wrong_settings_name_what_is_accepted(toy):
    simulations = sp.simulate(toy, 100, seed=1)
    with pytest.raises(OptionError, match="density_estimator"):
        NeuralPosteriorEngine().train(simulations, {"density_estimator": "nfs"}, seed=1)
    with pytest.raises(OptionError, match="conv.*vector"):
        NeuralPosteriorEngine().train(simulations, {"embedding": "conv"}, seed=1)


def test_an_ensemble_averages_densities(toy, pairs):
    fitted = _train(toy, 400, max_epochs=2, ensemble=2)
    assert len(fitted.context.history.members) == 2
    assert fitted.sample(pairs.x, 5, np.random.default_rng(1)).shape == (300, 5, 2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_simulations_come_within_015_nats_of_the_exact_posterior():
    toy = ToyGaussian(dimension=3)
    fitted = _train(toy, 10_000, max_epochs=20, batch_size=512, learning_rate=2e-3)
    pairs = sp.simulate(toy, 1000, seed=1, purpose="pairs")
    points = pairs.theta[:, None]
    exact = toy.reference_posterior().log_prob(points, pairs.x)
    assert (exact - fitted.log_prob(points, pairs.x)).mean() < 0.15


def test_the_loss_is_computed_where_the_network_is(toy, posterior):
    # Meta tensors hold no numbers, but mixing them with others fails as on an accelerator.
    engine = NeuralPosteriorEngine()
    settings = engine.settings()
    network = engine._build(posterior.context, settings, 0).to("meta")
    u, x = torch.zeros(64, toy.prior.d, device="meta"), torch.zeros(64, 2, device="meta")
    for loss in engine._losses(network, settings):
        assert loss(u, x, torch.ones(64, device="meta")).device.type == "meta"


def test_a_device_that_is_not_there_is_refused(toy, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="device 'cuda' was asked for.*sees only"):
        NeuralPosteriorEngine().train(sp.simulate(toy, 50, seed=1), {"device": "cuda"}, seed=1)


def test_posteriors_live_on_the_processor_and_can_be_moved(posterior, monkeypatch):
    assert device_of(posterior.network).type == "cpu"
    assert posterior.to("auto").to("cpu") is posterior
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="device 'cuda'"):
        posterior.to("cuda")


def test_members_trained_in_workers_are_those_trained_here(toy, pairs):
    simulations = sp.simulate(toy, 200, seed=1)
    settings = {"ensemble": 2, "max_epochs": 1}
    here, apart = (
        NeuralPosteriorEngine().train(simulations, settings, seed=1, workers=workers)
        for workers in (1, 2)
    )
    points = pairs.theta[:20, None]
    assert np.array_equal(
        here.log_prob(points, pairs.x[:20]), apart.log_prob(points, pairs.x[:20])
    )
    draws = [p.sample(pairs.x[:5], 20, np.random.default_rng(1)) for p in (here, apart)]
    assert np.array_equal(*draws)
