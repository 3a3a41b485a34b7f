"""A torch engine of a few lines: a normal density whose mean is linear in x."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from sbi_physics.engine import Engine
from sbi_physics.nn.loop import fit
from sbi_physics.nn.settings import NetworkSettings
from sbi_physics.nn.weights import load_arrays, to_arrays
from sbi_physics.posterior import NeuralPosterior


class LinearNetwork(torch.nn.Module):
    def __init__(self, n_in, d):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.1)
        self.norm = torch.nn.BatchNorm1d(n_in)  # has buffers
        self.mean = torch.nn.Linear(n_in, d)
        self.log_sd = torch.nn.Parameter(torch.zeros(d))

    def log_prob(self, u, x):
        mean = self.mean(self.norm(self.dropout(x.flatten(1))))
        z = (u - mean) * torch.exp(-self.log_sd)
        return (-0.5 * z**2 - self.log_sd - 0.9189385).sum(-1)


class LinearTorchPosterior(NeuralPosterior):
    def __init__(self, context, network):
        super().__init__(context)
        self.network = network

    def _log_prob_u(self, u, xt):
        with torch.no_grad():
            x = torch.from_numpy(np.repeat(xt, u.shape[1], axis=0))
            flat = torch.from_numpy(u.reshape(-1, u.shape[-1]).astype(np.float32))
            return self.network.log_prob(flat, x).numpy().astype(np.float64).reshape(u.shape[:2])

    def _sample_u(self, xt, n, rng, log_prob):
        raise NotImplementedError

    def _weights(self):
        return to_arrays(self.network)


class LinearTorchEngine(Engine):
    name = "linear-torch"
    Settings = NetworkSettings

    def _train(self, data, context, settings, seed, progress):
        network = self.network(context, seed)
        history = fit(
            network,
            lambda u, x, weight: -network.log_prob(u, x).mean(),
            data,
            settings,
            seed=seed,
            progress=progress,
        )
        return LinearTorchPosterior(replace(context, history=history), network)

    def _rebuild(self, context, config, weights):
        network = self.network(context, 0)
        load_arrays(network, weights)
        return LinearTorchPosterior(context, network)

    @staticmethod
    def network(context, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return LinearNetwork(int(np.prod(context.observable.shape)), context.prior.d)
