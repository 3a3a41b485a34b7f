"""Shared by the core's tests and those of every plugin in this checkout."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


def pytest_configure() -> None:
    # Shells start background jobs with Ctrl-C ignored; tests that interrupt themselves need it.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _folder_from(variable: str, purpose: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set ({purpose})")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"{variable}={value} is not a folder")
    return folder


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of reference arrays made by independent codes, from SBI_PHYSICS_TEST_DATA."""
    return _folder_from("SBI_PHYSICS_TEST_DATA", "reference arrays of independent codes")


@pytest.fixture(scope="session")
def gammapy_data() -> Path:
    """Folder of instrument files, from GAMMAPY_DATA."""
    return _folder_from("GAMMAPY_DATA", "instrument responses and public observations")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a headless-capable Chromium."""
    for name in CHROMIUM_NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no browser found (looked for {', '.join(CHROMIUM_NAMES)})")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch", reason="gpu tests need torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
