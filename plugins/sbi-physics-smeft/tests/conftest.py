"""Data for tests: found through an environment variable, skipped with the reason otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


def data_file(name: str) -> Path:
    folder = os.environ.get("SBI_PHYSICS_TEST_DATA")
    if not folder:
        pytest.skip("SBI_PHYSICS_TEST_DATA (folder of the reference data) is not set")
    path = Path(folder) / name
    if not path.is_file():
        pytest.skip(f"no reference data at {path}")
    return path


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(data_file(name), allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


@pytest.fixture(scope="session")
def reference():
    """Amplitudes and cross sections of an independent implementation, by name."""
    return arrays("reference/smeft_amplitudes.npz")


@pytest.fixture(scope="session")
def truth():
    """What is known about the events of the LHE sample."""
    return arrays("reference/smeft_sample_truth.npz")


@pytest.fixture(scope="session")
def lhe_sample():
    return data_file("smeft_sample.lhe.gz")


@pytest.fixture(scope="session")
def small_lhe_sample():
    return data_file("smeft_sample_small.lhe")


@pytest.fixture
def rng():
    return np.random.default_rng(20260201)
