"""What both engines let users choose."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sbi_physics.nn.settings import OptimizerSettings, ScheduleName

ARCHITECTURE = (
    "network",
    "hidden_features",
    "hidden_layers",
    "lgatr_blocks",
    "lgatr_multivectors",
    "lgatr_scalars",
    "lgatr_heads",
    "lgatr_expansion",
    "lgatr_references",
    "members",
    "parametrization",
    "max_events",
    "terms",
    "pool_size",
    "floor",
)
"""Settings that shape the posterior: what is needed to rebuild it."""


class LabelSettings(OptimizerSettings):
    """Settings of engines that learn from labels."""

    max_epochs: int = Field(
        30, ge=1, description="Largest number of passes; length of the learning-rate schedule."
    )
    schedule: ScheduleName = Field("one-cycle", description="Learning rate over max_epochs.")
    keep: Literal["best", "last"] = Field(
        "last",
        description="Weights that are kept: the last ones, or those of the lowest validation "
        "loss, which here follows the noise of the labels.",
    )
    stop_after_epochs: int = Field(
        1000, ge=1, description="Stop when the validation loss has not improved for so long."
    )
    clip_max_norm: float = Field(
        1e4,
        gt=0,
        description="Largest gradient norm. A small one clips just the batches with outlying "
        "labels, which biases a regression.",
    )
    batch_size: int = Field(1024, ge=2, description="Rows in one gradient step.")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Peak learning rate.")
    validation_fraction: float = Field(0.1, gt=0, lt=0.9, description="Share of events held out.")
    network: Literal["mlp", "lgatr"] = Field(
        "mlp",
        description="mlp: perceptrons of the standardised data; lgatr: Lorentz-equivariant "
        "transformers of the measured particles (arXiv:2411.00446), for smeft-wz and smeft-lhe "
        'at detector level; they need pip install "sbi-physics-smeft[lgatr]" and about a '
        "hundred times the processor time.",
    )
    hidden_features: int = Field(64, ge=1, description="Width of perceptrons.")
    hidden_layers: int = Field(3, ge=1, le=12, description="Hidden layers of perceptrons.")
    lgatr_blocks: int = Field(4, ge=1, le=24, description="Blocks of an lgatr network.")
    lgatr_multivectors: int = Field(
        16, ge=1, le=256, description="Multivector channels of an lgatr network."
    )
    lgatr_scalars: int = Field(
        32, ge=1, le=1024, description="Scalar channels of an lgatr network."
    )
    lgatr_heads: int = Field(4, ge=1, le=64, description="Attention heads of an lgatr network.")
    lgatr_expansion: int = Field(
        2,
        ge=1,
        le=8,
        description="Channels inside the perceptrons of its blocks over those between blocks.",
    )
    lgatr_references: Literal["beam-time", "beam"] = Field(
        "beam-time",
        description="What breaks the Lorentz group of an lgatr network. beam: it stays invariant "
        "under rotations about the beams and boosts along them; beam-time: under rotations only.",
    )
    members: int = Field(
        1, ge=1, le=200, description="Networks trained at once, whose ratios are averaged."
    )
    members_from: Literal["initialization", "repulsion", "bootstrap"] = Field(
        "initialization",
        description="What makes members differ: initialization alone; repulsion in function "
        "space (arXiv:2106.11642); bootstrap (each sees events with weights Poisson(1)).",
    )
    smearing: Literal["none", "fractional"] = Field(
        "none",
        description="fractional: events with outlying labels are observed n times at weight 1/n.",
    )
    smearing_threshold: float = Field(
        0.5, gt=0, description="Labels beyond mean + threshold x spread are outlying."
    )
    smearing_max: int = Field(200, ge=1, description="Largest number of copies of an event.")
    max_events: int = Field(
        0,
        ge=0,
        description="Observations are sets of at most so many events; 0: single events, as the "
        "simulations.",
    )
    terms: Literal["shape", "extended"] = Field(
        "shape",
        description="Posterior of a set from the shape of its events alone, or extended by the "
        "number of events (whose expectation the simulator knows).",
    )
    pool_size: int = Field(4096, ge=256, description="Prior points that draws come from.")
    floor: float = Field(
        1e-3,
        gt=0,
        lt=1,
        description="Ratios below it are raised to it; only unconstrained ones get there.",
    )

    @model_validator(mode="after")
    def _on_the_processor(self) -> LabelSettings:
        if self.device not in ("auto", "cpu"):
            raise ValueError(
                f"device={self.device!r} is not supported: these small networks train on the "
                "processor (auto or cpu)"
            )
        return self
