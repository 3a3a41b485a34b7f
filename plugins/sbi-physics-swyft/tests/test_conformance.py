"""The conformance kit on the engine, with a joint head and with marginal ones."""

from __future__ import annotations

import pytest
from sbi_physics_swyft.tmnre import MarginalRatioEngine

from sbi_physics.testing import ENGINE_CHECKS, conformance

# Accuracy on every kind of data takes minutes; the Gaussian problem stands for it elsewhere.
SLOW = [c for c in ENGINE_CHECKS if c.__name__.startswith("accurate_on_")]
QUICK = [c for c in ENGINE_CHECKS if c not in SLOW]

JOINT = {
    "settings": {"max_epochs": 30, "pool_size": 4096},
    "brief": {"max_epochs": 3, "pool_size": 1024},
}
MARGINALS = {
    "settings": {"heads": "marginals", "max_epochs": 30},
    "brief": {"heads": "marginals", "max_epochs": 3, "pool_size": 1024},
}


@pytest.mark.engine
@conformance(QUICK, MarginalRatioEngine, **JOINT)
def test_a_joint_head_keeps_the_promises_of_engines(check):
    check()


@pytest.mark.engine
@conformance(QUICK, MarginalRatioEngine, **MARGINALS)
def test_marginal_heads_keep_the_promises_of_engines(check):
    check()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@conformance(SLOW, MarginalRatioEngine, **JOINT)
def test_a_joint_head_is_accurate(check):
    check()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@conformance(SLOW, MarginalRatioEngine, **MARGINALS)
def test_marginal_heads_are_accurate(check):
    check()
