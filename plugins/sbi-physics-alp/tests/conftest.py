"""Data for tests: found through environment variables, skipped with the reason otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def reference():
    """Arrays computed with gammaALPs 0.4, by name."""
    folder = os.environ.get("SBI_PHYSICS_TEST_DATA")
    if not folder:
        pytest.skip("SBI_PHYSICS_TEST_DATA (folder of the reference data) is not set")
    path = Path(folder) / "reference" / "alp_gammaalps.npz"
    if not path.is_file():
        pytest.skip(f"no reference data at {path}")
    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


@pytest.fixture
def gammapy_data(monkeypatch, tmp_path):
    """Folder of gammapy's public data sets, with a cache of its own."""
    folder = os.environ.get("GAMMAPY_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GAMMAPY_DATA (folder of gammapy's public data sets) is not set")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(folder)


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)
