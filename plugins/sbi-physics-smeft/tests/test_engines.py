"""Both engines on the toy, whose ratio is known: accuracy, posteriors, sets, files."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sbi_physics_smeft.engines.derivative import DerivativeEngine  # noqa: E402
from sbi_physics_smeft.engines.morphing_engine import MorphingEngine  # noqa: E402
from sbi_physics_smeft.engines.pull_study import pull_study  # noqa: E402
from sbi_physics_smeft.smeft_toy import SmeftToy  # noqa: E402
from sbi_physics_smeft.smeft_wz import SmeftWz  # noqa: E402

import sbi_physics as sp  # noqa: E402
from sbi_physics.errors import ContractError, TrainingError, ValidationError  # noqa: E402
from sbi_physics.likelihood.gram import monomials, pack  # noqa: E402
from sbi_physics.progress import SILENT  # noqa: E402
from sbi_physics.testing import POSTERIOR_CHECKS, ToyGaussian, conformance  # noqa: E402

pytestmark = pytest.mark.engine

TOY = SmeftToy(alpha=1.0)
BRIEF = {"max_epochs": 10, "batch_size": 256, "hidden_features": 32, "hidden_layers": 2}
ENGINES = {
    "mixture": (DerivativeEngine, {}),
    "cross-entropy": (DerivativeEngine, {"loss": "cross-entropy"}),
    "alice": (MorphingEngine, {}),
    "positive alice": (MorphingEngine, {"parametrization": "positive"}),
    "rolr": (MorphingEngine, {"loss": "rolr"}),
}
_cache: dict = {}


@pytest.fixture(autouse=True)
def _this_plugin(monkeypatch):
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "smeft")


def simulations(n=20_000, proposal="mixture", alpha=1.0):
    key = (n, proposal, alpha)
    if key not in _cache:
        toy = SmeftToy(alpha=alpha, proposal=proposal)
        _cache[key] = sp.simulate(toy, n, seed=1, progress=SILENT)
    return _cache[key]


def trained(name, **settings):
    key = (name, tuple(settings.items()))
    if key not in _cache:
        engine, own = ENGINES[name]
        values = {**BRIEF, **own, **settings}
        _cache[key] = engine().train(simulations(), values, seed=1, progress=SILENT)
    return _cache[key]


def errors(posterior, theta, n=20_000):
    """Differences of ln r(x|1) on events of theta."""
    x = TOY.simulate(np.full((n, 1), theta), np.random.default_rng(5))
    return posterior.log_ratio([[1.0]], x)[:, 0] - TOY.exact_log_ratio(x, [1.0])


@pytest.mark.parametrize("name", ENGINES)
def test_engines_learn_the_exact_ratio(name):
    # Acceptance for 100 000 events at alpha = 1 is 0.02; a fifth of the events and a smaller
    # network: errors grow as 1/sqrt(n), 0.045.
    posterior = trained(name)
    for theta in (0.0, 1.0):
        assert np.abs(errors(posterior, theta)).mean() < 0.045


def test_derivative_learning_from_background_events_alone():
    posterior = DerivativeEngine().train(
        simulations(proposal="sm"), {**BRIEF, "smearing": "fractional"}, seed=1, progress=SILENT
    )
    assert np.abs(errors(posterior, 0.0)).mean() < 0.045


def test_theta_sampled_simulations_are_a_mixture_too():
    posterior = DerivativeEngine().train(
        simulations(proposal="theta"), BRIEF, seed=1, progress=SILENT
    )
    assert np.abs(errors(posterior, 1.0)).mean() < 0.045


def test_positive_matrices_give_no_negative_ratio():
    x = np.linspace(-8, 8, 400)[:, None]
    grams = trained("mixture").coefficients(x)
    np.testing.assert_allclose(grams[:, 0], 1.0)
    assert (grams @ monomials(np.linspace(-50, 50, 101)[:, None]).T >= 0).all()


def test_the_learned_fisher_information_is_that_of_the_labels():
    # E_0[G(x)] = the integrated matrix: a check of normalisation without the exact ratio.
    x = TOY.simulate(np.zeros((50_000, 1)), np.random.default_rng(2))
    mean = trained("mixture").coefficients(x).mean(axis=0)
    np.testing.assert_allclose(mean, pack(TOY.fiducial_gram()), atol=0.05)


def test_ratios_of_single_events_sum_to_those_of_sets():
    sets = trained("mixture", max_events=6)
    single = trained("mixture")
    rng = np.random.default_rng(3)
    x = np.zeros((4, 6, 2), np.float32)
    for i, n in enumerate((6, 3, 1, 0)):
        x[i, :n, 0], x[i, :n, 1] = rng.normal(0, 1.2, n), 1
    theta = np.array([[0.5], [-1.5]])
    each = sets.log_ratio(theta, x, per_event=True)
    assert each.shape == (4, 2, 6)
    np.testing.assert_allclose(each.sum(axis=2), sets.log_ratio(theta, x), atol=1e-12)
    assert (each[1, :, 3:] == 0).all()
    # the same network in other standardisation: equal up to the noise of training
    own = single.log_ratio(theta, x[0, :, :1])
    np.testing.assert_allclose(each[0].T, own, atol=0.3)


def test_extended_sets_know_the_number_of_events():
    toy = SmeftToy(alpha=1.0, sm_events=10.0, proposal="mixture")
    data = sp.simulate(toy, 5000, seed=1, progress=SILENT)
    values = {**BRIEF, "max_epochs": 2, "max_events": 40}
    shape, extended = (
        DerivativeEngine().train(data, {**values, "terms": terms}, seed=1, progress=SILENT)
        for terms in ("shape", "extended")
    )
    x = np.zeros((2, 40, 2), np.float32)
    x[0, :25, 1] = 1
    theta = np.array([[1.0], [0.3]])
    nu = 10 * (1 + theta[:, 0] ** 2)
    difference = extended.log_ratio(theta, x) - shape.log_ratio(theta, x)
    expected = [n * np.log(nu / 10) - (nu - 10) for n in (25, 0)]
    np.testing.assert_allclose(difference, expected, rtol=1e-6)


def test_sets_pass_the_validator():
    # Half of the prior: the sign of theta is unknowable, which would leave nothing to rank.
    prior = TOY.prior.truncate({"theta": (0.0, 2.0)})
    toy = SmeftToy(alpha=1.0, proposal="mixture")
    data = sp.simulate(toy, 50_000, prior=prior, seed=1, progress=SILENT)
    settings = {"max_epochs": 15, "batch_size": 512, "max_events": 30}
    posterior = DerivativeEngine().train(data, settings, seed=2, progress=SILENT)
    rng = np.random.default_rng(4)
    theta = prior.sample(300, rng)
    events = TOY.simulate(np.repeat(theta, 30, axis=0), rng).reshape(300, 30, 1)
    x = np.concatenate([events, np.ones_like(events)], axis=2)
    pairs = sp.Simulations.from_arrays(
        theta, x, prior, posterior.observable, purpose="pairs", seed=9
    )
    coverage = sp.validate(posterior, pairs, n_draws=199, seed=1, progress=SILENT)
    assert coverage.verdict in ("PASS", "MARGINAL")


@conformance(POSTERIOR_CHECKS, lambda: trained("mixture"), simulator=TOY)
def test_the_derivative_posterior_keeps_its_promises(check):
    check()


@conformance(POSTERIOR_CHECKS, lambda: trained("alice"), simulator=TOY)
def test_the_morphing_posterior_keeps_its_promises(check):
    check()


@pytest.mark.parametrize("name", ["mixture", "alice", "positive alice"])
def test_files_give_the_same_ratios(name, tmp_path):
    posterior = trained(name)
    again = sp.load_posterior(posterior.save(tmp_path / "p"))
    x = np.linspace(-3, 4, 20)[:, None]
    np.testing.assert_array_equal(again.coefficients(x), posterior.coefficients(x))
    np.testing.assert_array_equal(again.log_ratio([[0.7]], x), posterior.log_ratio([[0.7]], x))


def test_equal_seeds_give_equal_networks():
    a, b = (
        MorphingEngine().train(
            simulations(5000), {**BRIEF, "max_epochs": 2}, seed=s, progress=SILENT
        )
        for s in (3, 3)
    )
    x = np.linspace(-3, 4, 20)[:, None]
    np.testing.assert_array_equal(a.coefficients(x), b.coefficients(x))


def test_pull_studies_train_independent_ensembles():
    values = {**BRIEF, "max_epochs": 2, "members": 4, "members_from": "bootstrap"}
    toy = SmeftToy(alpha=1.0, proposal="mixture")
    first, again = (
        pull_study(
            toy, DerivativeEngine(), values, [1.0], n_events=1000, replicas=4, seed=2, n_tests=50
        )
        for _ in range(2)
    )
    assert first.pulls.shape == (4, 50)
    np.testing.assert_array_equal(first.error, again.error)
    assert len(np.unique(first.error[:, 0])) == 4
    assert (first.spread > 0).all()
    with pytest.raises(ValidationError, match="need 4 replicas or more, got 2"):
        pull_study(toy, DerivativeEngine(), values, [1.0], n_events=100, replicas=2, seed=1)


def test_unusable_simulations_are_refused():
    gaussian = sp.simulate(ToyGaussian(dimension=1), 200, seed=1, progress=SILENT)
    with pytest.raises(TrainingError, match="needs the latents gram, source"):
        DerivativeEngine().train(gaussian, BRIEF, seed=1)
    with pytest.raises(TrainingError, match="labels belong to single events"):
        sets = ToyGaussian(dimension=1, kind="set")
        MorphingEngine().train(sp.simulate(sets, 64, seed=1, progress=SILENT), BRIEF, seed=1)
    with pytest.raises(TrainingError, match="proposal='mixture'"):
        MorphingEngine().train(simulations(proposal="sm"), BRIEF, seed=1)
    wz = SmeftWz(level="parton", proposal="mixture", mixture_points=((1.0, 0.0, 0.0),))
    few = sp.simulate(wz, 300, seed=1, progress=SILENT)
    with pytest.raises(TrainingError, match="simulate with more mixture_points"):
        DerivativeEngine().train(few, {**BRIEF, "loss": "cross-entropy"}, seed=1)
    with pytest.raises(TrainingError, match="needs 10 basis points.*choose the option"):
        MorphingEngine().train(few, BRIEF, seed=1)
    with pytest.raises(ContractError):
        trained("mixture").event_model(sm_events=-1.0)
