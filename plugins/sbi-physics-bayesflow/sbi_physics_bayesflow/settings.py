"""Settings of `bayesflow-cinn`, and the networks of published analyses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from sbi_physics.nn.settings import OptimizerSettings

TransformName = Literal["spline", "affine"]
PermutationName = Literal["random", "swap", "none"]
ActivationName = Literal["hard_silu", "silu", "relu", "leaky_relu", "gelu", "mish", "elu", "tanh"]
InitializerName = Literal["orthogonal", "glorot_uniform", "he_normal"]
SummaryName = Literal["auto", "none", "mlp", "deep_set", "set_transformer", "time_series", "conv"]
Widths = tuple[Annotated[int, Field(ge=1)], ...]
PresetName = Literal["none", "beamdump"]

SUMMARY_FIELDS: Final = (
    "summary",
    "summary_dim",
    "summary_widths",
    "summary_activation",
    "summary_residual",
    "dropout",
)
"""Settings that shape a summary network."""

ARCHITECTURE: Final = (
    *SUMMARY_FIELDS,
    "transform",
    "depth",
    "widths",
    "activation",
    "initializer",
    "permutation",
    "actnorm",
    "bins",
)
"""Settings that shape the network: what is needed to rebuild it."""

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    # Morandini, Ferber & Kahlhoefer, arXiv:2308.01353 (EPJC 84, 200) and their published code.
    "beamdump": {
        "transform": "affine",
        "depth": 4,
        "widths": (128, 128, 128, 128),
        "activation": "relu",
        "initializer": "glorot_uniform",
        "permutation": "none",
        "actnorm": False,
        "summary": "mlp",
        "summary_dim": 2,
        "summary_widths": (64, 64, 64, 64),
        "summary_activation": "leaky_relu",
        "summary_residual": False,
        "dropout": 0.0,
        "max_epochs": 500,
        "batch_size": 512,
        "learning_rate": 5e-3,
        "schedule": "step",
        "decay_factor": 0.9,
        "decay_epochs": 10,
        "stop_after_epochs": 50,
        "min_improvement": 1e-3,
        "validation_fraction": 0.2,
    },
}
"""Settings of published networks, by preset."""


class CouplingSettings(OptimizerSettings):
    """Settings of `bayesflow-cinn`."""

    preset: PresetName = Field(
        "none",
        description="Published network and schedule to start from: beamdump (arXiv:2308.01353). "
        "Settings given beside it win.",
    )
    transform: TransformName = Field(
        "spline", description="Coupling transform: rational-quadratic spline or affine."
    )
    depth: int = Field(
        4, ge=1, le=32, description="Coupling layers; each transforms both halves in turn."
    )
    widths: Widths = Field(
        (128, 128), min_length=1, description="Widths of the hidden layers in every subnet."
    )
    activation: ActivationName = Field("hard_silu", description="Activation in the subnets.")
    initializer: InitializerName = Field(
        "orthogonal", description="Initial weights of the subnets' hidden layers."
    )
    permutation: PermutationName = Field(
        "random", description="Fixed permutation of the parameters before every coupling layer."
    )
    actnorm: bool = Field(
        True,
        description="A learned scale and shift of each parameter before every coupling layer.",
    )
    bins: int = Field(8, ge=2, le=64, description="Bins of a spline.")
    summary: SummaryName = Field(
        "auto",
        description="Summary network: none (data as they are), mlp, deep_set or set_transformer "
        "(sets), time_series (spectra), conv (images); auto: by kind of observable.",
    )
    summary_dim: int = Field(16, ge=1, description="Summaries handed to the coupling layers.")
    summary_widths: Widths = Field(
        (64, 64),
        min_length=1,
        description="Widths of the hidden layers, blocks or stages of the summary network.",
    )
    summary_activation: ActivationName = Field(
        "silu", description="Activation in the summary network (set_transformer: swiglu)."
    )
    summary_residual: bool = Field(
        True, description="Skip connections in an mlp or conv summary network."
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout rate of all networks; 0 is a faithful cINN."
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {**PRESETS.get(str(values.get("preset")), {}), **values}
