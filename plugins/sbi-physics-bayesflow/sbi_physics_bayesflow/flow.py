r"""BayesFlow's coupling flow: built by BayesFlow, evaluated without keras in between.

Layers, initialisation and weights are BayesFlow's. Every call of a keras layer costs a tenth of a
millisecond of bookkeeping, and a flow has a hundred of them, more than the arithmetic of a batch:
`CouplingFlow` therefore reads the layers' weights once and evaluates the same formulas with torch.
`test_flow.py` and every construction compare the result with BayesFlow's own.

One coupling layer transforms both halves in turn (arXiv:2003.06281, arXiv:1907.02392),

.. math:: z_2 = f(x_2;\, g_1(x_1, c)), \qquad z_1 = f(x_1;\, g_2(z_2, c)),

with f affine or a rational-quadratic spline (arXiv:1906.04032) and subnets g. The part of a subnet
that depends on the summaries c only is computed once for all draws of an observation.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sbi_physics.errors import PluginError
from sbi_physics_bayesflow.backend import Backend
from sbi_physics_bayesflow.settings import CouplingSettings
from sbi_physics_bayesflow.transforms import affine, spline

Activation = Callable[[Tensor], Tensor]
Transform = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor]]

ACTIVATIONS: dict[str, Activation] = {
    "elu": nn.functional.elu,
    "gelu": nn.functional.gelu,
    "hard_silu": nn.functional.hardswish,
    "leaky_relu": nn.functional.leaky_relu,
    "mish": nn.functional.mish,
    "relu": nn.functional.relu,
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
}
"""Activations by the name keras gives them; that of `leaky_relu` has torch's slope, 0.01."""

_COUPLING = "bayesflow.networks.inference.coupling"
_CHECK_ROWS = 16
_TOLERANCE = 1e-3


def keras_activation(backend: Backend, name: str) -> Any:
    """Return an activation for keras layers."""
    return backend.keras.layers.LeakyReLU(negative_slope=0.01) if name == "leaky_relu" else name


def build_flow(
    backend: Backend, d: int, n_features: int, settings: CouplingSettings
) -> CouplingFlow:
    """Return an untrained flow, compared with BayesFlow's own evaluation.

    Raises:
        PluginError: If they disagree.
    """
    layers = build_layers(backend, d, n_features, settings)
    flow = CouplingFlow(layers, settings)
    check_against(layers, flow, d, n_features)
    return flow


def build_layers(backend: Backend, d: int, n_features: int, settings: CouplingSettings) -> Any:
    """Return BayesFlow's own flow for d parameters and n_features summaries, built.

    One parameter has no halves, which BayesFlow refuses; its flow is a chain of single couplings
    that depend on the summaries only, as a `_Chain` with the same calls.
    """
    subnet = {
        "widths": settings.widths,
        "activation": keras_activation(backend, settings.activation),
        "kernel_initializer": settings.initializer,
        "dropout": settings.dropout,
    }
    transform = {"bins": settings.bins} if settings.transform == "spline" else {}
    if d == 1:
        return _Chain(n_features, settings, subnet, transform)
    flow = backend.bayesflow.networks.CouplingFlow(
        depth=settings.depth,
        transform=settings.transform,
        permutation=None if settings.permutation == "none" else settings.permutation,
        use_actnorm=settings.actnorm,
        subnet_kwargs=subnet,
        transform_kwargs=transform,
    )
    flow.build((None, d), (None, n_features))
    return flow


class _Chain:
    """Single couplings of one parameter with an empty other half, with the calls of a flow."""

    def __init__(
        self,
        n_features: int,
        settings: CouplingSettings,
        subnet: dict[str, Any],
        transform: dict[str, Any],
    ) -> None:
        actnorm = importlib.import_module(f"{_COUPLING}.actnorm")
        layers = importlib.import_module(f"{_COUPLING}.layers")
        self.invertible_layers: list[Any] = []
        for _ in range(settings.depth):
            if settings.actnorm:
                scale = actnorm.ActNorm()
                scale.build((None, 1))
                self.invertible_layers.append(scale)
            coupling = layers.SingleCoupling(
                "mlp", settings.transform, subnet_kwargs=subnet, transform_kwargs=transform
            )
            coupling.build((None, 0), (None, 1), (None, n_features))
            self.invertible_layers.append(coupling)

    def __call__(
        self, x: Tensor, conditions: Tensor, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        log_det = torch.zeros(x.shape[:-1])
        for layer in self.invertible_layers[:: -1 if inverse else 1]:
            if hasattr(layer, "subnet"):
                (_, x), det = layer(x[..., :0], x, conditions=conditions, inverse=inverse)
            else:
                x, det = layer(x, inverse=inverse)
            log_det = log_det + det
        return x, log_det


class CouplingFlow(nn.Module):
    """A flow z -> latent, conditioned on summaries, on the weights of BayesFlow's layers.

    Args:
        layers: What `build_layers` returns.
        settings: The settings it was built with.
    """

    def __init__(self, layers: Any, settings: CouplingSettings) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_steps(layers, settings))

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map to the latent space.

        Args:
            z: Points, shape (batch, d) or (batch, k, d).
            features: Summaries, shape (batch, n_features).

        Returns:
            Latent points, same shape, and the log determinants of the map, shape (batch[, k]).
        """
        return self._through(self.steps, z, features, inverse=False)

    def inverse(self, latent: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map back from the latent space; shapes as in `forward`, log determinants of this map."""
        return self._through(reversed(self.steps), latent, features, inverse=True)

    def _through(
        self, steps: Iterable[nn.Module], z: Tensor, features: Tensor, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(z.shape[:-1])
        for step in steps:
            z, change = step(z, features, inverse=inverse)
            log_det = log_det + change
        return z, log_det


def check_against(layers: Any, flow: CouplingFlow, d: int, n_features: int) -> None:
    """Compare a flow with BayesFlow's own evaluation, on spread-out points and other weights.

    Output layers start at zero, which would hide an error in the subnets: for the comparison all
    weights are moved, and put back.

    Raises:
        PluginError: If they disagree: the installed BayesFlow computes something else.
    """
    random = torch.Generator().manual_seed(1)
    kept = {name: value.clone() for name, value in flow.state_dict().items()}
    with torch.no_grad():
        for parameter in flow.parameters():
            size = 0.3 / max(1.0, math.sqrt(parameter.shape[0]))
            parameter.add_(torch.randn(parameter.shape, generator=random), alpha=size)
        z = 2.0 * torch.randn(_CHECK_ROWS, d, generator=random)
        features = torch.randn(_CHECK_ROWS, n_features, generator=random)
        flow.eval()
        for ours, inverse in ((flow, False), (flow.inverse, True)):
            expected = _native(layers, z, features, inverse)
            for mine, theirs in zip(ours(z, features), expected, strict=True):
                error = float((mine - theirs).abs().max())
                if not error < _TOLERANCE * (1.0 + float(theirs.abs().max())):
                    raise PluginError(
                        f"the coupling flow of the installed BayesFlow differs by {error:.2g} "
                        "from the formulas of this plugin, which was written for 2.0.12; install "
                        "a version of the range that sbi-physics-bayesflow asks for"
                    )
    flow.load_state_dict(kept)


def _native(layers: Any, z: Tensor, features: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    if isinstance(layers, _Chain):
        return layers(z, features, inverse)
    point, density = layers(z, conditions=features, inverse=inverse, density=True)
    latent = z if inverse else point
    log_det = density - layers.base_distribution.log_prob(latent)
    return point, -log_det if inverse else log_det


def _steps(layers: Any, settings: CouplingSettings) -> Iterator[nn.Module]:
    for layer in layers.invertible_layers:
        if hasattr(layer, "forward_indices"):
            yield _Permutation(layer)
        elif hasattr(layer, "coupling1"):
            yield _DualCoupling(layer, settings)
        elif hasattr(layer, "subnet"):
            yield _SingleCoupling(layer, settings)
        else:
            yield _ActNorm(layer)


class _ActNorm(nn.Module):
    """A learned scale and shift of every parameter."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.scale, self.bias = layer.scale.value, layer.bias.value

    def forward(self, z: Tensor, features: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        change = self.scale.abs().log().sum()
        if inverse:
            return (z - self.bias) / self.scale, -change
        return z * self.scale + self.bias, change


class _Permutation(nn.Module):
    """A fixed order of the parameters."""

    forward_indices: Tensor
    inverse_indices: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.register_buffer("forward_indices", layer.forward_indices.value.detach().long())
        self.register_buffer("inverse_indices", layer.inverse_indices.value.detach().long())

    def forward(self, z: Tensor, features: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return z[..., self.inverse_indices if inverse else self.forward_indices], z.new_zeros(())


class _DualCoupling(nn.Module):
    """Two couplings that transform the second half, then the first."""

    def __init__(self, layer: Any, settings: CouplingSettings) -> None:
        super().__init__()
        self.pivot: int = layer.pivot
        self.one = _Coupling(layer.coupling1, settings)
        self.two = _Coupling(layer.coupling2, settings)

    def forward(self, z: Tensor, features: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        first, second = z[..., : self.pivot], z[..., self.pivot :]
        if inverse:
            first, change_1 = self.two(second, first, features, inverse)
            second, change_2 = self.one(first, second, features, inverse)
        else:
            second, change_1 = self.one(first, second, features, inverse)
            first, change_2 = self.two(second, first, features, inverse)
        return torch.cat([first, second], dim=-1), change_1 + change_2


class _SingleCoupling(nn.Module):
    """A coupling of one parameter that depends on the summaries only."""

    def __init__(self, layer: Any, settings: CouplingSettings) -> None:
        super().__init__()
        self.one = _Coupling(layer, settings)

    def forward(self, z: Tensor, features: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        moved: tuple[Tensor, Tensor] = self.one(z[..., :0], z, features, inverse)
        return moved


class _Coupling(nn.Module):
    """A subnet and a transform of one half, given the other half and the summaries."""

    def __init__(self, layer: Any, settings: CouplingSettings) -> None:
        super().__init__()
        self.subnet = _Perceptron(
            [block.dense for block in layer.subnet.blocks],
            layer.output_projector,
            ACTIVATIONS[settings.activation],
            settings.dropout,
        )
        self._transform: Transform = affine
        if settings.transform == "spline":
            self._transform = functools.partial(spline, layer.transform)

    def forward(
        self, given: Tensor, moved: Tensor, features: Tensor, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        return self._transform(self.subnet(given, features), moved, inverse)


class _Perceptron(nn.Module):
    """Dense layers on a half of the parameters and the summaries, on the weights of keras."""

    def __init__(
        self, hidden: Sequence[Any], output: Any, activation: Activation, dropout: float
    ) -> None:
        super().__init__()
        dense = [*hidden, output]
        self.kernels = nn.ParameterList(layer.kernel.value for layer in dense)
        self.biases = nn.ParameterList(layer.bias.value for layer in dense)
        self.activation, self.dropout = activation, dropout

    def forward(self, given: Tensor, features: Tensor) -> Tensor:
        split = given.shape[-1]
        h: Tensor = features @ self.kernels[0][split:] + self.biases[0]
        if given.dim() == 3:
            h = h[:, None, :]
        if split > 0:
            h = h + given @ self.kernels[0][:split]
        for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
            h = self.activation(h)
            if self.dropout > 0:
                h = nn.functional.dropout(h, self.dropout, self.training)
            h = nn.functional.linear(h, kernel.T, bias)
        return h.expand(*given.shape[:-1], -1)
