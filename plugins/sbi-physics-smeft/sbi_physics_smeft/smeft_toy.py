r"""The simulator `smeft-toy`: one event of a background plus theta^2 times a signal.

.. math:: z \sim \frac{N(0, s_b) + \theta^2 N(\alpha, s_s)}{1 + \theta^2}, \qquad x = z + s_x n,

so that everything learned in WZ production is known here in closed form. The density of x is that
of arXiv:2410.07315 (widths 1.22 and 0.71); the latent z, with s_b = 1, s_s = 0.1, s_x = 0.7, is
our choice. The label of an event is L(z) = N(z; alpha, s_s)/N(z; 0, s_b); its mean given x is
R(x), the same ratio with widths enlarged by s_x.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from sbi_physics import Observable, Parameter, ParameterSpace, Uniform
from sbi_physics.types import DataArray, FloatArray, Latents
from sbi_physics_smeft.conventions import ratio
from sbi_physics_smeft.eft_simulator import EftOptions, EftSimulator


class SmeftToyOptions(EftOptions):
    """Options of `smeft-toy`."""

    alpha: float = Field(
        2.0,
        ge=0,
        le=10,
        description="Position of the signal, 0 to 10. Labels of background events have a long "
        "tail: their mean square is 11.7, 52.9, 653 for alpha = 1, 2, 3.",
    )
    background_width: float = Field(
        1.0, gt=0, le=10, description="Standard deviation of the background in z."
    )
    signal_width: float = Field(
        0.1, gt=0, le=10, description="Standard deviation of the signal in z."
    )
    resolution: float = Field(
        0.7, gt=0, le=10, description="Standard deviation of the smearing from z to x."
    )
    sm_events: float = Field(
        1000.0, gt=0, le=1e9, description="Expected number of events of a data set at theta = 0."
    )


class SmeftToy(EftSimulator):
    """One-dimensional toy of effective field theory with exact answers."""

    name = "smeft-toy"
    summary = "1-d toy of effective field theory: background plus theta^2 signal, exact"
    citation = ("arXiv:2410.07315",)
    Options = SmeftToyOptions
    basis = ((1.0,),)
    observe_options = ("resolution", "sm_events")
    fiducial: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "sm": {"theta": 0.0},
        "one": {"theta": 1.0},
    }

    @property
    def parameters(self) -> ParameterSpace:
        return ParameterSpace(
            [
                Parameter(
                    "theta",
                    Uniform(-2.0, 2.0),
                    label=r"\theta",
                    description="Coefficient; the signal enters with its square.",
                    support=(-100.0, 100.0),
                )
            ]
        )

    @property
    def observable(self) -> Observable:
        return Observable("vector", (1,), names=("x",), label="x")

    def _draw(self, vectors: FloatArray, rng: np.random.Generator) -> Latents:
        weight = vectors**2
        is_signal = rng.random(len(vectors)) * weight.sum(axis=1) < weight[:, 1]
        o = self.options
        z = np.where(
            is_signal,
            rng.normal(o.alpha, o.signal_width, len(vectors)),
            rng.normal(0.0, o.background_width, len(vectors)),
        )
        gram = np.stack([np.ones_like(z), np.zeros_like(z), self.latent_ratio(z)], axis=1)
        return {"z": z, "gram": gram}

    def _observe(self, z: Latents, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        latent = np.asarray(z["z"], dtype=np.float64)
        x: FloatArray = latent + self.options.resolution * rng.standard_normal(latent.shape)
        return x[:, None]

    def inclusive_gram(self) -> FloatArray:
        """The unit matrix: sigma(theta)/sigma(0) = 1 + theta^2."""
        return np.eye(2)

    def expected_sm_events(self) -> float:
        return float(self.options.sm_events)

    # Exact answers -----------------------------------------------------------

    def latent_ratio(self, z: ArrayLike) -> FloatArray:
        """Signal over background density of the latent, L(z), the shape of z."""
        o = self.options
        return _gauss_ratio(z, o.alpha, o.signal_width, o.background_width)

    def exact_gram(self, x: ArrayLike) -> FloatArray:
        """Gram matrix of the data, the mean of the labels given x at theta = 0.

        Args:
            x: Data, shape (n, 1).

        Returns:
            Shape (n, 2, 2): diag(1, R(x)).
        """
        o, values = self.options, np.asarray(x, dtype=np.float64)[..., 0]
        gram = np.zeros((*values.shape, 2, 2))
        gram[..., 0, 0] = 1.0
        gram[..., 1, 1] = _gauss_ratio(
            values,
            o.alpha,
            float(np.hypot(o.signal_width, o.resolution)),
            float(np.hypot(o.background_width, o.resolution)),
        )
        return gram

    def exact_log_ratio(self, x: ArrayLike, theta: ArrayLike) -> FloatArray:
        """Log of p(x|theta)/p(x|0), normalised densities.

        Args:
            x: Data, shape (n, 1).
            theta: One point, shape (1,), or several, shape (k, 1).

        Returns:
            Shape (n,) or (n, k).
        """
        learned = ratio(self.exact_gram(x), theta)
        return np.asarray(np.log(learned) - np.log(ratio(self.inclusive_gram(), theta)))

    def log_likelihood(self, x: DataArray, theta: FloatArray) -> FloatArray:
        width = np.hypot(self.options.background_width, self.options.resolution)
        values, points = np.asarray(x, np.float64)[:, 0], np.asarray(theta, np.float64)[:, 0]
        r = self.exact_gram(x)[:, 1, 1]
        log_background = -0.5 * (values / width) ** 2 - np.log(np.sqrt(2 * np.pi) * width)
        return np.asarray(log_background + np.log1p(points**2 * r) - np.log1p(points**2))


def _gauss_ratio(x: ArrayLike, mean: float, width: float, background: float) -> FloatArray:
    """N(x; mean, width)/N(x; 0, background)."""
    values = np.asarray(x, dtype=np.float64)
    exponent = (values / background) ** 2 - ((values - mean) / width) ** 2
    return np.asarray(background / width * np.exp(exponent / 2.0))
