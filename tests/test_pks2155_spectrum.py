"""Without conversion, the posterior of a real spectrum must agree with gammapy's likelihood.

The coupling is fixed at its lower end, where conversion is negligible. Eight bins with 119 counts
leave index and curvature so degenerate that their prior ranges cut the likelihood: there the exact
posterior, not the fit's covariance, is what a width can be compared with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbi_physics import Study, run

pytestmark = pytest.mark.slow

FILE = "PKS2155-steady/pks2155-304_steady.fits.gz"
CURVATURE = 0.25


def gammapy_dataset(path: Path) -> tuple[Any, Any]:
    """The observation with an EBL-absorbed log-parabola at 0.5 TeV, and that log-parabola."""
    from gammapy.datasets import SpectrumDatasetOnOff
    from gammapy.modeling.models import (
        EBLAbsorptionNormSpectralModel,
        LogParabolaSpectralModel,
        SkyModel,
    )

    dataset = SpectrumDatasetOnOff.read(path)
    parabola = LogParabolaSpectralModel(
        amplitude="5e-11 cm-2 s-1 TeV-1", reference="0.5 TeV", alpha=2.5, beta=CURVATURE
    )
    absorption = EBLAbsorptionNormSpectralModel.read_builtin("dominguez", redshift=0.116)
    dataset.models = [SkyModel(spectral_model=parabola * absorption)]
    return dataset, parabola


def best_fit(path: Path, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors of a fit; the first of them, the amplitude, in its logarithm."""
    from gammapy.modeling import Fit

    dataset, parabola = gammapy_dataset(path)
    parabola.beta.frozen = "beta" not in names
    assert Fit().run([dataset]).success
    value = np.array([parabola.parameters[n].value for n in names])
    error = np.array([parabola.parameters[n].error for n in names])
    return np.append(np.log(value[0]), value[1:]), np.append(error[0] / value[0], error[1:])


def exact_posterior(path: Path, study: Study, n: int = 20_000) -> np.ndarray:
    """Samples of gammapy's likelihood times the study's prior; amplitudes in the logarithm."""
    dataset, parabola = gammapy_dataset(path)
    box = {"amplitude": (1e-11, 3e-10)}  # 8 errors around the fit
    theta = study.posterior.prior.truncate(box).sample(n, np.random.default_rng(1))
    stat = np.empty(n)
    for i, (amplitude, index, curvature) in enumerate(theta):
        parabola.amplitude.value = amplitude
        parabola.alpha.value, parabola.beta.value = index, curvature
        stat[i] = dataset.stat_sum()
    weight = np.exp(-0.5 * (stat - stat.min()))
    assert weight.sum() ** 2 / (weight**2).sum() > 400  # medians to 0.06 sd
    theta[:, 0] = np.log(theta[:, 0])
    chosen = np.random.default_rng(2).choice(n, 50_000, p=weight / weight.sum())
    return theta[chosen]


def half_width(samples: np.ndarray) -> np.ndarray:
    low, high = np.quantile(samples, (0.1587, 0.8413), axis=0)
    return 0.5 * (high - low)


def spectral_study(path: Path, folder: Path, infer: list[str], fix: dict[str, float]) -> Study:
    study = run(
        "alp-pks2155",
        "sbi-npe",
        directory=folder,
        observation=str(path),
        infer=infer,
        fix={"g": 0.1, **fix},
        budget="quick",
        samples=50_000,
        seed=1,
    )
    study.samples[:, 0] = np.log(study.samples[:, 0])
    assert study.coverage.verdict in ("PASS", "MARGINAL")
    return study


def test_a_power_law_of_fixed_curvature_agrees_with_the_fit_and_its_errors(
    gammapy_data: Path, tmp_path: Path
) -> None:
    path = gammapy_data / FILE
    study = spectral_study(path, tmp_path / "a", ["amplitude", "index"], {"curvature": CURVATURE})
    value, error = best_fit(path, ("amplitude", "alpha"))
    width = half_width(study.samples)
    np.testing.assert_array_less(np.abs(np.median(study.samples, axis=0) - value) / width, 0.3)
    np.testing.assert_allclose(width, error, rtol=0.15)


def test_a_log_parabola_agrees_with_the_exact_posterior(
    gammapy_data: Path, tmp_path: Path
) -> None:
    path = gammapy_data / FILE
    study = spectral_study(path, tmp_path / "b", ["amplitude", "index", "curvature"], {})
    exact = exact_posterior(path, study)
    width = half_width(exact)
    shift = np.abs(np.median(study.samples, axis=0) - np.median(exact, axis=0)) / width
    np.testing.assert_array_less(shift, 0.3)
    np.testing.assert_allclose(half_width(study.samples), width, rtol=0.15)
