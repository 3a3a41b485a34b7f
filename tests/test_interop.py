from __future__ import annotations

import json

import numpy as np
import pytest

from sbi_physics.engine import train
from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.interop import to_arviz
from sbi_physics.progress import SILENT
from sbi_physics.simulate import simulate
from sbi_physics.testing import ToyGaussian, ToyTwoStage


@pytest.fixture
def posterior():
    return ToyTwoStage().reference_posterior()


def test_draws_come_back_from_netcdf_with_units_labels_and_prior(posterior, tmp_path):
    import arviz

    theta = np.random.default_rng(1).normal(size=(300, 1))
    x = np.arange(5, dtype=np.float32)
    to_arviz(theta, posterior, x=x).to_netcdf(str(tmp_path / "samples.nc"), engine="h5netcdf")
    data = arviz.from_netcdf(str(tmp_path / "samples.nc"), engine="h5netcdf")
    position = data.posterior["position"]
    assert position.shape == (1, 300)
    assert np.array_equal(position.values[0], theta[:, 0])
    assert position.attrs["units"] == "mm"
    assert position.attrs["label"] == r"\mu"
    assert json.loads(position.attrs["prior"])["kind"] == "normal"
    assert np.array_equal(data.observed_data["x"].values, x)
    # Prior draws are draws of the prior: mean 0, sd 1 within 4 standard errors of 2000.
    prior = data.prior["position"].values.ravel()
    assert abs(prior.mean()) < 0.09
    assert abs(prior.std() - 1) < 0.065
    assert data.posterior.attrs["inference_library"] == "sbi-physics"
    assert json.loads(data.posterior.attrs["simulator"])["name"] == "toy-two-stage"


def test_a_trained_posterior_says_what_it_was_trained_on(tmp_path):
    toy = ToyGaussian(kind="spectrum")
    simulations = simulate(toy, 200, seed=3, progress=SILENT)
    posterior = train(simulations, "exact", seed=1, progress=SILENT)
    data = to_arviz(np.zeros((4, 2)), posterior, x=simulations.x[0])
    about = json.loads(data.posterior.attrs["simulations"])
    assert about["seed"] == 3
    assert about["digest"] == simulations.digest()
    assert data.observed_data["edges"].attrs["units"] == "GeV"
    assert len(data.observed_data["edges"]) == 25


def test_the_same_posterior_gives_the_same_prior_draws(posterior):
    first = to_arviz(np.zeros((2, 1)), posterior)
    second = to_arviz(np.zeros((2, 1)), posterior)
    assert np.array_equal(first.prior["position"], second.prior["position"])
    assert not hasattr(first, "observed_data")


@pytest.mark.parametrize("shape", [(5,), (5, 2), (0, 1)])
def test_draws_of_the_wrong_shape_are_refused(posterior, shape):
    with pytest.raises(ContractError, match="expected"):
        to_arviz(np.zeros(shape), posterior)


def test_a_broken_observation_is_refused(posterior):
    with pytest.raises(ObservationError, match="finite"):
        to_arviz(np.zeros((5, 1)), posterior, x=np.full(5, np.nan))
