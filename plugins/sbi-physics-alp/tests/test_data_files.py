"""Finding data files, and what is said about missing ones."""

from __future__ import annotations

import pytest
from sbi_physics_alp.data_files import (
    PUBLIC_FILES,
    MissingDataError,
    cache_folder,
    found_files,
    locate,
)


def test_a_missing_variable_is_named_with_the_command_that_helps(monkeypatch):
    monkeypatch.delenv("GAMMAPY_DATA", raising=False)
    with pytest.raises(FileNotFoundError) as caught:
        locate("cta-prod5-north-20deg-50h")
    message = str(caught.value)
    assert "$GAMMAPY_DATA, which is not set" in message
    assert "Prod5-North-20deg-AverageAz-4LSTs09MSTs.180000s-v0.1.fits.gz" in message
    assert "gammapy download datasets --src cta-caldb" in message


@pytest.mark.parametrize("name", PUBLIC_FILES)
def test_a_missing_public_file_is_named_with_its_place(monkeypatch, tmp_path, name):
    monkeypatch.setenv("GAMMAPY_DATA", str(tmp_path))
    with pytest.raises(MissingDataError) as caught:
        locate(name)
    message = str(caught.value)
    assert str(tmp_path / PUBLIC_FILES[name].path) in message
    command = f"gammapy download datasets --src {PUBLIC_FILES[name].dataset} --out {tmp_path}"
    assert command in message


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"there is no file .*none\.fits"):
        locate(tmp_path / "none.fits")


def test_variables_in_paths_are_expanded(monkeypatch, tmp_path):
    (tmp_path / "irf.fits").touch()
    monkeypatch.setenv("MY_RESPONSES", str(tmp_path))
    assert locate("$MY_RESPONSES/irf.fits") == tmp_path / "irf.fits"


def test_the_cache_follows_the_xdg_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sbi-physics-alp"


def test_a_simulator_lists_the_files_that_are_there(monkeypatch, tmp_path):
    known = PUBLIC_FILES["hess-pks2155-steady"]
    path = tmp_path / known.path
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setenv("GAMMAPY_DATA", str(tmp_path))
    listed = {f.name: f for f in found_files()}
    assert set(listed) == set(PUBLIC_FILES)
    assert listed["hess-pks2155-steady"].found
    assert listed["hess-pks2155-steady"].path == str(path)
    assert not listed["cta-prod5-north-20deg-50h"].found
    assert "--src cta-caldb" in listed["cta-prod5-north-20deg-50h"].how_to_get
    monkeypatch.delenv("GAMMAPY_DATA")
    assert not any(f.found for f in found_files("cta-"))
