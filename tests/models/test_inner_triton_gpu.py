"""The inside of an mLSTM block in Triton on a GPU: ``pytest -m gpu tests/models/test_inner_triton_gpu.py``."""

import pytest
import torch
from triton_marks import ON_A_GPU

from models.xlstm.block import MLSTMBlock
from models.xlstm.settings import BlockSettings, BlockType
from models.xlstm.stack import Stage

pytestmark = ON_A_GPU
SHAPES = [(128, 1024), (256, 256), (512, 64), (192, 300), (32, 33)]
"""Features of a token (half of the inner ones), tokens: the three levels of the U-Net, a sequential model, a small one."""


def blocks(width, heads=4):
    """A native block in float64 on the CPU, and one by our kernels with the same weights on the GPU."""
    torch.manual_seed(0)
    native = MLSTMBlock(BlockSettings(width=width, directions=2, mlstm_num_heads=heads, kernels="native")).double()
    with torch.no_grad():
        for weight in native.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    fast = MLSTMBlock(BlockSettings(width=width, directions=2, mlstm_num_heads=heads, kernels="triton"))
    fast.load_state_dict(native.state_dict())
    return native, fast.cuda()


def answers(block, x, pull, run):
    """Output, gradients of the input and all weights, on the CPU in float64."""
    x = x.clone().requires_grad_()
    grads = torch.autograd.grad(out := run(block, x), [x, *block.parameters()], pull.to(out))
    return [one.detach().double().cpu() for one in (out, *grads)]


def turned(x):
    return torch.stack([x[0], x[1].flip(1)])


def compare(width, tokens, dtype):
    """Errors by name against float64: (by our kernels, by native code on the same GPU)."""
    reference, fast = blocks(width)
    native = blocks(width)[0].float().cuda()
    x = torch.randn(2, 3, tokens, width).to(dtype).double()
    pull = torch.randn_like(x)
    expected = answers(reference, x, pull, lambda block, x: turned(block(turned(x))) - x)
    with torch.autocast("cuda", dtype, enabled=dtype is not torch.float32):
        got = answers(fast, x.float().cuda(), pull, lambda block, x: block(x, turn=True) - x)
        plain = answers(native, x.float().cuda(), pull, lambda block, x: turned(block(turned(x))) - x)
    names = ["out", "x", *(name for name, _ in reference.named_parameters())]
    errors = [[((a - b).norm() / b.norm()).item() for a, b in zip(one, expected, strict=True)] for one in (got, plain)]
    return dict(zip(names, zip(*errors, strict=True), strict=True))


@pytest.mark.parametrize(("width", "tokens"), SHAPES)
def test_bfloat16_is_as_close_to_float64_as_native_code(width, tokens):
    """Autocast rounds the projections' operands in both, and a few tokens whose n · q cancels are most of every error."""
    for name, (ours, native) in compare(width, tokens, torch.bfloat16).items():
        assert ours <= max(5e-3, 1.5 * native), f"{name}: {ours:.1e}, natively {native:.1e}"


@pytest.mark.parametrize(("width", "tokens"), SHAPES)
def test_float32_is_exact_to_its_rounding(width, tokens):
    for name, (ours, _) in compare(width, tokens, torch.float32).items():
        assert ours <= 2e-5, f"{name}: {ours:.1e}"


def test_runs_are_bitwise_equal():
    _, fast = blocks(128)
    x, pull = torch.randn(2, 16, 1024, 128, device="cuda"), torch.randn(2, 16, 1024, 128, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        first, *others = (answers(fast, x, pull, lambda block, x: block(x, turn=True)) for _ in range(4))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_compiled_stage_is_the_eager_one():
    torch.manual_seed(0)
    cfg = BlockSettings(width=128, directions=2, kernels="triton")
    stage = Stage([BlockType.mlstm] * 2, cfg, fuse_per_block=True, residual=False, checkpointing=False).cuda()
    compiled = torch.compile(stage, fullgraph=True)
    x, pull = torch.randn(4, 256, 128, device="cuda"), torch.randn(4, 256, 128, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        got, expected = (answers(stage, x, pull, lambda _, x, run=run: run(x)) for run in (compiled, stage))
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() <= 2e-2 * b.norm()
