"""Draws made elsewhere: what is read, and what is refused with which words."""

from __future__ import annotations

import contextlib

import h5netcdf
import numpy as np
import pytest

from sbi_physics.draw_files import MAX_AUTOCORRELATION, autocorrelation, read_draws
from sbi_physics.errors import DataFileError, ValidationError
from sbi_physics.validate_arrays import validate_draws

N, L = 300, 99


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    theta = rng.standard_normal((N, 2))
    x = theta + 0.5 * rng.standard_normal((N, 2))
    draws = 0.8 * x[:, None] + np.sqrt(0.2) * rng.standard_normal((N, L, 2))

    def density(points):
        return -0.5 * ((points - 0.8 * x[:, None]) ** 2 / 0.2).sum(axis=-1)

    return {
        "theta": theta,
        "draws": draws,
        "x": x,
        "log_prob_true": density(theta[:, None])[:, 0],
        "log_prob_draws": density(draws),
        "names": np.array(["m_a", "g"]),
    }


def test_a_file_gives_the_verdict_of_its_arrays(arrays, tmp_path):
    np.savez(tmp_path / "draws.npz", **arrays)
    found = read_draws(tmp_path / "draws.npz").validate(np.random.default_rng(3))
    expected = validate_draws(**arrays, rng=np.random.default_rng(3))
    assert found.p_global == expected.p_global
    assert found.names == ("m_a", "g")
    assert found.verdict == expected.verdict
    assert "hpd" in found.pit


def test_progress_reaches_the_number_of_pairs(arrays, tmp_path):
    shown = []

    class Recorder:
        @contextlib.contextmanager
        def task(self, description, total, unit="it"):
            shown.append([description, total, unit, 0])
            yield self

        def advance(self, n=1, note=""):
            shown[-1][3] += n

    np.savez(tmp_path / "draws.npz", **arrays)
    read_draws(tmp_path / "draws.npz").validate(np.random.default_rng(3), Recorder())
    assert shown == [["validating", N, "obs", N]]


def test_weights_and_normalisation_are_used(arrays, tmp_path):
    weights = np.random.default_rng(1).random((N, L))
    np.savez(tmp_path / "d.npz", **arrays, weights=weights, normalized=True)
    content = read_draws(tmp_path / "d.npz")
    assert content.normalized is True
    assert content.weights.tolist() == weights.tolist()
    found = content.validate(np.random.default_rng(3))
    assert found.nll is not None
    assert np.isfinite(found.counts.median_ess)


def test_the_first_pairs_and_draws_can_be_taken(arrays, tmp_path):
    np.savez(tmp_path / "d.npz", **arrays, weights=np.ones((N, L)))
    part = read_draws(tmp_path / "d.npz").first(50, 20)
    assert part.draws.shape == (50, 20, 2)
    assert part.weights.shape == part.log_prob_draws.shape == (50, 20)
    assert part.log_prob_true.shape == (50,)
    assert len(part.x) == len(part.theta) == 50


def changed(**changes):
    def make(arrays):
        made = {**arrays, **changes}
        return {k: v for k, v in made.items() if v is not None}

    return make


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (changed(theta=None), "holds no array 'theta'"),
        (changed(draws=None, drawz=np.ones(3)), "Did you mean 'draws'"),
        (lambda a: {"theta": a["theta"]}, "holds no array 'draws'; it holds theta"),
        (lambda a: {}, "it holds nothing"),
        (lambda a: {**a, "theta": a["theta"][:, 0]}, r"for one parameter use theta\[:, None\]"),
        (lambda a: {**a, "theta": a["theta"][:0]}, r"theta has shape \(0, 2\)"),
        (lambda a: {**a, "theta": a["theta"][:9]}, r"expected \(9, draw, 2\)"),
        (lambda a: {**a, "draws": a["draws"][:, :0]}, r"draws has shape \(300, 0, 2\)"),
        (lambda a: {**a, "draws": a["draws"].transpose(1, 0, 2)}, "swap its first two axes"),
        (lambda a: {**a, "draws": a["draws"][..., 0]}, r"draws has shape \(300, 99\)"),
        (lambda a: {**a, "draws": np.full_like(a["draws"], np.nan)}, "draws has no finite entry"),
        (lambda a: {**a, "x": a["x"][:7]}, "expected 300 observations first"),
        (lambda a: {**a, "x": np.full((N, 1), np.nan)}, "300 of 300 entries of x"),
        (lambda a: {**a, "log_prob_true": a["log_prob_draws"]}, r"expected \(300,\)"),
        (lambda a: {**a, "weights": np.ones((N, 3))}, r"weights has shape \(300, 3\)"),
        (lambda a: {**a, "theta": a["theta"].astype(str)}, "not real numbers"),
        (lambda a: {**a, "draws": a["draws"] * 1j}, "not real numbers"),
        (lambda a: {**a, "names": np.array(["a"])}, "expected 2 texts"),
        (lambda a: {**a, "names": np.array([1, 2])}, "expected 2 texts"),
        (lambda a: {**a, "names": np.array(["a", "a"])}, "must differ"),
        (lambda a: {**a, "names": np.array(["a", "b:c"])}, "must not be empty or hold ':'"),
        (lambda a: {**a, "normalized": np.array([1.5])}, "must be true or false"),
    ],
)
def test_malformed_arrays_are_refused_by_name(arrays, tmp_path, make, text):
    np.savez(tmp_path / "bad.npz", **make(arrays))
    with pytest.raises(ValidationError, match=text) as caught:
        read_draws(tmp_path / "bad.npz")
    assert "bad.npz" in str(caught.value)


def test_one_row_is_too_few(arrays, tmp_path):
    np.savez(tmp_path / "one.npz", theta=arrays["theta"][:1], draws=arrays["draws"][:1])
    with pytest.raises(ValidationError, match=r"at least 20 usable pairs.*1 of 1"):
        read_draws(tmp_path / "one.npz").validate(np.random.default_rng(1))


def test_a_few_missing_values_are_counted_not_refused(arrays, tmp_path):
    draws = arrays["draws"].copy()
    draws[:3, 0, 0] = np.nan
    np.savez(tmp_path / "d.npz", theta=arrays["theta"], draws=draws, x=arrays["x"])
    found = read_draws(tmp_path / "d.npz").validate(np.random.default_rng(1))
    assert (found.counts.pairs, found.counts.usable) == (N, N - 3)


def test_files_that_are_no_files_of_draws_are_refused(tmp_path):
    for name, content, text in (
        ("text.npz", b"hello", "not readable as .npz"),
        ("empty.npz", b"", "not readable as .npz"),
        ("text.nc", b"hello", "not readable as netCDF"),
        ("table.csv", b"1,2", r"read from \.npz, \.nc"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValidationError, match=text):
            read_draws(tmp_path / name)
    with pytest.raises(DataFileError, match="no file"):
        read_draws(tmp_path / "nowhere.npz")


def test_pickled_arrays_are_never_loaded(tmp_path):
    np.savez(
        tmp_path / "d.npz", theta=np.array([{"a": 1}], dtype=object), draws=np.ones((1, 1, 1))
    )
    with pytest.raises(ValidationError, match="without object arrays"):
        read_draws(tmp_path / "d.npz")


# --- netCDF -----------------------------------------------------------------------------------


def write(path, groups: dict[str, dict[str, tuple]]) -> None:
    with h5netcdf.File(str(path), "w") as file:
        for name, variables in groups.items():
            group = file.create_group(name)
            for variable, (dims, values) in variables.items():
                for dim, size in zip(dims, values.shape, strict=True):
                    if dim not in group.dimensions:
                        group.dimensions[dim] = size
                group.create_variable(variable, dims, data=values)


def netcdf(arrays) -> dict[str, dict[str, tuple]]:
    draws = arrays["draws"].reshape(N, 3, L // 3, 2)  # three chains
    return {
        "posterior": {
            "m_a": (("chain", "draw", "pair"), draws[..., 0].transpose(1, 2, 0)),
            "g": (("pair", "chain", "draw"), draws[..., 1]),
        },
        "truth": {
            "m_a": (("pair",), arrays["theta"][:, 0]),
            "g": (("pair",), arrays["theta"][:, 1]),
            "log_prob": (("pair",), arrays["log_prob_true"]),
        },
        "sample_stats": {
            "log_prob": (
                ("chain", "draw", "pair"),
                arrays["log_prob_draws"].reshape(N, 3, L // 3).transpose(1, 2, 0),
            ),
        },
        "observed_data": {"x": (("pair", "channel"), arrays["x"])},
    }


def test_a_netcdf_file_holds_the_same_as_arrays(arrays, tmp_path):
    write(tmp_path / "d.nc", netcdf(arrays))
    found = read_draws(tmp_path / "d.nc")
    assert found.names == ("m_a", "g")
    for name in ("theta", "draws", "x", "log_prob_true", "log_prob_draws"):
        np.testing.assert_array_equal(getattr(found, name), arrays[name])


def test_what_arviz_writes_is_read(arrays, tmp_path):
    arviz = pytest.importorskip("arviz")
    import xarray

    datasets = {
        {"truth": "constant_data"}.get(name, name): xarray.Dataset(variables)
        for name, variables in netcdf(arrays).items()
    }
    arviz.InferenceData(**datasets).to_netcdf(str(tmp_path / "d.nc"))
    found = read_draws(tmp_path / "d.nc")
    np.testing.assert_array_equal(found.draws, arrays["draws"])
    np.testing.assert_array_equal(found.log_prob_draws, arrays["log_prob_draws"])


def test_vector_parameters_are_taken_apart(arrays, tmp_path):
    draws = arrays["draws"].transpose(1, 0, 2)[None]
    groups = {
        "posterior": {"v": (("chain", "draw", "pair", "k"), draws)},
        "truth": {"v": (("pair", "k"), arrays["theta"])},
    }
    write(tmp_path / "d.nc", groups)
    found = read_draws(tmp_path / "d.nc")
    assert found.names == ("v_1", "v_2")
    np.testing.assert_array_equal(found.draws, arrays["draws"])
    np.testing.assert_array_equal(found.theta, arrays["theta"])


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda g: g.pop("posterior"), "no group 'posterior'; it has truth"),
        (lambda g: g.pop("truth"), "no group 'truth' or 'constant_data'"),
        (lambda g: g.update(truth={"z": g["truth"]["g"]}), "no variable of the group posterior"),
        (lambda g: g["posterior"].update(g=(("draw",), np.ones(L // 3))), "expected chain, draw"),
        (lambda g: g["truth"].update(g=g["posterior"]["g"]), "neither chain nor draw"),
        (
            lambda g: g["observed_data"].update(x=(("channel", "pair"), np.ones((2, N)))),
            "expected pair first",
        ),
        (
            lambda g: g["sample_stats"].update(log_prob=(("draw", "pair"), np.ones((L // 3, N)))),
            "sample_stats/log_prob has dimensions",
        ),
    ],
)
def test_malformed_netcdf_is_refused(arrays, tmp_path, spoil, text):
    groups = netcdf(arrays)
    spoil(groups)
    write(tmp_path / "d.nc", groups)
    with pytest.raises(ValidationError, match=text):
        read_draws(tmp_path / "d.nc")


# --- dependent draws --------------------------------------------------------------------------


def test_autocorrelation_is_that_of_the_chain():
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((100, 500, 2))
    assert abs(autocorrelation(noise)) < 4 / np.sqrt(noise.size) + 1 / 500
    rho, chain = 0.6, noise.copy()
    for k in range(1, 500):
        chain[:, k] = rho * chain[:, k - 1] + np.sqrt(1 - rho**2) * noise[:, k]
    found = autocorrelation(chain)
    # The estimate is low by about (1 + 3 rho) / draws (Marriott and Pope 1954).
    assert found == pytest.approx(rho - (1 + 3 * rho) / 500, abs=4 / np.sqrt(noise.size))
    assert found > MAX_AUTOCORRELATION
    assert autocorrelation(np.ones((3, 4, 1))) == 0.0
