import math

import pytest
import torch

from instantvir_models.operators.dct import dct, dct2, idct, idct2


def dct_matrix(size):
    k = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / (2 * size)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 50, 101])
def test_equals_the_matrix_and_inverts(size):
    x = torch.randn(3, size, 4, dtype=torch.float64)
    expected = torch.einsum("kn,bnc->bkc", dct_matrix(size), x)
    torch.testing.assert_close(dct(x, 1), expected)
    torch.testing.assert_close(idct(dct(x, 1), 1), x)


def test_two_dimensions_keep_energy_and_float32():
    x = torch.randn(2, 3, 12, 17)
    torch.testing.assert_close(dct2(x).square().sum(), x.square().sum())
    torch.testing.assert_close(idct2(dct2(x)), x)
    assert dct2(x).dtype == torch.float32


def test_gradients():
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dct, x)
    assert torch.autograd.gradcheck(idct, x)
