"""The simulator `alp-source`: other sources by configuration."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp import ebl
from sbi_physics_alp.ebl import optical_depth
from sbi_physics_alp.milky_way import NGC1275_DEG
from sbi_physics_alp.ngc1275 import AlpNgc1275
from sbi_physics_alp.pks2155 import CLUSTER, AlpPks2155
from sbi_physics_alp.source import AlpSource

from sbi_physics.errors import DataFileError, OptionError

CHEAP = {"true_bins_per_decade": 25, "energy_min": "50 GeV", "energy_max": "2 TeV"}
FLARE = {"amplitude": 1.54e-9, "index": 2.11, "e_cut": 562.0}


def test_with_its_options_it_is_ngc1275():
    named, general = AlpNgc1275(**CHEAP), AlpSource(position=NGC1275_DEG, **CHEAP)
    theta = np.repeat(named.theta("m30-g2")[None], 4, axis=0)
    x, y = (s.simulate(theta, np.random.default_rng(1)) for s in (named, general))
    np.testing.assert_array_equal(x, y)
    assert general.prior == AlpSource(**CHEAP).prior
    assert general.parameters.names == named.parameters.names


@pytest.mark.filterwarnings("ignore")  # third parties
def test_with_its_options_it_is_pks2155(gammapy_data):
    response = "hess-pks2155-steady"
    cluster = {
        name: getattr(CLUSTER, name)
        for name in ("b0", "n0", "n2", "beta", "eta", "r_abell", "k_l", "k_h", "q")
    }
    general = AlpSource(
        response=response,
        background="off",
        redshift=0.116,
        spectrum="log-parabola",
        reference_energy="500 GeV",
        **cluster,
    )
    named = AlpPks2155(response=response)
    theta = np.repeat(named.theta("m30-g5")[None], 3, axis=0)
    x, y = (s.simulate(theta, np.random.default_rng(1)) for s in (named, general))
    np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(
        general.read_observation(gammapy_data / "PKS2155-steady/pks2155-304_steady.fits.gz"),
        named.read_observation(gammapy_data / "PKS2155-steady/pks2155-304_steady.fits.gz"),
    )


def test_redshift_and_background_light_absorb(rng):
    for model in ("dominguez", "ebltable:finke2022"):
        if model != "dominguez":
            pytest.importorskip("ebltable")
        simulator = AlpSource(redshift=0.3, ebl=model, **CHEAP)
        survival = simulator.simulate_latent(simulator.theta("no-alp")[None], rng)["survival"]
        tau = optical_depth(simulator.conversion.energy_gev, 0.3, model)
        np.testing.assert_allclose(survival[0], np.exp(-tau), rtol=1e-6)


def test_a_model_that_ebltable_does_not_know_is_named_with_those_it_does():
    pytest.importorskip("ebltable")
    with pytest.raises(OptionError, match=r"reads no model 'foo'; as 'ebltable:NAME' .* gilmore,"):
        AlpSource(ebl="ebltable:foo", **CHEAP)


def test_all_models_that_are_said_to_be_known_are_read():
    pytest.importorskip("ebltable")
    for name in ebl._EBLTABLE_NAMES.split(", "):
        tau = ebl.optical_depth([100.0, 1000.0], 0.1, f"ebltable:{name}")
        assert 0.0 < tau[0] < tau[1] < 2.0, name


def test_priors_are_options():
    simulator = AlpSource(
        m_range=(5.0, 50.0),
        index_range=(2.0, 3.0),
        curvature_range=(0.0, 0.5),
        spectrum="log-parabola",
        level="informed",
        **CHEAP,
    )
    assert simulator.parameters["m_a"].bounds == (5.0, 50.0)
    assert simulator.parameters["curvature"].bounds == (0.0, 0.5)
    assert len(simulator.parameters) == 17
    assert "e_cut" not in simulator.parameters
    assert simulator.theta("no-alp")[1] == 0.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"redshift": -1.0}, OptionError, "greater than or equal to 0"),
        ({"redshift": 2.0}, OptionError, "ebl: the table of model 'dominguez' ends at redshift 1"),
        ({"ebl": "gilmor"}, OptionError, "ebl: there is no model 'gilmor'"),
        ({"position": (400.0, 0.0)}, OptionError, "position: .* deg is no direction"),
        ({"m_range": (5.0, 1.0)}, OptionError, "two increasing values from 0.0001 to 10000"),
        ({"background": "off"}, OptionError, "needs a response with an off region"),
        ({"response": "embeded"}, OptionError, "accepted is a path or one of embedded"),
        (
            {"response": "/no/such/file.fits", "background": "off"},
            DataFileError,
            "there is no file",
        ),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_accepted(options, error, message):
    with pytest.raises(error, match=message):
        AlpSource(**CHEAP, **options)


@pytest.mark.parametrize(
    ("simulator", "options", "message"),
    [
        (
            AlpPks2155,
            {"response": "hess-dl3"},
            r"path or one of embedded, hess-pks2155-steady, hess-dl3-pks2155-flare, hess-dl3-\S*, "
            r"hess-dl3-pks2155-all; did you mean 'hess-dl3",
        ),
        (
            AlpSource,
            {"response": "hess-pks2155-stady", "background": "off"},
            r"one of hess-pks2155-steady, .*; did you mean 'hess-pks2155-steady'",
        ),
        (
            AlpSource,
            {"response": "hess-foo"},
            r"'known' needs .*'hess-foo', .*one of embedded, emb",
        ),
        (AlpSource, {"response": "hess-pks2155-steady"}, r"one of embedded, embedded-south, cta-"),
        (AlpNgc1275, {"response": "cta-prod5-north"}, r"did you mean 'cta-prod5-north-20deg-50h'"),
    ],
)
def test_a_response_that_is_not_known_here_is_refused_with_those_that_are(
    simulator, options, message
):
    with pytest.raises(OptionError, match=message):
        simulator(**options)
