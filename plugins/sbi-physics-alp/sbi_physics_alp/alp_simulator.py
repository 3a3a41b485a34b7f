"""What the simulators of this package share: two parameters, the options, the latent stage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from sbi_physics import Budget, LogUniform, Observable, Parameter, Simulator, SimulatorOptions
from sbi_physics.errors import OptionError, nearest_name
from sbi_physics.types import DataArray, FloatArray, Latents
from sbi_physics_alp.cells import Cells
from sbi_physics_alp.conversion import Conversion
from sbi_physics_alp.field import CellMode, Cluster
from sbi_physics_alp.instruments import Counts, OnAndOff
from sbi_physics_alp.levels import VARIED, ClusterPrior, Level
from sbi_physics_alp.propagation import Kernel

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


_TRAINING = {"batch_size": 512, "learning_rate": 2e-3, "weight_decay": 0.0}
BUDGETS: Final[Mapping[str, Budget]] = {
    "quick": Budget(simulations=20_000, training={**_TRAINING, "max_epochs": 30}),
    "standard": Budget(simulations=100_000, pairs=4000, training={**_TRAINING, "max_epochs": 40}),
    "thorough": Budget(
        simulations=1_000_000, pairs=4000, training={**_TRAINING, "max_epochs": 12}
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

    merge_cells: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Faster, not exact: join neighbouring cells where no phase in the joined cell "
        "exceeds this, 0 to 1; 0: never. In the default prior 0.2 is 1.7 times faster and moves "
        "P(E) of one field by up to 0.005 (root mean square 0.0002), 0.4: 2.3 times and 0.024 "
        "(0.0009).",
        json_schema_extra={"later": True, "unit": "rad"},
    )
    precision: Literal["double", "single"] = Field(
        "double",
        description="'single': pass the cluster in single precision where phases are small, 2.2 "
        "times faster; moves P(E) of one field by up to 5e-5 (root mean square 4e-6).",
        json_schema_extra={"later": True},
    )
    kernel: Kernel = Field(
        "numba",
        description="What propagates: 'numba', compiled loops; 'torch', PyTorch on a graphics "
        "processor if there is one (pip install sbi-physics-alp[torch]).",
        json_schema_extra={"later": True},
    )

    @field_validator("realisation")
    @classmethod
    def _is_a_seed(cls, realisation: int | str) -> int | str:
        if isinstance(realisation, int) and realisation < 0:
            raise ValueError("accepted is 'random' or an integer from 0")
        return realisation

    @model_validator(mode="after")
    def _torch_joins_no_cells(self) -> Self:
        if self.kernel == "torch" and self.merge_cells > 0.0:
            raise ValueError("kernel 'torch' joins no cells; leave out merge_cells")
        return self

    def conversion(
        self,
        energy_gev: FloatArray,
        cluster: Cluster,
        *,
        redshift: float,
        milky_way: Cells | None,
        tau: FloatArray | None = None,
    ) -> Conversion:
        """Survival curves of one source, computed as these options say; see `Conversion`."""
        return Conversion(
            energy_gev,
            cluster,
            redshift=redshift,
            milky_way=milky_way,
            cell_mode=self.cell_mode,
            high_mass_cut=self.high_mass_cut,
            realisation=self.realisation,
            tau=tau,
            merge_rad=self.merge_cells,
            single=self.precision == "single",
            kernel=self.kernel,
        )


_LATER: Final[dict[str, Any]] = {"later": True}  # options younger than stores in use


def _value(name: str, unit: str = "") -> Any:
    """A cluster parameter as an option: None leaves it to the level."""
    return Field(
        None,
        description=f"Hold the cluster parameter {name} at this value; none: as the level says.",
        json_schema_extra={**_LATER, "unit": unit},
    )


class ClusterOptions(ConversionOptions):
    """What is known about the cluster."""

    level: Level = Field(
        "five",
        description="Prior of the twelve parameters of the cluster's field. 'five': all fixed; "
        "'informed': truncated log-normal around measurements of cool-core clusters; "
        "'semi-informed': uniform on the same intervals; 'agnostic': uniform on what is possible.",
        json_schema_extra=_LATER,
    )
    free: tuple[str, ...] = Field(
        (),
        description="Cluster parameters to vary at level 'five', under their 'informed' prior "
        f"(--free): of {', '.join(VARIED)}.",
        json_schema_extra=_LATER,
    )
    b0: float | None = _value("b0", "uG")
    n0: float | None = _value("n0", "1e-3 cm-3")
    n2: float | None = _value("n2", "1e-3 cm-3")
    r_abell: float | None = _value("r_abell", "kpc")
    r_core: float | None = _value("r_core", "kpc")
    r_core2: float | None = _value("r_core2", "kpc")
    beta: float | None = _value("beta")
    beta2: float | None = _value("beta2")
    eta: float | None = _value("eta")
    k_l: float | None = _value("k_l", "kpc-1")
    k_h: float | None = _value("k_h", "kpc-1")
    q: float | None = _value("q")

    @field_validator("free", mode="before")
    @classmethod
    def _splits_names(cls, free: Any) -> Any:
        """Text of the command line, names separated by commas, is a list."""
        if isinstance(free, str):
            return tuple(name.strip() for name in free.split(",") if name.strip())
        return free

    @field_validator("free")
    @classmethod
    def _are_cluster_parameters(cls, free: tuple[str, ...]) -> tuple[str, ...]:
        for name in free:
            if name not in VARIED:
                nearest = nearest_name(name, VARIED)
                guess = f"; did you mean {nearest!r}?" if nearest else ""
                raise ValueError(f"{name!r} is none of {', '.join(VARIED)}{guess}")
        return tuple(name for name in VARIED if name in free)

    def cluster_prior(self, cluster: Cluster) -> ClusterPrior:
        """Which parameters of ``cluster`` vary, and the values of the others.

        Raises:
            OptionError: If the options contradict each other or describe no cluster.
        """
        values = {name: getattr(self, name) for name in VARIED}
        fixed = {name: value for name, value in values.items() if value is not None}
        try:
            return ClusterPrior(cluster, self.level, self.free, fixed)
        except ValueError as error:  # of a contract, or of the cluster itself
            raise OptionError(str(error)) from error


class AlpSimulator(Simulator):
    """Base of the simulators: theta starts with (m_a, g), the latent is the curve P(E)."""

    conversion: Conversion
    cluster_prior: ClusterPrior
    observation_model: Counts | OnAndOff

    def __init__(self, options: ConversionOptions | None = None, **values: object) -> None:
        super().__init__(options, **values)
        if self.options.merge_cells > 0.0:
            # Joined cells of version 1 forgot the variance of the field in vacuum polarisation.
            vars(self)["version"] = "2"

    @abstractmethod
    def expected_signal(self, survival: FloatArray, theta: FloatArray) -> FloatArray:
        """Expected counts of the source, shape (n, n_reco).

        Args:
            survival: Survival probability of each true-energy bin, shape (n, n_true).
            theta: Parameter values, shape (n, d), the spectrum in columns 2 to 4.
        """

    @property
    def observable(self) -> Observable:
        return self.observation_model.observable

    @property
    def constraints(self) -> Sequence[str]:
        return self.cluster_prior.constraints

    def read_observation(self, path: Path) -> DataArray:
        """Measured counts: see `Counts.read` over a known background, else `OnAndOff.read`."""
        return self.observation_model.read(path)

    def _simulate_latent(self, theta: FloatArray, rng: np.random.Generator) -> Latents:
        """Latents of each simulation.

        ``survival``: survival probability of each true-energy bin, float32, shape (n, n_true).
        ``realisation``: seed of the field, shape (n,), where parameters of the cluster vary.
        """
        m_a, g = theta[:, 0], theta[:, 1]
        varied = len(self.cluster_prior.names)
        if not varied:
            return {"survival": self.conversion.draw(m_a, g, rng)}
        clusters = self.cluster_prior.clusters(theta[:, -varied:])
        seeds = self.conversion.draw_seeds(len(theta), rng)
        survival = self.conversion.draw_varied(m_a, g, clusters, seeds)
        return {"survival": survival, "realisation": seeds}

    def _observe(self, z: Latents, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        survival = np.asarray(z["survival"], dtype=np.float64)
        return self.observation_model.draw(self.expected_signal(survival, theta), rng)
