"""Modules trained with swyft itself: wrapped, validated, compared with swyft's inference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sbi_physics_swyft.backend import swyft
from sbi_physics_swyft.native import data_module
from sbi_physics_swyft.native_posterior import NativeRatioPosterior, native_posterior

import sbi_physics as sp
from sbi_physics.errors import ContractError
from sbi_physics.guard import preserve_state, quiet
from sbi_physics.marginal import MarginalPosterior
from sbi_physics.testing import ToyGaussian

pytestmark = [
    pytest.mark.engine,
    # what Lightning 1.9 says about newer packages, small machines and small data
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Both(swyft.SwyftModule):
    """What a swyft user writes: the two parameters by themselves, and together."""

    def __init__(self, together=True):
        super().__init__()
        self.embedding = torch.nn.Linear(2, 4)
        self.singles = swyft.LogRatioEstimator_1dim(4, 2, varnames="z")
        self.pair = None
        if together:
            self.pair = swyft.LogRatioEstimator_Ndim(4, marginals=((0, 1),), varnames="z")

    def forward(self, sample, contrast):
        features = self.embedding(sample["x"])
        singles = self.singles(features, contrast["z"])
        if self.pair is None:
            return singles
        # The Gaussian toy's prior spans [-1, 1]: no further scaling is needed.
        return {"singles": singles, "pair": self.pair(features, contrast["z"])}


@pytest.fixture(scope="module")
def toy():
    return ToyGaussian()


@pytest.fixture(scope="module")
def pairs(toy):
    return sp.simulate(toy, 200, seed=1, purpose="pairs")


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """Both heads, trained with swyft's own trainer on our data module."""
    simulations = sp.simulate(toy, 2000, seed=1)
    with preserve_state(), quiet():
        torch.manual_seed(1)
        torch.set_num_threads(1)
        module = Both()
        trainer = swyft.SwyftTrainer(
            max_epochs=8,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(tmp_path_factory.mktemp("lightning")),
        )
        trainer.fit(module, data_module(simulations, batch_size=64))
    return module, trainer


def untrained(**settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return Both(**settings).eval()


@pytest.fixture
def wrapped(trained, toy):
    return native_posterior(trained[0], toy.prior, toy.observable)


def test_a_joint_head_makes_a_joint_posterior_that_the_validator_accepts(trained, pairs):
    coverage = sp.validate(trained[0], pairs, n_draws=99, seed=1)
    assert "hpd" in coverage.regions
    assert coverage.verdict in ("PASS", "MARGINAL")
    # The exact information gain is about 1.5 nats.
    assert coverage.gain is not None
    assert coverage.gain.mean > 0.5


def test_log_ratios_are_those_of_swyft_for_every_observation(trained, wrapped, toy, pairs):
    module, trainer = trained
    z = toy.prior.sample(500, np.random.default_rng(3)).astype(np.float32)
    ours = wrapped.log_ratio(z, pairs.x[:3])
    for i in range(3):
        with preserve_state(), quiet():
            native = trainer.infer(
                module, swyft.Sample(x=pairs.x[i]), swyft.Samples(z=z), batch_size=500
            )
        expected = native["pair"].logratios[:, 0].numpy()
        np.testing.assert_allclose(ours[i], expected, rtol=1e-4, atol=1e-4)


def test_the_users_module_is_left_as_it_is(trained, toy):
    module = trained[0].train()
    native_posterior(module, toy.prior, toy.observable)
    assert module.training
    layers = [m for m in module.modules() if "forward" in vars(m)]
    assert not layers
    module.eval()


def test_single_heads_make_a_marginal_posterior(toy, pairs):
    posterior = native_posterior(untrained(together=False), toy.prior, toy.observable)
    assert isinstance(posterior, MarginalPosterior)
    assert posterior.blocks == (("theta_1",), ("theta_2",))
    draws = posterior.sample(pairs.x[:4], 30, np.random.default_rng(1))
    assert toy.prior.contains(draws).all()


def test_points_of_each_observation_and_shared_points_agree(wrapped, toy, pairs):
    points = toy.prior.sample(40, np.random.default_rng(4))
    shared = wrapped.log_ratio(points, pairs.x[:3])
    own = wrapped.log_ratio(np.repeat(points[None], 3, axis=0), pairs.x[:3])
    np.testing.assert_allclose(shared, own, rtol=1e-5, atol=1e-5)


def test_parameters_may_carry_the_names_of_the_prior(toy):
    module = untrained()
    module.pair.varnames = [["theta_2", "theta_1"]]
    posterior = native_posterior(module, toy.prior, toy.observable)
    assert isinstance(posterior, NativeRatioPosterior)
    module.pair.varnames = [["theta_1", "mass"]]
    with pytest.raises(ContractError, match="'mass'; the prior has theta_1, theta_2"):
        native_posterior(module, toy.prior, toy.observable)


def test_other_names_of_the_sample_variables_can_be_given(toy):
    class Renamed(Both):
        def forward(self, sample, contrast):
            return super().forward({"x": sample["data"]}, {"z": contrast["theta"]})

    with torch.random.fork_rng(devices=[]):
        module = Renamed()
    with pytest.raises(ContractError, match="KeyError"):
        native_posterior(module, toy.prior, toy.observable)
    posterior = native_posterior(module, toy.prior, toy.observable, x="data", z="theta")
    assert posterior.blocks == (("theta_1", "theta_2"),)


def test_what_does_not_fit_is_refused(toy):
    module = untrained(together=False)
    with pytest.raises(ContractError, match="SwyftModule"):
        native_posterior(torch.nn.Linear(2, 2), toy.prior, toy.observable)
    with pytest.raises(ContractError, match="observable"):
        native_posterior(module, toy.prior)
    with pytest.raises(ContractError, match=r"'z\[1\]'; the prior has theta_1\."):
        native_posterior(module, toy.prior.select(["theta_1"]), toy.observable)
    wide = ToyGaussian(dimension=3)
    with pytest.raises(ContractError, match=r"shape \(3,\)"):
        native_posterior(module, toy.prior, wide.observable)
    with pytest.raises(ContractError, match="theta_3"):
        native_posterior(module, wide.prior, toy.observable)
