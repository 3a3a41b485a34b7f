"""The seventeen parameters: published priors, what is free, what is fixed, fields from seeds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sbi_physics_alp.conversion import Conversion
from sbi_physics_alp.field import Cluster, FieldSampler
from sbi_physics_alp.levels import VARIED, ClusterPrior
from sbi_physics_alp.ngc1275 import AlpNgc1275
from sbi_physics_alp.propagation import photon_survival
from scipy import stats

from sbi_physics.errors import ContractError, OptionError

CHEAP = {"true_bins_per_decade": 25, "energy_min": "50 GeV", "energy_max": "2 TeV"}
SEVENTEEN = ("m_a", "g", "amplitude", "index", "e_cut", *VARIED)

# log10 of the size: mean, sd, low, high, as in the public analysis code behind arXiv:2509.20578.
INFORMED = {
    "b0": (1.40, 0.28, 0.58, 2.22),
    "n0": (1.66, 0.04, 1.54, 1.78),
    "n2": (0.62, 0.06, 0.43, 0.80),
    "r_core": (1.76, 0.12, 1.40, 2.11),
    "r_core2": (2.43, 0.16, 1.96, 2.90),
    "beta": (0.08, 0.10, -0.22, 0.38),
    "beta2": (-0.16, 0.09, -0.42, 0.09),
    "eta": (-0.21, 0.23, -0.90, 0.48),
    "k_l": (-0.41, 0.27, -1.22, 0.39),
    "k_h": (0.93, 0.10, 0.62, 1.24),
    "q": (0.29, 0.08, 0.07, 0.52),
}


def make(**options):
    return AlpNgc1275(**CHEAP, **options)


def test_every_level_but_five_has_all_seventeen_parameters():
    assert make().parameters.names == SEVENTEEN[:5]
    for level in ("informed", "semi-informed", "agnostic"):
        assert make(level=level).parameters.names == SEVENTEEN


def test_the_published_ranges_of_mass_coupling_and_spectrum():
    wide = make(level="informed").parameters
    assert wide["m_a"].bounds == (1e-2, 1e4)
    assert wide["g"].bounds == (1e-2, 10.0)
    assert wide["amplitude"].bounds == (10**-10.2, 1e-8)
    assert wide["index"].bounds == (0.0, 4.0)
    assert wide["e_cut"].bounds == (10.0, 1e4)
    assert make(level="informed", ranges="focused").parameters["m_a"].bounds == (1.0, 1e3)
    assert make(ranges="published").parameters["m_a"].bounds == (1e-2, 1e4)


@pytest.mark.parametrize("name", INFORMED)
def test_the_informed_prior_is_normal_in_the_logarithm(name):
    mean, sd, low, high = INFORMED[name]
    distribution = make(level="informed").parameters[name].distribution
    expected = stats.truncnorm((low - mean) / sd, (high - mean) / sd, mean, sd)
    u = np.linspace(0.01, 0.99, 9)
    value = distribution.ppf(1.0 - u if name == "q" else u)
    np.testing.assert_allclose(np.log10(np.abs(value)), expected.ppf(u), atol=1e-12)
    assert (value < 0).all() == (name == "q")


@pytest.mark.parametrize("name", INFORMED)
def test_the_semi_informed_prior_is_uniform_on_the_same_interval(name):
    _, _, low, high = INFORMED[name]
    distribution = make(level="semi-informed").parameters[name].distribution
    ends = sorted(np.abs(distribution.bounds))
    np.testing.assert_allclose(ends, (10**low, 10**high), rtol=1e-12)
    middle = 10 ** (0.5 * (low + high)) if name in ("k_l", "k_h") else 0.5 * (10**low + 10**high)
    assert abs(distribution.ppf(0.5)) == pytest.approx(middle, rel=1e-9)


def test_the_agnostic_prior_stays_away_from_singular_values():
    parameters = make(level="agnostic").parameters
    expected = {
        "b0": (0.1, 165.0),
        "n0": (0.1, 191.0),
        "n2": (0.1, 18.0),
        "r_abell": (300.0, 1000.0),
        "r_core": (1.0, 238.0),
        "r_core2": (1.0, 1122.0),
        "beta": (0.05, 5.0),
        "beta2": (0.29, 0.87),
        "eta": (0.0, 3.0),
        "k_l": (10**-1.3, 10**0.39),
        "k_h": (1.0, 10**1.85),
        "q": (-6.0, -0.05),
    }
    for name, bounds in expected.items():
        assert parameters[name].bounds == pytest.approx(bounds), name
    assert parameters["k_h"].distribution.ppf(0.5) == pytest.approx(10 ** (1.85 / 2))


def test_prior_draws_keep_the_wavenumbers_apart(rng):
    simulator = make(level="agnostic")
    theta = simulator.prior.sample(4000, rng)
    k_l, k_h = theta[:, SEVENTEEN.index("k_l")], theta[:, SEVENTEEN.index("k_h")]
    assert (k_l < 0.5 * k_h).all()
    assert (k_l > 0.4 * k_h).any()  # the constraint is what keeps them apart


def test_any_parameter_can_be_freed_or_set():
    some = make(free="eta,b0", n0=46.0)
    assert some.parameters.names == (*SEVENTEEN[:5], "b0", "eta")
    assert some.cluster_prior.cluster.n0 == 46.0
    assert some.parameters["b0"].distribution.ppf(0.5) == pytest.approx(10**1.4, rel=1e-2)
    most = make(level="informed", b0=10.0)
    assert most.parameters.names == tuple(n for n in SEVENTEEN if n != "b0")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"level": "informed"}, ("k_l < k_h / 2",)),
        ({"free": ["k_l"]}, ("k_l < 4.5",)),
        ({"free": ["k_h"]}, ("k_h > 0.36",)),
        ({"free": ["b0"]}, ()),
    ],
)
def test_the_constraint_speaks_of_varied_parameters_only(options, expected):
    assert make(**options).constraints == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"free": "b1"}, "'b1' is none of b0, n0, .*did you mean 'b0'"),
        ({"free": "b0", "b0": 3.0}, "b0: both free and set to a value"),
        ({"b0": -1.0}, "b0 = -1 uG: accepted is 0 to 1000"),
        ({"k_l": 9.5}, r"k_l = 9.5 kpc-1: accepted is below 4.5, as k_h is 9 kpc-1 and k_l < k_h"),
        ({"k_l": 8.0}, r"k_l = 8 kpc-1: accepted is below 4.5, as k_h is 9 kpc-1"),
        ({"k_l": 8.0, "free": ["b0"]}, r"k_l = 8 kpc-1: accepted is below 4.5"),
        ({"k_l": 8.0, "k_h": 9.0, "level": "informed"}, r"k_l = 8 kpc-1: accepted is below 4.5"),
        ({"k_l": 4.5}, r"k_l = 4.5 kpc-1: accepted is below 4.5"),
        ({"k_h": 0.3}, r"k_h = 0.3 kpc-1: accepted is above 0.36, as k_l is 0.18 kpc-1"),
        (
            {"k_h": 0.11, "level": "informed"},
            r"k_h = 0.11 kpc-1: accepted is above 0.1205, as k_l varies from 0.06026 to 2.455 kpc",
        ),
        (
            {"k_l": 40.0, "level": "agnostic"},
            r"k_l = 40 kpc-1: accepted is below 35.4, as k_h varies from 1 to 70.79 kpc-1",
        ),
        ({"level": "exact"}, "'five', 'informed', 'semi-informed' or 'agnostic'"),
    ],
)
def test_impossible_choices_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("options", "varied", "ends"),
    [
        ({"level": "agnostic", "k_l": 35.0}, "k_h", (70.0, 10**1.85)),
        ({"level": "agnostic", "k_l": 10.0}, "k_h", (20.0, 10**1.85)),
        ({"level": "agnostic", "k_l": 0.1}, "k_h", (1.0, 10**1.85)),
        ({"level": "informed", "k_h": 0.15}, "k_l", (10**-1.22, 0.075)),
        ({"level": "semi-informed", "k_h": 0.15}, "k_l", (10**-1.22, 0.075)),
        ({"level": "informed", "k_h": 10.0}, "k_l", (10**-1.22, 10**0.39)),
        ({"free": ["k_h"], "k_l": 8.0}, "k_h", (16.0, 10**1.24)),
    ],
)
def test_a_wavenumber_that_is_set_cuts_the_prior_of_the_other(options, varied, ends, rng):
    simulator = make(**options)
    parameter = simulator.parameters[varied]
    assert parameter.bounds == pytest.approx(ends, rel=1e-12)
    names = simulator.parameters.names
    theta = simulator.prior.sample(2000, rng)
    k = {"k_l": options.get("k_l"), "k_h": options.get("k_h")}
    k[varied] = theta[:, names.index(varied)]
    assert (k["k_l"] < k["k_h"] / 2).all()
    # Cut, not changed: draws follow the prior of the level between these ends.
    level = {n: v for n, v in options.items() if n not in ("k_l", "k_h")}
    whole = make(**level).parameters[varied].distribution
    share = whole.cdf(parameter.distribution.ppf(0.5)) - whole.cdf(ends[0])
    assert share == pytest.approx(0.5 * (whole.cdf(ends[1]) - whole.cdf(ends[0])), rel=1e-6)
    assert simulator.prior.contains(simulator.theta("m30-g2"))  # so do benchmark points


def test_benchmark_points_leave_the_cluster_only_where_they_must():
    kept, moved = make(level="agnostic", k_l=4.0), make(level="agnostic", k_l=10.0)
    column = kept.parameters.names.index("k_h")
    assert kept.theta("m30-g2")[column] == 9.0
    assert moved.theta("m30-g2")[column] == pytest.approx(np.sqrt(20.0 * 10**1.85))


def test_an_impossible_theta_is_refused(rng):
    simulator = make(free=["k_l", "k_h"])
    theta = simulator.theta({**simulator.fiducial["no-alp"], "k_l": 9.0, "k_h": 8.0})[None]
    with pytest.raises(ContractError, match="impossible cluster: k_l must be below k_h"):
        simulator.simulate_latent(theta, rng)


def test_benchmark_points_have_the_cluster_as_measured():
    simulator = make(level="informed")
    assert simulator.theta("m30-g2")[5:].tolist() == [getattr(Cluster(), name) for name in VARIED]


def test_options_younger_than_stores_leave_the_identity_as_it_was():
    assert not {"level", "free", "b0", "ranges"} & set(make().identity.options)
    assert make(level="informed").identity.options["level"] == "informed"
    assert make(b0=10.0).identity.options["b0"] == 10.0


def test_each_curve_is_that_of_its_own_cluster_and_stored_seed(rng):
    simulator = make(level="agnostic")
    theta = simulator.prior.sample(5, rng)
    z = simulator.simulate_latent(theta, rng)
    conversion = simulator.conversion
    for i in (0, 4):
        sampler = FieldSampler(Cluster(*theta[i, 5:]), "fine")
        alone = photon_survival(
            conversion.energy_gev,
            sampler.sample(1, np.random.default_rng(z["realisation"][i])),
            m_nev=theta[i, 0],
            g11=theta[i, 1],
            redshift=0.017559,
            tau=conversion.tau,
            milky_way=conversion._milky_way,
            k_cut_kpc=theta[i, -2],
        )
        np.testing.assert_allclose(z["survival"][i], alone[0], rtol=0, atol=1e-7)


def test_a_fixed_realisation_is_the_same_field_at_every_level(rng):
    five, informed = (make(level=level, realisation=3) for level in ("five", "informed"))
    curves = [
        s.simulate_latent(s.theta("m30-g2")[None], rng)["survival"][0] for s in (five, informed)
    ]
    np.testing.assert_allclose(*curves, rtol=0, atol=1e-7)
    seeds = informed.simulate_latent(np.repeat(informed.theta("no-alp")[None], 3, 0), rng)
    assert (seeds["realisation"] == 3).all()


def test_the_batch_does_not_matter_where_clusters_differ(monkeypatch, rng):
    simulator = make(level="agnostic")
    theta = simulator.prior.sample(6, rng)
    prior, conversion = simulator.cluster_prior, simulator.conversion
    seeds = np.arange(6)
    whole, small = (
        conversion.draw_varied(*theta.T[:2], prior.clusters(theta[:, 5:]), seeds)
        for _ in _chunks(monkeypatch, (1_000_000, 1))
    )
    np.testing.assert_allclose(whole, small, rtol=0, atol=1e-7)


def _chunks(monkeypatch, sizes):
    for size in sizes:
        monkeypatch.setattr("sbi_physics_alp.conversion._CHUNK_CELLS", size)
        yield size


def test_random_seeds_differ_and_a_fixed_one_does_not(rng):
    random, fixed = (
        Conversion(
            np.array([100.0, 200.0]),
            Cluster(),
            redshift=0.017559,
            milky_way=None,
            cell_mode="compat",
            high_mass_cut=True,
            realisation=value,
        ).draw_seeds(500, rng)
        for value in ("random", 7)
    )
    assert np.unique(random).size == 500
    assert (fixed == 7).all()


def test_a_cluster_prior_without_freedom_has_no_parameters():
    prior = ClusterPrior(Cluster())
    assert prior.parameters == ()
    assert prior.values == {}


def test_the_command_line_frees_parameters(capsys):
    from sbi_physics.cli import main

    with pytest.raises(SystemExit) as left:
        main(["show", "alp-ngc1275", "--free", "b0,eta", "--set", "n0=46", "--json"])
    assert left.value.code == 0
    record = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in record["parameters"]] == [*SEVENTEEN[:5], "b0", "eta"]
    values = {option["name"]: option["value"] for option in record["options"]}
    assert values["free"] == ["b0", "eta"]
    assert values["n0"] == 46.0


@pytest.mark.filterwarnings("ignore")  # third parties
def test_published_settings_are_presets(gammapy_data):
    code = AlpNgc1275(preset="tmnre2025", true_bins_per_decade=25)
    assert code.parameters.names == SEVENTEEN
    assert code.observable.shape == (90,)
    assert code.options.true_bins_per_decade == 25  # what is set wins
    assert code.response.livetime_s == 36000.0
    assert code.response.background.sum() > 1e5  # a whole map
    again = AlpNgc1275(**code.identity.options)
    assert again.identity == code.identity
    slides = AlpNgc1275(preset="icrc2023", true_bins_per_decade=25)
    assert slides.observable.shape == (200,)
    assert slides.options.response == "cta-prod3b-south-z20-50h"
