"""A simulator as sbi's own objects: a callable on tensors and a bounded torch prior.

Example:
    >>> import sbi_physics as sp
    >>> simulator, prior = sp.simulator("toy-gaussian").native("sbi")
    >>> theta = prior.sample((4,))
    >>> simulator(theta).shape
    torch.Size([4, 2])
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, biject_to, constraints
from torch.distributions.transforms import IndependentTransform, Transform

from sbi_physics import Prior, Simulator
from sbi_physics.types import FloatArray

_QUANTILES = (np.arange(4096) + 0.5) / 4096
_STEP = 1e-6


def native_simulator(simulator: Simulator) -> tuple[TorchSimulator, TorchPrior]:
    """Return `(simulator, prior)` for `sbi.inference.NPE(prior)` and `simulate_for_sbi`.

    Parameters that the simulator's options fix are left out of theta and filled in.
    """
    free = [p.name for p in simulator.parameters if not p.is_fixed]
    return TorchSimulator(simulator), TorchPrior(simulator.prior.select(free))


class TorchSimulator:
    """A simulator on tensors.

    It is seeded by torch's generator, as sbi's users expect: `torch.manual_seed` and the
    per-worker seeds of `simulate_for_sbi` make it reproducible.

    Args:
        simulator: What to call.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        parameters = simulator.parameters
        self._free = [i for i, p in enumerate(parameters) if not p.is_fixed]
        self._values = np.array([p.bounds[0] for p in parameters], dtype=np.float64)

    def __repr__(self) -> str:
        return f"TorchSimulator({self.simulator!r})"

    def __call__(self, theta: Tensor) -> Tensor:
        """Simulate, theta (n, d) or (d,) -> x (n, *shape) or (*shape,), float32."""
        points = torch.as_tensor(theta).detach().cpu().numpy()
        batch = np.atleast_2d(points)
        full = np.repeat(self._values[None], len(batch), axis=0)
        full[:, self._free] = batch
        x = torch.from_numpy(self.simulator.simulate(full, _numpy_generator()))
        return x if points.ndim > 1 else x[0]


class TorchPrior(Distribution):
    """A prior as a torch distribution with its bounds, differentiable log density and moments.

    Args:
        prior: What it wraps.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - as torch declares it
    has_rsample = False

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self._device = torch.device("cpu")
        low, high = prior.bounds.T
        self._low, self._high = _inward(low, np.inf), _inward(high, -np.inf)
        super().__init__(torch.Size(), torch.Size((prior.d,)), validate_args=False)

    def __repr__(self) -> str:
        return f"TorchPrior({self.prior!r})"

    @property
    def support(self) -> constraints.Constraint:
        """Bounds of all parameters, and the prior's constraints where it has any."""
        bounds = torch.from_numpy(np.stack([self._low, self._high])).to(self._device)
        return _Support(self.prior, bounds[0], bounds[1])

    @property
    def mean(self) -> Tensor:
        """Prior means, shape (d,)."""
        return self._tensor(self._quantiles().mean(axis=0))

    @property
    def variance(self) -> Tensor:
        """Prior variances, shape (d,)."""
        return self._tensor(self._quantiles().var(axis=0))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw points, shape (*sample_shape, d), float32, seeded by torch's generator."""
        shape = torch.Size(sample_shape)
        theta = self.prior.sample(shape.numel(), _numpy_generator()).astype(np.float32)
        # Rounding to float32 may step over a bound.
        inside = np.clip(theta, self._low, self._high)
        return torch.from_numpy(inside).reshape(*shape, self.prior.d).to(self._device)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, shape (...), `-inf` outside; differentiable in value."""
        out: Tensor = _LogDensity.apply(value, self.prior)  # type: ignore[no-untyped-call]
        return out

    def to(self, device: str | torch.device) -> TorchPrior:
        """Put draws and bounds on another device."""
        self._device = torch.device(device)
        return self

    def expand(self, batch_shape: Any, _instance: Any = None) -> TorchPrior:
        """Return this prior; it has no batch shape to expand to."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise NotImplementedError("a TorchPrior has no batch of distributions")
        return self

    def _tensor(self, values: FloatArray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._device)

    def _quantiles(self) -> FloatArray:
        return self.prior.from_unit(np.repeat(_QUANTILES[:, None], self.prior.d, axis=1))


class _LogDensity(torch.autograd.Function):
    """The core's log density, with derivatives of each factor by central differences."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, prior: Prior) -> Tensor:
        points = value.detach().cpu().double().numpy()
        ctx.prior, ctx.points = prior, points
        density = np.asarray(prior.log_prob(points))
        return torch.from_numpy(density).to(value.dtype).to(value.device)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        slopes = np.zeros_like(ctx.points)
        for i, parameter in enumerate(ctx.prior.parameters):
            low, high = parameter.bounds
            x = ctx.points[..., i]
            step = _STEP * np.maximum(np.abs(x), 1e-3)
            left, right = np.clip(x - step, low, high), np.clip(x + step, low, high)
            log_pdf = parameter.distribution.log_pdf
            inside = right > left
            difference = log_pdf(np.where(inside, right, left)) - log_pdf(left)
            slopes[..., i] = np.where(inside, difference / np.where(inside, right - left, 1.0), 0)
        grad = grads[0]
        return torch.from_numpy(slopes).to(grad.dtype).to(grad.device) * grad[..., None], None


class _Support(constraints.independent):
    """A box (half-open or open where bounds are infinite) cut by a prior's constraints."""

    def __init__(self, prior: Prior, low: Tensor, high: Tensor) -> None:
        sides = [_side(float(a), float(b)) for a, b in zip(low, high, strict=True)]
        self._prior = prior
        kinds = {type(s) for s in sides}
        if kinds == {type(constraints.real)}:
            base: constraints.Constraint = constraints.real
        elif kinds == {constraints.interval}:
            base = constraints.interval(low, high)
        else:
            base = constraints.cat(sides, dim=-1, lengths=[1] * len(sides))
        super().__init__(base, 1)  # type: ignore[no-untyped-call]

    def check(self, value: Tensor) -> Tensor:
        inside: Tensor = super().check(value)  # type: ignore[no-untyped-call]
        if self._prior.constraints:
            allowed = self._prior.contains(value.detach().cpu().numpy())
            inside = inside & torch.from_numpy(np.asarray(allowed)).to(inside.device)
        return inside


@biject_to.register(_Support)  # type: ignore[untyped-decorator]
def _bijection(support: _Support) -> Transform:
    # The constraints between parameters have no bijection; sbi rejects what violates them.
    return IndependentTransform(biject_to(support.base_constraint), 1)


def _side(low: float, high: float) -> constraints.Constraint:
    if np.isinf(low) and np.isinf(high):
        return constraints.real
    if np.isinf(high):
        return constraints.greater_than(low)
    if np.isinf(low):
        return constraints.less_than(high)
    return constraints.interval(low, high)


def _inward(bounds: FloatArray, towards: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return float32 bounds that are not outside the given float64 ones."""
    rounded = bounds.astype(np.float32)
    outside = rounded < bounds if towards > 0 else rounded > bounds
    return np.where(outside, np.nextafter(rounded, np.float32(towards)), rounded)


def _numpy_generator() -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(2**62, ()).item()))
