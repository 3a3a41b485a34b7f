"""Data for tests: found through environment variables, skipped with the reason otherwise."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from sbi_physics_alp.milky_way import import_gammaalps


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


@pytest.fixture(scope="session")
def gammaalps():
    """gammaALPs, run here; whoever tests with it takes it from here."""
    if importlib.util.find_spec("gammaALPs") is None:
        pytest.skip("gammaALPs, the code compared with, is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_gammaalps()[0]


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
