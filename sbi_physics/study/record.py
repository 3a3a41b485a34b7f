"""What a finished study is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sbi_physics.config import RunConfig
from sbi_physics.coverage import Coverage
from sbi_physics.posterior import Posterior
from sbi_physics.store import Simulations
from sbi_physics.study.table import ParameterRow, summarize
from sbi_physics.types import DataArray, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A finished study.

    Attributes:
        directory: The run directory.
        config: The resolved configuration.
        simulations: Training simulations.
        pairs: Fresh simulations used for validation.
        posterior: The trained posterior.
        observation: The observation, shape observable.shape.
        observation_source: Where it comes from.
        truth: True values of the inferred parameters, shape (param,), if the observation was
            simulated.
        samples: Posterior samples for it in physical units, shape (n, param).
        coverage: The verdict with every test.
        seconds: Wall-clock time of each stage, by name.
        report_path: The report.
    """

    directory: Path
    config: RunConfig
    simulations: Simulations
    pairs: Simulations
    posterior: Posterior
    observation: DataArray
    observation_source: str
    truth: FloatArray | None
    samples: FloatArray
    coverage: Coverage
    seconds: Mapping[str, float]
    report_path: Path

    def table(self) -> tuple[ParameterRow, ...]:
        """Median and 68 and 95 % intervals of every inferred parameter, in physical units."""
        return summarize(self.samples, self.posterior.prior, self.truth)
