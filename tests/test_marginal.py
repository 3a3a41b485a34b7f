"""Marginal posteriors: blocks, their product, ensembles of them."""

from __future__ import annotations

import json

import h5netcdf
import numpy as np
import pytest

from sbi_physics.ensemble import EnsemblePosterior, MarginalEnsemble, ensemble_of
from sbi_physics.errors import ContractError, UnknownNameError
from sbi_physics.interop import write_netcdf
from sbi_physics.marginal import MarginalPosterior
from sbi_physics.simulate import simulate
from sbi_physics.testing import ToyGaussian
from sbi_physics.validate import validate

TOY = ToyGaussian(dimension=3)
CONTEXT = TOY.reference_posterior().context
NAMES = TOY.parameters.names
BLOCKS = (*((name,) for name in NAMES), (NAMES[0], NAMES[2]))


def parts(blocks=BLOCKS):
    return {block: TOY.exact_posterior(TOY.prior, block) for block in blocks}


@pytest.fixture
def posterior():
    return MarginalPosterior(CONTEXT, parts())


@pytest.fixture(scope="module")
def pairs():
    return simulate(TOY, 300, seed=3, purpose="pairs")


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_block_is_found_whatever_the_order_of_its_names(posterior):
    assert posterior.blocks == BLOCKS
    assert posterior.marginal([NAMES[2], NAMES[0]]) is posterior.parts[BLOCKS[3]]
    with pytest.raises(UnknownNameError, match="theta_1,theta_2"):
        posterior.marginal(["theta_1", "theta_2"])
    with pytest.raises(UnknownNameError):
        posterior.marginal(["theta_1", "theta_1"])


def test_as_a_whole_it_is_the_product_of_the_single_parameters(posterior, pairs):
    x, points = pairs.x[:5], pairs.theta[:5, None]
    singles = [posterior.parts[(n,)].log_prob(points[..., [j]], x) for j, n in enumerate(NAMES)]
    np.testing.assert_allclose(posterior.log_prob(points, x), sum(singles))
    draws = posterior.draw(x, 4000, rng(), log_prob=True, at=points)
    np.testing.assert_allclose(draws.log_prob_at, sum(singles))
    np.testing.assert_allclose(draws.log_prob, posterior.log_prob(draws.theta, x))
    assert np.isneginf(posterior.log_prob(points + 100.0, x)).all()
    # Correlations of 4000 independent draws: 5 standard errors.
    for theta in draws.theta:
        assert np.abs(np.corrcoef(theta.T) - np.eye(3)).max() < 5 / np.sqrt(4000)


def test_every_parameter_has_its_own_marginal(posterior, pairs):
    x = pairs.x[:1]
    draws = posterior.sample(x, 20_000, rng(1))[0]
    exact = TOY.reference_posterior().sample(x, 20_000, rng(2))[0]
    error = exact.std(axis=0) / np.sqrt(10_000)
    assert (np.abs(draws.mean(axis=0) - exact.mean(axis=0)) < 5 * error).all()
    assert np.allclose(draws.std(axis=0), exact.std(axis=0), rtol=5 / np.sqrt(10_000))


def test_every_block_is_validated(posterior, pairs):
    coverage = validate(posterior, pairs, n_draws=99, seed=1)
    hpd = [name for name in coverage.regions if name.startswith("hpd")]
    assert hpd == [f"hpd:{','.join(block)}" for block in BLOCKS]
    assert coverage.verdict in ("PASS", "MARGINAL")


def test_a_wrong_pair_is_found_although_single_parameters_are_right(pairs):
    class Flipped(type(TOY.exact_posterior(TOY.prior, BLOCKS[3]))):
        """Shifts both parameters when they are asked for together."""

        def _draw(self, x, n, rng, log_prob, at):
            return super()._draw(x + np.float32(0.4), n, rng, log_prob, at)

        def _log_prob_at(self, theta, x):
            return super()._log_prob_at(theta, x + np.float32(0.4))

    broken = parts()
    broken[BLOCKS[3]].__class__ = Flipped
    coverage = validate(MarginalPosterior(CONTEXT, broken), pairs, n_draws=99, seed=1)
    assert coverage.verdict == "FAIL"
    assert any("theta_1,theta_3" in t.name for t in coverage.tests if t.p_holm < 1e-3)


def test_blocks_that_do_not_fit_are_refused():
    with pytest.raises(ContractError, match="'theta_3' has no block of its own; there are theta"):
        MarginalPosterior(CONTEXT, parts(BLOCKS[:2]))
    wrong = {**parts(), ("theta_1",): TOY.exact_posterior(TOY.prior, ["theta_2"])}
    with pytest.raises(ContractError, match="block theta_1 is about theta_2"):
        MarginalPosterior(CONTEXT, wrong)


def test_an_ensemble_of_marginals_mixes_block_by_block(posterior, pairs):
    ensemble = ensemble_of([posterior, MarginalPosterior(CONTEXT, parts())])
    assert isinstance(ensemble, MarginalEnsemble)
    assert ensemble.blocks == BLOCKS
    assert isinstance(ensemble.marginal(BLOCKS[3]), EnsemblePosterior)
    points = pairs.theta[:4, None]
    np.testing.assert_allclose(
        ensemble.log_prob(points, pairs.x[:4]), posterior.log_prob(points, pairs.x[:4])
    )
    with pytest.raises(ContractError, match="equal blocks"):
        ensemble_of([posterior, MarginalPosterior(CONTEXT, parts(BLOCKS[:3]))])


def test_written_draws_say_that_they_hold_no_correlations(posterior, pairs, tmp_path):
    for source, expected in ((posterior, BLOCKS), (TOY.reference_posterior(), None)):
        path = tmp_path / "samples.nc"
        write_netcdf(path, source.sample(pairs.x[:1], 10, rng())[0], source)
        with h5netcdf.File(path, "r") as file:
            blocks = file["posterior"].attrs.get("marginal_blocks")
        found = None if blocks is None else tuple(tuple(b) for b in json.loads(blocks))
        assert found == expected
