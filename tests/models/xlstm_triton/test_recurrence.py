"""The Triton kernels against the float64 recurrence: forward and all five gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton_cells import answers, errors, flipped, inputs, reference

from models.xlstm.kernels import kernel
from models.xlstm.triton.launch import Launch, Tile, using
from models.xlstm.triton.op import mlstm_triton

SMALL = Tile(16, 4, 1, 16)
WHOLE = Tile(64, 4, 1, 64)
FINER = Launch(Tile(32, 4, 1, 64), Tile(16, 4, 1, 32), Tile(32, 4, 1, 32))
COARSER = Launch(Tile(16, 4, 1, 16), Tile(32, 4, 1, 64), Tile(16, 4, 1, 64))


def compare(T, D, reversed_from=1, soft_cap=15.0, eps=1e-6, **how):
    x = inputs(T, D, **how)
    got = answers(lambda x: mlstm_triton(*x, soft_cap=soft_cap, eps=eps, reversed_from=reversed_from), x)
    return errors(got, answers(lambda x: reference(x, reversed_from, soft_cap, eps), x))


@given(
    st.integers(1, 80), st.sampled_from([5, 16, 20, 32]), st.integers(0, 2), st.sampled_from([15.0, None]),
    st.sampled_from([1e-6, 0.3]), st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=6)
def test_it_is_the_recurrence(T, D, reversed_from, soft_cap, eps, seed):
    got = compare(T, D, reversed_from, soft_cap, eps, seed=seed)
    assert got[0] < 2e-5
    assert max(got) < 2e-4


@pytest.mark.parametrize(("T", "D"), [(1, 16), (64, 16), (65, 16), (130, 16), (70, 44), (70, 96), (34, 140)])
def test_lengths_and_widths_that_are_no_powers_of_two(T, D):
    got = compare(T, D)
    assert got[0] < 1e-5
    assert max(got) < 5e-5


@pytest.mark.parametrize("launch", [Launch(SMALL, SMALL, SMALL), FINER, COARSER, Launch(WHOLE, WHOLE, WHOLE)])
def test_tiles_and_chunks_change_nothing(launch):
    with using(launch):
        got = compare(85, 20)
    assert max(got) < 5e-5


@pytest.mark.parametrize("soft_cap", [15.0, None])
def test_the_normaliser_its_floor_and_the_running_maximum_are_differentiated(soft_cap):
    """Without a head norm, with a large eps and gates that put the normaliser on either branch."""
    x = inputs(40, 16, seed=3)
    x[3] = (x[3] * 2 - 1).detach().requires_grad_()
    got = answers(lambda x: mlstm_triton(*x, soft_cap=soft_cap, eps=0.5, reversed_from=1), x, after=lambda h: h)
    expected = answers(lambda x: reference(x, 1, soft_cap, 0.5), x, after=lambda h: h)
    assert max(errors(got, expected)) < 2e-5


def test_float16_operands_keep_float32_gates():
    got = compare(100, 32, dtype=torch.float16)
    assert got[0] < 5e-3
    assert max(got) < 1e-2


@pytest.mark.parametrize(("i", "f"), [(1e4, -1e4), (-1e4, 1e4), (-1e4, -1e4), (1e4, 1e4)])
def test_gates_all_shut_or_all_open_stay_finite(i, f):
    q, k, v, gi, gf = inputs(70, 16)
    x = [q, k, v, torch.full_like(gi, i).requires_grad_(), torch.full_like(gf, f).requires_grad_()]
    h = mlstm_triton(*x, soft_cap=None, reversed_from=1)
    assert torch.isfinite(h).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(h.sum(), x))


def test_the_backend_by_name_takes_heads_first_and_four_dimensions():
    x = [a[0] for a in inputs(70, 16, B=2, H=3)]
    made = [kernel(name, chunk=64, soft_cap=15.0, eps=1e-6).cell(*x) for name in ("triton", "recurrent")]
    torch.testing.assert_close(*made, rtol=1e-3, atol=1e-3)


def test_directions_in_one_call_are_two_calls():
    x = inputs(40, 12, P=3)
    both = answers(lambda x: mlstm_triton(*x, reversed_from=1), x)
    for p in range(3):
        alone = [a[p : p + 1].detach().requires_grad_() for a in x]
        h = mlstm_triton(*alone, reversed_from=0 if p else 1)
        torch.testing.assert_close(mlstm_triton(*x, reversed_from=1)[p : p + 1], h, rtol=0, atol=0)
    forward = [flipped(a, 1).detach().requires_grad_() for a in x]
    turned = answers(lambda x: flipped(mlstm_triton(*x), 1), forward)
    torch.testing.assert_close(both[0], turned[0], rtol=0, atol=0)
    torch.testing.assert_close(both[1:], [flipped(g, 1) for g in turned[1:]], rtol=0, atol=0)


def test_no_token_sees_a_later_one():
    x = inputs(100, 16)
    h = mlstm_triton(*x, reversed_from=1)
    for p, later in ((0, slice(58, None)), (1, slice(0, 57))):
        for g in torch.autograd.grad(h[p, ..., 57, :].sum(), x, retain_graph=True):
            assert (g[1 - p] == 0).all()
            assert (g[p][:, :, later] == 0).all()
            assert (g[p] != 0).any()


def test_twice_is_bitwise_the_same():
    x = inputs(70, 20)
    for a, b in zip(*(answers(lambda x: mlstm_triton(*x, reversed_from=1), x) for _ in range(2)), strict=True):
        assert torch.equal(a, b)
