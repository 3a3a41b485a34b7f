"""Power spectra as features: numpy's Fourier transform, known periods, counts of entries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sbi_physics import Observable
from sbi_physics.errors import ContractError, OptionError
from sbi_physics.nn.device import seeded
from sbi_physics.nn.embedding import build_embedding, output_size
from sbi_physics.nn.power import kept_entries, padded_length, power_spectrum
from sbi_physics.nn.settings import NetworkSettings

pytestmark = pytest.mark.engine

BINS = 40
SETTINGS = NetworkSettings(embedding_width=16, embedding_depth=2, n_features=5, power_features=3)
COUNTS = [
    (("anscombe", "whiten"), (BINS,)),
    (("anscombe", "whiten"), (2, BINS)),
    (("log1p", "standardize"), (BINS,)),
    (("log1p", "standardize"), (2, BINS)),
    (("sqrt", "whiten"), (BINS,)),
    (("sqrt", "log1p"), (BINS,)),
]


def spectra(n, shape, seed=0):
    """Falling power laws of different size and slope with Poisson noise; some bins are empty."""
    rng = np.random.default_rng(seed)
    energy = np.arange(shape[-1]) / shape[-1]
    size, slope = rng.uniform(1.0, 3.5, (2, n, *([1] * len(shape))))
    return rng.poisson(10 ** (size - slope * energy) + np.zeros((n, *shape))).astype(np.float32)


def module(observable, x, *, length=None, cutoff=None):
    transform = observable.fit_transform(x)
    power = power_spectrum(observable, transform, length=length, cutoff=cutoff)
    return power, torch.from_numpy(transform(x))


@pytest.mark.parametrize(("steps", "shape"), COUNTS)
def test_counts_give_the_fourier_transform_of_their_logarithms(steps, shape):
    observable = Observable("spectrum", shape, transform=steps)
    x = spectra(2000, shape)
    power, xt = module(observable, x, length=256)
    # The typical spectrum: mean behind the pointwise steps, undone.
    forward = {
        "anscombe": lambda n: 2 * np.sqrt(n + 0.375),
        "sqrt": np.sqrt,
        "log1p": np.log1p,
    }
    inverse = {"anscombe": lambda a: a**2 / 4 - 0.375, "sqrt": np.square, "log1p": np.expm1}
    pointwise = [s for s in steps if s in forward]
    middle = x.astype(float)
    for step in pointwise:
        middle = forward[step](middle)
    middle = middle.mean(axis=0)
    for step in reversed(pointwise):
        middle = inverse[step](middle)
    logs = np.log10(1 + x) - np.log10(1 + middle)
    expected = np.abs(np.fft.rfft(logs, n=256, axis=-1))
    # Single precision: whitened values are sums of 80 terms, up to 300, known to 1e-5 of 300, of
    # counts whose logarithm has slopes below 1; 40 of them add up.
    np.testing.assert_allclose(power.values(xt).numpy(), logs, atol=2e-4)
    np.testing.assert_allclose(power.amplitudes(xt).numpy(), expected, atol=40 * 2e-4)
    assert expected.max() > 1.0


@pytest.mark.parametrize("unit", [1.0, 1e-12, 1e6])
@pytest.mark.parametrize("steps", [("standardize",), ("whiten",), ()])
def test_other_data_are_taken_as_they_are_whatever_their_unit(steps, unit):
    x = np.log10(0.1 + spectra(500, (BINS,))).astype(np.float32)
    observable = Observable("spectrum", (BINS,), transform=steps)
    power, xt = module(observable, unit * x, length=128)
    expected = np.abs(np.fft.rfft(x, n=128)) / np.median(x.std(axis=0))
    np.testing.assert_allclose(power.amplitudes(xt).numpy(), expected, atol=0.01, rtol=1e-3)
    # In training, entries are standardised by those of the batch.
    standard = power(xt)
    whole = (expected - expected.mean(axis=0)) / expected.std(axis=0)
    np.testing.assert_allclose(standard.detach().numpy(), whole, atol=0.02)


@pytest.mark.parametrize("oscillations", [2, 5, 11])
def test_an_oscillation_shows_at_its_frequency_wherever_it_starts(oscillations):
    bins = 90
    edges = tuple(np.geomspace(20.0, 6000.0, bins + 1))
    observable = Observable("spectrum", (bins,), edges=edges, transform=("anscombe", "whiten"))
    rng = np.random.default_rng(1)
    smooth = 1e4 * 10 ** (-1.5 * np.arange(bins) / bins)
    training = rng.poisson(smooth * 10 ** rng.normal(0.0, 0.2, (4000, 1)))
    transform = observable.fit_transform(training)
    power = power_spectrum(observable, transform, length=2048, cutoff=None)
    phases = np.linspace(0, 2 * np.pi, 7)[:, None]
    wave = np.sin(2 * np.pi * oscillations * np.arange(bins) / bins + phases)
    counts = np.round(smooth * 10 ** (0.1 * wave))
    found = power.amplitudes(torch.from_numpy(transform(counts.astype(np.float32)))).numpy()
    # Entry k is a frequency of k/2048 oscillations a bin; 2048/90 = 23 entries resolve one
    # oscillation more or less of all bins.
    np.testing.assert_array_equal(np.round(found.argmax(axis=1) * bins / 2048), oscillations)
    # Amplitude times half the number of bins. The lobe at the negative frequency, four widths away
    # or more, adds at most 1/(4 pi) of it; the constant offset has a zero there.
    at = round(2048 * oscillations / bins)
    np.testing.assert_allclose(found[:, at], 0.1 * bins / 2, rtol=0.1)


def test_the_number_of_entries_is_that_of_the_published_analysis():
    def entries(bins, low, high):
        edges = tuple(np.geomspace(low, high, bins + 1))
        return kept_entries(Observable("spectrum", (bins,), edges=edges), 2048, 3.0)

    assert entries(90, 20.0, 6000.0) == 169
    # int(3 (log10 Emax - log10 Emin) / n_bins 2048)
    assert entries(200, 10.0, 1e5) == 122
    assert entries(90, 20e-3, 6.0) == 169  # the unit of the edges does not matter
    assert entries(4, 1.0, 1e4) == 1025  # no more than there are


def test_by_default_nothing_is_lost():
    observable = Observable("spectrum", (BINS,))
    length = padded_length(observable, None)
    assert length == 128
    assert padded_length(Observable("spectrum", (64,)), None) == 128
    assert kept_entries(observable, length, None) == 65
    # With these entries the autocorrelation is known.
    power, xt = module(observable, spectra(50, (BINS,)))
    values = power.values(xt).numpy()
    found = np.fft.irfft(power.amplitudes(xt).numpy() ** 2, n=length)[:, :BINS]
    expected = [np.correlate(v, v, "full")[BINS - 1 :] for v in values]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"power_length": 39}, "power_length=39 cuts the 40 bins.*accepted: from 40"),
        ({"power_cutoff": 3.0}, "positive bin edges; the data have no edges"),
        ({"power_cutoff": 3.0, "edges": np.arange(41)}, "the data have edges from 0 on"),
        ({"power_cutoff": 3.0, "edges": np.arange(1, 42)}, "differ by .* % from their mean"),
        (
            {"power_cutoff": 1e-3, "edges": np.geomspace(1, 10, 41)},
            "power_cutoff=0.001 keeps no entry of 128 padded bins; accepted: from 0.312",
        ),
    ],
)
def test_what_does_not_fit_the_bins_is_refused(values, message):
    edges = values.pop("edges", None)
    observable = Observable("spectrum", (BINS,), edges=None if edges is None else tuple(edges))
    transform = observable.fit_transform(spectra(50, (BINS,)))
    settings = SETTINGS.model_copy(update=values)
    with pytest.raises(OptionError, match=message):
        build_embedding(observable, settings, transform)


@pytest.mark.parametrize(("kind", "shape"), [("vector", (9,)), ("set", (6, 3)), ("image", (8, 8))])
def test_other_kinds_of_data_have_no_power_spectrum(kind, shape):
    observable = Observable(kind, shape)
    x = np.ones((20, *shape), np.float32)
    with pytest.raises(OptionError, match=f"spectrum data.*not {kind} data; accepted: 0"):
        build_embedding(observable, SETTINGS, observable.fit_transform(x))


def test_a_missing_transform_is_refused():
    with pytest.raises(ContractError, match="needs the fitted transform"):
        build_embedding(Observable("spectrum", (BINS,)), SETTINGS)


@pytest.mark.parametrize("name", ["none", "mlp", "tapered", "conv"])
def test_its_features_join_those_of_every_network(name):
    observable = Observable("spectrum", (2, BINS), transform=("anscombe", "whiten"))
    x = spectra(300, (2, BINS))
    transform = observable.fit_transform(x)
    settings = SETTINGS.model_copy(update={"embedding": name})
    network = build_embedding(observable, settings, transform)
    size = (2 * BINS if name == "none" else 5) + 3
    assert output_size(network, observable.shape) == size
    assert int(network.power.standardise.num_batches_tracked) == 0
    xt = torch.from_numpy(transform(x))
    features = network(xt)
    assert features.shape == (300, size)
    # The last three know nothing but the power spectrum: reversed bins have the same one.
    flipped = torch.from_numpy(transform(np.ascontiguousarray(x[..., ::-1])))
    power = network.power.eval()
    reference = power.reference
    power.reference = torch.zeros_like(reference)  # it is not symmetric
    torch.testing.assert_close(
        power.amplitudes(xt), power.amplitudes(flipped), atol=0.02, rtol=1e-3
    )
    assert not torch.allclose(power.values(xt), power.values(flipped), atol=0.1)


def test_gradients_flow_also_where_an_amplitude_is_zero():
    observable = Observable("spectrum", (BINS,), transform=("standardize",))
    x = np.random.default_rng(0).normal(size=(64, BINS)).astype(np.float32)
    x[0] = 0.0
    transform = observable.fit_transform(x)
    with seeded(0):
        network = build_embedding(observable, SETTINGS, transform)
    network.power.mean.zero_()
    network.power.unmix.fill_(1.0)
    xt = torch.from_numpy(x).requires_grad_()
    network(xt)[:, 5:].square().sum().backward()
    assert torch.isfinite(xt.grad).all()
    assert xt.grad[1:].abs().sum(dim=1).min() > 0
    for name, parameter in network.features.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    assert all(p.grad is None or not p.grad.any() for p in network.data.parameters())
    assert not list(network.power.parameters())


def test_without_power_features_the_network_is_what_it_was():
    observable = Observable("spectrum", (BINS,))
    settings = SETTINGS.model_copy(update={"power_features": 0})
    names = [
        list(build_embedding(observable, s).state_dict())
        for s in (settings, NetworkSettings(embedding_depth=2))
    ]
    assert names[0] == names[1]
    assert names[0][0] == "first.weight"
