"""Factors of two, packing, and coefficients from event weights."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_smeft import conventions as c

from sbi_physics.errors import ContractError

RNG = np.random.default_rng(5)
GRAM = np.einsum("nka,nkb->nab", *[RNG.normal(size=(7, 5, 4))] * 2)
THETA = np.array([0.3, -0.2, 1.5])


def by_hand(gram, theta):
    """The double sum, written out."""
    v = [1.0, *theta]
    return sum(gram[:, a, b] * v[a] * v[b] for a in range(4) for b in range(4))


def test_ratio_is_the_double_sum_for_one_and_for_several_points():
    assert c.ratio(GRAM, THETA) == pytest.approx(by_hand(GRAM, THETA), rel=1e-13)
    points = np.stack([THETA, np.zeros(3), -THETA])
    several = c.ratio(GRAM, points)
    assert several.shape == (7, 3)
    for k, point in enumerate(points):
        assert several[:, k] == pytest.approx(by_hand(GRAM, point), rel=1e-13)


def test_at_zero_only_the_first_entry_is_left():
    assert c.ratio(GRAM, np.zeros(3)) == pytest.approx(GRAM[:, 0, 0])


def test_packing_is_undone_by_unpacking_in_the_documented_order():
    assert np.array_equal(c.unpack(c.pack(GRAM)), GRAM)
    order = [[0, 1, 2, 3], [1, 4, 5, 6], [2, 5, 7, 8], [3, 6, 8, 9]]
    assert c.unpack(np.arange(10.0)).tolist() == order


def test_polynomial_coefficients_have_doubled_off_diagonals():
    coefficients = c.polynomial(GRAM)
    # 1, th_1, .., and in the row of th_1: th_1^2 (not doubled), th_1 th_2 (doubled)
    assert coefficients[:, 1] == pytest.approx(2 * GRAM[:, 0, 1])
    assert coefficients[:, 4] == pytest.approx(GRAM[:, 1, 1])
    assert coefficients[:, 5] == pytest.approx(2 * GRAM[:, 1, 2])
    assert coefficients @ c.monomials(THETA) == pytest.approx(by_hand(GRAM, THETA), rel=1e-13)
    assert c.gram_from_polynomial(coefficients) == pytest.approx(GRAM, rel=1e-14)


def test_derivatives_are_those_of_the_ratio():
    gram = GRAM / GRAM[:, :1, :1]
    first, second = c.derivatives(gram)
    h, axes = 1e-3, np.eye(3)
    for i in range(3):
        slope = (c.ratio(gram, h * axes[i]) - c.ratio(gram, -h * axes[i])) / (2 * h)
        assert first[:, i] == pytest.approx(slope, rel=1e-8, abs=1e-10)
        for j in range(3):
            mixed = sum(
                s * t * c.ratio(gram, h * (s * axes[i] + t * axes[j]))
                for s in (1, -1)
                for t in (1, -1)
            ) / (4 * h * h)
            assert second[:, i, j] == pytest.approx(mixed, rel=1e-6, abs=1e-8)
    assert c.gram_from_derivatives(first, second) == pytest.approx(gram, rel=1e-14)


def test_weights_at_more_points_than_needed_give_the_gram_matrix_back():
    basis = RNG.normal(size=(13, 3)) * [4.0, 0.2, 0.2]
    gram, residual = c.gram_from_weights(c.ratio(GRAM, basis), basis)
    assert gram == pytest.approx(GRAM, rel=1e-9, abs=1e-9)
    assert residual.max() < 1e-12


def test_weights_that_are_not_quadratic_leave_a_residual():
    basis = RNG.normal(size=(13, 3))
    _, residual = c.gram_from_weights(c.ratio(GRAM, basis) ** 2, basis)
    assert residual.min() > 1e-3


def test_basis_points_that_do_not_determine_the_coefficients_are_refused():
    basis = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    with pytest.raises(ContractError, match="rank 5 do not determine the 6"):
        c.gram_from_weights(np.ones((2, 6)), basis)
    with pytest.raises(ContractError, match="every coefficient"):
        c.gram_from_weights(np.ones((2, 6)), basis * [1.0, 0.0])
    with pytest.raises(ContractError, match="do not belong"):
        c.gram_from_weights(np.ones((2, 5)), basis)


def test_wrong_sizes_are_refused():
    with pytest.raises(ContractError, match="4 entries"):
        c.unpack(np.ones(4))
    with pytest.raises(ContractError, match="of 3 coefficients, theta has 1"):
        c.ratio(GRAM, [1.0])
