"""The Triton kernels on a GPU: ``pytest -m gpu tests/models/test_xlstm_triton_gpu.py``."""

import pytest
import torch
from triton_cells import answers, demand_compiled_is_eager, demand_graph_replays, errors, inputs, reference, settled
from triton_marks import ON_A_GPU

pytestmark = ON_A_GPU
SHAPES = [(1, 64), (63, 64), (64, 256), (65, 44), (200, 96), (256, 128), (300, 256), (1024, 64), (1024, 96)]


def cell(x, soft_cap=15.0, eps=1e-6):
    from models.xlstm.triton.op import mlstm_triton

    return mlstm_triton(*x, soft_cap=soft_cap, eps=eps, reversed_from=1)


def compare(T, D, dtype, soft_cap):
    """Errors against float64 on the same rounded numbers, both directions, both after the head norm, where that settles them."""
    x = inputs(T, D, dtype, "cuda", B=2, H=2)
    wide = [a.detach().double().requires_grad_() for a in x]
    where = settled(x, 1, soft_cap)
    got = answers(lambda x: cell(x, soft_cap), x, where=where)
    # of a single token the head norm leaves gates no gradient at all: what is measured there is the rounding of h
    expected = answers(lambda x: reference(x, 1, soft_cap, 1e-6), wide, where=where)
    return errors(got, expected, share=1.0 if T == 1 else 0.01)


@pytest.mark.parametrize("soft_cap", [15.0, None])
@pytest.mark.parametrize(("T", "D"), SHAPES)
def test_bfloat16_is_close_to_float64(T, D, soft_cap):
    forward, *gradients = compare(T, D, torch.bfloat16, soft_cap)
    assert forward <= 5e-3
    assert max(gradients) <= 1e-2, gradients


@pytest.mark.parametrize("soft_cap", [15.0, None])
@pytest.mark.parametrize(("T", "D"), SHAPES)
def test_float32_is_exact_to_its_rounding(T, D, soft_cap):
    forward, *gradients = compare(T, D, torch.float32, soft_cap)
    assert forward <= 1e-5
    assert max(gradients) <= 1e-5, gradients


@pytest.mark.parametrize(("T", "D"), [(64, 256), (256, 128), (1024, 64), (1000, 96)])
def test_runs_are_bitwise_equal(T, D):
    x = inputs(T, D, torch.bfloat16, "cuda", B=16, H=4)
    first = answers(cell, x)
    for _ in range(5):
        for a, b in zip(first, answers(cell, x), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("T", "D"), [(65, 44), (100, 96), (64, 64), (33, 256)])
def test_nothing_is_read_or_written_outside(T, D):
    from models.xlstm.triton.launch import Cell, backward_calls, forward_calls, stats_like

    def poisoned(x):
        around = x.new_full([n + 4 for n in x.shape[:-1]] + [x.shape[-1] + 16], float("nan"))
        inside = around[tuple(slice(2, 2 + n) for n in x.shape[:-1])][..., 8 : 8 + x.shape[-1]]
        inside.copy_(x)
        return inside, around

    x = [poisoned(a.detach())[0] for a in inputs(T, D, torch.bfloat16, "cuda", B=2, H=2)]
    pull, stats = poisoned(torch.randn_like(x[0]))[0], stats_like(x[0]).fill_(float("nan"))
    nothing = [poisoned(torch.full_like(a, float("nan"))) for a in (x[2], *x)]
    h, *grads = (inside for inside, _ in nothing)
    told = Cell(1, 15.0, 1e-6)
    for call in forward_calls(*x, h, stats, told) + backward_calls(tuple(x), h, stats, pull, tuple(grads), told):
        call.run()
    for inside, around in nothing:
        assert torch.isfinite(inside).all()
        assert torch.isfinite(around).sum() == inside.numel()


@pytest.mark.parametrize("dynamic", [False, None])
def test_compiled_is_eager(dynamic):
    for T in (128, 200):
        demand_compiled_is_eager(cell, inputs(T, 64, torch.bfloat16, "cuda", B=2, H=2), dynamic)


def test_a_cuda_graph_replays_forward_and_backward():
    x, fresh = (inputs(256, 64, torch.bfloat16, "cuda", seed=seed, B=2, H=2) for seed in (0, 7))
    demand_graph_replays(cell, x, fresh, torch.randn_like(x[0]))


def test_long_sequences_stay_close():
    """Gradients of the gates are sums over the sequence: rounding must not grow with it."""
    forward, *gradients = compare(4096, 16, torch.bfloat16, 15.0)
    assert forward <= 5e-3
    assert max(gradients) <= 2e-2, gradients


def test_operators_pass_torchs_own_checks():
    cell(inputs(8, 16, torch.bfloat16, "cuda"))  # registers the operators
    x = inputs(40, 16, torch.bfloat16, "cuda")
    torch.library.opcheck(torch.ops.wavexlstm.mlstm.default, (*x, 1, 15.0, 1e-6))


def test_tensors_on_the_cpu_are_refused():
    with pytest.raises(ValueError, match="need a CUDA device; kernels=native runs everywhere"):
        cell(inputs(8, 16))
