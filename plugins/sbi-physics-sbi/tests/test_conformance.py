"""The conformance kit on both engines."""

from __future__ import annotations

import pytest
from sbi_physics_sbi.npe import NeuralPosteriorEngine
from sbi_physics_sbi.nre import NeuralRatioEngine

from sbi_physics.testing import ENGINE_CHECKS, EngineCase, conformance

NPE_CASE = EngineCase(NeuralPosteriorEngine, settings={"max_epochs": 25})
NRE_CASE = EngineCase(
    NeuralRatioEngine,
    settings={"max_epochs": 30, "pool_size": 4096},
    brief={"max_epochs": 3, "pool_size": 1024},
)


@pytest.mark.slow
@conformance(ENGINE_CHECKS, NPE_CASE)
def test_npe_conforms(check):
    check()


@pytest.mark.slow
@conformance(ENGINE_CHECKS, NRE_CASE)
def test_nre_conforms(check):
    check()
