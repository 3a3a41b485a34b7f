"""Settings that engines on torch share besides the common ones: optimiser and summary network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from sbi_physics import TrainingSettings
from sbi_physics.nn.device import DeviceName

EmbeddingName = Literal["auto", "none", "mlp", "tapered", "conv", "set"]
ScheduleName = Literal["averaged", "one-cycle", "cosine", "plateau", "step", "constant"]


class OptimizerSettings(TrainingSettings):
    """Settings of the training loop."""

    max_epochs: int = Field(
        300,
        ge=1,
        description="Largest number of passes. Given, it also plans the learning rate, as "
        "one-cycle of this length; not given, training goes on until it no longer pays "
        "(schedule=averaged).",
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate.")
    schedule: ScheduleName = Field(
        "averaged",
        description="Learning rate: averaged (constant, with an exponential average of the "
        "weights), or over max_epochs one-cycle (rise, then cosine fall) or cosine (short "
        "warm-up, then fall), or plateau (times plateau_factor when validation stalls), step "
        "(times decay_factor every decay_epochs) or constant.",
    )
    average_epochs: float = Field(
        2.0,
        gt=0,
        description="Memory in epochs of the average of schedule=averaged. Held-out losses, "
        "early stopping and the kept weights are those of the average.",
    )
    warmup_epochs: float = Field(
        0.0,
        ge=0,
        description="Epochs over which the learning rate rises to its peak, in schedules that "
        "have no rise of their own (averaged, plateau, step, constant).",
    )
    decay_factor: float = Field(
        0.9, gt=0, le=1, description="Factor of the learning rate at each decay of step."
    )
    decay_epochs: int = Field(10, ge=1, description="Epochs between two decays of step.")
    plateau_factor: float = Field(
        0.5, gt=0, le=1, description="Factor of the learning rate at each plateau of plateau."
    )
    plateau_epochs: int | None = Field(
        None,
        ge=1,
        description="Epochs without improvement, since the last one or the last reduction, that "
        "are a plateau; none: a third of stop_after_epochs.",
    )
    min_improvement: float = Field(
        0.0,
        ge=0,
        description="Fall of the validation loss that counts as an improvement for stopping and "
        "plateaus. The weights of the lowest loss are kept whatever it is.",
    )
    device: DeviceName = Field(
        "auto",
        description="Where the network trains: cpu, cuda, mps; auto: cuda where torch sees one, "
        "else cpu. Only on a CPU are results the same bit by bit.",
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="Weights that are kept: of the lowest validation loss, or the last ones. "
        "Where labels are noisy, the lowest loss of few held-out rows is mostly luck.",
    )
    threads: int = Field(
        1,
        ge=1,
        le=256,
        description="Processor threads that train a network. Networks of this size gain little "
        "from more than one and lose much where cores are busy; with one, results are the same "
        "on machines of any size.",
    )

    @model_validator(mode="before")
    @classmethod
    def _plan(cls, values: Any) -> Any:
        """A length that is planned is used best by a learning rate that falls to its end."""
        if isinstance(values, Mapping) and "max_epochs" in values:
            return {"schedule": "one-cycle", **values}
        return values


class NetworkSettings(OptimizerSettings):
    """Settings of the training loop and of the summary networks in `embedding`."""

    embedding: EmbeddingName = Field(
        "auto",
        description="Summary network: none (data as they are), mlp (residual), tapered (plain, "
        "layers narrowing from embedding_width to n_features), conv (1-d for spectra, 2-d for "
        "images), set (permutation-invariant); auto: by kind of observable.",
    )
    embedding_width: int = Field(128, ge=1, description="Width (channels) of the summary network.")
    embedding_depth: int = Field(
        3, ge=1, le=12, description="Residual blocks, convolution stages or hidden layers."
    )
    n_features: int = Field(32, ge=1, description="Summary features handed to the estimator.")
    power_features: int = Field(
        0,
        ge=0,
        description="Features that a tapered perceptron of the same width and depth learns from "
        "the power spectrum of a spectrum (of log10(1 + counts); of other data as they are), "
        "beside n_features; 0: none.",
    )
    power_length: int | None = Field(
        None,
        ge=2,
        description="Bins that a spectrum is zero-padded to before its Fourier transform; none: "
        "the power of two from twice their number, which loses nothing.",
    )
    power_cutoff: float | None = Field(
        None,
        gt=0,
        description="Frequency up to which the power spectrum is used, in oscillations per decade "
        "of the bin edges; none: up to half an oscillation a bin.",
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout rate in the summary network.")
