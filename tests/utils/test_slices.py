"""Products over tokens in slices, as on a GPU, are those over all of them."""

import pytest
import torch

from models.quantizers import statistics
from models.xlstm import layers
from models.xlstm.layers import Linears
from utils.slices import slices


def gradients(module, x, pull):
    module.zero_grad()
    x = x.clone().requires_grad_()
    y = module(x)
    (y * pull).sum().backward()
    return y, x.grad, module.weight.grad.clone()


def test_projections(monkeypatch):
    module = Linears(2, 5, 3).double()
    torch.nn.init.normal_(module.weight)
    x, pull = torch.randn(2, 4, 6, 5, dtype=torch.float64), torch.randn(2, 4, 6, 3, dtype=torch.float64)
    whole = gradients(module, x, pull)
    torch.testing.assert_close(whole[0], torch.einsum("pbti,poi->pbto", x, module.weight))
    torch.testing.assert_close(whole[2], torch.einsum("pbti,pbto->poi", x, pull))
    monkeypatch.setattr(layers, "slices", lambda x, tokens: 8)
    for cut, one in zip(gradients(module, x, pull), whole, strict=True):
        torch.testing.assert_close(cut, one)


def test_gradient_of_the_codebook(monkeypatch):
    book = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    soft, indices, pull = torch.rand(24, 2, 7, dtype=torch.float64), torch.randint(7, (24, 2)), torch.randn(24, 2, 3).double()
    expected = torch.zeros_like(book)
    for token in range(24):
        for group in range(2):
            expected[group, indices[token, group]] += pull[token, group]
    for number in (1, 4):
        monkeypatch.setattr(statistics, "slices", lambda x, tokens, number=number: number)
        (grad,) = torch.autograd.grad((statistics.straight_through(soft, book, indices) * pull).sum(), book)
        torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize(("tokens", "parts"), [(64 * 1024, 16), (3 * 4096, 2), (4096, 1), (4097 * 3, 1), (64 * 64, 1)])
def test_slices_are_equal_and_long(tokens, parts):
    class OnGPU:
        is_cuda = True

    assert slices(OnGPU(), tokens) == parts
    assert slices(torch.empty(1), tokens) == 1
