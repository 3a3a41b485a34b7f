"""OGIP spectra that users have: what is missing or masked is said, and nothing lost in silence."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp.instruments import Counts
from sbi_physics_alp.ngc1275 import AlpNgc1275
from sbi_physics_alp.observation import read_counts
from sbi_physics_alp.on_off import read_ogip
from sbi_physics_alp.pks2155 import AlpPks2155
from sbi_physics_alp.response import Response
from sbi_physics_alp.source import AlpSource

from sbi_physics.config import RunConfig
from sbi_physics.errors import ContractError, DataFileError, ObservationError, OptionError
from sbi_physics.study.plan import make_simulator

# gammapy and astropy warn about units and deprecations that are theirs.
pytestmark = pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")

RECO_TEV = np.geomspace(0.2, 20.0, 7)
TRUE_TEV = np.geomspace(0.1, 40.0, 9)
N_ON, N_OFF = np.arange(60, 0, -10), np.arange(120, 0, -20)


@pytest.fixture
def write(tmp_path):
    """Write a spectrum and the files it names; returns the path of the PHA file."""
    from astropy import units as u
    from gammapy.datasets import SpectrumDatasetOnOff
    from gammapy.irf import EDispKernelMap
    from gammapy.maps import MapAxis, RegionGeom, RegionNDMap

    energy = MapAxis.from_energy_edges(RECO_TEV * u.TeV, name="energy")
    true = MapAxis.from_energy_edges(TRUE_TEV * u.TeV, name="energy_true")
    region = "icrs;circle(83.63, 22.01, 0.1)"
    geom = RegionGeom.create(region, axes=[energy])
    exposure = RegionNDMap.from_geom(
        RegionGeom.create(region, axes=[true]), data=np.full((8, 1, 1), 1e9), unit="m2 s"
    )
    exposure.meta = {"livetime": 1800.0 * u.s}

    def written(quality=(), **header):
        safe = np.ones((6, 1, 1), dtype=bool)
        safe[list(quality)] = False
        SpectrumDatasetOnOff(
            name="source",
            counts=RegionNDMap.from_geom(geom, data=N_ON.reshape(6, 1, 1).astype(float)),
            counts_off=RegionNDMap.from_geom(geom, data=N_OFF.reshape(6, 1, 1).astype(float)),
            acceptance=RegionNDMap.from_geom(geom, data=np.ones((6, 1, 1))),
            acceptance_off=RegionNDMap.from_geom(geom, data=np.full((6, 1, 1), 4.0)),
            exposure=exposure,
            edisp=EDispKernelMap.from_diagonal_response(energy, true, geom=geom.to_image()),
            mask_safe=RegionNDMap.from_geom(geom, data=safe),
        ).write(tmp_path / "pha.fits", overwrite=True, format="ogip")
        change(tmp_path / "pha.fits", **header)
        return tmp_path / "pha.fits"

    return written


def change(path, drop=(), **header):
    """Change keywords of a spectrum (None: remove), or drop columns."""
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(path, mode="update", memmap=False) as hdus:
        table = hdus["SPECTRUM"]
        for keyword, value in header.items():
            if value is None:
                del table.header[keyword]
            else:
                table.header[keyword] = value
    if drop:
        with fits.open(path, memmap=False) as hdus:
            kept = Table.read(hdus["SPECTRUM"])
            kept.remove_columns(list(drop))
            hdus["SPECTRUM"] = fits.table_to_hdu(kept)
            hdus.writeto(path, overwrite=True)


def test_a_whole_spectrum_is_read_and_masked_ends_are_dropped(write):
    found = read_ogip(write(quality=(0, 5)), sub_bins=3)
    np.testing.assert_array_equal(found.n_on, N_ON[1:5])
    np.testing.assert_array_equal(found.n_off, N_OFF[1:5])
    np.testing.assert_allclose(found.instrument.alpha, 0.25)
    response = found.instrument.response
    np.testing.assert_allclose(response.reco_edges_gev, 1e3 * RECO_TEV[1:6], rtol=1e-6)
    assert response.matrix.shape == (4, 24)


@pytest.mark.parametrize(
    ("keyword", "value", "what"),
    [
        ("ANCRFILE", None, "effective area"),
        ("ANCRFILE", "", "effective area"),
        ("RESPFILE", "none", "energy migration"),
        ("BACKFILE", None, "off spectrum"),
    ],
)
def test_a_keyword_that_is_missing_is_named(write, keyword, value, what):
    path = write(**{keyword: value})
    with pytest.raises(ContractError, match=rf"pha.fits names no {what} .*no {keyword}; accepted"):
        read_ogip(path)
    with pytest.raises(OptionError, match=rf"response='.*pha.fits': .* no {keyword}"):
        AlpPks2155(response=str(path))
    with pytest.raises(ObservationError, match=f"no {keyword}"):
        AlpPks2155().read_observation(path)


def test_a_file_that_is_missing_is_named(write):
    path = write()
    (path.parent / "pha_arf.fits").unlink()
    with pytest.raises(DataFileError, match=r"ANCRFILE='pha_arf.fits', which is not there"):
        read_ogip(path)


def test_columns_that_are_missing_are_named(write):
    path = write()
    change(path, drop=("QUALITY",))
    with pytest.raises(ContractError, match=r"pha.fits has no column QUALITY; it has CHANNEL"):
        read_ogip(path)
    path = write()
    change(path.parent / "pha_bkg.fits", drop=("BACKSCAL",))
    with pytest.raises(ContractError, match=r"pha_bkg.fits has no column BACKSCAL"):
        read_ogip(path)


def test_a_gap_in_the_mask_is_refused_with_its_bins(write):
    with pytest.raises(
        ContractError, match=r"bins that may be used: 2 \(928.318 - 2000 GeV\), co"
    ):
        read_ogip(write(quality=(0, 2)))
    with pytest.raises(ContractError, match="QUALITY masks all 6"):
        read_ogip(write(quality=range(6)))


@pytest.mark.parametrize("content", [b"junk", b"PK\x03\x04junk", b""])
def test_what_is_no_spectrum_is_named(tmp_path, content):
    path = tmp_path / "junk.fits"
    path.write_bytes(content)
    with pytest.raises(ContractError, match=r"junk.fits is no FITS file"):
        read_ogip(path)
    with pytest.raises(OptionError, match=r"junk.fits is no FITS file"):
        AlpPks2155(response=str(path))
    for simulator in (AlpPks2155(), AlpNgc1275(true_bins_per_decade=25)):
        with pytest.raises(ObservationError, match=r"junk.fits is no FITS file"):
            simulator.read_observation(path)
    assert AlpSource.observation_options(path) == {}


def test_a_response_file_is_no_spectrum(write):
    write()
    with pytest.raises(ContractError, match=r"has no table SPECTRUM, but PRIMARY, SPECRESP"):
        read_ogip(write().parent / "pha_arf.fits")


@pytest.fixture
def known():
    """An observation model over a known background with the bins of the spectrum."""
    return Counts(
        Response(np.ones((6, 8)), np.ones(6), 1e3 * RECO_TEV, 1e3 * TRUE_TEV, livetime_s=1.0)
    )


def test_off_counts_and_masks_are_not_lost_over_a_known_background(write, known):
    with pytest.raises(
        ObservationError, match=r"off counts \(BACKFILE='pha_bkg.fits'\), for whic"
    ):
        known.read(write())
    with pytest.raises(ObservationError, match=r"alp-source and background=off"):
        known.read(write())
    with pytest.raises(ObservationError, match=r"has masked bins \(QUALITY\): \[1\], for which"):
        known.read(write(quality=(1,), BACKFILE="none"))


def test_a_response_that_is_not_used_is_said(write, known):
    path = write(BACKFILE=None)
    with pytest.warns(UserWarning, match=r"names a response of its own \(ANCRFILE, RESPFILE\)"):
        np.testing.assert_array_equal(known.read(path), N_ON)


@pytest.mark.filterwarnings("error::UserWarning")
def test_counts_alone_are_read_over_a_known_background(write, known):
    path = write(BACKFILE=None, ANCRFILE=None, RESPFILE="none")
    np.testing.assert_array_equal(known.read(path), N_ON)
    np.testing.assert_array_equal(read_counts(path, 1e3 * RECO_TEV), N_ON)


@pytest.mark.parametrize("kind", ["spectrum", "reduction"])
@pytest.mark.parametrize("options", [{}, {"background": "off"}])
def test_an_observation_with_off_counts_brings_its_response(write, tmp_path, kind, options):
    path = write(quality=(0,))
    if kind == "reduction":
        path = read_ogip(path).save(tmp_path / "reduced.npz")
    config = RunConfig(simulator="alp-source", observation=str(path), options=options)
    simulator = make_simulator(config)
    assert simulator.options.background == "off"
    assert simulator.options.response == str(path)
    x = simulator.read_observation(path)
    np.testing.assert_array_equal(x, [N_ON[1:], N_OFF[1:]])
    named = make_simulator(RunConfig(simulator="alp-pks2155", observation=str(path)))
    np.testing.assert_array_equal(named.read_observation(path), x)


def test_counts_alone_bring_no_response(write, tmp_path):
    path = tmp_path / "counts.npz"
    np.savez(path, counts=N_ON)
    for given in (path, write(BACKFILE=None)):
        assert AlpSource.observation_options(given) == {}
        assert AlpPks2155.observation_options(given) == {}
