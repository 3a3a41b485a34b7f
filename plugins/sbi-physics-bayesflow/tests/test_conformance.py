"""The conformance kit on the engine."""

from __future__ import annotations

import pytest
from sbi_physics_bayesflow.cinn import CouplingEngine

from sbi_physics.testing import ENGINE_CHECKS, conformance

# Accuracy on every kind of data takes minutes; the Gaussian problem stands for it elsewhere.
SLOW = [c for c in ENGINE_CHECKS if c.__name__.startswith("accurate_on_")]
QUICK = [c for c in ENGINE_CHECKS if c not in SLOW]

CINN = {"settings": {"max_epochs": 25}}


@pytest.mark.engine
@conformance(QUICK, CouplingEngine, **CINN)
def test_cinn_keeps_the_promises_of_engines(check):
    check()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@conformance(SLOW, CouplingEngine, **CINN)
def test_cinn_is_accurate(check):
    check()
