"""Engine `bayesflow-cinn`: accuracy, edges, storage, protection of the process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sbi_physics_bayesflow.cinn import CouplingEngine
from sbi_physics_bayesflow.settings import PRESETS, CouplingSettings
from scipy import stats

import sbi_physics as sp
from sbi_physics.errors import OptionError, PosteriorFileError
from sbi_physics.nn.weights import to_arrays
from sbi_physics.posterior_files import HEADER, WEIGHTS
from sbi_physics.testing import ToyBimodal, ToyGaussian

pytestmark = pytest.mark.engine

SMALL = {"depth": 2, "widths": (32,), "max_epochs": 2}


def _train(toy, n, seed=1, **settings):
    return CouplingEngine().train(sp.simulate(toy, n, seed=seed), settings, seed=seed)


@pytest.fixture(scope="module")
def toy():
    return ToyGaussian()


@pytest.fixture(scope="module")
def posterior(toy):
    return _train(toy, 3000, max_epochs=20, batch_size=128)


@pytest.fixture(scope="module")
def small(toy):
    return _train(toy, 300, **SMALL)


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


def test_more_draws_than_one_pass_holds_are_put_together(small, pairs):
    draws = small.sample(pairs.x[0], 10_000, np.random.default_rng(1))
    assert draws.shape == (1, 10_000, 2)
    assert len(np.unique(draws[0, :, 0])) > 9_900


def test_posteriors_at_the_edge_of_the_prior_stay_inside_and_are_right(posterior, toy):
    rng = np.random.default_rng(4)
    theta = np.sign(rng.standard_normal((400, 2))) * rng.uniform(0.9, 1.0, (400, 2))
    x = toy.simulate(theta, rng)
    exact = toy.reference_posterior().log_prob(theta[:, None], x)
    assert (exact - posterior.log_prob(theta[:, None], x)).mean() < 0.3
    assert toy.prior.contains(posterior.sample(x, 100, rng)).all()


def test_one_parameter_with_two_modes_is_learned():
    toy = ToyBimodal()
    posterior = _train(toy, 3000, max_epochs=40, batch_size=128, learning_rate=2e-3)
    pairs = sp.simulate(toy, 200, seed=1, purpose="pairs")
    points = pairs.theta[:, None]
    exact = toy.reference_posterior().log_prob(points, pairs.x)
    # A density with one mode would lose about log 2 = 0.69 and more.
    assert (exact - posterior.log_prob(points, pairs.x)).mean() < 0.3
    draws = posterior.sample(pairs.x, 200, np.random.default_rng(1))
    # Modes are mirror images: half of all draws are on either side; 40 000 draws, 200 independent
    # observations at least: a standard error below 0.04.
    assert (draws > 0).mean() == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(
    "changes",
    [
        {"transform": "spline"},
        {"transform": "affine", "permutation": "swap", "actnorm": False},
        {"summary": "mlp", "activation": "leaky_relu", "dropout": 0.1},
    ],
)
def test_stored_weights_rebuild_the_same_density(changes, toy, tmp_path, pairs):
    trained = _train(toy, 300, **SMALL, **changes)
    loaded = sp.load_posterior(trained.save(tmp_path / "posterior"))
    points = pairs.theta[:, None]
    difference = trained.log_prob(points, pairs.x) - loaded.log_prob(points, pairs.x)
    assert np.abs(difference).max() == 0.0
    states = np.random.default_rng(1), np.random.default_rng(1)
    assert np.array_equal(
        trained.sample(pairs.x, 5, states[0]), loaded.sample(pairs.x, 5, states[1])
    )
    suffixes = {p.suffix for p in Path(tmp_path).rglob("*") if p.is_file()}
    assert suffixes == {".json", ".safetensors"}


def test_weights_of_another_architecture_are_refused_with_versions(small, tmp_path):
    import hashlib

    folder = small.save(tmp_path / "posterior")
    arrays = load_file(folder / WEIGHTS)
    arrays.pop(next(iter(arrays)))
    save_file(arrays, folder / WEIGHTS)
    header = json.loads((folder / HEADER).read_text())
    header["sha256"][WEIGHTS] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / HEADER).write_text(json.dumps(header))
    with pytest.raises(PosteriorFileError, match=r"do not fit.*'bayesflow': '2"):
        sp.load_posterior(folder)


def test_the_fit_is_a_function_of_the_seed(toy, small):
    weights = [to_arrays(_train(toy, 300, seed=s, **SMALL).network) for s in (1, 2)]
    same = to_arrays(small.network)
    assert all(np.array_equal(weights[0][k], same[k]) for k in same)
    assert any(not np.array_equal(weights[1][k], same[k]) for k in same)


def test_training_and_sampling_leave_the_process_as_it_was(toy, tmp_path, monkeypatch, pairs):
    monkeypatch.chdir(tmp_path)
    torch.set_grad_enabled(False)
    try:
        state, legacy = torch.get_rng_state(), np.random.get_state(legacy=False)
        fitted = _train(toy, 300, **SMALL)
        fitted.sample(pairs.x, 5, np.random.default_rng(1))
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)
    assert torch.equal(torch.get_rng_state(), state)
    assert str(np.random.get_state(legacy=False)) == str(legacy)
    assert list(tmp_path.iterdir()) == []


def test_an_ensemble_averages_densities(toy, pairs):
    fitted = _train(toy, 300, ensemble=2, **SMALL)
    assert len(fitted.context.history.members) == 2
    assert fitted.sample(pairs.x, 5, np.random.default_rng(1)).shape == (300, 5, 2)


@pytest.mark.parametrize("summary", ["deep_set", "set_transformer", "mlp"])
def test_sets_are_trained_on(summary):
    toy = ToyGaussian(kind="set")
    posterior = _train(toy, 300, summary=summary, **SMALL)
    pairs = sp.simulate(toy, 10, seed=1, purpose="pairs")
    assert np.isfinite(posterior.log_prob(pairs.theta[:, None], pairs.x)).all()


def test_the_published_network_is_a_preset_that_explicit_settings_change(toy):
    settings = CouplingEngine().settings(preset="beamdump")
    # arXiv:2308.01353 and the code published with it.
    assert (settings.transform, settings.depth, settings.widths) == ("affine", 4, (128,) * 4)
    assert (settings.activation, settings.summary, settings.summary_dim) == ("relu", "mlp", 2)
    assert (settings.learning_rate, settings.decay_factor, settings.decay_epochs) == (
        5e-3,
        0.9,
        10,
    )
    assert (settings.stop_after_epochs, settings.min_improvement) == (50, 1e-3)
    assert (settings.batch_size, settings.max_epochs) == (512, 500)
    changed = CouplingEngine().settings(preset="beamdump", depth=2, summary="deep_set")
    assert (changed.depth, changed.summary) == (2, "deep_set")
    assert changed.learning_rate == 5e-3
    assert CouplingSettings(**changed.model_dump()) == changed
    assert set(PRESETS["beamdump"]) <= set(CouplingSettings.model_fields)


def test_the_preset_trains_on_sets_of_events():
    toy = ToyGaussian(kind="set", events=3)
    posterior = _train(toy, 300, preset="beamdump", max_epochs=2)
    names = {k: v.shape for k, v in to_arrays(posterior.network).items()}
    kernels = [s for k, s in names.items() if k.startswith("embedding") and len(s) == 2]
    assert kernels == [(12, 64), (64, 64), (64, 64), (64, 64), (64, 2)]
    first = [s for k, s in names.items() if k.endswith("kernels.0")]
    # Four coupling layers of two subnets, each on one parameter and two summaries.
    assert first == [(3, 128)] * 8
    assert posterior.context.history.best_epoch < 2


def test_wrong_settings_name_what_is_accepted(toy):
    simulations = sp.simulate(toy, 100, seed=1)
    with pytest.raises(OptionError, match="transform.*'rqs'"):
        CouplingEngine().train(simulations, {"transform": "rqs"}, seed=1)
    with pytest.raises(OptionError, match="preset"):
        CouplingEngine().train(simulations, {"preset": "beamdumb"}, seed=1)
    with pytest.raises(OptionError, match="widths"):
        CouplingEngine().train(simulations, {"widths": (64, 0)}, seed=1)
    with pytest.raises(OptionError, match=r"conv.*vector"):
        CouplingEngine().train(simulations, {"summary": "conv"}, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_simulations_come_within_010_nats_of_the_exact_posterior():
    toy = ToyGaussian(dimension=3)
    fitted = _train(toy, 10_000, max_epochs=30, batch_size=512, learning_rate=2e-3)
    pairs = sp.simulate(toy, 1000, seed=1, purpose="pairs")
    points = pairs.theta[:, None]
    exact = toy.reference_posterior().log_prob(points, pairs.x)
    assert (exact - fitted.log_prob(points, pairs.x)).mean() < 0.10


@pytest.mark.parametrize("summary", ["none", "mlp"])
@pytest.mark.parametrize("transform", ["affine", "spline"])
def test_the_loss_is_computed_where_the_network_is(small, summary, transform):
    # Meta tensors hold no numbers, but mixing them with others fails as on an accelerator.
    engine = CouplingEngine()
    settings = engine.settings(**{**SMALL, "summary": summary, "transform": transform})
    network = engine._build(small.context, settings, 0).to("meta")
    u, x = torch.zeros(64, 2, device="meta"), torch.zeros(64, 2, device="meta")
    for loss in engine._losses(network, settings):
        assert loss(u, x, torch.ones(64, device="meta")).device.type == "meta"
