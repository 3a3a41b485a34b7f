"""Posteriors and networks trained with sbi itself, for the validator and for fast sampling.

sbi samples one observation at a time or rejects until the worst observation of a batch is
finished. Here a density network is sampled in chunks, draws outside the prior are masked and
only rows that are short are topped up; the accepted fraction of an observation is also its leakage
factor. A ratio network is evaluated on one pool of prior points for all observations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from sbi.inference.posteriors import DirectPosterior
from sbi.inference.potentials.ratio_based_potential import RatioBasedPotential
from sbi.neural_nets.estimators import ConditionalDensityEstimator
from sbi.neural_nets.ratio_estimators import RatioEstimator
from torch import Tensor

from sbi_physics import Observable, Posterior, Prior
from sbi_physics.errors import ContractError
from sbi_physics.nn.blocks import blocks
from sbi_physics.posterior import PosteriorContext
from sbi_physics.ratio import RatioPosterior
from sbi_physics.restricted import RestrictedPosterior
from sbi_physics.types import DataArray, FloatArray
from sbi_physics_sbi.density import sampled

_CHUNK_ROWS = 16_384
_RATIO_ROWS = 32_768
_CHECK_POINTS = 64
_CHECK_TOLERANCE = 1e-2


def native_posterior(native: Any, prior: Prior) -> Posterior:
    """Wrap a posterior or network trained with sbi on physical parameters.

    Args:
        native: A `DirectPosterior`; a posterior of ratio estimation, whatever samples it; or the
            trained density or ratio estimator itself.
        prior: The prior of its parameters, in the same order.

    Raises:
        ContractError: If the object is of another kind, or its prior or shape disagree.
    """
    own_prior = getattr(native, "prior", None)
    network = native
    if isinstance(native, DirectPosterior):
        network = native.posterior_estimator
    elif isinstance(getattr(native, "potential_fn", None), RatioBasedPotential):
        network = native.potential_fn.ratio_estimator
        own_prior = native.potential_fn.prior
    if isinstance(network, ConditionalDensityEstimator):
        kind: Callable[[PosteriorContext, Any], Posterior] = NativeDensityPosterior
    elif isinstance(network, RatioEstimator):
        kind = NativeRatioPosterior
    else:
        raise ContractError(
            f"cannot wrap a {type(native).__name__} of sbi; accepted are DirectPosterior (NPE), "
            "posteriors of ratio estimation (NRE) and their networks. Pass a function "
            "sampler(x, n) instead"
        )
    _same_shape(network, prior)
    if own_prior is not None:
        _same_prior(own_prior, prior)
    network.eval()
    observable = Observable("vector", tuple(int(s) for s in network.condition_shape))
    return kind(_context(prior, observable), network)


class NativeDensityPosterior(RestrictedPosterior):
    """A density network of sbi on physical parameters, restricted to the prior.

    Args:
        context: Prior and observable.
        network: The trained density estimator.
    """

    remedy: ClassVar[str] = "train it longer, or with the engine 'sbi-npe', which cannot leak"

    def __init__(self, context: PosteriorContext, network: ConditionalDensityEstimator) -> None:
        super().__init__(context)
        self.network = network

    def _propose(self, x: DataArray, n: int, rng: np.random.Generator) -> FloatArray:
        out = np.empty((len(x), n, self.prior.d))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(int(rng.integers(2**63)))
            for rows, draws in blocks(len(x), n, _CHUNK_ROWS):
                points = sampled(self.network, draws.stop - draws.start, _tensor(x[rows]))
                out[rows, draws] = points.transpose(0, 1).double().numpy()
        return out

    def _raw(self, theta: FloatArray, x: DataArray) -> FloatArray:
        out = np.empty(theta.shape[:2])
        with torch.no_grad():
            for rows, draws in blocks(theta.shape[0], theta.shape[1], _CHUNK_ROWS):
                points = _tensor(theta[rows, draws].swapaxes(0, 1))
                density = self.network.log_prob(points, condition=_tensor(x[rows]))
                out[rows, draws] = density.T.double().numpy()
        return out


class NativeRatioPosterior(RatioPosterior):
    """A ratio network of sbi on physical parameters, sampled through a pool of prior points.

    Args:
        context: Prior and observable.
        network: The trained ratio estimator.
    """

    def __init__(self, context: PosteriorContext, network: RatioEstimator) -> None:
        super().__init__(context)
        self.network = network

    def _log_ratio(self, u: FloatArray, xt: DataArray) -> FloatArray:
        theta = self.prior.from_unconstrained(u)
        out = np.empty((len(xt), u.shape[-2]))
        with torch.no_grad():
            features = self.network.embedding_net_x(_tensor(xt))
            for rows, points in blocks(len(xt), u.shape[-2], _RATIO_ROWS):
                shared = theta[points][None] if theta.ndim == 2 else theta[rows, points]
                out[rows, points] = self._block(_tensor(shared), features[rows]).numpy()
        return out

    def _block(self, theta: Tensor, features: Tensor) -> Tensor:
        of_theta = self.network.embedding_net_theta(theta.flatten(0, 1))
        of_theta = of_theta.reshape(*theta.shape[:2], -1).expand(len(features), -1, -1)
        of_x = features[:, None, :].expand(-1, of_theta.shape[1], -1)
        joined: Tensor = torch.cat([of_theta, of_x], dim=-1)
        out: Tensor = self.network.net(joined.flatten(0, 1))
        return out.reshape(joined.shape[:2])


def _context(prior: Prior, observable: Observable) -> PosteriorContext:
    # sbi's networks standardise their inputs themselves.
    observable = Observable(observable.kind, observable.shape, transform=())
    placeholder = np.zeros((2, *observable.shape), dtype=np.float32)
    return PosteriorContext(
        engine="sbi",
        prior=prior,
        observable=observable,
        transform=observable.fit_transform(placeholder),
    )


def _same_shape(network: Any, prior: Prior) -> None:
    shape = tuple(int(s) for s in network.input_shape)
    if shape != (prior.d,):
        raise ContractError(
            f"the sbi network was trained on parameters of shape {shape}, the prior has "
            f"{prior.d}: {', '.join(prior.names)}; pass the prior of exactly the parameters it "
            "was trained on"
        )


def _same_prior(own: Any, prior: Prior) -> None:
    """Refuse a native posterior whose prior is not the one of the simulations."""
    points = prior.sample(_CHECK_POINTS, np.random.default_rng(0))
    with torch.no_grad():
        theirs = own.log_prob(_tensor(points)).double().numpy()
    difference = np.abs(theirs - prior.log_prob(points))
    worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
    if not difference[worst] < _CHECK_TOLERANCE:
        values = ", ".join(f"{k} = {v:g}" for k, v in zip(prior.names, points[worst], strict=True))
        raise ContractError(
            f"the sbi posterior has another prior: at {values} "
            f"its log density is {theirs[worst]:.6g}, that of the simulations' prior "
            f"{prior.log_prob(points[worst]):.6g}; train with the prior of simulator.native('sbi')"
        )


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
