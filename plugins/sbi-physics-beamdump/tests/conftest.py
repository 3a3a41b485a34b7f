"""Reference arrays: found through an environment variable, skipped with the reason otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


def _file(name):
    folder = os.environ.get("SBI_PHYSICS_TEST_DATA")
    if not folder:
        pytest.skip("SBI_PHYSICS_TEST_DATA (folder of the reference data) is not set")
    path = Path(folder) / "reference" / name
    if not path.is_file():
        pytest.skip(f"no reference data at {path}")
    return path


@pytest.fixture(scope="session")
def truth():
    """400 events computed with 40 digits and another construction of the boosts."""
    with np.load(_file("beamdump_truth.npz"), allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


@pytest.fixture(scope="session")
def b_mesons():
    """Path of a table of B mesons from Pythia 8.3."""
    return _file("beamdump_bmesons_pp400.npz")


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)
