"""A simulator as swyft's own objects: a graph of nodes, samples and data modules.

Sample variables are `z` (the free parameters), `latent_NAME` (two-stage simulators) and `x`.

Example:
    >>> import sbi_physics as sp
    >>> from sbi_physics_swyft.native import data_module
    >>> simulator = sp.simulator("toy-two-stage").native("swyft")
    >>> sorted(simulator.sample(100))
    ['latent_hits', 'x', 'z']
    >>> store = sp.simulate(sp.simulator("toy-two-stage"), 100, seed=1)
    >>> data_module(store, batch_size=16).shuffle
    True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sbi_physics import Prior, Simulations, Simulator
from sbi_physics.errors import ContractError
from sbi_physics.types import AnyArray, DataArray, FloatArray, Latents
from sbi_physics_swyft.backend import swyft

LATENT = "latent_"
"""Prefix of the names of latents among sample variables."""


def native_simulator(simulator: Simulator) -> SwyftSimulator:
    """Return the simulator as a `swyft.Simulator`.

    Parameters that the simulator's options fix are left out of `z` and filled in.
    """
    return SwyftSimulator(simulator)


def native_samples(simulations: Simulations, *, latents: bool = False) -> Any:
    """Return simulations as `swyft.Samples` with variables `z`, `x` and, if asked for, latents.

    Args:
        simulations: Loaded into memory, as single precision numbers.
        latents: Include the latents of two-stage simulators.

    Raises:
        ContractError: If the simulations carry importance weights, which swyft does not know.
    """
    rows = simulations.read(slice(None), latents=None if latents else ())
    if rows.weight is not None and not bool((rows.weight == 1).all()):
        raise ContractError(
            "the simulations carry importance weights, which swyft does not know; simulate from "
            "the prior itself"
        )
    free = [i for i, p in enumerate(simulations.parameters) if not p.is_fixed]
    return _samples(rows.theta[:, free], rows.z, rows.x)


def data_module(
    simulations: Simulations,
    *,
    val_fraction: float = 0.1,
    batch_size: int = 64,
    num_workers: int = 0,
    on_after_load_sample: Callable[[Any], Any] | None = None,
) -> Any:
    """Return simulations as a `swyft.SwyftDataModule` that shuffles.

    swyft makes contrastive pairs by shifting a batch by one row. Without shuffling, which is its
    default, every epoch would see the same pairs.

    Args:
        simulations: Loaded into memory.
        val_fraction: Share held out.
        batch_size: Rows in a batch.
        num_workers: Processes that load batches.
        on_after_load_sample: Applied to each sample; a resampler of the observation, for example.
            Latents are loaded if it is given.

    Raises:
        ContractError: If the share is not in [0, 1), or the simulations carry importance weights.
    """
    if not 0 <= val_fraction < 1:
        raise ContractError(
            f"val_fraction is the share of simulations held out, at least 0 and below 1; got "
            f"{val_fraction!r}"
        )
    return swyft.SwyftDataModule(
        native_samples(simulations, latents=on_after_load_sample is not None),
        val_fraction=val_fraction,
        batch_size=batch_size,
        num_workers=num_workers,
        shuffle=True,
        on_after_load_sample=on_after_load_sample,
    )


class SwyftSimulator(swyft.Simulator):  # type: ignore[misc]
    """A simulator as a graph: `z`, then `x`, or for two stages `z`, the latents, `x`.

    It is seeded by NumPy's global generator, as swyft's users expect: `np.random.seed` makes it
    reproducible. Drawing N samples without conditions is one vectorised call, not N.

    Args:
        simulator: What to call.

    Attributes:
        simulator: The simulator.
        prior: Prior of the free parameters, in the order of `z`.
    """

    def __init__(self, simulator: Simulator) -> None:
        super().__init__()
        self.simulator: Simulator = simulator
        parameters = simulator.parameters
        self._free = [i for i, p in enumerate(parameters) if not p.is_fixed]
        self._values = np.array([p.bounds[0] for p in parameters], dtype=np.float64)
        self.prior: Prior = simulator.prior.select([parameters.names[i] for i in self._free])
        self.transform_samples = swyft.to_numpy32

    def __repr__(self) -> str:
        return f"SwyftSimulator({self.simulator!r})"

    def build(self, graph: Any) -> None:
        """Populate swyft's graph."""
        z = graph.node("z", self._draw_parameters)
        if not self.simulator.is_two_stage:
            graph.node("x", self._simulate, z)
            return
        # Latents have no declared names: one simulation tells them.
        middle = self.prior.from_unit(np.full((1, self.prior.d), 0.5))
        rng = np.random.default_rng(0)
        names = list(self.simulator.simulate_latent(self._full(middle), rng))

        def latents(z: AnyArray) -> list[AnyArray]:
            drawn = self.simulator.simulate_latent(self._full(z[None]), _numpy_generator())
            return [drawn[name][0] for name in names]

        def observed(z: AnyArray, *values: AnyArray) -> DataArray:
            stage = {name: np.asarray(v)[None] for name, v in zip(names, values, strict=True)}
            data = self.simulator.observe(stage, self._full(z[None]), _numpy_generator())
            return np.asarray(data[0])

        nodes = graph.node([LATENT + name for name in names], latents, z)
        graph.node("x", observed, z, *nodes)

    def sample(
        self,
        N: int | None = None,
        targets: Sequence[str] | None = None,
        conditions: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        exclude: Sequence[str] = (),
    ) -> Any:
        """Draw samples, as `swyft.Simulator.sample`.

        Args:
            N: Number of samples; one without sample axis if None.
            targets: Variables wanted; default all.
            conditions: Values of some variables, or a function that draws them.
            exclude: Variables left out of the result.
        """
        if N is None or targets is not None or conditions:
            return super().sample(N, targets, conditions or {}, list(exclude))
        rng = _numpy_generator()
        z = self.prior.sample(N, rng)
        theta, latents = self._full(z), {}
        if self.simulator.is_two_stage:
            latents = self.simulator.simulate_latent(theta, rng)
            x = self.simulator.observe(latents, theta, rng)
        else:
            x = self.simulator.simulate(theta, rng)
        samples = _samples(z, latents, x)
        for name in exclude:
            samples.pop(name, None)
        return samples

    def _draw_parameters(self) -> FloatArray:
        return np.asarray(self.prior.sample(1, _numpy_generator())[0])

    def _simulate(self, z: AnyArray) -> DataArray:
        return np.asarray(self.simulator.simulate(self._full(z[None]), _numpy_generator())[0])

    def _full(self, z: AnyArray) -> FloatArray:
        """All parameters, shape (n, d), from the free ones (n, d_free)."""
        free = np.array(z, dtype=np.float64)
        # Rounding to single precision may step over a bound.
        for j, (low, high) in enumerate(self.prior.bounds):
            for bound in (low, high):
                at_bound = free[:, j].astype(np.float32) == np.float32(bound)
                free[:, j] = np.where(at_bound, bound, free[:, j])
        full = np.repeat(self._values[None], len(free), axis=0)
        full[:, self._free] = free
        return full


def _samples(z: FloatArray, latents: Latents, x: DataArray) -> Any:
    named = {"z": z, **{LATENT + name: values for name, values in latents.items()}, "x": x}
    return swyft.to_numpy32(swyft.Samples(named))


def _numpy_generator() -> np.random.Generator:
    # Scripts written for swyft seed NumPy's global generator.
    return np.random.default_rng(int(np.random.randint(2**31)))  # noqa: NPY002
