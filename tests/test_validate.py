from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sbi_physics.coverage import Coverage
from sbi_physics.diagnostics.normalization import log_normalizer
from sbi_physics.distributions import Uniform
from sbi_physics.engine import train
from sbi_physics.errors import UnknownNameError, ValidationError
from sbi_physics.parameters import Parameter
from sbi_physics.posterior import Draws, Posterior
from sbi_physics.priors import Prior
from sbi_physics.progress import SILENT
from sbi_physics.seeding import generator
from sbi_physics.simulate import simulate
from sbi_physics.store import Simulations
from sbi_physics.testing import ToyBimodal, ToyGaussian, ToyTwoStage
from sbi_physics.validate import validate

TOY = ToyGaussian(noise=0.5)


class Altered(Posterior):
    """The exact posterior with its draws and densities changed on purpose."""

    def __init__(self, reference: Posterior, *, width=1.0, offset=0.0, constant=None) -> None:
        super().__init__(reference.context)
        self.reference, self.width, self.offset, self.constant = reference, width, offset, constant
        self.normalized = constant is None

    def _draw(self, x, n, rng, log_prob, at) -> Draws:
        draws = self.reference._draw(x, n, rng, True, None)
        centre = x.astype(np.float64)[:, None, :]
        theta = centre + self.width * (draws.theta - centre) + self.offset
        low, high = self.prior.bounds.T
        theta = np.clip(theta, low, high)
        return Draws(
            theta,
            self._log_prob_at(theta, x) if log_prob else None,
            None if at is None else self._log_prob_at(at, x),
        )

    def _log_prob_at(self, theta, x):
        centre = x.astype(np.float64)[:, None, :]
        back = centre + (theta - centre - self.offset) / self.width
        low, high = self.prior.bounds.T
        shift = 0.0 if self.constant is None else self.constant(x)[:, None]
        return self.reference._log_prob_at(np.clip(back, low, high), x) + shift


@pytest.fixture(scope="module")
def pairs() -> Simulations:
    return simulate(TOY, 400, seed=1, purpose="pairs", progress=SILENT)


def test_the_exact_posterior_passes(pairs):
    result = validate(TOY.reference_posterior(), pairs, n_draws=199, seed=1, progress=SILENT)
    assert result.verdict == "PASS"
    assert result.names == ("theta_1", "theta_2")
    assert [t.name for t in result.tests] == [
        "sbc:theta_1", "sbc:theta_2", "hpd", "tarp_u", "tarp_x", "moment", "width_x",
    ]  # fmt: skip
    assert result.combination == "swap min-p (B=4999)"
    assert result.counts.pairs == result.counts.usable == 400
    assert result.counts.outside == 0.0
    assert result.gain.lower_99 > 0.5
    assert result.provenance["engine"] == "exact"
    assert result.provenance["pairs"]["digest"] == pairs.digest()
    assert result.recovery.truth.shape == (400, 2)


def test_the_verdict_is_reproducible_from_its_seed_alone(pairs):
    posterior = TOY.reference_posterior()
    first = validate(posterior, pairs, n_draws=99, progress=SILENT)
    second = validate(posterior, pairs, n_draws=99, seed=first.seed, progress=SILENT)
    other = validate(posterior, pairs, n_draws=99, seed=first.seed + 1, progress=SILENT)
    assert second.to_dict()["pit"] == first.to_dict()["pit"]
    assert second.p_global == first.p_global
    assert not np.array_equal(other.pit["hpd"], first.pit["hpd"])


@pytest.mark.parametrize(
    ("changes", "label"),
    [({"width": 0.5}, "overconfident"), ({"offset": 0.25}, "biased:theta_1")],
)
def test_a_wrong_posterior_fails_and_says_why(pairs, changes, label):
    wrong = Altered(TOY.reference_posterior(), **changes)
    result = validate(wrong, pairs, n_draws=199, seed=1, progress=SILENT)
    assert result.verdict == "FAIL"
    assert label in result.labels


def test_an_unknown_normalising_constant_changes_neither_ranks_nor_scores(pairs):
    exact = TOY.reference_posterior()
    unnormalised = Altered(exact, constant=lambda x: 3.0 + 2.0 * x[:, 0])
    result = validate(unnormalised, pairs, n_draws=199, seed=1, progress=SILENT)
    reference = validate(Altered(exact), pairs, n_draws=199, seed=1, progress=SILENT)
    assert np.array_equal(result.pit["hpd"], reference.pit["hpd"])
    # 1024 importance samples: about 3 % for each constant, so 0.03 nats for each of 400 pairs.
    assert result.nll.mean == pytest.approx(reference.nll.mean, abs=0.01)
    assert np.abs(result.log_q - reference.log_q).max() < 0.3


def test_the_normalising_constant_of_a_known_density_is_found():
    prior = Prior([Parameter("a", Uniform(-5.0, 5.0)), Parameter("b", Uniform(0.0, 2.0))])
    rng = np.random.default_rng(1)
    centre, width = np.array([[1.0, 1.0], [-2.0, 0.5]]), np.array([0.3, 0.01])
    draws = centre[:, None] + width * rng.standard_normal((2, 500, 2))

    def log_density(points):
        return -0.5 * (((points - centre[:, None]) / width) ** 2).sum(axis=-1)

    found = log_normalizer(log_density, draws, prior, rng, n_points=20_000)
    assert found == pytest.approx(np.log(2 * np.pi * width.prod()), abs=0.05)


def test_two_modes_are_covered_jointly():
    toy = ToyBimodal()
    pairs = simulate(toy, 300, seed=2, purpose="pairs", progress=SILENT)
    result = validate(toy.reference_posterior(), pairs, n_draws=99, seed=1, progress=SILENT)
    assert result.verdict in ("PASS", "MARGINAL")


def test_only_the_parameters_of_interest_are_validated():
    toy = ToyTwoStage()
    pairs = simulate(toy, 300, seed=3, purpose="pairs", progress=SILENT)
    result = validate(toy.reference_posterior(), pairs, n_draws=99, seed=1, progress=SILENT)
    assert result.names == ("position",)
    assert result.verdict in ("PASS", "MARGINAL")


def test_a_chosen_block_of_parameters_is_tested_too():
    toy = ToyGaussian(dimension=3)
    pairs = simulate(toy, 300, seed=4, purpose="pairs", progress=SILENT)
    posterior = toy.reference_posterior()
    block = ("theta_1", "theta_3")
    result = validate(posterior, pairs, n_draws=199, seed=1, blocks=[block], progress=SILENT)
    assert result.regions == ("hpd", "tarp_u", "tarp_x", "hpd:theta_1,theta_3")
    assert 0.5 < result.ecp(0.683, "hpd:theta_1,theta_3")[0] < 0.85
    with pytest.raises(UnknownNameError, match="theta_3"):
        validate(posterior, pairs, n_draws=9, blocks=[("theta_33",)], progress=SILENT)


class Blocks(Posterior):
    """Marginal posteriors only: each block answers for itself."""

    def __init__(self, parts: dict[tuple[str, ...], Posterior], context) -> None:
        super().__init__(context)
        self.parts = parts

    @property
    def blocks(self):
        return tuple(self.parts)

    def marginal(self, names):
        return self.parts[tuple(names)]

    def _draw(self, x, n, rng, log_prob, at):
        raise AssertionError("a marginal posterior has no joint draws")

    def _log_prob_at(self, theta, x):
        raise AssertionError("a marginal posterior has no joint density")


def test_a_marginal_posterior_is_validated_block_by_block(pairs):
    names = (("theta_1",), ("theta_2",), ("theta_1", "theta_2"))
    parts = {block: TOY.exact_posterior(TOY.prior, block) for block in names}
    marginal = Blocks(parts, TOY.reference_posterior().context)
    result = validate(marginal, pairs, n_draws=99, seed=1, progress=SILENT)
    kinds = ("hpd", "tarp_u", "tarp_x", "moment", "width_x")
    wanted = {f"{kind}:{','.join(block)}" for kind in kinds for block in names}
    assert {t.name for t in result.tests if t.family != "sbc"} == wanted
    assert result.combination == "Bonferroni over 3 blocks of swap min-p (B=10500)"
    assert [t.name for t in result.tests if t.family == "sbc"] == ["sbc:theta_1", "sbc:theta_2"]
    assert result.verdict in ("PASS", "MARGINAL")
    joint = validate(TOY.reference_posterior(), pairs, n_draws=99, seed=1, progress=SILENT)
    assert result.nll.mean == pytest.approx(joint.nll.mean)


def test_blocks_without_a_way_to_ask_for_them_are_refused(pairs):
    class NoMarginal(Blocks):
        marginal = None

    posterior = NoMarginal(
        {("theta_1",): None, ("theta_2",): None}, TOY.reference_posterior().context
    )
    with pytest.raises(ValidationError, match="marginal"):
        validate(posterior, pairs, progress=SILENT)


def test_a_bare_function_is_accepted_but_cannot_show_highest_density_regions(pairs):
    exact, rng = TOY.reference_posterior(), np.random.default_rng(1)
    result = validate(
        lambda x, n: exact.sample(x, n, rng), pairs, n_draws=99, seed=1, progress=SILENT
    )
    assert result.verdict in ("PASS", "MARGINAL")
    assert result.regions == ("tarp_u", "tarp_x")
    assert result.gain_kind == "moments"
    assert result.provenance["engine"] == "sampler"


def test_a_function_that_ignores_the_data_fails_as_x_dependent(pairs):
    rng = np.random.default_rng(1)
    result = validate(
        lambda x, n: rng.uniform(-1, 1, (len(x), n, 2)),
        pairs,
        n_draws=199,
        seed=1,
        progress=SILENT,
    )
    assert result.verdict == "FAIL"
    assert "x-dependent" in result.labels
    assert not result.gain.lower_99 > 0.0


def test_a_function_with_the_wrong_shape_is_told(pairs):
    with pytest.raises(ValidationError, match=r"\(100, 9, 3\).*expected \(100, 9, 2\)"):
        validate(lambda x, n: np.zeros((len(x), n, 3)), pairs, n_draws=9, progress=SILENT)


def test_an_object_that_is_no_posterior_is_told(pairs):
    with pytest.raises(ValidationError, match=r"cannot validate a builtins\.dict"):
        validate({}, pairs, progress=SILENT)


def test_a_trained_posterior_refuses_its_own_training_simulations():
    training = simulate(TOY, 300, seed=5, progress=SILENT)
    posterior = train(training, "exact", seed=1, progress=SILENT)
    with pytest.raises(ValidationError, match="overlap the training simulations"):
        validate(posterior, training, progress=SILENT)
    with pytest.raises(ValidationError, match="overlap the training simulations"):
        # The same stream, fewer rows: another content, the same random numbers.
        validate(posterior, simulate(TOY, 250, seed=5, progress=SILENT), progress=SILENT)
    fresh = simulate(TOY, 300, seed=5, purpose="pairs", progress=SILENT)
    assert validate(posterior, fresh, n_draws=99, seed=1, progress=SILENT).verdict == "PASS"


def test_training_simulations_can_be_handed_over_for_the_check(pairs):
    with pytest.raises(ValidationError, match="overlap the training simulations"):
        validate(lambda x, n: x, pairs, training=pairs, progress=SILENT)


def test_pairs_of_another_simulator_option_or_prior_are_refused(pairs):
    with pytest.raises(ValidationError, match=r"simulator 'toy-gaussian'.*'toy-bimodal'"):
        validate(
            TOY.reference_posterior(),
            simulate(ToyBimodal(), 100, seed=1, purpose="pairs", progress=SILENT),
            progress=SILENT,
        )
    with pytest.raises(ValidationError, match=r"option 'noise' 0\.2.*0\.5"):
        validate(ToyGaussian(noise=0.2).reference_posterior(), pairs, progress=SILENT)
    narrow = TOY.prior.truncate({"theta_1": (-0.5, 0.5)})
    with pytest.raises(ValidationError, match=r"prior of theta_1 is .*0\.5"):
        validate(TOY.exact_posterior(narrow, narrow.names), pairs, progress=SILENT)


def test_pairs_from_the_truncated_prior_are_accepted():
    narrow = TOY.prior.truncate({"theta_1": (-0.5, 0.5)})
    inside = simulate(TOY, 300, prior=narrow, seed=6, purpose="pairs", progress=SILENT)
    posterior = TOY.exact_posterior(narrow, narrow.names)
    assert validate(posterior, inside, n_draws=99, seed=1, progress=SILENT).verdict == "PASS"


def test_pairs_with_another_observable_are_refused(pairs):
    context = TOY.reference_posterior().context
    other = replace(context.observable, unit="GeV")
    posterior = TOY.reference_posterior()
    posterior.context = replace(context, observable=other)
    with pytest.raises(ValidationError, match="units or transform differ"):
        validate(posterior, pairs, progress=SILENT)


def test_the_number_of_pairs_can_be_limited(pairs):
    result = validate(
        TOY.reference_posterior(), pairs, n_draws=19, seed=1, max_pairs=50, progress=SILENT
    )
    assert result.counts.pairs == 50
    assert result.verdict == "INCONCLUSIVE"
    with pytest.raises(ValidationError, match="n_draws must be at least 1"):
        validate(TOY.reference_posterior(), pairs, n_draws=0, progress=SILENT)


def test_the_regression_is_fitted_on_training_simulations_where_they_are_given(pairs):
    training = simulate(TOY, 500, seed=9, progress=SILENT)
    exact = TOY.reference_posterior()
    alone = validate(exact, pairs, n_draws=49, seed=1, progress=SILENT)
    result = validate(exact, pairs, n_draws=49, seed=1, training=training, progress=SILENT)
    assert np.isnan(alone.pit["tarp_x"]).sum() == 80
    assert not np.isnan(result.pit["tarp_x"]).any()
    for name in ("sbc:theta_1", "hpd", "tarp_u"):
        assert np.array_equal(result.pit[name], alone.pit[name])
    other = simulate(ToyBimodal(), 100, seed=1, progress=SILENT)
    with pytest.raises(ValidationError, match="training simulations hold data of shape"):
        validate(exact, pairs, n_draws=9, training=other, progress=SILENT)


def test_the_exact_likelihood_can_be_ranked(pairs):
    exact = TOY.reference_posterior()
    result = validate(exact, pairs, n_draws=99, seed=1, quantities=["loglik"], progress=SILENT)
    assert "loglik" in result.quantities
    assert result.verdict in ("PASS", "MARGINAL")
    # With a flat prior the likelihood orders points as the posterior density does.
    assert np.abs(result.u("loglik") - result.u("hpd")).max() < 0.011
    with pytest.raises(ValidationError, match="also depends on offset"):
        validate(
            ToyTwoStage().reference_posterior(),
            simulate(ToyTwoStage(), 60, seed=3, purpose="pairs", progress=SILENT),
            n_draws=9,
            quantities=["loglik"],
            progress=SILENT,
        )


def test_progress_counts_every_observation(pairs):
    seen: list[int] = []

    class Task:
        def advance(self, n=1, note=""):
            seen.append(n)

    class Recorder:
        def task(self, description, total, unit="it"):
            from contextlib import nullcontext

            assert (description, total, unit) == ("validating", 400, "obs")
            return nullcontext(Task())

    validate(TOY.reference_posterior(), pairs, n_draws=9, seed=1, progress=Recorder())
    assert sum(seen) == 400
    assert len(seen) > 1


def test_a_record_survives_its_file(pairs, tmp_path):
    result = validate(TOY.reference_posterior(), pairs, n_draws=99, seed=1, progress=SILENT)
    result.to_json(tmp_path / "coverage.json")
    assert Coverage.from_json(tmp_path / "coverage.json").to_json() == result.to_json()


def test_no_global_random_state_is_touched(pairs):
    before = np.random.get_state()
    validate(TOY.reference_posterior(), pairs, n_draws=9, seed=1, progress=SILENT)
    after = np.random.get_state()
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    assert generator(1, "validation", 0).random() == generator(1, "validation", 0).random()


def test_a_native_posterior_is_asked_for_all_parameters_and_then_for_those_of_interest(
    monkeypatch,
):
    from sbi_physics import registry
    from sbi_physics.errors import ContractError

    toy = ToyTwoStage()
    pairs = simulate(toy, 250, seed=7, purpose="pairs", progress=SILENT)
    asked: list[tuple[str, ...]] = []

    class Native:
        __module__ = "somewhere.inference"

    def wrap(native, prior, observable):
        asked.append(prior.names)
        if len(prior.names) == 2:
            raise ContractError("the network has 1 parameter, the prior 2")
        return toy.reference_posterior()

    monkeypatch.setattr(registry, "native_ecosystems", lambda: ("somewhere",))
    monkeypatch.setattr(registry, "native_posterior_for", wrap)
    result = validate(Native(), pairs, n_draws=49, seed=1, progress=SILENT)
    assert asked == [("position", "offset"), ("position",)]
    assert result.names == ("position",)
