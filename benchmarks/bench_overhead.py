"""What training through an engine costs, against the native call that trains the same network.

    OMP_NUM_THREADS=1 python benchmarks/bench_overhead.py

One process, one thread, processor seconds. Both sides train the same architecture from scratch on
the same 10 000 simulations of `toy-gaussian` (three parameters) with the same batches, epochs and
held-out tenth, from arrays in memory to a posterior: sbi's `NPE.train` with a spline flow,
`NRE_B.train` with a residual network and ten atoms, `FMPE.train` with a velocity network, swyft's
`SwyftTrainer.fit` with a joint head and one contrastive point, BayesFlow's
`ContinuousApproximator.fit` with an affine coupling flow. The two calls take turns, after one of
each that does not count; printed is the median of the ratios of neighbours with its quartiles.
Runs that were stopped go on where they stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import results_file
import torch

import sbi_physics as sp
from sbi_physics.guard import quiet
from sbi_physics.progress import SILENT
from sbi_physics.testing import ToyGaussian

SIMULATIONS = 10_000
BATCH = 250  # divides the 9000 training and 1000 held-out rows: sbi drops incomplete batches
EPOCHS = {"sbi-npe": 6, "sbi-nre": 6, "sbi-fmpe": 6, "swyft-tmnre": 3, "bayesflow-cinn": 3}
SETTINGS: dict[str, dict[str, Any]] = {
    "sbi-npe": {"density_estimator": "zuko_nsf"},
    "sbi-nre": {"variant": "B", "contrasts": 9, "dropout": 0.0},  # ten atoms
    "sbi-fmpe": {},
    "swyft-tmnre": {"batch_norm": True, "variant": "A", "contrasts": 1},  # as swyft does it
    "bayesflow-cinn": {"transform": "affine", "depth": 4, "widths": (128, 128)},
}


def settings_of(engine: str) -> dict[str, Any]:
    """Return the settings of an engine in this comparison."""
    common = {"max_epochs": EPOCHS[engine], "batch_size": BATCH, "stop_after_epochs": 1000}
    return {**common, **SETTINGS[engine]}


def ours(engine: str, simulations: Any) -> Any:
    """Train through the engine."""
    return sp.train(simulations, engine, settings=settings_of(engine), seed=1, progress=SILENT)


def native_npe(simulations: Any, trained: Any) -> Callable[[], int]:
    """Return sbi's call of posterior estimation; it returns the number of weights."""
    from sbi.inference import NPE
    from sbi.neural_nets import posterior_nn

    builder = posterior_nn("zuko_nsf", hidden_features=[64, 64], num_transforms=3, num_bins=8)
    return native_sbi(simulations, "sbi-npe", NPE, density_estimator=builder)


def native_nre(simulations: Any, trained: Any) -> Callable[[], int]:
    """Return sbi's call of ratio estimation; it returns the number of weights."""
    from sbi.inference import NRE_B
    from sbi.neural_nets import classifier_nn

    builder = classifier_nn("resnet", hidden_features=64, num_blocks=2)
    return native_sbi(simulations, "sbi-nre", NRE_B, {"num_atoms": 10}, classifier=builder)


def native_fmpe(simulations: Any, trained: Any) -> Callable[[], int]:
    """Return sbi's call of flow matching; it returns the number of weights."""
    from sbi.inference import FMPE
    from sbi.neural_nets import posterior_flow_nn

    builder = posterior_flow_nn(
        "mlp", hidden_features=64, num_layers=4, t_embedding_dim=32, gaussian_baseline=True
    )
    # As many times for each held-out row as here.
    times = {"validation_times": 8}
    return native_sbi(simulations, "sbi-fmpe", FMPE, times, vf_estimator=builder)


def native_sbi(
    simulations: Any,
    engine: str,
    method: Callable[..., Any],
    training: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> Callable[[], int]:
    """Return the native call of one of sbi's methods; it returns the number of weights."""
    from bench_sbi import NoTracker

    _, prior = ToyGaussian(dimension=3).native("sbi")
    theta = torch.from_numpy(simulations.theta).float()
    x = torch.from_numpy(simulations.x)

    def call() -> int:
        inference = method(prior, show_progress_bars=False, tracker=NoTracker(), **options)
        estimator = inference.append_simulations(theta, x).train(
            training_batch_size=BATCH,
            learning_rate=1e-3,
            validation_fraction=0.1,
            stop_after_epochs=1000,
            max_num_epochs=EPOCHS[engine] - 1,  # sbi trains one more
            **training,
        )
        inference.build_posterior(estimator)
        if inference.summary["epochs_trained"][-1] != EPOCHS[engine]:
            raise RuntimeError(f"sbi trained {inference.summary['epochs_trained'][-1]} epochs")
        return weights(estimator)

    return call


def native_swyft(simulations: Any, trained: Any) -> Callable[[], int]:
    """Return the native call of swyft; it returns the number of weights."""
    from bench_swyft import Native
    from sbi_physics_swyft.backend import LOGGERS, swyft
    from sbi_physics_swyft.native import data_module

    def call() -> int:
        module = Native(trained.network)
        module.early_stopping_patience = 1000
        with tempfile.TemporaryDirectory() as folder, quiet(LOGGERS):
            trainer = swyft.SwyftTrainer(
                accelerator="cpu",
                max_epochs=EPOCHS["swyft-tmnre"],
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=folder,
            )
            trainer.fit(module, data_module(simulations, batch_size=BATCH))
        if trainer.current_epoch != EPOCHS["swyft-tmnre"]:
            raise RuntimeError(f"swyft trained {trainer.current_epoch} epochs")
        return weights(module)

    return call


def native_bayesflow(simulations: Any, trained: Any) -> Callable[[], int]:
    """Return the native call of BayesFlow; it returns the number of weights."""
    from sbi_physics_bayesflow.backend import import_backend

    backend = import_backend()
    view = ToyGaussian(dimension=3).native("bayesflow")
    everything = view.dataset(simulations).data
    held_out = SIMULATIONS // 10
    shape = {"widths": (128, 128), "activation": "hard_silu", "residual": False, "dropout": None}

    def rows(part: slice) -> Any:
        values = {k: v[part] for k, v in everything.items()}
        return backend.bayesflow.datasets.OfflineDataset(values, BATCH, view.adapter)

    def call() -> int:
        with quiet(["bayesflow"]), contextlib.redirect_stderr(io.StringIO()):
            network = backend.bayesflow.networks.CouplingFlow(
                depth=4, transform="affine", subnet_kwargs=shape
            )
            approximator = backend.bayesflow.ContinuousApproximator(
                inference_network=network, adapter=view.adapter, standardize="all"
            )
            approximator.compile(optimizer=backend.keras.optimizers.Adam(1e-3))
            approximator.fit(
                dataset=rows(slice(held_out, None)),
                validation_data=rows(slice(held_out)),
                epochs=EPOCHS["bayesflow-cinn"],
                verbose=0,
            )
        return sum(int(np.prod(v.shape)) for v in network.trainable_variables)

    return call


NATIVE = {
    "sbi-npe": native_npe,
    "sbi-nre": native_nre,
    "sbi-fmpe": native_fmpe,
    "swyft-tmnre": native_swyft,
    "bayesflow-cinn": native_bayesflow,
}


def weights(network: torch.nn.Module) -> int:
    """Return the number of trained weights."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def seconds(function: Callable[[], Any]) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


class Contest:
    """The two calls of one engine, prepared at first use."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.simulations = sp.simulate(
            ToyGaussian(dimension=3), SIMULATIONS, seed=1, progress=SILENT
        )
        trained = ours(engine, self.simulations)
        self.native = NATIVE[engine](self.simulations, trained)
        self.counts = (self.native(), weights(trained.network))

    def pair(self, number: int) -> dict[str, float]:
        """Return the seconds of both, in an order that alternates."""
        calls = {
            "native_s": self.native,
            "here_s": lambda: ours(self.engine, self.simulations),
        }
        order = list(calls) if number % 2 == 0 else list(calls)[::-1]
        return {name: seconds(calls[name]) for name in order}


def table(rows: list[dict[str, Any]]) -> str:
    """Return medians and quartiles as Markdown."""
    lines = [
        "| engine | weights, native / here | pairs | native, s | here, s "
        "| here / native (quartiles) |",
        "|---" * 6 + "|",
    ]
    for engine in NATIVE:
        own = [r for r in rows if r["engine"] == engine]
        if own:
            native, here = (np.array([r[k] for r in own]) for k in ("native_s", "here_s"))
            low, middle, high = np.percentile(here / native, [25, 50, 75])
            lines.append(
                f"| `{engine}` | {own[0]['weights'][0]} / {own[0]['weights'][1]} | {len(own)} "
                f"| {np.median(native):.2f} | {np.median(here):.2f} "
                f"| {middle:.2f} ({low:.2f} to {high:.2f}) |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=list(NATIVE))
    parser.add_argument("--pairs", type=int, default=9)
    results_file.options(parser, "overhead")
    o = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    contests: dict[str, Contest] = {}

    def measure(engine: str, pair: int) -> dict[str, Any]:
        if engine not in contests:
            contests[engine] = Contest(engine)
        return {**contests[engine].pair(pair), "weights": contests[engine].counts}

    pieces = [{"engine": e, "pair": i} for e in o.engines for i in range(o.pairs)]
    print(table(results_file.run(o.output, pieces, measure, o.max_seconds)))


if __name__ == "__main__":
    main()
