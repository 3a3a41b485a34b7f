"""A simulator as BayesFlow's own objects: a simulator of dictionaries, an adapter, data sets.

Example:
    >>> import sbi_physics as sp
    >>> view = sp.simulator("toy-gaussian").native("bayesflow")
    >>> sorted((k, v.shape) for k, v in view.simulator.sample(4).items())
    [('theta_1', (4, 1)), ('theta_2', (4, 1)), ('x', (4, 2))]
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sbi_physics import Prior, Simulations, Simulator
from sbi_physics.distributions import Log10Normal, LogNormal, LogUniform
from sbi_physics.errors import ContractError
from sbi_physics.types import AnyArray, FloatArray
from sbi_physics_bayesflow.backend import import_backend

DATA = "x"
"""Key of the data in BayesFlow's dictionaries; parameters have their own names."""

_Simulator: Any = import_backend().bayesflow.simulators.Simulator


class BayesFlowView(NamedTuple):
    """What a user of BayesFlow's own classes needs.

    Attributes:
        simulator: For `BasicWorkflow` and `OnlineDataset`; parameters with fixed values are left
            out and filled in.
        adapter: From these dictionaries to the variables of a `ContinuousApproximator`: bounded
            parameters are constrained, so that no draw can leave the prior.
    """

    simulator: BayesFlowSimulator
    adapter: Any

    def dataset(self, simulations: Simulations, *, batch_size: int = 256, **options: Any) -> Any:
        """Return simulations as an `OfflineDataset` with this adapter.

        Args:
            simulations: Simulations of this simulator, read into memory.
            batch_size: Simulations in a batch.
            **options: Passed on, such as `shuffle` and `augmentations`.

        Raises:
            StoreMismatchError: If another simulator made them.
            ContractError: If they have other parameters than this simulator, or carry importance
                weights, which BayesFlow does not know.
        """
        simulations.require_simulator(self.simulator.simulator)
        rows = simulations.read(slice(None), latents=())
        if rows.weight is not None and not bool((rows.weight == 1).all()):
            raise ContractError(
                "the simulations carry importance weights, which BayesFlow does not know; "
                "simulate from the prior itself"
            )
        data = self.simulator.dictionary(rows.theta, rows.x)
        datasets = import_backend().bayesflow.datasets
        return datasets.OfflineDataset(data, batch_size, self.adapter, **options)


def native_simulator(simulator: Simulator) -> BayesFlowView:
    """Return the view of a simulator; its generator is NumPy's global one, as BayesFlow's are."""
    wrapped = BayesFlowSimulator(simulator)
    return BayesFlowView(wrapped, build_adapter(wrapped.prior, simulator.observable.kind))


class BayesFlowSimulator(_Simulator):  # type: ignore[misc]  # BayesFlow has no types
    """A simulator that draws from its prior and returns dictionaries of arrays.

    Args:
        simulator: What to call.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self._free = [i for i, p in enumerate(simulator.parameters) if not p.is_fixed]
        self.prior: Prior = simulator.prior.select(
            [p.name for p in simulator.parameters if not p.is_fixed]
        )

    def __repr__(self) -> str:
        return f"BayesFlowSimulator({self.simulator!r})"

    def sample(self, batch_shape: Any, **kwargs: Any) -> dict[str, AnyArray]:
        """Draw parameters and simulate.

        Args:
            batch_shape: A number of simulations, or a shape.
            **kwargs: Ignored, as BayesFlow's own simulators do.

        Returns:
            Parameters by name, shape (*batch_shape, 1), and `x`, shape (*batch_shape, *shape).
        """
        shape = (batch_shape,) if isinstance(batch_shape, int) else tuple(batch_shape)
        rng = np.random.default_rng(np.random.randint(2**32, size=4))  # noqa: NPY002 - see above
        n = int(np.prod(shape))
        theta = self.simulator.prior.sample(n, rng)
        data = self.dictionary(theta, self.simulator.simulate(theta, rng))
        return {k: v.reshape(*shape, *v.shape[1:]) for k, v in data.items()}

    def dictionary(self, theta: FloatArray, x: AnyArray) -> dict[str, AnyArray]:
        """Return parameters (n, d), fixed ones included, and data (n, *shape) as a dictionary."""
        columns = {self.prior.names[j]: theta[:, [i]] for j, i in enumerate(self._free)}
        return {**columns, DATA: x}


def build_adapter(prior: Prior, kind: str) -> Any:
    """Return the adapter for parameters of a prior and data of a kind.

    Vectors become inference conditions, other data go to a summary network, axes as they are
    (BayesFlow's networks want channels last; the last column of a set says which rows are events).
    Parameters that are uniform or normal in their logarithm are seen in it.
    """
    adapter = import_backend().bayesflow.Adapter()
    for parameter in prior.parameters:
        low, high = parameter.bounds
        if isinstance(parameter.distribution, LogUniform | LogNormal | Log10Normal):
            adapter.log(parameter.name)
            low, high = np.log(low) if low > 0 else -np.inf, np.log(high)
        limits = {
            name: float(value)
            for name, value in (("lower", low), ("upper", high))
            if np.isfinite(value)
        }
        if limits:
            adapter.constrain(parameter.name, **limits)
    adapter.concatenate(list(prior.names), into="inference_variables")
    if kind == "spectrum":
        adapter.as_time_series(DATA)
    adapter.rename(DATA, "inference_conditions" if kind == "vector" else "summary_variables")
    adapter.convert_dtype("float64", "float32")
    return adapter
