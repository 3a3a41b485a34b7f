"""Packed matrices and the factors of two between conventions."""

from __future__ import annotations

import numpy as np
import pytest

from sbi_physics.errors import ContractError
from sbi_physics.likelihood import (
    background_gram,
    gram_from_polynomial,
    gram_to_derivatives,
    gram_to_polynomial,
    pack,
    unpack,
)
from sbi_physics.likelihood.gram import monomial_slopes, monomials, n_parameters

RNG = np.random.default_rng(1)
ROOT = RNG.standard_normal((5, 4, 4))
GRAM = ROOT @ ROOT.transpose(0, 2, 1)
THETA = RNG.standard_normal((7, 3))


def value(gram, theta):
    v = np.concatenate([[1.0], theta])
    return v @ gram @ v


def test_packed_matrices_evaluate_to_the_quadratic_form():
    expected = [[value(g, t) for t in THETA] for g in GRAM]
    np.testing.assert_allclose(pack(GRAM) @ monomials(THETA).T, expected, rtol=1e-12)
    np.testing.assert_array_equal(
        unpack(pack(GRAM)), np.triu(GRAM) + np.triu(GRAM, 1).swapaxes(1, 2)
    )


def test_polynomial_coefficients_expand_with_each_monomial_once():
    c = gram_to_polynomial(pack(GRAM[0]))
    a, b, e = THETA[0]
    powers = [1, a, b, e, a * a, a * b, a * e, b * b, b * e, e * e]
    assert c @ powers == pytest.approx(value(GRAM[0], THETA[0]), rel=1e-12)
    np.testing.assert_allclose(gram_from_polynomial(c), pack(GRAM[0]), rtol=1e-15)


def test_derivatives_are_those_of_the_form_at_zero():
    step = 1e-3
    derivatives = gram_to_derivatives(pack(GRAM[0]))
    eye = step * np.eye(3)
    k = 4
    for i in range(3):
        up, down = value(GRAM[0], eye[i]), value(GRAM[0], -eye[i])
        # central differences of a quadratic form are exact up to rounding
        assert derivatives[1 + i] == pytest.approx((up - down) / (2 * step), rel=1e-9)
        for j in range(i, 3):
            mixed = (
                value(GRAM[0], eye[i] + eye[j]) - value(GRAM[0], eye[i] - eye[j])
                - value(GRAM[0], eye[j] - eye[i]) + value(GRAM[0], -eye[i] - eye[j])
            ) / (4 * step**2)  # fmt: skip
            assert derivatives[k] == pytest.approx(mixed, abs=1e-7)
            k += 1


def test_slopes_of_monomials_are_their_derivatives():
    step = 1e-6
    for i in range(3):
        shift = step * np.eye(3)[i]
        numeric = (monomials(THETA + shift) - monomials(THETA - shift)) / (2 * step)
        np.testing.assert_allclose(monomial_slopes(THETA)[..., i], numeric, atol=1e-8)


def test_backgrounds_depend_on_no_parameter():
    np.testing.assert_array_equal(background_gram(3, 2) @ monomials(THETA[:, :2]).T, 1.0)


@pytest.mark.parametrize("entries", [1, 2, 4, 5, 9])
def test_impossible_numbers_of_entries_are_refused(entries):
    with pytest.raises(ContractError, match=f"{entries} entries are no packed matrix"):
        n_parameters(entries)


def test_matrices_must_be_square_and_symmetric():
    with pytest.raises(ContractError, match=r"must be \(\.\.\., d \+ 1, d \+ 1\), got \(2, 3\)"):
        pack(np.zeros((2, 3)))
    with pytest.raises(ContractError, match="symmetric"):
        pack([[1.0, 0.5], [0.0, 1.0]])
