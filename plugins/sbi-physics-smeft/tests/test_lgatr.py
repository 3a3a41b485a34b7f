"""The equivariant network: particles, symmetries, training, files, the missing package."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sbi_physics_smeft.detector import FEATURES  # noqa: E402
from sbi_physics_smeft.engines.derivative import DerivativeEngine  # noqa: E402
from sbi_physics_smeft.engines.lgatr_network import (  # noqa: E402
    EventTransformer,
    LgatrSizes,
    MemberTransformer,
)
from sbi_physics_smeft.engines.morphing_engine import MorphingEngine  # noqa: E402
from sbi_physics_smeft.engines.particles import ParticleTokens  # noqa: E402
from sbi_physics_smeft.smeft_toy import SmeftToy  # noqa: E402
from sbi_physics_smeft.smeft_wz import SmeftWz  # noqa: E402

import sbi_physics as sp  # noqa: E402
from sbi_physics.errors import PluginError, PosteriorFileError, TrainingError  # noqa: E402
from sbi_physics.nn.device import seeded  # noqa: E402
from sbi_physics.progress import SILENT  # noqa: E402

pytestmark = pytest.mark.engine

needs_lgatr = pytest.mark.skipif(
    find_spec("lgatr") is None,
    reason="lgatr is not installed: pip install 'sbi-physics-smeft[lgatr]'",
)
TINY = {
    "network": "lgatr",
    "lgatr_blocks": 1,
    "lgatr_multivectors": 2,
    "lgatr_scalars": 4,
    "lgatr_heads": 2,
    "max_epochs": 2,
    "batch_size": 128,
}
FAR = (
    (3.0, 0.0, 0.0), (-3.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, -0.5, 0.0), (0.0, 0.0, 0.5),
    (0.0, 0.0, -0.5), (3.0, 0.5, 0.0), (3.0, 0.0, 0.5), (0.0, 0.5, 0.5),
)  # fmt: skip
SIZES = {"blocks": 2, "multivectors": 4, "scalars": 8, "heads": 2}
# Float64 through two blocks, outputs of order one: symmetries hold to 1e-14. What is no symmetry
# changes random networks by a thousandth of their spread and more.
EXACT = {"rtol": 1e-10, "atol": 1e-10}
CHANGED = 1e-5


@pytest.fixture(autouse=True)
def _this_plugin(monkeypatch):
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "smeft")


@pytest.fixture(scope="module")
def simulations():
    wz = SmeftWz(proposal="mixture", mixture_points=FAR)
    return sp.simulate(wz, 2500, seed=1, progress=SILENT)


@pytest.fixture(scope="module")
def posterior(simulations):
    values = {**TINY, "loss": "cross-entropy", "max_epochs": 3, "learning_rate": 1e-2}
    return DerivativeEngine().train(simulations, values, seed=1, progress=SILENT)


def standardised(x):
    """What networks see, and the transform that made it."""
    transform = SmeftWz().observable.fit_transform(x)
    return transform, torch.from_numpy(transform(x))


@pytest.fixture(scope="module")
def events():
    """Momenta, scalars of particles and of the event, float64."""
    transform, x = standardised(SmeftWz().simulate(np.zeros((40, 3)), np.random.default_rng(3)))
    return ParticleTokens(transform).double()(x.double())


def excited(network):
    """The network in float64 with weights large enough for momenta to matter as scalars do."""
    with seeded(5), torch.no_grad():
        for weight in network.parameters():
            weight += 0.3 * torch.randn_like(weight)
    return network.double()


def transformer(**sizes):
    return excited(EventTransformer(3, LgatrSizes(**{**SIZES, **sizes})))


def transformation(i, j, a, b, c, d):
    """The matrix that is ((a, b), (c, d)) on two of t, x, y, z."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[[i, i, j, j], [i, j, i, j]] = torch.tensor([a, b, c, d], dtype=torch.float64)
    return matrix


def rotation(i, j, angle):
    c, s = np.cos(angle), np.sin(angle)
    return transformation(i, j, c, -s, s, c)


def boost(rapidity):
    c, s = np.cosh(rapidity), np.sinh(rapidity)
    return transformation(0, 3, c, s, s, c)


def difference(network, changed, unchanged):
    """Typical change of outputs over their typical spread."""
    before = network(*unchanged)
    return ((network(*changed) - before).std(dim=0) / before.std(dim=0)).min()


# Particles from features: no network, no lgatr


def test_particles_have_the_derived_quantities_of_the_detector():
    # The detector computes masses and transverse masses itself, from what it measured.
    wz = SmeftWz(selection=False)
    x = wz.simulate(np.tile([0.5, 0.05, 0.02], (500, 1)), np.random.default_rng(1))
    value = dict(zip(FEATURES, np.asarray(x, np.float64).T, strict=True))
    transform, xt = standardised(x)
    momenta, scalars, event = ParticleTokens(transform)(xt)
    p = momenta.double().numpy() * 100.0
    assert p.shape == (500, 4, 4)
    lepton, z, missing = p[:, 0], p[:, 1] + p[:, 2], p[:, 3]
    # float32 energies: rounding of m^2 is 1e-7 E^2, largest at E = 3 TeV or so
    mass2 = z[:, 0] ** 2 - (z[:, 1:] ** 2).sum(axis=1)
    error = 1e-6 * z[:, 0] ** 2 / 91.2**2
    assert (np.abs(mass2 / 91.2**2 - (1 + value["m_ll"]) ** 2) < 1e-5 + error).all()
    np.testing.assert_allclose(np.hypot(z[:, 1], z[:, 2]), np.exp(value["ln_pt_z"]) - 1, rtol=2e-4)
    assert np.abs(z[:, 2] / np.hypot(z[:, 1], z[:, 2])).max() < 2e-4  # the frame of the Z
    pt = np.hypot(p[..., 1], p[..., 2])
    product = lepton[:, 1] * missing[:, 1] + lepton[:, 2] * missing[:, 2]
    mt2 = 2 * (pt[:, 0] * pt[:, 3] - product)
    largest = (pt[:, 0] * pt[:, 3]).max()
    np.testing.assert_allclose(mt2, (np.exp(value["ln_mt_w"]) - 1) ** 2, atol=1e-5 * largest)
    total = p.sum(axis=1)
    mt_wz = np.sqrt(pt.sum(axis=1) ** 2 - total[:, 1] ** 2 - total[:, 2] ** 2)
    np.testing.assert_allclose(mt_wz, np.exp(value["ln_mt_wz"]), rtol=1e-4)
    np.testing.assert_allclose(p[:, :3, 0], np.linalg.norm(p[:, :3, 1:], axis=-1), rtol=1e-5)
    assert (missing[:, [0, 3]] == 0).all()
    charges = np.stack([value["charge"], -np.ones(500), np.ones(500), np.zeros(500)], axis=1)
    np.testing.assert_allclose(scalars[..., 0], charges, atol=1e-5)
    assert scalars[0, :, 2:].tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(scalars[:, :, 1], xt[:, [1, 5, 9, 13]])
    np.testing.assert_array_equal(event[:, 1:], xt[:, 16:])


@pytest.mark.parametrize(
    ("simulator", "lacks"),
    [
        (SmeftToy(alpha=1.0, proposal="mixture"), r"\(x\) lack charge, ln_pt_l"),
        (SmeftWz(level="parton", proposal="mixture"), "charge, ln_mass, eta, .* lack ln_pt_l"),
    ],
    ids=["toy", "parton"],
)
def test_data_without_particles_are_refused(simulator, lacks):
    data = sp.simulate(simulator, 300, seed=1, progress=SILENT)
    for engine in (DerivativeEngine(), MorphingEngine()):
        with pytest.raises(TrainingError, match=f"needs reconstructed particles.*{lacks}"):
            engine.train(data, TINY, seed=1)


def test_a_missing_package_is_named_before_training(simulations, monkeypatch):
    monkeypatch.setitem(sys.modules, "lgatr", None)
    with pytest.raises(PluginError, match=r'pip install "sbi-physics-smeft\[lgatr\]"'):
        DerivativeEngine().train(simulations, TINY, seed=1)


def test_an_old_package_is_refused(simulations, monkeypatch):
    monkeypatch.setitem(sys.modules, "lgatr", type(sys)("lgatr"))
    with pytest.raises(PluginError, match="has no LGATr, .*PrimitivesConfig; .* works with"):
        DerivativeEngine().train(simulations, TINY, seed=1)


# Symmetries


@needs_lgatr
@pytest.mark.parametrize("references", ["beam-time", "beam"])
def test_rotations_about_the_beam_change_nothing(events, references):
    network = transformer(references=references)
    momenta, *rest = events
    before = network(momenta, *rest)
    assert before.shape == (40, 3)
    after = network(momenta @ rotation(1, 2, 1.1).T, *rest)
    torch.testing.assert_close(after, before, **EXACT)


@needs_lgatr
def test_boosts_along_the_beam_change_nothing_unless_time_is_a_reference(events):
    momenta, *rest = events
    boosted = (momenta @ boost(0.6).T, *rest)
    network = transformer(references="beam")
    torch.testing.assert_close(network(*boosted), network(*events), **EXACT)
    assert difference(transformer(references="beam-time"), boosted, events) > CHANGED


@needs_lgatr
@pytest.mark.parametrize("references", ["beam-time", "beam"])
def test_the_direction_of_the_beam_is_known(events, references):
    momenta, *rest = events
    rotated = (momenta @ rotation(2, 3, 0.8).T, *rest)
    assert difference(transformer(references=references), rotated, events) > CHANGED


@needs_lgatr
def test_the_order_of_particles_does_not_matter_but_who_is_who_does(events):
    momenta, scalars, event = events
    network, order = transformer(), [2, 0, 3, 1]
    permuted = network(momenta[:, order], scalars[:, order], event)
    torch.testing.assert_close(permuted, network(*events), **EXACT)
    assert difference(network, (momenta[:, order], scalars, event), events) > CHANGED


@needs_lgatr
@pytest.mark.parametrize("references", ["beam-time", "beam"])
def test_events_boosted_along_the_beam_have_equal_outputs(simulations, references):
    # On data: pseudorapidities of all leptons move together, missing momentum stays.
    transform, x = standardised(simulations.x[:50])
    body = excited(MemberTransformer(transform, 3, 1, LgatrSizes(**SIZES, references=references)))
    columns = [FEATURES.index(f"eta_{who}") for who in ("l", "lm", "lp")]
    moved = x.double()
    moved[:, columns] += 0.4 / torch.from_numpy(transform.arrays()["sd"][columns])
    changed = body(moved) - body(x.double())
    if references == "beam":
        assert changed.abs().max() < 1e-6  # constants of the transform are rounded to float32
    else:
        assert changed.abs().max() > 1e-2


@needs_lgatr
def test_gradients_reach_every_weight(simulations):
    transform, x = standardised(simulations.x)
    with seeded(2):
        body = MemberTransformer(transform, 10, 2, LgatrSizes(**SIZES))
    outputs = body(x[:64])
    assert outputs.shape == (2, 64, 10)
    (outputs**2).sum().backward()
    # Vectors and the beam's bivector have no scalar part that could enter the scalar channels.
    without = [
        name
        for name, weight in body.named_parameters()
        if (weight.grad is None or not weight.grad.any())
        and not name.endswith("linear_in.mvs2s.weight")
    ]
    assert without == []


@needs_lgatr
def test_many_events_are_evaluated_in_pieces(simulations):
    transform, x = standardised(simulations.x)
    body = MemberTransformer(transform, 2, 2, LgatrSizes(**SIZES))
    with torch.no_grad():
        many = body(x[:1300])
        assert many.shape == (2, 1300, 2)
        torch.testing.assert_close(many[:, 1000:1100], body(x[1000:1100]), rtol=1e-4, atol=1e-5)


# Engines and files


@needs_lgatr
def test_training_lowers_the_loss(posterior):
    # Which of ten points: guessing costs ln 10. The same events at each epoch, so that what the
    # loss falls by is no noise of the sample.
    losses = posterior.context.history.training_loss
    assert losses[-1] < losses[0] - 0.01
    assert losses[-1] < np.log(10)
    assert posterior.context.versions["lgatr"][0].isdigit()


@needs_lgatr
@pytest.mark.parametrize("parametrization", ["positive", "ratios"])
def test_morphing_has_it_too(simulations, parametrization, tmp_path):
    values = {**TINY, "max_epochs": 1, "parametrization": parametrization}
    found = MorphingEngine().train(simulations, values, seed=1, progress=SILENT)
    again = sp.load_posterior(found.save(tmp_path / "p"))
    x = simulations.x[:20]
    np.testing.assert_array_equal(again.coefficients(x), found.coefficients(x))


@needs_lgatr
def test_sets_of_events_ignore_padding(simulations):
    values = {**TINY, "max_epochs": 1, "max_events": 5, "members": 2}
    sets = DerivativeEngine().train(simulations, values, seed=1, progress=SILENT)
    x = np.zeros((2, 5, 21), np.float32)
    x[:, :3, :-1], x[:, :3, -1] = simulations.x[:3], 1
    x[1, 3:, :-1] = simulations.x[3:5]  # absent whatever they are
    theta = np.array([[0.5, 0.05, 0.02]])
    each = sets.log_ratio(theta, x, per_event=True)
    np.testing.assert_allclose(each[0], each[1], rtol=1e-5)  # other places in a batch
    assert (each[0, :, 3:] == 0).all()
    assert (each[0, :, :3] != 0).all()


_RELOAD = """
import sys
import numpy as np
import sbi_physics as sp
if sys.argv[3] == "missing":
    sys.modules["lgatr"] = None
posterior = sp.load_posterior(sys.argv[1])
print(posterior.coefficients(np.load(sys.argv[2])).tolist())
"""


@needs_lgatr
def test_a_fresh_process_gives_the_same_ratios_or_names_the_package(
    simulations, posterior, tmp_path
):
    posterior.save(tmp_path / "p")
    np.save(tmp_path / "x.npy", simulations.x[:10])

    def fresh(what):
        command = [sys.executable, "-c", _RELOAD, tmp_path / "p", tmp_path / "x.npy", what]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    there, missing = fresh("there"), fresh("missing")
    assert there.returncode == 0, there.stderr
    found = np.array(json.loads(there.stdout))
    np.testing.assert_allclose(found, posterior.coefficients(simulations.x[:10]), rtol=1e-5)
    assert missing.returncode != 0
    assert 'pip install "sbi-physics-smeft[lgatr]"' in missing.stderr.splitlines()[-1]


@needs_lgatr
def test_weights_of_another_network_are_refused(posterior):
    weights = posterior._weights()
    name = next(n for n in weights if n.endswith("linear_in.weight"))
    weights[name] = weights[name][:, :-1]
    with pytest.raises(PosteriorFileError, match="do not fit .* trained with .*lgatr"):
        DerivativeEngine()._rebuild(posterior.context, posterior._config(), weights)


def test_posteriors_without_the_setting_are_perceptrons():
    # Folders written before there was a choice name no network.
    toy = sp.simulate(SmeftToy(proposal="mixture"), 400, seed=1, progress=SILENT)
    posterior = DerivativeEngine().train(toy, {"max_epochs": 1}, seed=1, progress=SILENT)
    config = {k: v for k, v in posterior._config().items() if k != "network" and "lgatr" not in k}
    again = DerivativeEngine()._rebuild(posterior.context, config, posterior._weights())
    x = np.linspace(-3, 4, 20)[:, None]
    np.testing.assert_array_equal(again.coefficients(x), posterior.coefficients(x))
