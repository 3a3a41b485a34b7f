"""The promises that every simulator of sbi-physics keeps."""

from __future__ import annotations

from functools import partial

import pytest
from sbi_physics_beamdump.simulator import BeamdumpAlp

from sbi_physics.testing import SIMULATOR_CHECKS, conformance


@pytest.fixture(autouse=True)
def _this_plugin(monkeypatch):
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "beamdump")


@conformance(SIMULATOR_CHECKS, BeamdumpAlp, n_draws=200)
def test_published_setup(check):
    check()


@conformance(
    SIMULATOR_CHECKS,
    partial(
        BeamdumpAlp,
        geometry="ship-like",
        angle_smearing="tangent",
        events=4,
        min_events=1,
        derived=True,
        detector="amortized",
    ),
    n_draws=200,
)
def test_variable_sets_and_amortized_detector(check):
    check()
