"""Contrastive losses against closed forms; the sbi plugin compares variant C with sbi's own."""

from __future__ import annotations

import math

import pytest
import torch

from sbi_physics.errors import TrainingError
from sbi_physics.nn.contrast import contrastive_loss, rolled

pytestmark = pytest.mark.engine


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(64, 5, generator=torch.Generator().manual_seed(1))


def test_rolled_rows_start_with_the_row_itself_and_never_repeat_it():
    u = torch.arange(10.0)[:, None]
    points = rolled(u, torch.tensor([1, 4, 9]))
    assert points.shape == (10, 4, 1)
    assert torch.equal(points[:, 0], u)
    assert not (points[:, 1:] == u[:, None]).any()
    assert torch.equal(points[2, :, 0], torch.tensor([2.0, 3.0, 6.0, 1.0]))


def test_variant_a_is_binary_cross_entropy(logits):
    joint, other = logits[:, 0], logits[:, 1:]
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    expected = 0.5 * (bce(joint, torch.ones(64)) + bce(other, torch.zeros(64, 4)))
    value = contrastive_loss(logits, "A", gamma=1.0, balance=0.0)
    torch.testing.assert_close(value, expected)


def test_variant_b_is_the_cross_entropy_of_the_first_class(logits):
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(64, dtype=torch.long))
    torch.testing.assert_close(contrastive_loss(logits, "B", gamma=1.0, balance=0.0), expected)


@pytest.mark.parametrize("variant", ["A", "B", "C"])
def test_knowing_nothing_costs_the_entropy_of_the_classes(variant):
    value = contrastive_loss(torch.zeros(32, 5), variant, gamma=1.0, balance=0.0)
    # C: "none" and "one of 4" are equally likely a priori.
    expected = {"A": math.log(2), "B": math.log(5), "C": math.log(2) + 0.5 * math.log(4)}
    assert value.item() == pytest.approx(expected[variant], rel=1e-6)


def test_the_balance_term_vanishes_for_balanced_classifiers_only():
    balanced = torch.tensor([[2.0, -2.0]]).repeat(16, 1)
    tilted = balanced + 1.0
    plain = [contrastive_loss(v, "A", gamma=1.0, balance=0.0) for v in (balanced, tilted)]
    full = [contrastive_loss(v, "A", gamma=1.0, balance=100.0) for v in (balanced, tilted)]
    torch.testing.assert_close(full[0], plain[0])
    assert full[1] > plain[1] + 1.0


def test_weights_count_rows_like_repetitions(logits):
    weights = torch.ones(64, 5)
    weights[:10] = 2.0
    repeated = torch.cat([logits, logits[:10]])
    value = contrastive_loss(logits, "A", gamma=1.0, balance=3.0, weights=weights)
    torch.testing.assert_close(
        value, contrastive_loss(repeated, "A", gamma=1.0, balance=3.0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("variant", ["B", "C"])
def test_variants_without_weighted_form_refuse_weights(logits, variant):
    with pytest.raises(TrainingError, match="variant to 'A'"):
        contrastive_loss(logits, variant, gamma=1.0, balance=0.0, weights=torch.ones(64, 5))
