"""Expected limits on WZ production with learned ratios, against exact ratios of the same events.

Production level: charge, mass and angle of the pair, decays ignoring the coefficients; 300 fb^-1
without acceptance. Both sets of limits use the same events, so that their difference is the
network's.

    python benchmarks/bench_smeft_limits.py --engine smeft-derivative --events 200000
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

import sbi_physics as sp
from sbi_physics.likelihood import EventSet, LikelihoodRatio, QuadraticModel, interval, pack
from sbi_physics.progress import SILENT

OPTIONS = {"level": "parton", "label_level": "production"}
KNOWN = {"C_HWB": (-0.0703, 0.0703), "C_W": (-0.0251, 0.0263), "C_Hq3": (-0.0083, 0.0083)}
"""Limits of 95 % by integration over mass, angle and charge, others zero."""
RATE = {"C_HWB": (-0.083, 0.083), "C_W": (-0.131, 0.238), "C_Hq3": (-0.0142, 0.0142)}
"""The same from the number of events alone."""


def limits(gram: np.ndarray, grams: np.ndarray, weights: np.ndarray, wz: sp.Simulator) -> dict:
    """Return expected 95 % limits of each coefficient, the others held at zero."""
    weights = weights / weights.sum()
    total = float(wz.expected_events([[0.0, 0.0, 0.0]])[0])  # type: ignore[attr-defined]
    model = QuadraticModel(wz.prior, gram, total, event_gram=weights @ grams, floor=1e-3)
    data, zero = EventSet(grams, total * weights), dict.fromkeys(wz.parameters.names, 0.0)
    found = {}
    for terms in ("extended", "rate"):
        likelihood = LikelihoodRatio(model, terms=terms)
        for name in wz.parameters.names:
            others = {k: v for k, v in zero.items() if k != name}
            pieces = interval(likelihood, data, name, others=others).pieces
            # the piece that holds zero
            inside = (pieces[:, 0] <= 0) & (pieces[:, 1] >= 0)
            found[f"{name} {terms}"] = pieces[inside][0].tolist()
    return found


def main() -> None:
    """Train once and print both sets of limits as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="smeft-derivative")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--tests", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--points", type=json.loads, default=None)
    options = parser.parse_args()
    chosen = {"proposal": "mixture"}
    if options.points:
        chosen["mixture_points"] = options.points
    mixture = sp.simulator("smeft-wz", **OPTIONS, **chosen)
    train = sp.simulate(mixture, options.events, seed=options.seed, progress=SILENT)
    start = time.process_time()
    posterior = sp.train(
        train, options.engine, settings=options.settings, seed=options.seed, progress=SILENT
    )
    seconds = time.process_time() - start
    wz = sp.simulator("smeft-wz", **OPTIONS)
    rng = np.random.default_rng(options.seed + 1)
    zero = np.zeros((options.tests, 3))
    z = mixture.simulate_latent(zero, rng)
    x = mixture.observe(z, zero, rng)
    matrix = mixture.sampling_matrix()
    weights = 1 / np.einsum("nab,ab->n", mixture.labels(z)["gram"], matrix)
    gram = wz.fiducial_gram()
    exact = limits(gram, pack(wz.exact_gram(x)), weights, wz)
    learned = limits(gram, posterior.coefficients(x), weights, wz)
    for key in exact:
        ratio = np.array(learned[key]) / np.array(exact[key])
        name, terms = key.split()
        known = (KNOWN if terms == "extended" else RATE)[name]
        print(
            f"{key:16} learned [{learned[key][0]:.4f}, {learned[key][1]:.4f}]  exact "
            f"[{exact[key][0]:.4f}, {exact[key][1]:.4f}]  ratio {ratio[0]:.3f}, {ratio[1]:.3f}  "
            f"integrated [{known[0]}, {known[1]}]"
        )
    print(json.dumps({"engine": options.engine, "settings": options.settings, "cpu_s": seconds}))


if __name__ == "__main__":
    main()
