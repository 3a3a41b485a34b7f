"""Events of the generator against the integrated Gram matrices, at and away from theta = 0.

A sample from a mixture q of points has E_q[G_ab/(q/p_0)] = Gram matrix of the Standard Model, and
its labels are bounded, so that means have errors one can trust (those of a sample from the
Standard Model alone do not: a few events carry the mean).
"""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_smeft.amplitudes import gram_full, gram_production
from sbi_physics_smeft.conventions import pack, sampling_ratio, vector
from sbi_physics_smeft.cross_section import sigma_gram
from sbi_physics_smeft.generator import generate
from sbi_physics_smeft.model import BR_W, BR_Z, M_W, M_Z
from sbi_physics_smeft.phase_space import phase_space
from scipy import stats

from sbi_physics.errors import ContractError

N = 150_000
POINTS = np.array(
    [(0, 0, 0), (-4, 0, 0), (4, 0, 0), (0, -0.2, 0), (0, 0.2, 0), (0, 0, -0.2), (0, 0, 0.2)]
)
SIGMA = sigma_gram(1) + sigma_gram(-1)
MEAN = SIGMA / SIGMA[0, 0]


@pytest.fixture(scope="module", params=[True, False], ids=["full", "production"])
def sample(request):
    """Events of a mixture, half of it the Standard Model, and q/p_0 of each."""
    rng = np.random.default_rng(11)
    shares = np.array([0.5, *[0.5 / 6] * 6])
    v = vector(POINTS)
    events = generate(v[rng.choice(7, N, p=shares)], rng, decays_follow=request.param)
    rates = np.einsum("ka,ab,kb->k", v, MEAN, v)
    matrix = np.einsum("k,ka,kb->ab", shares / rates, v, v)
    return events, sampling_ratio(events.gram, matrix), request.param


def pulls(values, exact):
    return (values.mean(axis=0) - exact) / (values.std(axis=0) / np.sqrt(len(values)) + 1e-300)


def test_no_candidate_exceeds_the_majorant(sample):
    events, _, _ = sample
    assert events.above == 0
    assert N / events.tries > 0.6


def test_mean_labels_are_the_integrated_matrix(sample):
    events, q, _ = sample
    labels = pack(events.gram) / q[:, None]
    # Ten correlated pulls; 4.5 leaves 1e-4.
    assert np.abs(pulls(labels[:, 1:], pack(MEAN)[1:])).max() < 4.5
    assert abs(pulls(1 / q, 1.0)) < 4.5


def test_bins_of_mass_and_charge_have_their_cross_sections(sample, reference):
    events, q, _ = sample
    edges = reference["mass_bin_edges"]
    found = []
    for k in range(8):
        for c, charge in enumerate((1, -1)):
            inside = (events.sqrt_s > edges[k]) & (events.sqrt_s <= edges[k + 1])
            labels = pack(events.gram) * ((inside & (events.charge == charge)) / q)[:, None]
            exact = pack(reference["sigma_gram_bins_pb"][k, c]) / SIGMA[0, 0]
            # Three entries that are nearly independent: SM, C_W squared, C_Hq3 squared.
            found.extend(pulls(labels, exact)[[0, 7, 9]])
    assert len(found) == 48
    assert np.abs(found).max() < 5
    assert stats.chi2.sf(np.square(found).sum(), 48) > 1e-4


def test_fisher_information_and_what_decays_add_to_it(sample, reference):
    # L int R_i R_j dsigma_0 at 300 fb^-1. Decay azimuths restore the interference of C_W.
    events, q, full = sample
    first = 2 * events.gram[:, 0, 1:]
    values = 300e3 * SIGMA[0, 0] * 4 * BR_W * BR_Z * first**2 / q[:, None]
    found, error = values.mean(axis=0), values.std(axis=0) / np.sqrt(N)
    if full:
        expected = np.array([899, 13_945, 60_849])
        error = np.hypot(error, [3, 1117, 2751])
    else:
        expected = np.diagonal(reference["fisher_production_300fb"])
    assert np.abs((found - expected) / error).max() < 4.5
    assert (error / expected).max() < 0.15


def test_labels_are_those_of_the_amplitudes(sample):
    events, _, full = sample
    point = (events.sqrt_s, events.cos_theta, events.charge)
    gram = gram_full(*point, *events.decay.T) if full else gram_production(*point)
    expected = pack(gram / gram[:, :1, :1])
    np.testing.assert_allclose(pack(events.gram), expected, rtol=1e-9, atol=1e-12)


def test_decays_follow_the_coefficients_only_where_asked(sample):
    # A bounded function of how the decays change the ratio, at the angles drawn and at isotropic
    # ones weighted with the density that angles should have at each production point.
    _, _, full = sample
    v, rng = vector([0.0, 1.0, 0.0]), np.random.default_rng(6)
    events = generate(np.tile(v, (N, 1)), np.random.default_rng(5), decays_follow=full)
    points = (events.sqrt_s, events.cos_theta, events.charge)
    production = gram_production(*points)
    flat = np.array([rng.uniform(low, high, N) for low, high in [(-1, 1), (0, 2 * np.pi)] * 2])

    def relative(angles):
        """Density of angles relative to isotropic ones, at the coefficients and at zero."""
        gram = gram_full(*points, *angles)
        return [
            np.einsum("a,nab,b->n", u, gram, u) / np.einsum("a,nab,b->n", u, production, u)
            for u in (v, vector([0.0, 0.0, 0.0]))
        ]

    drawn, isotropic = relative(events.decay.T), relative(flat)
    weight = isotropic[0 if full else 1]
    difference = drawn[1] / sum(drawn) - weight * isotropic[1] / sum(isotropic)
    assert abs(pulls(difference, 0.0)) < 4.5
    other = isotropic[1 if full else 0]
    difference = drawn[1] / sum(drawn) - other * isotropic[1] / sum(isotropic)
    assert abs(pulls(difference, 0.0)) > 10  # and it can tell


def test_momenta_are_those_of_the_event_in_the_laboratory(sample):
    events, _, _ = sample
    p = events.momenta
    energy = np.linalg.norm(p, axis=-1)
    total, e = p.sum(axis=1), energy.sum(axis=1)
    assert np.abs(total[:, :2] / e[:, None]).max() < 1e-9
    np.testing.assert_allclose(np.sqrt(e**2 - (total**2).sum(1)), events.sqrt_s, rtol=1e-7)
    np.testing.assert_allclose(np.arctanh(total[:, 2] / e), events.rapidity, atol=1e-7)
    for pair, mass in (([0, 1], M_W), ([2, 3], M_Z)):
        square = energy[:, pair].sum(1) ** 2 - (p[:, pair].sum(1) ** 2).sum(1)
        assert np.abs(np.sqrt(square) - mass).max() < 1e-3
    # The W's rapidity relative to the pair has the sign of cos theta, or the opposite one where
    # the quark comes from beam 2.
    w = p[:, :2].sum(1)
    relative = np.arctanh(w[:, 2] / energy[:, :2].sum(1)) - events.rapidity
    sign = np.where(events.channel % 2 == 1, -1.0, 1.0)
    clear = np.abs(events.cos_theta) > 1e-3
    assert (np.sign(relative) == np.sign(events.cos_theta) * sign)[clear].all()
    azimuth = np.arctan2(p[:, 0, 1], p[:, 0, 0])
    assert stats.kstest(azimuth, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-4


def test_events_look_like_those_of_another_generator(truth):
    events = generate(np.tile([1.0, 0, 0, 0], (50_000, 1)), np.random.default_rng(3))
    for name, values in (
        ("sqrt_s", events.sqrt_s),
        ("y", events.rapidity),
        ("cos_theta", events.cos_theta),
    ):
        assert stats.ks_2samp(truth[name], values).pvalue > 1e-4, name
    for theirs, ours in zip(pack(truth["gram_ratio"]).T[1:], pack(events.gram).T[1:], strict=True):
        assert stats.ks_2samp(theirs, ours).pvalue > 1e-4
    expected = sigma_gram(1)[0, 0] / SIGMA[0, 0]
    assert (events.charge > 0).mean() == pytest.approx(expected, abs=4.5 * 0.5 / np.sqrt(50_000))
    quarks = np.bincount(events.channel, minlength=4) / 50_000
    assert quarks[[0, 2]] == pytest.approx(quarks[[1, 3]], abs=0.015)  # beams are alike


def test_the_forward_peak_is_sampled():
    # Above 2 TeV half of the Standard Model is within 1 - |cos| < 0.02; in eta the share beyond
    # each point is exact.
    events = generate(np.tile([1.0, 0, 0, 0], (400_000, 1)), np.random.default_rng(8))
    mass = events.sqrt_s
    near = (mass > 950) & (mass < 1050) & (events.charge > 0)
    eta = np.linspace(-11, 11, 20_001)
    n = len(eta)
    density = gram_production(np.full(n, 1000.0), np.tanh(eta), np.ones(n))[:, 0, 0]
    cumulative = np.cumsum(density / np.cosh(eta) ** 2)
    cdf = cumulative / cumulative[-1]
    drawn = np.arctanh(events.cos_theta[near])
    assert near.sum() > 500
    assert stats.kstest(drawn, lambda x: np.interp(x, eta, cdf)).pvalue > 1e-4


def test_the_majorant_is_above_the_cross_section_in_the_peak_too():
    space = phase_space(13_600.0, 8_000.0)
    rng = np.random.default_rng(9)
    for component in range(4):
        v = np.zeros((40_000, 4))
        v[:, component] = 1.0
        events = generate(v, rng)
        assert events.above == 0
        assert events.tries < 40_000 / 0.7
        exact = np.einsum("caa->a", space.sigma)[component]
        efficiency = exact / space.integral[component]
        expected = 5 * np.sqrt(efficiency * (1 - efficiency) / events.tries)
        assert 40_000 / events.tries == pytest.approx(efficiency, abs=expected)


def test_the_same_state_gives_the_same_events_and_wrong_shapes_are_refused():
    v = np.tile([1.0, 0.1, 0.0, 0.0], (5, 1))
    first, second = (generate(v, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first.momenta, second.momenta)
    with pytest.raises(ContractError, match=r"shape \(n, 4\), got \(5, 3\)"):
        generate(v[:, :3], np.random.default_rng(1))
