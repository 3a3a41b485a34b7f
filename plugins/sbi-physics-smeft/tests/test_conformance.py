"""The promises that every simulator of sbi-physics keeps."""

from __future__ import annotations

from functools import partial

import pytest
from sbi_physics_smeft.smeft_lhe import SmeftLhe
from sbi_physics_smeft.smeft_toy import SmeftToy
from sbi_physics_smeft.smeft_wz import SmeftWz

from sbi_physics.testing import SIMULATOR_CHECKS, conformance


@pytest.fixture(autouse=True)
def _this_plugin(monkeypatch):
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "smeft")


@conformance(SIMULATOR_CHECKS, SmeftToy)
def test_toy(check):
    check()


@conformance(
    SIMULATOR_CHECKS,
    partial(SmeftToy, alpha=3.0, proposal="mixture"),
    expected_failures={"log_likelihood_fits_the_simulator": "a mixture ignores theta"},
)
def test_toy_mixture(check):
    check()


@conformance(SIMULATOR_CHECKS, SmeftWz)
def test_wz(check):
    check()


@conformance(
    SIMULATOR_CHECKS,
    partial(SmeftWz, level="parton", label_level="production"),
    expected_failures={"redrawing_gives_new_data": "data at parton level are the latents"},
)
def test_wz_parton(check):
    check()


@conformance(SIMULATOR_CHECKS, SmeftLhe)
def test_lhe(check):
    check()
