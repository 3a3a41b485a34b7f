"""The beam-dump case through the engines: the published network, and one without an order."""

from __future__ import annotations

import numpy as np
import pytest

import sbi_physics as sp

pytestmark = pytest.mark.engine

EPOCHS = {"max_epochs": 1}


@pytest.fixture(scope="module")
def simulations():
    pytest.importorskip("sbi_physics_beamdump")
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("SBI_PHYSICS_PLUGINS", raising=False)
        return sp.simulate("beamdump-alp", 600, seed=1)


def log_density(posterior, simulations, order):
    x, theta = simulations.x[:20], simulations.theta[:20]
    return posterior.log_prob(theta[:, None], x[:, order])[:, 0]


def test_the_published_network_depends_on_the_order_of_events(simulations):
    pytest.importorskip("sbi_physics_bayesflow")
    posterior = sp.train(simulations, "bayesflow-cinn:beamdump", settings=EPOCHS, seed=1)
    assert posterior.context.settings["summary_widths"] == [64, 64, 64, 64]
    assert posterior.context.settings["learning_rate"] == 5e-3
    sizes = {name: w.shape for name, w in posterior._weights().items()}
    inputs = [shape for name, shape in sizes.items() if "embedding" in name and len(shape) == 2]
    assert inputs[0] == (33, 64)  # three events of ten numbers and their presence
    assert inputs[-1] == (64, 2)
    first, second = (log_density(posterior, simulations, o) for o in ([0, 1, 2], [2, 0, 1]))
    assert np.abs(first - second).max() > 1e-3


def test_the_other_preset_does_not(simulations):
    pytest.importorskip("sbi_physics_sbi")
    posterior = sp.train(simulations, "sbi-npe:beamdump", settings=EPOCHS, seed=1)
    assert posterior.context.settings["embedding"] == "set"
    first, second = (log_density(posterior, simulations, o) for o in ([0, 1, 2], [2, 0, 1]))
    np.testing.assert_allclose(first, second, atol=1e-3)
