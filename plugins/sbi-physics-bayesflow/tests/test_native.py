"""The native view: what BayesFlow itself does with our simulators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sbi_physics_bayesflow.backend import import_backend
from sbi_physics_bayesflow.native import native_simulator

import sbi_physics as sp
from sbi_physics import Simulations
from sbi_physics.errors import ContractError, StoreMismatchError
from sbi_physics.testing import ToyBimodal, ToyGaussian, ToyMixed

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def view():
    return native_simulator(ToyMixed())


def test_the_simulator_draws_dictionaries_from_the_prior(view):
    bayesflow = import_backend().bayesflow
    assert isinstance(view.simulator, bayesflow.simulators.Simulator)
    data = view.simulator.sample((5, 7))
    assert {k: v.shape for k, v in data.items()} == {
        "a": (5, 7, 1),
        "b": (5, 7, 1),
        "c": (5, 7, 1),
        "x": (5, 7, 4),
    }
    many = view.simulator.sample(4000)
    theta = np.concatenate([many[k] for k in "abc"], axis=1)
    assert view.simulator.prior.contains(theta).all()
    assert many["x"][:, 2].mean() == pytest.approx(5.0, abs=0.01)  # the fixed one is filled in
    np.testing.assert_allclose(many["x"][:, [0, 1, 3]], theta, atol=0.6)


def test_the_global_generator_of_numpy_decides(view):
    found = []
    state = np.random.get_state()
    try:
        for seed in (1, 1, 2):
            np.random.seed(seed)
            found.append(view.simulator.sample(3)["x"])
    finally:
        np.random.set_state(state)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_the_adapter_maps_the_prior_to_the_line_and_back_with_its_jacobian(view):
    data = view.simulator.sample(500)
    adapted, log_det = view.adapter(data, log_det_jac=True)
    z = adapted["inference_variables"]
    assert (z.shape, z.dtype) == ((500, 3), np.float32)
    assert np.isfinite(z).all()
    assert adapted["inference_conditions"].shape == (500, 4)
    back = view.adapter({"inference_variables": z}, inverse=True, strict=False)
    for name in "abc":
        np.testing.assert_allclose(back[name], data[name], rtol=1e-3, atol=1e-4)
    # The logarithmic parameter is symmetric in the coordinate of the network.
    assert np.median(z[:, 1]) == pytest.approx(0.0, abs=0.4)
    a, b = data["a"][:, 0], data["b"][:, 0]
    unit = (np.log(b) - np.log(1e-3)) / np.log(1e4)
    expected = (
        -np.log((a + 1) / 4 * (1 - (a + 1) / 4) * 4)
        - np.log(b)
        - np.log(unit * (1 - unit) * np.log(1e4))
    )
    np.testing.assert_allclose(log_det["inference_variables"], expected, rtol=1e-5, atol=1e-5)


def test_far_out_network_outputs_come_back_inside_the_prior(view):
    z = np.array([[-60.0, 60.0, 0.0], [60.0, -60.0, 3.0]], np.float32)
    view.adapter(view.simulator.sample(4))
    back = view.adapter({"inference_variables": z}, inverse=True, strict=False)
    assert np.all((back["a"] > -1 - 1e-6) & (back["a"] < 3 + 1e-6))
    assert np.all((back["b"] > 1e-3 * (1 - 1e-6)) & (back["b"] < 10 * (1 + 1e-6)))


def test_data_other_than_vectors_go_to_the_summary_network():
    for kind, shape in (("set", (5, 4, 3)), ("spectrum", (5, 24, 1))):
        view = native_simulator(ToyGaussian(kind=kind))
        adapted = view.adapter(view.simulator.sample(5))
        assert adapted["summary_variables"].shape == shape


def test_simulations_become_an_offline_dataset_with_the_adapter():
    toy = ToyGaussian()
    view = toy.native("bayesflow")
    simulations = sp.simulate(toy, 100, seed=1)
    dataset = view.dataset(simulations, batch_size=32, shuffle=False)
    assert len(dataset) == 4
    batch = dataset[0]
    assert batch["inference_variables"].shape == (32, 2)
    np.testing.assert_array_equal(batch["inference_conditions"], simulations.x[:32])
    back = view.adapter(
        {"inference_variables": batch["inference_variables"]}, inverse=True, strict=False
    )
    names = simulations.parameters.names
    theta = np.concatenate([back[name] for name in names], axis=1)
    np.testing.assert_allclose(theta, simulations.theta[:32], atol=1e-5)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (ToyBimodal(), "the store has 'toy-bimodal', the given simulator has 'toy-gaussian'"),
        (ToyGaussian(noise=0.2), "options: .*'noise': 0.2.*'noise': 0.3"),
    ],
)
def test_simulations_of_another_simulator_are_refused(other, said):
    view = ToyGaussian().native("bayesflow")
    with pytest.raises(StoreMismatchError, match=said):
        view.dataset(sp.simulate(other, 10, seed=1))


def test_bare_arrays_need_the_parameters_of_the_simulator():
    view, other = ToyGaussian().native("bayesflow"), ToyBimodal()
    theta = ToyGaussian().prior.sample(8, np.random.default_rng(1))
    own = Simulations.from_arrays(theta, theta, ToyGaussian().prior, ToyGaussian().observable)
    assert len(view.dataset(own, batch_size=4)) == 2
    bare = Simulations.from_arrays(theta[:, :1], theta[:, :1], other.prior, other.observable)
    with pytest.raises(ContractError, match="the simulations have the parameters"):
        view.dataset(bare)


def test_weighted_simulations_are_refused(monkeypatch):
    simulations = sp.simulate(ToyGaussian(), 20, seed=1)
    rows = replace(simulations.read(slice(None)), weight=np.linspace(0.5, 1.5, 20))
    monkeypatch.setattr(simulations, "read", lambda *args, **kwargs: rows)
    with pytest.raises(ContractError, match="importance weights, which BayesFlow does not know"):
        ToyGaussian().native("bayesflow").dataset(simulations)
