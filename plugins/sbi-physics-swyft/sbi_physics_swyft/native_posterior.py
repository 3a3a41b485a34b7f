"""Modules trained with swyft itself, for the validator and for fast sampling.

swyft's `infer` handles one observation at a time and builds a data loader for each. Here a copy
of the module, with the fast channelised layers, is called directly on a pool of prior points
shared by all observations; its summary network sees each observation once.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_physics import Observable, Posterior, Prior
from sbi_physics.errors import ContractError
from sbi_physics.marginal import Block, MarginalPosterior
from sbi_physics.posterior import PosteriorContext
from sbi_physics.ratio import POOL_SIZE, RatioPosterior
from sbi_physics.types import DataArray, FloatArray
from sbi_physics_swyft.backend import swyft
from sbi_physics_swyft.channels import accelerate

_INDEXED = re.compile(r"\w+\[(\d+)\]")
_CHUNK_POINTS = 32_768


def native_posterior(
    native: Any,
    prior: Prior,
    observable: Observable | None = None,
    *,
    x: str = "x",
    z: str = "z",
    pool_size: int = POOL_SIZE // 4,
) -> Posterior:
    """Wrap a module trained with swyft on physical parameters.

    Its estimators must name their parameters either as the prior does or by index, `"z[0]"`, which
    is what `varnames="z"` gives. If one of them is about all parameters the posterior is joint,
    otherwise it answers for the blocks there are.

    Args:
        native: A `swyft.SwyftModule`, trained.
        prior: Prior of its parameters, in the order of the columns of `z`.
        observable: What `x` is; `validate` passes that of the pairs.
        x: Name of the data among the module's sample variables.
        z: Name of the parameters.
        pool_size: Prior points that draws come from; fewer than an engine's, as every point
            passes through all of the module's estimators.

    Raises:
        ContractError: If the object is of another kind or does not fit prior and data.
    """
    if not isinstance(native, swyft.SwyftModule):
        raise ContractError(
            f"cannot wrap a {type(native).__name__} of swyft; accepted is a trained SwyftModule. "
            "Pass a function sampler(x, n) instead"
        )
    if observable is None:
        raise ContractError(
            "a swyft module does not know the shape of its data; pass the observable of the "
            "simulator it was trained on"
        )
    module = copy.deepcopy(native).cpu().eval()
    accelerate(module)
    network = _Network(module, prior, x, z)
    context = _context(prior, observable)
    blocks = network.blocks(observable)
    whole = next((b for b in blocks if len(b) == prior.d), None)
    if whole is not None:
        return NativeRatioPosterior(context, network, blocks[whole], pool_size)
    parts: dict[Block, Posterior] = {}
    for block, place in blocks.items():
        narrow = _context(prior.select(block), observable)
        parts[block] = NativeRatioPosterior(narrow, network, place, pool_size)
    return MarginalPosterior(context, parts)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a module returns the log ratio of a block: which estimator, which column."""

    estimator: int
    column: int


class _Network:
    """A swyft module on parameters of the prior."""

    def __init__(self, module: Any, prior: Prior, x: str, z: str) -> None:
        self.module, self.prior = module, prior
        self._x, self._z = x, z
        self._middle = prior.from_unit(np.full(prior.d, 0.5))

    def blocks(self, observable: Observable) -> dict[Block, _Place]:
        """Return the blocks that the module answers for."""
        points = torch.from_numpy(self._middle.astype(np.float32)).expand(2, -1)
        try:
            outputs = self._outputs(torch.zeros(1, *observable.shape), points)
        except (IndexError, KeyError, RuntimeError, TypeError) as error:
            raise ContractError(
                f"the swyft module cannot be evaluated on data of shape {observable.shape} as "
                f"{self._x!r} and {self.prior.d} parameters ({', '.join(self.prior.names)}) as "
                f"{self._z!r}: {error!r}"
            ) from error
        found: dict[Block, _Place] = {}
        for i, output in enumerate(outputs):
            for k, labels in enumerate(
                np.asarray(output.parnames).reshape(-1, output.params.shape[-1])
            ):
                columns = sorted(self._column(str(label)) for label in labels)
                found.setdefault(tuple(self.prior.names[c] for c in columns), _Place(i, k))
        if not found:
            raise ContractError("the swyft module returns no log ratios")
        return found

    def log_ratio(
        self, place: _Place, block: Block, points: FloatArray, x: DataArray
    ) -> FloatArray:
        """Log ratios (k,) of points (k, d_block) at one observation."""
        columns = self.prior.parameters.indices(block)
        z = np.repeat(self._middle[None], len(points), axis=0)
        z[:, columns] = points
        tensor = torch.from_numpy(z.astype(np.float32))
        out = np.empty(len(points))
        one = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))[None]
        with torch.no_grad():
            for i in range(0, len(points), _CHUNK_POINTS):
                rows = slice(i, i + _CHUNK_POINTS)
                output = self._outputs(one, tensor[rows])[place.estimator]
                ratios: Tensor = output.logratios.flatten(1)[:, place.column]
                out[rows] = ratios.double().numpy()
        return out

    def _outputs(self, x: Tensor, z: Tensor) -> list[Any]:
        with torch.no_grad():
            out = self.module({self._x: x}, {self._z: z})
        return list(_ratios(out))

    def _column(self, label: str) -> int:
        names = self.prior.names
        if label in names:
            return names.index(label)
        indexed = _INDEXED.fullmatch(label)
        if indexed is not None and int(indexed[1]) < len(names):
            return int(indexed[1])
        raise ContractError(
            f"the swyft module answers for a parameter {label!r}; the prior has "
            f"{', '.join(names)}. Pass the prior of exactly the parameters it was trained on, or "
            "name them alike (varnames)"
        )


def _ratios(out: Any) -> Iterator[Any]:
    """Yield the log ratios in what a module returns: one, a sequence or a dictionary of them."""
    if isinstance(out, swyft.LogRatioSamples):
        yield out
    elif isinstance(out, dict):
        yield from _of_parts([v for k, v in out.items() if not str(k).startswith("aux_")])
    elif isinstance(out, (list, tuple)):
        yield from _of_parts(out)


def _of_parts(parts: Sequence[Any]) -> Iterator[Any]:
    for part in parts:
        yield from _ratios(part)


class NativeRatioPosterior(RatioPosterior):
    """The posterior of a block of a swyft module's parameters, from a pool of prior points.

    Args:
        context: Prior of the block, and observable.
        network: The module.
        place: Where it returns the block's log ratios.
        pool_size: Number of prior points in the shared pool.
    """

    def __init__(
        self, context: PosteriorContext, network: _Network, place: _Place, pool_size: int
    ) -> None:
        super().__init__(context, pool_size=pool_size)
        self._network, self._place = network, place

    def _log_ratio(self, u: FloatArray, xt: DataArray) -> FloatArray:
        theta = self.prior.from_unconstrained(u)
        rows = [
            self._network.log_ratio(
                self._place, self.prior.names, theta if theta.ndim == 2 else theta[i], one
            )
            for i, one in enumerate(xt)
        ]
        return np.stack(rows) if rows else np.empty((0, u.shape[-2]))


def _context(prior: Prior, observable: Observable) -> PosteriorContext:
    # The module saw raw data, of which it knows the shape and not the kind.
    raw = Observable("vector", observable.shape, transform=())
    placeholder = np.zeros((2, *raw.shape), dtype=np.float32)
    return PosteriorContext(
        engine="swyft",
        prior=prior,
        observable=raw,
        transform=raw.fit_transform(placeholder),
    )
