"""Variant C of the contrastive loss against sbi's own."""

from __future__ import annotations

import pytest
import torch
from sbi.inference.trainers.nre.nre_c import NRE_C

from sbi_physics.nn.contrast import contrastive_loss

pytestmark = pytest.mark.engine


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(64, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("gamma", [0.3, 1.0, 4.0])
def test_variant_c_is_the_loss_of_sbi(logits, gamma):
    # sbi asks its network twice: for the class "none", then for "one"; hand it these logits.
    k = logits.shape[1] - 1
    answers = [logits.reshape(-1), logits[:, :k].reshape(-1)]

    class Trainer:
        _get_prior_probs_marginal_and_joint = staticmethod(
            NRE_C._get_prior_probs_marginal_and_joint
        )

        def _classifier_logits(self, theta, x, num_atoms):
            return answers.pop(0)

    theta = torch.zeros(64, 1)
    expected = NRE_C._loss(Trainer(), theta, theta, num_atoms=k + 1, gamma=gamma)
    value = contrastive_loss(logits, "C", gamma=gamma, balance=0.0)
    torch.testing.assert_close(value, expected)
