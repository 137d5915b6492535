"""The Triton sLSTM against the float64 recurrence: forward and all gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slstm_cells import answers, flipped, head_norm, inputs, reference, relative

from models.xlstm.slstm import slstm, slstm_step, start_of
from models.xlstm.triton.slstm_op import slstm_triton


def compare(T, D, reversed_from=1, after=head_norm, **how):
    x = inputs(T, D, **how)
    got = answers(lambda x: slstm_triton(*x, reversed_from=reversed_from), x, after=after)
    return relative(got, answers(lambda x: reference(x, reversed_from), x, after=after))


@given(
    st.integers(1, 12), st.sampled_from([3, 4, 16, 20]), st.integers(1, 2), st.integers(1, 9), st.integers(1, 2),
    st.integers(0, 2), st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=4)
def test_it_is_the_recurrence(T, D, H, B, P, reversed_from, seed):
    got = compare(T, D, reversed_from, P=P, H=H, B=B, seed=seed)
    assert got[0] < 2e-6
    assert max(got) < 2e-5


@pytest.mark.parametrize(("T", "D", "B"), [(1, 16, 1), (50, 16, 1), (9, 44, 9), (5, 64, 2), (3, 33, 1)])
def test_lengths_widths_and_batches_that_fill_no_tile(T, D, B):
    got = compare(T, D, B=B, after=lambda h: h)
    assert got[0] < 1e-6
    assert max(got) < 1e-5


@pytest.mark.parametrize(("T", "D"), [(40, 16), (8, 128)])
def test_float16_operands_keep_a_float32_state(T, D):
    forward, *gradients = compare(T, D, dtype=torch.float16)
    assert forward < 2e-3
    assert max(gradients) < 4e-3


def test_odd_widths_in_16_bits_are_computed_in_float32():
    x = inputs(9, 3, torch.float16)
    h = slstm_triton(*x)
    assert h.dtype is torch.float16
    torch.testing.assert_close(h, slstm_triton(x[0].float(), *x[1:]).half(), rtol=0, atol=0)


def test_it_is_the_native_cell_token_by_token():
    """Against one token at a time by plain autograd, which shares no line with the scan."""
    x, recurrent, bias = inputs(7, 5, P=1, H=2, B=2)
    rows, state, out = x[0].permute(2, 0, 1, 3, 4), start_of(x[0].permute(2, 0, 1, 3, 4)), []
    for t in range(7):
        h, state = slstm_step(rows[t], recurrent[0], bias[0], state)
        out.append(h)
    torch.testing.assert_close(slstm_triton(x, recurrent, bias)[0].permute(2, 0, 1, 3), torch.stack(out), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_gates_stay_finite(size):
    x, recurrent, bias = inputs(30, 16)
    x = (x.detach() * size).requires_grad_()
    h = slstm_triton(x, recurrent, bias, reversed_from=1)
    torch.testing.assert_close(h, reference([x, recurrent, bias], 1).float(), rtol=1e-4, atol=1e-5)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(h.sum(), (x, recurrent, bias)))


def test_a_head_that_never_forgets_is_the_mean():
    """With open forget gates, equal input gates and no recurrence, h = σ(o) times the mean of tanh z so far."""
    x, recurrent, bias = (torch.zeros_like(a) for a in inputs(50, 4, P=1))
    x[..., 1, :], x[..., 2, :] = 40.0, torch.randn(*x.shape[:-2], 4)
    h = slstm_triton(x, recurrent, bias)
    mean = x[..., 2, :].tanh().cumsum(3) / torch.arange(1, 51)[:, None]
    torch.testing.assert_close(h, 0.5 * mean, rtol=1e-5, atol=1e-6)


def test_directions_in_one_call_are_two_calls():
    x = inputs(9, 8, H=2, B=2)
    both = answers(lambda x: slstm_triton(*x, reversed_from=1), x)
    for p in range(2):
        alone = [a[p : p + 1].detach().requires_grad_() for a in x]
        h = slstm_triton(*alone, reversed_from=0 if p else None)
        torch.testing.assert_close(slstm_triton(*x, reversed_from=1)[p : p + 1], h, rtol=0, atol=0)
    turned = [flipped(x[0], 1).detach().requires_grad_(), *x[1:]]
    got = answers(lambda x: flipped(slstm_triton(*x), 1), turned)
    torch.testing.assert_close(both[0], got[0], rtol=0, atol=0)
    torch.testing.assert_close(both[1:], [flipped(got[1], 1), *got[2:]], rtol=0, atol=0)


def test_no_token_sees_a_later_one():
    x = inputs(20, 8)
    h = slstm_triton(*x, reversed_from=1)
    for p, later in ((0, slice(12, None)), (1, slice(0, 11))):
        (g,) = torch.autograd.grad(h[p, ..., 11, :].sum(), x[:1], retain_graph=True)
        assert (g[1 - p] == 0).all()
        assert (g[p][:, :, later] == 0).all()
        assert (g[p][:, :, 11] != 0).any()


def test_twice_is_bitwise_the_same():
    x = inputs(12, 20, B=3)
    for a, b in zip(*(answers(lambda x: slstm_triton(*x, reversed_from=1), x) for _ in range(2)), strict=True):
        assert torch.equal(a, b)


def test_the_reference_is_the_published_recurrence_without_a_stabiliser():
    x, recurrent, bias = (a.detach().double()[0] for a in inputs(12, 4, P=1, H=2, B=2))
    h, c, n, out = *(torch.zeros(2, 2, 4, dtype=torch.float64) for _ in range(3)), []
    for t in range(12):
        i, f, z, o = (x[:, :, t] + torch.einsum("gbd,gdke->gbke", h, recurrent) + bias[:, None]).unbind(2)
        c, n = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z), torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * c / n
        out.append(h)
    got, _ = slstm(x.permute(2, 0, 1, 3, 4), recurrent, bias)
    torch.testing.assert_close(got, torch.stack(out))
