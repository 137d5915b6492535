"""The Triton sLSTM on a GPU: ``pytest -m gpu tests/models/test_slstm_triton_gpu.py``."""

import pytest
import torch
from slstm_cells import Rounded, answers, inputs, poisoned, reference, relative
from triton_cells import demand_compiled_is_eager, demand_graph_replays
from triton_marks import ON_A_GPU

from models.xlstm.settings import BlockSettings
from models.xlstm.slstm_block import SLSTMBlock

pytestmark = ON_A_GPU
SHAPES = [(1, 16), (63, 4), (65, 44), (200, 12), (33, 3), (256, 64), (512, 32), (1024, 16), (1024, 8)]


def cell(x):
    from models.xlstm.triton.slstm_op import slstm_triton

    return slstm_triton(*x, reversed_from=1)


def compare(T, D, dtype, B=11):
    """Errors against float64 on the same rounded numbers, both directions, after the head norm.

    Gradients are taken where h is rounded to ``dtype``: a norm of three features makes 5e-2 of that rounding alone.
    """
    x = inputs(T, D, dtype, "cuda", B=B, H=2)
    wide = [a.detach().cpu().double().requires_grad_() for a in x]
    got = [a.cpu() for a in answers(cell, x)]
    forward, *_ = relative(got, answers(lambda x: reference(x, 1), wide))
    return [forward, *relative(got, answers(lambda x: Rounded.apply(reference(x, 1), dtype), wide))[1:]]


@pytest.mark.parametrize(("T", "D"), [*SHAPES, (64, 80), (200, 128)])
def test_bfloat16_is_close_to_float64(T, D):
    forward, *gradients = compare(T, D, torch.bfloat16)
    assert forward <= 5e-3
    assert max(gradients) <= 1e-2, gradients


@pytest.mark.parametrize(("T", "D"), SHAPES)
def test_float32_is_exact_to_its_rounding(T, D):
    forward, *gradients = compare(T, D, torch.float32)
    assert forward <= 1e-5
    assert max(gradients) <= 1e-5, gradients


def test_long_sequences_stay_close():
    forward, *gradients = compare(4096, 4, torch.bfloat16, B=2)
    assert forward <= 5e-3
    assert max(gradients) <= 1e-2, gradients


@pytest.mark.parametrize(("T", "D"), [(4096, 4), (256, 16), (300, 12), (256, 64), (128, 128)])
def test_runs_are_bitwise_equal(T, D):
    x = inputs(T, D, torch.bfloat16, "cuda", B=64, H=4)
    first = answers(cell, x)
    for _ in range(5):
        for a, b in zip(first, answers(cell, x), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("T", "D", "B"), [(65, 44, 9), (7, 12, 3), (64, 64, 8), (9, 128, 17)])
def test_nothing_is_read_or_written_outside(T, D, B):
    from models.xlstm.triton.slstm_launch import Scan, kept_like, partial_sums, slstm_backward_calls, slstm_forward_calls

    x, recurrent, bias = (a.detach() for a in inputs(T, D, torch.bfloat16, "cuda", H=2, B=B))
    (x, _), (h, around_h), (dx, around_dx) = poisoned(x), poisoned(x[..., 0, :] * torch.nan), poisoned(x * torch.nan)
    dh, scan = poisoned(torch.randn_like(h))[0], Scan(1, True)
    kept, (dR, db) = kept_like(x).fill_(torch.nan), (part.fill_(torch.nan) for part in partial_sums(h))
    back = recurrent.permute(0, 1, 3, 4, 2).contiguous()
    calls = slstm_forward_calls(x, recurrent, bias, h, kept, scan)
    for call in calls + slstm_backward_calls(dh, back, h, kept, dx, (dR, db), scan):
        call.run()
    for inside, around in ((h, around_h), (dx, around_dx)):
        assert torch.isfinite(inside).all()
        assert torch.isfinite(around).sum() == inside.numel()
    assert torch.isfinite(dR).all()
    assert torch.isfinite(db).all()


@pytest.mark.parametrize("dynamic", [False, None])
def test_compiled_is_eager(dynamic):
    for T in (64, 90):
        demand_compiled_is_eager(cell, inputs(T, 16, torch.bfloat16, "cuda", B=5, H=2), dynamic)


def test_a_cuda_graph_replays_forward_and_backward():
    x, fresh = (inputs(100, 16, torch.bfloat16, "cuda", seed=seed, B=5, H=2) for seed in (0, 7))
    demand_graph_replays(cell, x, fresh, torch.randn_like(x[0][..., 0, :]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_block_under_autocast_is_that_of_the_native_cell(dtype):
    cfg = {"width": 64, "directions": 2, "slstm_num_heads": 4}
    native, fast = (SLSTMBlock(BlockSettings(**cfg, kernels=name)).cuda() for name in ("native", "triton"))
    torch.nn.init.normal_(native.recurrent, std=0.2)
    fast.load_state_dict(native.state_dict())
    x = torch.randn(2, 3, 50, 64, device="cuda")
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype is torch.bfloat16):
        outs = [block(x) for block in (native, fast)]
    bound = 2e-2 if dtype is torch.bfloat16 else 1e-4
    assert ((outs[1] - outs[0]).norm() / outs[0].norm()).item() <= bound
    grads = [torch.autograd.grad(out.square().sum(), block.recurrent)[0] for out, block in zip(outs, (native, fast), strict=True)]
    assert ((grads[1] - grads[0]).norm() / grads[0].norm()).item() <= 2 * bound


def test_operators_pass_torchs_own_checks():
    cell(inputs(8, 16, torch.bfloat16, "cuda"))  # registers the operators
    x = inputs(20, 16, torch.bfloat16, "cuda")
    torch.library.opcheck(torch.ops.wavexlstm.slstm.default, (*x, 1, True))


def test_tensors_on_the_cpu_are_refused():
    with pytest.raises(ValueError, match="need a CUDA device; kernels=native runs everywhere"):
        cell(inputs(8, 16))
