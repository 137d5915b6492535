"""The mLSTM cell against a recurrence written down here, in float64 and by the paper's equations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.xlstm.mlstm import Form, mlstm, mlstm_prefill, mlstm_step

FORMS = [(Form.quadratic, 64), (Form.chunkwise, 64), (Form.chunkwise, 16), (Form.recurrent, 64), (Form.auto, 64)]


def recurrence(q, k, v, i, f, cap=15.0, eps=1e-6):
    """Equations 19–27 of the xLSTM paper, token by token, with plain operations."""
    if cap is not None:
        i, f = cap * torch.tanh(i / cap), cap * torch.tanh(f / cap)
    B, H, T, D = q.shape
    C, n = torch.zeros(B, H, D, D).to(q), torch.zeros(B, H, D).to(q)
    m = torch.full((B, H), -float("inf")).to(q)
    out = []
    for t in range(T):
        log_f = -torch.log1p(torch.exp(-f[..., t])) if cap is not None else torch.nn.functional.logsigmoid(f[..., t])
        new = torch.maximum(log_f + m, i[..., t])
        keep, write = torch.exp(log_f + m - new), torch.exp(i[..., t] - new)
        C = keep[..., None, None] * C + write[..., None, None] * k[:, :, t, :, None] * v[:, :, t, None, :]
        n = keep[..., None] * n + write[..., None] * k[:, :, t]
        m = new
        scaled = q[:, :, t] / D**0.5
        below = torch.maximum((n * scaled).sum(-1).abs(), torch.exp(-m)) + eps
        out.append((C * scaled[..., None]).sum(-2) / below[..., None])
    return torch.stack(out, 2)


def inputs(T, D, dtype=torch.float64, seed=0, B=2, H=2):
    gen = torch.Generator().manual_seed(seed)
    qkv = [torch.randn(B, H, T, D, generator=gen, dtype=torch.float64) for _ in range(3)]
    gates = [torch.randn(B, H, T, generator=gen, dtype=torch.float64) * 3 + shift for shift in (0.0, 2.0)]
    return [x.to(dtype).requires_grad_() for x in (*qkv, *gates)]


def _errors(got, expected):
    """Relative error of every token and head. A few tokens, whose normaliser passes through zero, are far worse than the rest."""
    return ((got - expected).norm(dim=-1) / expected.norm(dim=-1)).flatten()


@pytest.mark.parametrize("D", [16, 44, 64, 96])
@pytest.mark.parametrize("T", [1, 63, 64, 65, 200])
def test_every_form_is_the_recurrence(T, D):
    x = inputs(T, D, B=1)
    expected = recurrence(*x)
    for form, chunk in FORMS:
        torch.testing.assert_close(mlstm(*x, form=form, chunk=chunk), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("T", "D"), [(1, 16), (63, 44), (65, 16), (200, 16)])
@pytest.mark.parametrize("cap", [15.0, None])
def test_gradients_are_those_of_the_recurrence(T, D, cap):
    x = inputs(T, D, B=1)
    weight = torch.randn(1, 2, T, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad(recurrence(*x, cap=cap), x, weight)
    for form, chunk in FORMS[:3]:
        got = torch.autograd.grad(mlstm(*x, form=form, chunk=chunk, soft_cap=cap), x, weight)
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("shift", [-3.0, 3.0])
@pytest.mark.parametrize(("form", "chunk"), [(Form.quadratic, 64), (Form.chunkwise, 3)])
def test_gradcheck_with_a_large_eps(form, chunk, shift):
    """The running maximum enters through eps, and low input gates put the normaliser on its floor: both are differentiated."""
    x = inputs(5, 2, B=1)
    assert torch.autograd.gradcheck(lambda q, k, v, i, f: mlstm(q, k, v, i + shift, f, form=form, chunk=chunk, eps=0.3), x)


@pytest.mark.parametrize("T", [65, 200])
def test_float32_is_close_to_float64(T):
    x = inputs(T, 64)
    expected = recurrence(*x)
    got = mlstm(*[a.float() for a in x])
    assert got.dtype is torch.float32
    assert _errors(got, expected).quantile(0.99).item() < 1e-5


@given(st.integers(1, 90), st.integers(0, 90), st.integers(1, 40))
@settings(deadline=None, max_examples=10)
def test_pieces_are_the_whole(T, cut, chunk):
    x = inputs(T, 8, B=1)
    cut = min(cut, T - 1)
    whole, last = mlstm_prefill(*x, chunk=64)
    state, parts = None, []
    for a, b in ((0, cut), (cut, T)):
        if a < b:
            h, state = mlstm_prefill(*(z[:, :, a:b] for z in x), state, chunk=chunk)
            parts.append(h)
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=1e-8, atol=1e-9)
    for got, expected in zip(state, last, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


def test_gradients_flow_through_states():
    x = inputs(40, 8, B=1)
    weight = torch.randn(1, 2, 40, 8, dtype=torch.float64)
    first, state = mlstm_prefill(*(z[:, :, :23] for z in x), chunk=8, eps=0.1)
    second, _ = mlstm_prefill(*(z[:, :, 23:] for z in x), state, chunk=8, eps=0.1)
    got = torch.autograd.grad(torch.cat([first, second], 2), x, weight)
    expected = torch.autograd.grad(recurrence(*x, eps=0.1), x, weight)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


def test_a_step_after_a_prefill():
    x = inputs(30, 8)
    _, state = mlstm_prefill(*(z[:, :, :29] for z in x))
    h, _ = mlstm_step(*(z[:, :, 29] for z in x), state)
    torch.testing.assert_close(h, mlstm(*x)[:, :, 29], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("form", "chunk"), FORMS[:3])
def test_no_token_sees_a_later_one(form, chunk):
    x = inputs(100, 8)
    h = mlstm(*x, form=form, chunk=chunk)
    grads = torch.autograd.grad(h[:, :, 57].sum(), x)
    for g in grads:
        assert (g[:, :, 58:] == 0).all()
        assert (g[:, :, :58] != 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cap", [15.0, None])
@pytest.mark.parametrize("T", [40, 150])
@pytest.mark.parametrize("size", [50.0, 1e4])
def test_extreme_gates_stay_finite(T, cap, dtype, size):
    q, k, v, i, f = inputs(T, 16, dtype)
    i, f = (i * size).detach().requires_grad_(), (f * size).detach().requires_grad_()
    h = mlstm(q, k, v, i, f, soft_cap=cap)
    assert torch.isfinite(h).all()
    for g in torch.autograd.grad(h.float().square().sum(), (q, k, v, i, f)):
        assert torch.isfinite(g).all()


@pytest.mark.parametrize("level", [-1e4, 1e4])
def test_gates_all_shut_or_all_open_stay_finite(level):
    q, k, v, i, f = inputs(70, 16, torch.float32)
    flat = [torch.full_like(i, level).requires_grad_(), torch.full_like(f, -level).requires_grad_()]
    h = mlstm(q, k, v, *flat, soft_cap=None)
    assert torch.isfinite(h).all()
    for g in torch.autograd.grad(h.sum(), (q, k, v, *flat)):
        assert torch.isfinite(g).all()


def test_half_precision_operands_keep_float32_gates():
    x = inputs(200, 32)
    expected = recurrence(*x)
    got = mlstm(*(a.bfloat16() for a in x[:3]), *(a.float() for a in x[3:]))
    assert got.dtype is torch.bfloat16
    assert _errors(got, expected).quantile(0.9).item() < 0.02
    with torch.autocast("cpu", torch.bfloat16):
        under = mlstm(*(a.float() for a in x))
    torch.testing.assert_close(under, mlstm(*(a.float() for a in x)))
