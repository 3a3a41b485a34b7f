"""The promises that every simulator of sbi-physics keeps."""

from __future__ import annotations

from functools import partial

import pytest
from sbi_physics_alp.ngc1275 import AlpNgc1275
from sbi_physics_alp.pks2155 import AlpPks2155
from sbi_physics_alp.source import AlpSource

from sbi_physics.testing import SIMULATOR_CHECKS, conformance

# Fewer energies than by default: the promises do not depend on them, the time does.
NGC1275 = partial(AlpNgc1275, true_bins_per_decade=25, energy_min="50 GeV", energy_max="2 TeV")


@pytest.fixture(autouse=True)
def _this_plugin(monkeypatch):
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "alp")


@conformance(SIMULATOR_CHECKS, NGC1275, n_draws=100)
def test_ngc1275(check):
    check()


@conformance(SIMULATOR_CHECKS, AlpPks2155, n_draws=100)
def test_pks2155(check):
    check()


@conformance(
    SIMULATOR_CHECKS, partial(NGC1275, level="informed", energy_min="100 GeV"), n_draws=100
)
def test_ngc1275_with_a_free_cluster(check):
    check()


SOURCE = partial(
    AlpSource,
    redshift=0.044,
    spectrum="log-parabola",
    free=["b0"],
    r_abell=100.0,
    true_bins_per_decade=25,
    energy_min="100 GeV",
    energy_max="2 TeV",
)


@conformance(SIMULATOR_CHECKS, SOURCE, n_draws=100)
def test_source(check):
    check()
