# ruff: noqa: E402 - thread counts must be set before anything imports NumPy
"""The published training of arXiv:2308.01353, in pieces of any length.

    python benchmarks/train_beamdump.py runs/beamdump-published --minutes 9     # again until done

250 000 sets of three events at 1 %, 1 mm, 1 mrad, the published summary network, coupling layers
and schedule (engine `bayesflow-cinn:beamdump`). Simulations and training resume where the last
piece stopped, with the same result as in one go. Losses are minus the information gain over the
prior; the published validation loss is in standardised parameters, where the prior has an entropy
of 2.351 nats: NLL_std = loss + 2.351, published best -1.2716. When training is done, the posterior
is scored on fresh sets in these units, its width at 1 GeV, ctau = 1 m is given, and the validator
judges it on fresh sets.

Exit codes: 0 done, 4 not yet done.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import math
import signal
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import sbi_physics as sp
from sbi_physics.config import parse_assignments
from sbi_physics.nn.checkpoint import read_checkpoint
from sbi_physics.progress import SILENT

NOT_DONE = 4
PRIOR_ENTROPY = 2.351
"""Of (log10 m_a, log10 ctau / m_a) over their published standard deviations, nats."""

STANDARDISED = 0.7499
"""Published standard deviations: NLL_std = NLL in log10 units + this."""

PUBLISHED = -1.2716

VALIDATED = 4000
"""Fresh sets that the validator judges the posterior by."""


def main() -> int:
    """Go on with the training; score it when it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where everything is kept")
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long")
    parser.add_argument("--sets", type=int, default=250_000, help="training sets")
    parser.add_argument("--engine", default="bayesflow-cinn:beamdump")
    parser.add_argument("--set", dest="options", action="append", default=[])
    parser.add_argument("--setting", dest="settings", action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    simulator = sp.simulator("beamdump-alp", **parse_assignments(arguments.options, "--set"))
    if arguments.minutes is not None:
        signal.signal(signal.SIGALRM, _time_is_up)
        signal.setitimer(signal.ITIMER_REAL, 60 * arguments.minutes)
    try:
        posterior = _trained(simulator, folder, arguments)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        print(f"not done: {_state(folder)}; the same command continues")
        return NOT_DONE
    _score(posterior, simulator, arguments.seed)
    return 0


def _trained(simulator: Any, folder: Path, arguments: argparse.Namespace) -> Any:
    if (folder / "posterior").exists():
        return sp.load_posterior(folder / "posterior")
    simulations = sp.simulate(
        simulator,
        arguments.sets,
        seed=arguments.seed,
        store=folder / "simulations.zarr",
        progress=SILENT,
    )
    print(f"{len(simulations)} sets; training: {_state(folder)}", flush=True)
    posterior = sp.train(
        simulations,
        arguments.engine,
        settings=parse_assignments(arguments.settings, "--setting"),
        seed=arguments.seed,
        progress=SILENT,
        checkpoint=folder / "training",
    )
    posterior.save(folder / "posterior")
    history = posterior.context.history
    assert history is not None
    best = history.validation_loss[history.best_epoch]
    print(
        f"{len(history.validation_loss)} epochs in {history.seconds / 60:.0f} min, stopped: "
        f"{history.stopped}; best validation loss {best + PRIOR_ENTROPY:.4f} in standardised "
        f"parameters (epoch {history.best_epoch + 1}, published {PUBLISHED})"
    )
    return posterior


def _state(folder: Path) -> str:
    """How far the training came."""
    for file in (folder / "training").glob("*/state/*.safetensors"):
        found = read_checkpoint(file)
        if found is not None:
            losses = found[1]["validation"]
            best = min(losses) + PRIOR_ENTROPY
            return (
                f"{len(losses)} epochs in {found[1]['seconds'] / 60:.0f} min, best validation "
                f"loss {best:.4f} standardised (published {PUBLISHED})"
            )
    return "no epoch yet"


def _score(posterior: Any, simulator: Any, seed: int) -> None:
    pairs = sp.simulate(simulator, 10_000, seed=seed, purpose="test", progress=SILENT)
    log_q = posterior.log_prob(pairs.theta[:, None], pairs.x)[:, 0]
    # From densities per GeV and m to those per unit of both log10.
    log_q = log_q + np.log(pairs.theta).sum(axis=1) + 2 * math.log(math.log(10.0))
    nll = STANDARDISED - log_q
    error = nll.std() / math.sqrt(len(nll))
    print(f"10 000 fresh sets: NLL_std = {nll.mean():.4f} +- {error:.4f} (published {PUBLISHED})")
    rng = np.random.default_rng(seed)
    x = simulator.simulate(np.tile(simulator.theta("m1"), (500, 1)), rng)
    draws = np.log10(posterior.sample(x, 1000, rng)[..., 0])
    sd = draws.std(axis=1)
    print(
        f"1 GeV, ctau = 1 m: sd of log10 m_a {sd.mean():.4f} on average over {len(sd)} sets "
        "(published 0.0094 over 25)"
    )
    fresh = sp.simulate(simulator, VALIDATED, seed=seed, purpose="pairs", progress=SILENT)
    print(sp.validate(posterior, fresh, seed=seed, progress=SILENT).summary())


def _time_is_up(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
