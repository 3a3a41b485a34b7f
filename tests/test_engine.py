"""The engine contract: what every engine gets for free, whatever its network."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_engines import LinearEngine, LinearSettings
from sample_simulators import Line, TwoStage

import sbi_physics as sp
from sbi_physics.distributions import Uniform
from sbi_physics.engine import package_versions, train
from sbi_physics.ensemble import EnsemblePosterior
from sbi_physics.errors import ContractError, OptionError, TrainingError, UnknownNameError
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter
from sbi_physics.priors import Prior
from sbi_physics.progress import SILENT
from sbi_physics.simulate import simulate
from sbi_physics.store import Simulations
from sbi_physics.training import TrainingSettings

ENGINE = LinearEngine()


@pytest.fixture(scope="module")
def simulations() -> Simulations:
    return simulate(Line(), 600, seed=1)


def test_training_gives_a_posterior_that_knows_where_it_comes_from(simulations):
    context = ENGINE.train(simulations, {"jitter": 0.1}, seed=4).context
    assert context.engine == "linear"
    assert context.prior.names == ("a",)
    assert context.simulation_prior == simulations.prior
    assert context.observable == simulations.observable
    assert context.simulator == Line().identity
    assert context.seed == 4
    assert context.settings["jitter"] == 0.1
    assert context.settings["batch_size"] == 256
    assert context.history.best_epoch == 0
    assert context.transform is not None
    assert context.simulations == {
        "seed": 1,
        "purpose": "train",
        "rounds": [0],
        "n": 600,
        "digest": simulations.digest(),
        "redrawn": False,
    }


def test_what_is_learned_is_right(simulations):
    # x = a + b t + noise on t = 0..3: a linear-Gaussian problem but for the edges of the prior.
    posterior = ENGINE.train(simulations, infer=["a", "b"], seed=4)
    pairs = simulate(Line(), 300, seed=1, purpose="pairs")
    draws = posterior.sample(pairs.x, 200, np.random.default_rng(0))
    pull = (draws.mean(axis=1) - pairs.theta) / draws.std(axis=1)
    assert np.abs(pull.mean(axis=0)).max() < 0.25
    assert np.abs(pull.std(axis=0) - 1).max() < 0.25


def test_the_inferred_parameters_may_be_chosen(simulations):
    posterior = ENGINE.train(simulations, infer=["b", "a"], seed=4)
    assert posterior.prior.names == ("b", "a")
    assert posterior.parameters.interest == ("b", "a")


@pytest.mark.parametrize(
    ("infer", "error", "message"),
    [
        (["c"], UnknownNameError, "unknown parameter 'c'"),
        ("ab", ContractError, "list of names, got the string 'ab'"),
        (["a", "a"], ContractError, "unique"),
    ],
)
def test_a_wrong_choice_of_parameters_is_explained(simulations, infer, error, message):
    with pytest.raises(error, match=message):
        ENGINE.train(simulations, infer=infer, seed=4)


def test_the_same_seed_gives_the_same_posterior(simulations):
    x = simulations.x[:3]
    draws = [
        ENGINE.train(simulations, {"jitter": 0.1}, seed=s).sample(x, 5, np.random.default_rng(0))
        for s in (4, 4, 5)
    ]
    assert np.array_equal(draws[0], draws[1])
    assert not np.allclose(draws[0], draws[2])


def test_settings_come_as_a_model_or_a_mapping(simulations):
    for settings in ({"jitter": 0.2}, LinearSettings(jitter=0.2)):
        assert ENGINE.train(simulations, settings, seed=1).context.settings["jitter"] == 0.2
    assert ENGINE.settings(jitter=0.3) == LinearSettings(jitter=0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jiter": 0.2}, "unknown setting 'jiter' of 'linear'. Did you mean 'jitter'"),
        ({"jitter": 2}, r"'jitter' of 'linear' \[sd\]: got 2; .*\(accepted: \[0.*, 1.*\]\)"),
        (TrainingSettings(), "type LinearSettings, got TrainingSettings"),
    ],
)
def test_a_wrong_setting_is_explained(simulations, settings, message):
    with pytest.raises(OptionError, match=message):
        ENGINE.train(simulations, settings, seed=1)


class PublishedEngine(LinearEngine):
    presets = {"published": {"jitter": 0.25, "batch_size": 32}}


def test_a_preset_replaces_defaults_and_given_settings_win(simulations):
    engine = PublishedEngine()
    chosen = engine.with_preset("published")
    assert (chosen.settings().jitter, chosen.settings().batch_size) == (0.25, 32)
    assert chosen.settings(jitter=0.5).jitter == 0.5
    assert chosen.settings(LinearSettings(jitter=0.75)).batch_size == 256  # complete as it is
    assert engine.settings().jitter == 0.0  # the engine itself is as it was
    assert chosen.train(simulations, seed=1).context.settings["batch_size"] == 32


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"preset of 'linear' 'publish'.*'published'"):
        PublishedEngine().with_preset("publish")
    with pytest.raises(UnknownNameError, match=r"preset of 'exact' 'fast'\. Known: none"):
        sp.engine("exact:fast")


def test_data_the_engine_cannot_take_are_refused_with_its_reason():
    prior = Prior([Parameter("a", Uniform(0.0, 1.0))])
    sets = Simulations.from_arrays(
        prior.sample(9, np.random.default_rng(0)),
        np.ones((9, 4, 2)),
        prior,
        Observable("set", (4, 2)),
    )
    with pytest.raises(TrainingError, match="'linear' cannot train on set data: it has no place"):
        ENGINE.train(sets, seed=1)


def test_simulations_without_a_simulator_train_too():
    prior = Prior([Parameter("a", Uniform(0.0, 1.0))])
    theta = prior.sample(100, np.random.default_rng(0))
    bare = Simulations.from_arrays(theta, theta, prior, Observable("vector", (1,)))
    context = ENGINE.train(bare, seed=1).context
    assert context.simulator is None
    assert context.simulations["seed"] is None


def test_redraws_are_on_record():
    simulations = simulate(TwoStage(), 300, seed=1)
    assert ENGINE.train(simulations, seed=1).context.simulations["redrawn"] is True
    off = ENGINE.train(simulations, {"redraw": False}, seed=1)
    assert off.context.simulations["redrawn"] is False


def test_an_ensemble_has_members_of_their_own_seed_and_order(simulations):
    seen = []

    class Watched(LinearEngine):
        def _train(self, data, context, settings, seed, progress):
            seen.append((seed, next(iter(data.epoch(0))).x.tobytes()))
            return super()._train(data, context, settings, seed, progress)

    posterior = Watched().train(simulations, {"ensemble": 3, "jitter": 0.1}, seed=4)
    assert isinstance(posterior, EnsemblePosterior)
    assert len(posterior.members) == 3
    assert len({seed for seed, _ in seen}) == 3
    assert len({order for _, order in seen}) == 3
    assert len({m.matrix.tobytes() for m in posterior.members}) == 3
    assert len(posterior.context.history.members) == 3
    assert len({m.context.prior for m in posterior.members}) == 1


def test_an_engine_cannot_disturb_the_process(simulations):
    class Rude(LinearEngine):
        def _train(self, data, context, settings, seed, progress):
            np.random.seed(0)
            random.seed(0)
            np.seterr(all="ignore")
            return super()._train(data, context, settings, seed, progress)

    np.random.random(), random.random()
    before = (np.random.get_state(legacy=False)["state"]["key"], random.getstate(), np.geterr())
    Rude().train(simulations, seed=1)
    after = (np.random.get_state(legacy=False)["state"]["key"], random.getstate(), np.geterr())
    assert np.array_equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_bad_seed_is_refused(simulations):
    with pytest.raises(ContractError, match="seed must be an integer"):
        ENGINE.train(simulations, seed=-1)


def test_train_takes_a_name_or_an_engine_and_records_a_fresh_seed(simulations, monkeypatch):
    monkeypatch.setattr("sbi_physics.registry.engine", {"linear": ENGINE}.__getitem__)
    by_name = train(simulations, "linear", seed=3, progress=SILENT)
    by_engine = train(simulations, ENGINE, seed=3, progress=SILENT)
    x = simulations.x[:2]
    assert np.array_equal(
        by_name.sample(x, 3, np.random.default_rng(0)),
        by_engine.sample(x, 3, np.random.default_rng(0)),
    )
    seeds = {train(simulations, ENGINE).context.seed for _ in range(3)}
    assert len(seeds) == 3


def test_an_unknown_engine_is_answered_with_the_known_ones(simulations):
    with pytest.raises(UnknownNameError, match="unknown engine 'linaer'"):
        sp.train(simulations, "linaer")


def test_progress_is_passed_on(simulations):
    seen = []

    class Progress:
        def task(self, description, total, unit="it"):
            seen.append(description)
            return SILENT.task(description, total, unit)

    ENGINE.train(simulations, seed=1, progress=Progress())
    assert seen == ["least squares"]


def test_versions_of_absent_packages_are_admitted():
    versions = package_versions(("numpy", "no-such-distribution"))
    assert versions["numpy"] == np.__version__
    assert versions["no-such-distribution"] == "not installed as a distribution"
    assert versions["python"].startswith("3.")
