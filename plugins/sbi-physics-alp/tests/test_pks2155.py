"""The simulator `alp-pks2155`: stages, background, real observations."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from sbi_physics_alp.pks2155 import CLUSTER, REDSHIFT, AlpPks2155
from sbi_physics_alp.source import AlpSource

from sbi_physics.errors import ObservationError, OptionError


@pytest.fixture(scope="module")
def simulator():
    return AlpPks2155()


def test_the_defaults_are_documented(simulator):
    assert simulator.parameters.names == ("m_a", "g", "amplitude", "index", "curvature")
    assert simulator.parameters.interest == ("m_a", "g")
    assert simulator.observable.shape == (2, 8)
    assert simulator.observable.names == ("on", "off")


def test_the_cluster_has_constant_density_and_field():
    r = np.array([0.0, 100.0, 370.0])
    np.testing.assert_allclose(CLUSTER.density_cm3(r), 1e-3)
    np.testing.assert_allclose(CLUSTER.field_profile(r), 1.0)


def test_on_and_off_counts_have_their_means(simulator, rng):
    n = 4000
    theta = np.repeat(simulator.theta("no-alp")[None], n, axis=0)
    z = {"survival": np.repeat(simulator.simulate_latent(theta[:1], rng)["survival"], n, axis=0)}
    x = simulator.observe(z, theta, rng)
    signal = simulator.expected_signal(z["survival"][:1], theta[:1])[0]
    counts, alpha = simulator.instrument.off_counts, simulator.instrument.alpha
    for found, expected in (
        (x[:, 0].mean(axis=0), signal + alpha * (counts + 0.5)),
        (x[:, 1].mean(axis=0), counts + 0.5),
    ):
        error = x.std(axis=0).max(axis=0) / np.sqrt(n)
        assert (np.abs(found - expected) < 5.0 * error).all()


def test_both_regions_share_one_background(simulator, rng):
    theta = np.repeat(simulator.theta("no-alp")[None], 4000, axis=0)
    theta[:, 2] = 0.0  # no source: the on region has background only
    z = {"survival": np.ones((4000, simulator.conversion.energy_gev.size), dtype=np.float32)}
    x = simulator.observe(z, theta, rng)
    # cov(n_on, n_off) = var(mu_b) / alpha = alpha (c + 1/2)
    instrument = simulator.instrument
    expected = instrument.alpha * (instrument.off_counts + 0.5)
    found = [np.cov(x[:, 0, k], x[:, 1, k])[0, 1] for k in range(8)]
    assert np.sum(found) == pytest.approx(np.sum(expected), rel=0.3)


@pytest.mark.filterwarnings("ignore")  # third parties
def test_the_public_spectrum_is_an_observation_of_its_own_response(gammapy_data, simulator, rng):
    real = AlpPks2155(response="hess-pks2155-steady")
    x = real.read_observation("hess-pks2155-steady")
    assert x.shape == real.observable.shape
    np.testing.assert_array_equal(x.sum(axis=1), [119, 453])
    assert real.simulate(real.prior.sample(2, rng), rng).shape == (2, 2, 8)
    with pytest.raises(ObservationError, match="make it with response='hess-pks2155-steady'"):
        simulator.read_observation("hess-pks2155-steady")


def test_counts_are_read_from_an_npz_file(simulator, tmp_path):
    path = tmp_path / "counts.npz"
    np.savez(path, n_on=np.arange(8), n_off=np.arange(8) * 10)
    np.testing.assert_array_equal(simulator.read_observation(path)[1], np.arange(8) * 10)
    np.savez(path, n_on=np.arange(8), n_off=np.arange(7))
    with pytest.raises(ObservationError, match="needs arrays n_on and n_off of one shape"):
        simulator.read_observation(path)


def test_an_exposure_scales_the_embedded_response_only(gammapy_data):
    short, long = AlpPks2155(exposure="1 h"), AlpPks2155(exposure="10 h")
    ratio = long.instrument.off_counts / short.instrument.off_counts
    np.testing.assert_allclose(ratio, 10.0)
    with pytest.raises(OptionError, match="'hess-pks2155-steady' brings its own"):
        AlpPks2155(response="hess-pks2155-steady", exposure="1 h")


@pytest.mark.parametrize("options", [{"b0": 3.0}, {"free": ["b0"]}, {"level": "informed"}])
def test_another_cluster_is_referred_to_the_general_simulator(options):
    (name,) = options
    with pytest.raises(OptionError, match=f"{name} cannot be set; use alp-source, with"):
        AlpPks2155(**options)


def readme_settings():
    """Options of the command of the README for this source in another cluster."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (block,) = (b for b in text.split("```") if "redshift=0.116" in b)
    words = shlex.split(block.removeprefix("console").replace("$ ", "").replace("\\\n", " "))
    assert words[:3] == ["sbi-physics", "run", "alp-source"]
    keep = [i for i, word in enumerate(words) if word in ("--set", "--free")]
    return [word for i in keep for word in words[i : i + 2]]


@pytest.mark.filterwarnings("ignore")  # third parties
def test_the_settings_of_the_readme_are_this_source(gammapy_data, simulator, capsys):
    from sbi_physics.cli import main

    with pytest.raises(SystemExit) as left:
        main(["show", "alp-source", *readme_settings(), "--json"])
    assert left.value.code == 0
    record = json.loads(capsys.readouterr().out)
    shown = {option["name"]: option["value"] for option in record["options"]}
    names = {option: value for option, value in shown.items() if value is not None}
    general = AlpSource(
        **{name: names[name] for name in names if name in AlpSource.Options.model_fields}
    )
    assert general.parameters.names == (*simulator.parameters.names, "b0")
    for own in simulator.parameters:
        assert general.parameters[own.name].distribution == own.distribution
    cluster = general.cluster_prior.cluster
    for field in ("n0", "n2", "beta", "eta", "r_abell", "k_l", "k_h", "q"):
        assert getattr(cluster, field) == pytest.approx(getattr(CLUSTER, field), rel=1e-4), field
    assert general.options.redshift == REDSHIFT
