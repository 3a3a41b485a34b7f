"""Approximators trained with BayesFlow itself, for the validator and for many observations.

BayesFlow's `log_prob` takes pairs, and its `sample` keeps the rows of all observations at once;
here both work on blocks. Data and parameters go through the approximator's own adapter, whose
inverse also tells what they are called and how they are shaped.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from sbi_physics import Observable, Posterior, Prior
from sbi_physics.errors import ContractError
from sbi_physics.guard import quiet
from sbi_physics.nn.blocks import blocks
from sbi_physics.posterior import PosteriorContext
from sbi_physics.restricted import RestrictedPosterior
from sbi_physics.types import AnyArray, DataArray, FloatArray
from sbi_physics_bayesflow.backend import import_backend

_BLOCK_ROWS = 16_384
_EDGE = 1e-6
_PROBE = 8


def native_posterior(native: Any, prior: Prior) -> Posterior:
    """Wrap an approximator, or a workflow that holds one, trained on physical parameters.

    Args:
        native: A trained `ContinuousApproximator`, or a `BasicWorkflow` with one.
        prior: The prior of its parameters, in the same order unless they have names.

    Raises:
        ContractError: If the object is of another kind, is not trained, or its parameters are not
            those of the prior.
    """
    bayesflow = import_backend().bayesflow
    approximator = getattr(native, "approximator", native)
    if not isinstance(approximator, bayesflow.ContinuousApproximator):
        raise ContractError(
            f"cannot wrap a {type(native).__name__} of BayesFlow; accepted are "
            "ContinuousApproximator and workflows with one. Pass a function sampler(x, n) instead"
        )
    if not approximator.built:
        raise ContractError("the approximator has no weights yet: call its fit first")
    data, shape = _data_of(approximator)
    parameters = _parameters_of(approximator, prior)
    observable = Observable("vector", shape, transform=())
    context = PosteriorContext(
        engine="bayesflow",
        prior=prior,
        observable=observable,
        transform=observable.fit_transform(np.zeros((2, *shape), np.float32)),
    )
    return NativeApproximatorPosterior(context, approximator, data, parameters)


class NativeApproximatorPosterior(RestrictedPosterior):
    """An approximator of BayesFlow, restricted to the prior.

    Args:
        context: Prior and observable.
        approximator: The trained approximator.
        data: Key of the data in its dictionaries.
        parameters: Keys of the parameters and the columns of theta behind each.
    """

    remedy: ClassVar[str] = (
        "train it longer, constrain its parameters (the adapter of simulator.native('bayesflow') "
        "does), or use the engine 'bayesflow-cinn', which cannot leak"
    )

    def __init__(
        self,
        context: PosteriorContext,
        approximator: Any,
        data: str,
        parameters: Mapping[str, list[int]],
    ) -> None:
        super().__init__(context)
        self.approximator = approximator
        self._data, self._parameters = data, dict(parameters)

    def _propose(self, x: DataArray, n: int, rng: np.random.Generator) -> FloatArray:
        out = np.empty((len(x), n, self.prior.d))
        for rows, draws in blocks(len(x), n, _BLOCK_ROWS):
            with _undisturbed():
                found = self.approximator.sample(
                    num_samples=draws.stop - draws.start,
                    conditions={self._data: x[rows]},
                    seed=int(rng.integers(2**31)),
                )
            for name, columns in self._parameters.items():
                out[rows, draws, columns[0] : columns[-1] + 1] = found[name]
        return self._rounded_inside(out)

    def _raw(self, theta: FloatArray, x: DataArray) -> FloatArray:
        # Points outside the prior have no place in the adapter's coordinates; they are masked.
        middle = self.prior.from_unit(np.full(self.prior.d, 0.5))
        safe = np.where(self.prior.contains(theta)[..., None], theta, middle)
        out = np.empty(theta.shape[:2])
        for rows, points in blocks(theta.shape[0], theta.shape[1], _BLOCK_ROWS):
            block = safe[rows, points]
            flat = block.reshape(-1, block.shape[-1])
            data: dict[str, AnyArray] = {k: flat[:, c] for k, c in self._parameters.items()}
            data[self._data] = np.repeat(x[rows], block.shape[1], axis=0)
            with _undisturbed():
                density = self.approximator.log_prob(data)
            out[rows, points] = np.asarray(density).reshape(block.shape[:2])
        return out

    def _rounded_inside(self, theta: FloatArray) -> FloatArray:
        """Put draws that single precision moved over an edge back onto it."""
        low, high = self.prior.bounds.T
        width = np.where(np.isfinite(high - low), high - low, 1.0)
        clipped = np.clip(theta, low, high)
        return np.where(np.abs(theta - clipped) <= _EDGE * width, clipped, theta)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Evaluate without gradients, bars and a warning of NumPy about how keras copies tensors."""
    with torch.no_grad(), quiet(["bayesflow"]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation")
        yield


def _data_of(approximator: Any) -> tuple[str, tuple[int, ...]]:
    """The key and the event shape of the data, from the adapter's inverse."""
    shapes = approximator._build_shapes_dict
    shapes = shapes.get("data_shapes", shapes)
    found: dict[str, tuple[int, ...]] = {}
    for target in ("summary_variables", "inference_conditions"):
        if shapes.get(target) is not None:
            probe = np.zeros((_PROBE, *shapes[target][1:]), np.float32)
            back = approximator.adapter({target: probe}, inverse=True, strict=False)
            found.update({name: np.shape(value)[1:] for name, value in back.items()})
    if len(found) != 1:
        raise ContractError(
            f"the approximator is conditioned on {', '.join(sorted(found)) or 'nothing'}; the "
            "simulator has one array of data. Pass a function sampler(x, n) instead"
        )
    return next(iter(found.items()))


def _parameters_of(approximator: Any, prior: Prior) -> dict[str, list[int]]:
    """The columns of theta behind each key of the approximator's parameters."""
    shapes = approximator._build_shapes_dict
    width = shapes.get("data_shapes", shapes)["inference_variables"][-1]
    probe = np.zeros((_PROBE, width), np.float32)
    back = approximator.adapter({"inference_variables": probe}, inverse=True, strict=False)
    if set(back) == set(prior.names):
        return {name: [prior.names.index(name)] for name in back}
    widths = {name: int(np.shape(value)[-1]) for name, value in back.items()}
    if len(widths) == 1 and sum(widths.values()) == prior.d:
        return {next(iter(widths)): list(range(prior.d))}
    listed = ", ".join(f"{name} ({k})" for name, k in widths.items())
    raise ContractError(
        f"the approximator infers {listed}; the prior has {', '.join(prior.names)}. Give them "
        "these names, or one array with these columns in this order"
    )
