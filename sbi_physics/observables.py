"""What a simulator returns: its kind, shape and units, and the transform that networks see.

The kind decides an engine's default summary network. The transform is part of the observable: it
is fitted once on training simulations, applied by the core, and stored with the posterior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.transforms import STEPS, WHITENABLE, Transform
from sbi_physics.types import DataArray, IntArray

KINDS = ("vector", "spectrum", "set", "image")
_MAX_LISTED = 5


@dataclass(frozen=True)
class Observable:
    """The data of one simulation or observation.

    Attributes:
        kind: `vector`; `spectrum` (ordered bins on the last axis); `set` (exchangeable events);
            `image`.
        shape: Event shape, without the batch axis. A spectrum is (n_bins,) or (n_channels,
            n_bins). A set is (max_events, n_features + 1): rows are zero-padded and the last
            column is 1 for an event, 0 for padding.
        unit: Unit of the entries.
        edges: Bin edges of a spectrum, length n_bins + 1, in `edge_unit`.
        edge_unit: Unit of the edges.
        transform: Steps applied before networks, among `log1p`, `sqrt`, `anscombe`,
            `standardize` and `whiten` (see `transforms`).
        label: Axis label of the entries.
        edge_label: Axis label of the edges.
        names: Names of the entries (vector), channels (spectrum) or event features (set); may be
            empty.
    """

    kind: str
    shape: tuple[int, ...]
    unit: str = ""
    edges: tuple[float, ...] | None = None
    edge_unit: str = ""
    transform: tuple[str, ...] = ("standardize",)
    label: str = ""
    edge_label: str = ""
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ContractError(f"observable kind {self.kind!r} is not one of {KINDS}")
        if not self.shape or any(int(s) < 1 for s in self.shape):
            raise ContractError(f"observable shape must be positive, got {self.shape}")
        # Plain numbers only: the record is compared, hashed and written as JSON.
        object.__setattr__(self, "shape", tuple(int(s) for s in self.shape))
        if self.edges is not None:
            object.__setattr__(self, "edges", tuple(float(e) for e in self.edges))
        if "whiten" in self.transform and self.kind not in WHITENABLE:
            raise ContractError(
                f"the whiten transform works on {WHITENABLE}, not on {self.kind!r}"
            )
        unknown = [s for s in self.transform if s not in STEPS]
        if unknown:
            raise ContractError(f"unknown transform steps {unknown}; known: {STEPS}")
        if self.edges is not None and len(self.edges) != self.shape[-1] + 1:
            raise ContractError(
                f"{self.shape[-1]} bins need {self.shape[-1] + 1} edges, got {len(self.edges)}"
            )
        if self.edges is not None and not bool((np.diff(self.edges) > 0).all()):
            raise ContractError("bin edges must increase")
        expected = {"set": (2,), "image": (2, 3), "spectrum": (1, 2)}.get(self.kind)
        if expected and len(self.shape) not in expected:
            raise ContractError(
                f"a {self.kind} has {' or '.join(map(str, expected))} axes, got shape {self.shape}"
            )

    def check(self, x: ArrayLike, subject: str = "observation") -> DataArray:
        """Return data as float32 with shape (batch, *shape); one observation gains a batch axis.

        Data that are float32 already are not copied.

        Raises:
            ObservationError: If the shape is wrong, entries are not finite (which ones), or a set
                is not padded as it should be.
        """
        data = np.asarray(x)
        if data.dtype.kind not in "buif":
            raise ObservationError(f"{subject} must hold real numbers, got dtype {data.dtype}")
        if data.shape == self.shape:
            data = data[None]
        if data.shape[1:] != self.shape:
            raise ObservationError(
                f"{subject} has shape {np.shape(x)}, expected {self.shape} or "
                f"(batch, {', '.join(map(str, self.shape))})"
            )
        with np.errstate(over="ignore"):  # beyond float32 is infinite, reported below
            result: DataArray = data.astype(np.float32, copy=False)
        finite = np.isfinite(result)
        if not finite.all():
            bad = np.argwhere(~finite)
            listed = ", ".join(str(tuple(int(i) for i in row)) for row in bad[:_MAX_LISTED])
            more = f" and {len(bad) - _MAX_LISTED} more" if len(bad) > _MAX_LISTED else ""
            raise ObservationError(
                f"{subject} has {len(bad)} entries that are not finite in float32, "
                f"at (batch, ...) index {listed}{more}"
            )
        if self.kind == "set" and not np.isin(result[..., -1], (0, 1)).all():
            raise ObservationError(
                f"the last column of {subject} must be 1 for an event and 0 for padding"
            )
        return result

    def counts(self, x: DataArray) -> IntArray:
        """Return the number of events of each set, shape (batch,)."""
        if self.kind != "set":
            raise ContractError(f"only sets have event counts, this is a {self.kind}")
        counts: IntArray = x[..., -1].sum(axis=-1).astype(np.int64)
        return counts

    def fit_transform(self, x: ArrayLike) -> Transform:
        """Fit the transform on training data with shape (n, *shape)."""
        return Transform.fit(self, self.check(x, "training data"))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "unit": self.unit,
            "edges": None if self.edges is None else list(self.edges),
            "edge_unit": self.edge_unit,
            "transform": list(self.transform),
            "label": self.label,
            "edge_label": self.edge_label,
            "names": list(self.names),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        values = dict(data)
        for key in ("shape", "transform", "names"):
            values[key] = tuple(values[key])
        values["edges"] = None if values["edges"] is None else tuple(values["edges"])
        return cls(**values)
