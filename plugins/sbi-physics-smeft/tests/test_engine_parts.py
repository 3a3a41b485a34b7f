"""The parts of the engines: smearing, morphing, networks, losses, pulls."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sbi_physics_smeft.engines.losses import GramRegression, repulsion  # noqa: E402
from sbi_physics_smeft.engines.morphing import MorphingBasis, optimise_basis  # noqa: E402
from sbi_physics_smeft.engines.network import GramNetwork, MemberPerceptron  # noqa: E402
from sbi_physics_smeft.engines.pull_study import PullStudy  # noqa: E402
from sbi_physics_smeft.engines.pulls import pull_test  # noqa: E402
from sbi_physics_smeft.engines.smearing import fractional_copies, robust_spread  # noqa: E402

from sbi_physics import Parameter, Prior, Uniform  # noqa: E402
from sbi_physics.errors import ContractError, ValidationError  # noqa: E402
from sbi_physics.likelihood import unpack  # noqa: E402
from sbi_physics.likelihood.gram import monomials  # noqa: E402

PAPER = np.array(
    [(0, 0, 0), (-4, 0, 0), (4, 0, 0), (0, -0.2, 0), (0, 0.2, 0), (0, 0, -0.2), (0, 0, 0.2),
     (-1.2, -0.09, 0), (-1.2, 0, -0.09), (0, -0.09, -0.09)],
    dtype=float,
)  # fmt: skip


def test_fractional_smearing_is_the_published_loop():
    # add a copy while |r/n - mu| > t s: the closed form for labels above the mean
    rng = np.random.default_rng(1)
    r = rng.exponential(1.0, 3000) ** 2
    t, mu, s = 0.5, r.mean(), float(robust_spread(r[:, None])[0])
    found = fractional_copies(r[:, None], t)
    for label, n in zip(r, found.n, strict=True):
        loop = 1
        while label > mu and label / loop - mu > t * s:
            loop += 1
        assert n == loop or label <= mu + t * s
    assert found.capped == 0
    assert found.total == found.n.sum() > 3000


def test_copies_are_capped_counted_and_follow_the_worst_label():
    labels = np.zeros((1000, 2))
    labels[:, 0] = np.random.default_rng(2).normal(size=1000)
    labels[5, 1] = -1e4
    found = fractional_copies(labels, 0.5, max_copies=7)
    assert found.n[5] == 7
    assert found.capped >= 1
    np.testing.assert_array_equal(fractional_copies(np.zeros((4, 1)), 0.5).n, 1)
    with pytest.raises(ContractError, match="positive threshold"):
        fractional_copies(labels, 0.0)


def test_labels_that_hardly_any_event_has_keep_a_unit():
    labels = np.full((10_000, 1), 1e-12)
    labels[:10] = 500.0  # one in a thousand: the 99 % quantile is 1e-12, the mean 0.5
    assert robust_spread(labels)[0] == pytest.approx(5.0, rel=1e-6)
    wide = np.random.default_rng(7).normal(size=(10_000, 1))
    assert robust_spread(wide)[0] == pytest.approx(wide.std())


def test_the_published_basis_has_its_conditioning_and_amplification():
    basis = MorphingBasis.of(PAPER)
    raw = monomials(PAPER) / monomials(np.ones(3))
    assert np.linalg.cond(raw) == pytest.approx(3571, rel=1e-3)
    unit = monomials(PAPER / basis.scale) / monomials(np.ones(3))
    assert np.linalg.cond(unit) == pytest.approx(39.7, rel=2e-3)
    points = [(0.1, 0.01, 0.01), (1, 0.1, 0.1), (0, 0.2, 0.2), (2, 0.15, 0.15)]
    known = [1.15, 8.4, 15.3, 23.0]  # printed to the first decimal
    np.testing.assert_allclose(basis.amplification(points), known, rtol=0, atol=0.05)
    weights = basis.weights(points)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-10)
    np.testing.assert_allclose(basis.weights(PAPER), np.eye(10), atol=1e-10)


def test_matrices_come_back_from_their_values_at_the_points():
    rng = np.random.default_rng(3)
    packed = rng.normal(size=(6, 10))
    values = packed @ monomials(PAPER).T
    np.testing.assert_allclose(MorphingBasis.of(PAPER).gram(values), packed, rtol=1e-8, atol=1e-9)
    # a quadratic without linear term needs two points
    basis = MorphingBasis.of([[0.0], [2.0]], np.array([True, False, True]))
    np.testing.assert_allclose(basis.gram([1.0, 5.0]), [1.0, 0.0, 1.0])


def test_chosen_bases_amplify_less():
    prior = Prior([Parameter(n, Uniform(-a, a)) for n, a in (("x", 1.0), ("y", 0.1))])
    rng = np.random.default_rng(4)
    chosen = optimise_basis(prior, rng, trials=100)
    theta = prior.sample(500, rng)
    random = optimise_basis(prior, np.random.default_rng(5), trials=1)
    assert (chosen.weights(theta) ** 2).sum(axis=1).mean() < (random.weights(theta) ** 2).sum(
        axis=1
    ).mean()
    assert chosen.points.shape == (6, 2)
    with pytest.raises(ContractError, match="needs 6 basis points"):
        MorphingBasis.of(np.zeros((3, 2)))
    with pytest.raises(ContractError, match="do not determine"):
        MorphingBasis.of(np.zeros((6, 2)))


def network(positive=True, members=3, active=None, scale=(1.0, 2.0, 0.5)):
    torch.manual_seed(1)
    body = MemberPerceptron(2, 16, 2, 6, members)
    mask = np.ones(6, dtype=bool) if active is None else active
    return GramNetwork(body, positive=positive, active=mask, scale=np.array(scale))


def test_members_are_independent_perceptrons():
    body = network().body
    x = torch.randn(7, 2)
    h = x
    for k, (w, b) in enumerate(zip(body.weights, body.biases, strict=True)):
        h = h @ w[1] + b[1]
        h = torch.nn.functional.silu(h) if k < 2 else h
    torch.testing.assert_close(body(x)[1], h)
    assert not torch.allclose(body(x)[0], body(x)[1])


def test_positive_networks_give_positive_matrices_in_any_unit():
    net = network()
    packed = net.physical(net(torch.randn(50, 2))).detach().numpy()
    assert packed.shape == (3, 50, 6)
    eigenvalues = np.linalg.eigvalsh(unpack(packed))
    assert eigenvalues.min() > -1e-6 * eigenvalues.max()
    np.testing.assert_allclose(packed[..., 0], 1.0)
    # scaled parameters: v' = v / scale
    scaled = net(torch.randn(1, 2)).detach()
    theta = np.array([0.7, -0.2])
    physical = net.physical(scaled).numpy() @ monomials(theta)
    inside = scaled.double().numpy() @ monomials(theta / np.array([2.0, 0.5]))
    np.testing.assert_allclose(physical, inside, rtol=1e-6)


@pytest.mark.parametrize("positive", [True, False])
def test_entries_that_vanish_stay_zero(positive):
    active = np.array([True, False, True, True, True, True])
    packed = network(positive=positive, active=active)(torch.randn(9, 2))
    assert (packed[..., 1] == 0).all()
    assert (packed[..., 2] != 0).any()


def test_regression_has_its_minimum_at_the_weighted_mean():
    # Constant input, labels of two kinds with weights 1 and 3: the mean of g is (a + 3 b)/4.
    net = network(members=1, scale=(1.0, 1.0, 1.0))
    trace = np.array([1.0, 0, 0, 0, 0, 0])
    loss = GramRegression(net, trace, np.ones(6), repulsive=False, n_events=2)
    a, b = np.array([1, 0.1, 0, 0.5, 0, 0.4]), np.array([1, -0.3, 0.2, 0.7, 0.1, 0.8])
    u = torch.tensor(np.concatenate([np.stack([a, b]), [[1.0], [3.0]]], axis=1)).float()
    x = torch.zeros(2, 2)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(800):
        optimizer.zero_grad()
        loss(u, x, None).backward()
        optimizer.step()
    np.testing.assert_allclose(net(x)[0, 0].detach(), (a + 3 * b) / 4, atol=5e-3)


def test_repulsion_pushes_members_apart():
    outputs = torch.tensor([[[0.0]], [[0.1]], [[1.0]]], requires_grad=True)
    value = repulsion(outputs)
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    value.backward()
    step = -outputs.grad[:, 0, 0]
    assert step[0] < 0 < step[2]  # the outer ones move outwards
    far = torch.tensor([[[0.0]], [[1e-6]], [[2e-6]]], requires_grad=True)
    repulsion(far).backward()
    assert torch.isfinite(far.grad).all()


def test_pulls_of_a_calibrated_ensemble_are_standard():
    # n independent errors of unit size: mean of M members has error 1 / sqrt(M) of the spread,
    # unless the truth is a draw like the members, as here.
    rng = np.random.default_rng(6)
    centre = np.zeros((4000, 3))
    centre[:, 0] = 1
    exact, members = centre.copy(), np.repeat(centre[None], 30, axis=0)
    exact[:, 2] += rng.normal(size=4000)
    members[..., 2] += rng.normal(size=(30, 4000))
    found = pull_test(members, exact, np.array([1.0]))
    # t law with 29 degrees of freedom, and the noise of the mean: 0.6830 sqrt(1 + 1/30)
    assert found.median_pull == pytest.approx(0.694, abs=0.04)
    assert found.within[0] == pytest.approx(0.667, abs=0.04)
    assert found.within[1] == pytest.approx(0.94, abs=0.02)
    half = pull_test(0.5 * (members - centre) + centre, exact, np.array([1.0]))
    assert half.factor > 1.8
    with pytest.raises(ValidationError, match="at least three members"):
        pull_test(members[:2], exact, np.array([1.0]))


def test_studies_of_pulls_know_their_errors():
    # Errors common to all events of a replica, of 1.5 times the claimed size.
    rng = np.random.default_rng(7)
    studies = []
    for _ in range(200):
        own = 1.5 * rng.normal(size=(12, 1)) + 0.2
        studies.append(PullStudy(np.repeat(own, 5, axis=1), np.ones((12, 5)), 20))
    for name, exact in (("mean", 0.2), ("width", np.hypot(1.5, 0.2)), ("ratio", None)):
        values, errors = np.array([getattr(study, name) for study in studies]).T
        # spread of 200 values: known to 5 %; jackknife errors of 12 replicas scatter by 25 %
        assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.25)
        if exact:
            assert values.mean() == pytest.approx(exact, abs=5 * values.std() / np.sqrt(200))
    inside, error = studies[0].within(2)
    assert 0 < inside <= 1
    assert 0 < error < 0.3
    assert studies[0].ideal_width == pytest.approx(1.083, abs=1e-3)
    assert studies[0].ideal_within(1) == pytest.approx(0.6586, abs=1e-4)
    assert "12 ensembles of 20" in studies[0].summary()


def test_repulsive_members_spread_as_a_posterior_of_one_number_does():
    # Unit-variance labels with unknown mean: the posterior has a spread of 1/sqrt(n).
    n, m = 1000, 20
    draws = torch.Generator().manual_seed(3)
    y = torch.randn(n, generator=draws)
    c = (0.1 * torch.randn(m, generator=draws)).requires_grad_()
    optimizer = torch.optim.Adam([c], lr=0.01)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    for _ in range(1500):
        f = c[:, None].expand(m, 50)
        loss = (0.5 * (c - y.mean()) ** 2).sum() + repulsion(f[..., None]) / n
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    found = c.detach().std().item() * n**0.5
    # The flow of a kernel with finitely many members is narrower: 0.86 with 10 of them.
    assert 0.8 < found < 1.1
    assert c.detach().mean().item() == pytest.approx(y.mean().item(), abs=0.2 / n**0.5)


def test_all_engines_of_a_simulator_without_labels_leave_these_out():
    from sbi_physics_smeft.smeft_toy import SmeftToy

    from sbi_physics.study.engines import _usable
    from sbi_physics.testing import ToyGaussian

    names, skipped = _usable(ToyGaussian(dimension=1))
    assert "smeft-derivative" not in names
    assert "learns from labels" in skipped["smeft-morphing"]
    assert "smeft-derivative" in _usable(SmeftToy())[0]
