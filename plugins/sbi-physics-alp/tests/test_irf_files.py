"""Instrument response files that users have: disk and offset, point-like ones, wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp.embedded import embedded_response
from sbi_physics_alp.ngc1275 import AlpNgc1275
from sbi_physics_alp.on_off import OnOffObservation, hess_like_response
from sbi_physics_alp.source import AlpSource

from sbi_physics.errors import OptionError

# gammapy and astropy warn about units and deprecations that are theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

CHEAP = {"true_bins_per_decade": 25, "reco_bins": 20, "exposure": "1 h"}
SIGMA_DEG = 0.1  # of the Gaussian point spread function
RATE = 2.0  # background in s^-1 TeV^-1 sr^-1
LARGEST_DEG = 4.0


def area_m2(offset_deg):
    """Effective area of the files, at all energies."""
    return 1e5 * (1.0 - 0.1 * offset_deg)


@pytest.fixture
def write(monkeypatch, tmp_path):
    """Write a response file without some parts, point-like with a cut; returns its path."""
    from astropy import units as u
    from astropy.io import fits
    from gammapy.irf import PSF3D, Background2D, EffectiveAreaTable2D, EnergyDispersion2D
    from gammapy.maps import MapAxis

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    true = MapAxis.from_energy_bounds("5 GeV", "200 TeV", nbin=8, name="energy_true")
    reco = MapAxis.from_energy_bounds("5 GeV", "200 TeV", nbin=8, name="energy")
    offset = MapAxis.from_edges(np.linspace(0.0, LARGEST_DEG, 5), unit="deg", name="offset")
    migra = MapAxis.from_bounds(0.2, 5.0, nbin=100, name="migra", node_type="edges")
    rad = MapAxis.from_bounds(0.0, 0.8, nbin=400, unit="deg", name="rad")
    density = np.exp(-0.5 * (rad.center.value / SIGMA_DEG) ** 2) / (2.0 * np.pi * SIGMA_DEG**2)
    area = np.broadcast_to(area_m2(offset.center.value), (8, 4))

    def written(drop=(), cut_deg=None):
        point_like = cut_deg is not None
        parts = {
            "aeff": EffectiveAreaTable2D(
                axes=[true, offset], data=area, unit="m2", is_pointlike=point_like
            ),
            "edisp": EnergyDispersion2D.from_gauss(true, migra, offset, bias=0.0, sigma=0.1),
            "psf": PSF3D(
                axes=[true, offset, rad],
                data=np.broadcast_to(density, (8, 4, 400)) * u.Unit("deg-2").to("sr-1"),
                unit="sr-1",
            ),
            "bkg": Background2D(
                axes=[reco, offset], data=np.full((8, 4), RATE), unit="s-1 TeV-1 sr-1"
            ),
        }
        tables = [irf.to_table_hdu(format="gadf-dl3") for n, irf in parts.items() if n not in drop]
        for table in tables:
            if point_like and table.header["HDUCLAS2"] == "EFF_AREA":
                table.header["HDUCLAS3"] = "POINT-LIKE"
                if cut_deg:
                    table.header["RAD_MAX"] = cut_deg
        path = tmp_path / "irf.fits"
        fits.HDUList([fits.PrimaryHDU(), *tables]).writeto(path, overwrite=True)
        return str(path)

    return written


def seen_area_m2(simulator):
    """Effective area at 1 TeV with the share of events inside the disk."""
    response = simulator.response
    nearest = np.argmin(np.abs(response.true_centres_gev - 1e3))
    return response.matrix[:, nearest].sum() / response.livetime_s / 1e4


@pytest.mark.parametrize(("radius", "offset"), [(None, None), (0.2, None), (0.05, 2.0), (0.15, 0)])
def test_area_and_background_follow_the_disk_and_the_offset(write, radius, offset):
    given = {
        **({} if radius is None else {"on_radius": f"{radius} deg"}),
        **({} if offset is None else {"offset": f"{offset} deg"}),
    }
    simulator = AlpNgc1275(response=write(), **CHEAP, **given)
    radius, offset = radius or 0.1, 0.5 if offset is None else offset
    inside = 1.0 - np.exp(-0.5 * (radius / SIGMA_DEG) ** 2)  # of a Gaussian in two dimensions
    # Below the centre of its first bin gammapy extrapolates the area, as it is linear.
    assert seen_area_m2(simulator) == pytest.approx(area_m2(offset) * inside, rel=0.01)
    solid_angle = 2.0 * np.pi * (1.0 - np.cos(np.radians(radius)))
    width_tev = np.diff(simulator.response.reco_edges_gev) / 1e3
    expected = RATE * 3600.0 * solid_angle * width_tev
    np.testing.assert_allclose(simulator.response.background[2:-2], expected[2:-2], rtol=0.01)
    recorded = simulator.identity.options
    assert {k: recorded[k] for k in given} == given
    assert not {"on_radius", "offset"} - set(given) & set(recorded)  # older stores stay valid


def test_the_real_files_scale_with_the_disk_as_gammapy_says(gammapy_data):
    from astropy import units as u
    from gammapy.irf import load_irf_dict_from_file
    from sbi_physics_alp.data_files import locate

    name = "cta-prod5-north-20deg-50h"
    irfs = load_irf_dict_from_file(locate(name))
    default, other = (
        AlpSource(response=name, **CHEAP, **given).observation_model.response
        for given in ({}, {"on_radius": "0.25 deg", "offset": "1.5 deg"})
    )
    energy = default.true_centres_gev
    core = (energy > 100.0) & (energy < 2e4)  # where migration loses nothing at the ends

    def area(radius, offset):
        at = {"energy_true": energy[core] * u.GeV, "offset": offset * u.deg}
        return irfs["aeff"].evaluate(**at) * irfs["psf"].containment(rad=radius * u.deg, **at)

    wanted = (area(0.25, 1.5) / area(0.1, 0.5)).to_value("").reshape(-1)
    at = dict(zip(energy, range(energy.size), strict=True))
    columns = [at[e] for e in energy[core]]
    first = np.argmin(np.abs(other.true_centres_gev - energy[0]))
    found = other.matrix.sum(axis=0)[first:][columns] / default.matrix.sum(axis=0)[columns]
    np.testing.assert_allclose(found, wanted, rtol=5e-3)
    # Denser at the centre of the field: less background than the ratio of the disks.
    ratio = other.background.sum() / default.background.sum()
    assert 0.8 * 6.25 < ratio < 6.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_radius": "0.2 deg"}, "the embedded responses hold 0.1 deg; it needs a response"),
        ({"offset": "1 deg"}, "the embedded responses hold 0.5 deg"),
        ({"on_radius": "2 deg"}, "accepted is 0.01 deg to 1 deg"),
        ({"on_radius": "0.2"}, "a number with a unit that converts to deg"),
        ({"response": "x.fits", "region": "map2deg", "offset": "1 deg"}, "a whole map with the s"),
    ],
)
def test_a_disk_that_would_not_be_used_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        AlpNgc1275(**options)


def test_a_kept_response_brings_its_disk(tmp_path):
    path = embedded_response().save(tmp_path / "kept.npz")
    with pytest.raises(OptionError, match=r"on_radius, reco_bins cannot be set: .*kept.npz holds"):
        AlpNgc1275(response=str(path), on_radius="0.2 deg", reco_bins=10)


def test_a_source_outside_the_field_is_refused(write):
    with pytest.raises(OptionError, match=r"source is 4.5 deg from .*covers offsets up to 4 deg"):
        AlpNgc1275(response=write(), offset="4.5 deg", **CHEAP)


def test_a_point_like_file_keeps_the_disk_that_it_was_made_for(write):
    path = write(cut_deg=0.2, drop=("psf",))
    with pytest.raises(OptionError, match=r"RAD_MAX\) of 0.2 deg; the on region has 0.1 deg"):
        AlpNgc1275(response=path, **CHEAP)
    simulator = AlpNgc1275(response=path, on_radius="0.2 deg", **CHEAP)
    assert seen_area_m2(simulator) == pytest.approx(area_m2(0.5), rel=0.01)  # its losses are in it
    with pytest.raises(OptionError, match="point-like: its effective area counts events near the"):
        AlpNgc1275(response=path, region="map2deg", **CHEAP)
    with pytest.raises(OptionError, match=r"irf.fits: Irf does not contain RAD_MAX"):
        AlpNgc1275(response=write(cut_deg=0.0), **CHEAP)


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (("aeff",), r"no effective area \(aeff\); accepted is a FITS file of instrument"),
        (("edisp", "bkg"), r"no energy dispersion \(edisp\) and no background \(bkg\)"),
        (("psf",), r"no point spread function \(psf\)"),
    ],
)
def test_a_part_that_is_missing_is_named(write, drop, message):
    path = write(drop=drop)
    for simulator in (AlpNgc1275, AlpSource):
        with pytest.raises(OptionError, match=rf"response='.*irf.fits': .*irf.fits has {message}"):
            simulator(response=path, **CHEAP)


@pytest.mark.parametrize("suffix", ["fits", "npz"])
@pytest.mark.parametrize("content", [b"junk", b"PK\x03\x04junk", b""])
def test_a_file_that_is_no_response_is_named(tmp_path, suffix, content):
    path = tmp_path / f"junk.{suffix}"
    path.write_bytes(content)
    what = {"fits": "is no FITS file", "npz": "is not an npz file of arrays"}[suffix]
    for simulator, options in (
        (AlpNgc1275, {}),
        (AlpSource, {}),
        (AlpSource, {"background": "off"}),
    ):
        with pytest.raises(
            OptionError, match=rf"response='.*junk.{suffix}': .*junk.{suffix} {what}"
        ):
            simulator(response=str(path), **options)


def test_arrays_of_another_kind_are_refused_with_what_they_are(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    other = str(tmp_path / "other.npz")
    instrument = hess_like_response()
    counts = np.ones(8)
    reduced = str(OnOffObservation(counts, counts, instrument).save(tmp_path / "reduced.npz"))
    with pytest.raises(OptionError, match=r"no.* response file of format 1, .* arrays \['x'\]"):
        AlpNgc1275(response=other)
    with pytest.raises(OptionError, match=r"no.* on-off observation of format 1, .* \['x'\]"):
        AlpSource(response=other, background="off")
    for simulator in (AlpNgc1275, AlpSource):
        with pytest.raises(
            OptionError, match=r"has off counts, .* alp-source takes it with backg"
        ):
            simulator(response=reduced)
    assert AlpSource(response=reduced, background="off").observable.shape == (2, 8)
    with pytest.raises(OptionError, match=r"exposure, reco_bins cannot be set: '.*brings its own"):
        AlpSource(response=reduced, background="off", exposure="1 h", reco_bins=10)
