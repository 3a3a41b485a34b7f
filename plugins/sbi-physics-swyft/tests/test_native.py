"""The native view: what swyft does with our simulators and stores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sbi_physics_swyft.backend import swyft
from sbi_physics_swyft.native import data_module, native_samples, native_simulator
from scipy import stats

import sbi_physics as sp
from sbi_physics.errors import ContractError
from sbi_physics.guard import quiet
from sbi_physics.testing import ToyGaussian, ToyMixed, ToyTwoStage

pytestmark = pytest.mark.engine


class Narrow(ToyMixed):
    """Bounds that single precision rounds outwards."""

    name = "narrow"
    bounds = (0.7, 1.1)


def seeded(function, seed=1):
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        with quiet():  # swyft's progress bar
            return function()
    finally:
        np.random.set_state(state)


def test_a_simulator_is_a_swyft_simulator_with_shapes_and_dtypes():
    simulator = ToyGaussian().native("swyft")
    assert isinstance(simulator, swyft.Simulator)
    shapes, dtypes = seeded(simulator.get_shapes_and_dtypes)
    assert shapes == {"z": (2,), "x": (2,)}
    assert dtypes == {"z": np.float32, "x": np.float32}


def test_two_stages_are_two_nodes_and_the_second_can_be_redrawn():
    simulator = ToyTwoStage().native("swyft")
    sample = seeded(simulator.sample)
    assert list(sample) == ["z", "latent_hits", "x"]
    resampler = simulator.get_resampler(["x"])
    again = seeded(lambda: resampler(sample), 2)
    assert np.array_equal(again["latent_hits"], sample["latent_hits"])
    assert np.array_equal(again["z"], sample["z"])
    assert not np.array_equal(again["x"], sample["x"])


def test_one_by_one_and_vectorised_samples_have_one_distribution():
    simulator = native_simulator(ToyTwoStage())
    one_by_one = seeded(lambda: super(type(simulator), simulator).sample(400))
    together = seeded(lambda: simulator.sample(400), 2)
    assert isinstance(together, swyft.Samples)
    assert set(together) == set(one_by_one) == {"z", "latent_hits", "x"}
    for name in together:
        a, b = np.asarray(one_by_one[name]), np.asarray(together[name])
        assert a.shape == b.shape
        assert b.dtype == np.float32
        for k in range(a.shape[1]):
            assert stats.ks_2samp(a[:, k], b[:, k]).pvalue > 1e-4


def test_the_global_seed_decides_what_is_drawn():
    simulator = native_simulator(ToyGaussian())
    first, again, other = (seeded(lambda: simulator.sample(5), s) for s in (1, 1, 2))
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], other["x"])


def test_conditions_targets_and_excluded_variables_are_honoured():
    simulator = native_simulator(ToyGaussian())
    z = np.array([0.5, -0.5], np.float32)
    fixed = seeded(lambda: simulator.sample(200, conditions={"z": z}))
    assert (np.asarray(fixed["z"]) == z).all()
    assert np.abs(np.asarray(fixed["x"]).mean(axis=0) - z).max() < 5 * 0.5 / np.sqrt(200)
    assert set(seeded(lambda: simulator.sample(3, targets=["z"]))) == {"z"}
    assert set(seeded(lambda: simulator.sample(3, exclude=["z"]))) == {"x"}


def test_fixed_parameters_are_filled_in_and_rounding_stays_inside():
    simulator = native_simulator(Narrow())
    assert simulator.prior.names == ("a", "b", "c")
    samples = seeded(lambda: simulator.sample(300))
    assert samples["z"].shape == (300, 3)
    assert samples["x"][:, 2].mean() == pytest.approx(5.0, abs=0.03)
    # In single precision 0.7 is below, and 1.1 above, the double of that name.
    for a, b in ((0.7, 1e-3), (1.1, 10.0)):
        z = np.array([a, b, 2.0], np.float32)
        assert np.isfinite(seeded(lambda z=z: simulator.sample(conditions={"z": z}))["x"]).all()
    with pytest.raises(ContractError, match="a"):
        seeded(lambda: simulator.sample(conditions={"z": np.array([1.11, 1.0, 2.0])}))


def test_stores_become_samples_in_the_order_of_the_store():
    simulations = sp.simulate(Narrow(), 20, seed=1)
    samples = native_samples(simulations)
    assert isinstance(samples, swyft.Samples)
    assert set(samples) == {"z", "x"}
    np.testing.assert_allclose(samples["z"], simulations.theta[:, [0, 1, 3]], rtol=1e-6)
    assert np.array_equal(samples["x"], simulations.x)
    two_stage = sp.simulate(ToyTwoStage(), 20, seed=1)
    assert set(native_samples(two_stage, latents=True)) == {"z", "latent_hits", "x"}


def test_weighted_simulations_are_refused(monkeypatch):
    simulations = sp.simulate(ToyGaussian(), 20, seed=1)
    rows = replace(simulations.read(slice(None)), weight=np.linspace(0.5, 1.5, 20))
    monkeypatch.setattr(simulations, "read", lambda *args, **kwargs: rows)
    with pytest.raises(ContractError, match="importance weights"):
        native_samples(simulations)


def test_data_modules_shuffle_so_that_contrastive_pairs_change():
    module = data_module(sp.simulate(ToyGaussian(), 40, seed=1), batch_size=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module.setup("fit")
        loader = module.train_dataloader()
        first, second = (torch.cat([b["z"] for b in loader]) for _ in range(2))
    assert len(first) == 36
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)


@pytest.mark.parametrize("val_fraction", [2, 1.0, -0.1, float("nan")])
def test_a_held_out_share_that_is_none_is_refused(val_fraction):
    simulations = sp.simulate(ToyGaussian(), 40, seed=1)
    with pytest.raises(ContractError, match="val_fraction is the share .* at least 0 and below 1"):
        data_module(simulations, val_fraction=val_fraction)
