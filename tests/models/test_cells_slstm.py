"""The sLSTM scan against a plain loop that autograd differentiates."""

import pytest
import torch

from models.xlstm.slstm import slstm, slstm_step, start_of


def inputs(T=9, G=2, B=3, D=4, seed=0):
    gen = torch.Generator().manual_seed(seed)
    shapes = ((T, G, B, 4, D), (G, D, 4, D), (G, 4, D))
    return [torch.randn(*shape, generator=gen, dtype=torch.float64).requires_grad_() for shape in shapes]


def loop(x, recurrent, bias):
    """Equations 8–18 of the xLSTM paper without any stabiliser: exact in float64 for moderate gates."""
    T, G, B, _, D = x.shape
    h = c = n = torch.zeros(G, B, D, dtype=x.dtype)
    out = []
    for t in range(T):
        i, f, z, o = (x[t] + torch.einsum("gbd,gdke->gbke", h, recurrent) + bias[:, None]).unbind(2)
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * c / n
        out.append(h)
    return torch.stack(out)


@pytest.mark.parametrize(("T", "G", "D"), [(1, 1, 1), (9, 2, 4), (70, 3, 5)])
def test_values_and_gradients_are_those_of_the_loop(T, G, D):
    x = inputs(T, G, 2, D)
    x[1] = (x[1].detach() * 0.5).requires_grad_()
    expected = loop(*x)
    got, _ = slstm(*x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)
    weight = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(got, x, weight), torch.autograd.grad(expected, x, weight), rtol=1e-7, atol=1e-9
    )


def test_gradcheck():
    assert torch.autograd.gradcheck(lambda *x: slstm(*x)[0], inputs(4, 1, 1, 2))


def test_pieces_are_the_whole_and_carry_gradients():
    x, recurrent, bias = inputs(14)
    whole, last = slstm(x, recurrent, bias)
    first, state = slstm(x[:6], recurrent, bias)
    second, end = slstm(x[6:], recurrent, bias, state)
    pieces = torch.cat([first, second])
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(tuple(end), tuple(last))
    weight = torch.randn_like(whole)
    wrt = (x, recurrent, bias)
    torch.testing.assert_close(torch.autograd.grad(pieces, wrt, weight), torch.autograd.grad(whole, wrt, weight))


def test_step_is_the_scan():
    x, recurrent, bias = inputs(12)
    whole, _ = slstm(x, recurrent, bias)
    state, out = start_of(x), []
    for t in range(12):
        h, state = slstm_step(x[t], recurrent, bias, state)
        out.append(h)
    torch.testing.assert_close(torch.stack(out), whole)


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_gates_stay_finite(size):
    x, recurrent, bias = (a.detach().float().requires_grad_() for a in inputs(30))
    h, _ = slstm(x * size, recurrent, bias)
    assert torch.isfinite(h).all()
    for g in torch.autograd.grad(h.sum(), (x, recurrent, bias)):
        assert torch.isfinite(g).all()
