"""What the simulators of this package share: two parameters, the options, the latent stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
from pydantic import Field, field_validator

from sbi_physics import Budget, LogUniform, Parameter, Simulator, SimulatorOptions
from sbi_physics.types import FloatArray, Latents
from sbi_physics_alp.conversion import Conversion
from sbi_physics_alp.field import CellMode

MASS = Parameter(
    "m_a",
    LogUniform(1.0, 1e3),
    unit="neV",
    label="m_a",
    description="Mass of the ALP.",
    support=(0.0, 1e4),
)
COUPLING = Parameter(
    "g",
    LogUniform(0.1, 10.0),
    unit="1e-11 GeV-1",
    label=r"g_{a\gamma}",
    description="Photon-ALP coupling.",
    support=(0.0, 100.0),
)


_TRAINING = {"batch_size": 512, "learning_rate": 2e-3}
BUDGETS: Final[Mapping[str, Budget]] = {
    "quick": Budget(simulations=20_000, training={**_TRAINING, "max_epochs": 30}),
    "standard": Budget(simulations=100_000, pairs=4000, training={**_TRAINING, "max_epochs": 40}),
    "thorough": Budget(
        simulations=1_000_000, pairs=4000, training={**_TRAINING, "max_epochs": 40, "ensemble": 5}
    ),
}
"""What calibration takes is field realisations; docs give the coverage measured with each."""


class ConversionOptions(SimulatorOptions):
    """How photons and ALPs are propagated."""

    cell_mode: CellMode = Field(
        "fine",
        description="Cells of the cluster field. 'compat': 1/k_h, as gammaALPs has them; 'fine': "
        "1/(2 k_h), twice the time. With high_mass_cut and against cells of 1/(4 k_h), P(E) of "
        "one field is off by up to 0.06 in 'compat' and 0.01 in 'fine' for m_a <= 100 neV and "
        "g <= 5, by 0.11 and 0.02 at m_a = 300 neV, g = 10 (root mean square 0.006 and 0.002).",
    )
    high_mass_cut: bool = Field(
        True,
        description="Leave out conversion in the cluster at energies where the momentum "
        "difference exceeds twice the largest wavenumber of the field. Without it, ALPs heavier "
        "than about 30 neV show a false signal there, because equal cells act like a grating.",
    )
    realisation: Literal["random"] | int = Field(
        "random",
        union_mode="left_to_right",
        description="Field of the cluster: 'random', a new one for each simulation; or a number "
        "from 0, the seed of the one field that all simulations share.",
    )

    @field_validator("realisation")
    @classmethod
    def _is_a_seed(cls, realisation: int | str) -> int | str:
        if isinstance(realisation, int) and realisation < 0:
            raise ValueError("accepted is 'random' or an integer from 0")
        return realisation


class AlpSimulator(Simulator):
    """Base of the simulators: theta starts with (m_a, g), the latent is the curve P(E)."""

    conversion: Conversion

    def _simulate_latent(self, theta: FloatArray, rng: np.random.Generator) -> Latents:
        """Survival probability of each true-energy bin, float32, shape (n, n_true)."""
        return {"survival": self.conversion.draw(theta[:, 0], theta[:, 1], rng)}
