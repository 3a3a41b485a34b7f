"""The published settings of the photon-ALP case: simulator preset and engine preset fit."""

from __future__ import annotations

import pytest

import sbi_physics as sp

pytest.importorskip("sbi_physics_alp")
pytest.importorskip("sbi_physics_swyft")

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("data", ["counts", "log-residual"])
def test_networks_get_169_entries_of_the_power_spectrum_of_90_bins(data):
    from sbi_physics.nn.embedding import build_embedding

    simulator = sp.simulator(
        "alp-ngc1275",
        preset="tmnre2025",
        response="embedded",
        region="on",
        exposure="10 min",
        true_bins_per_decade=25,
        cell_mode="compat",
        data=data,
    )
    settings = sp.engine("swyft-tmnre:alps").settings()
    x = sp.simulate(simulator, 8, seed=1).x
    observable = simulator.observable
    network = build_embedding(observable, settings, observable.fit_transform(x))
    assert observable.shape == (90,)
    assert network.power.n_entries == 169
    assert network.features[0].in_features == 169
    assert network.data[1][0].in_features == 90
