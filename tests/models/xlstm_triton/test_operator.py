"""The Triton kernels as operators of torch: layouts, memory that is not theirs, compilation, bad input."""

import pytest
import torch
from triton_cells import answers, demand_blocks_agree, inputs

from models.xlstm.block import MLSTMBlock
from models.xlstm.settings import BlockSettings
from models.xlstm.triton.launch import Cell, backward_calls, forward_calls, stats_like
from models.xlstm.triton.op import mlstm_triton


def natural(x):
    """The same numbers as views of ``P B T H D``, the layout of projections."""
    return [a.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_() for a in x]


def test_strides_are_taken_as_they_are():
    x = inputs(40, 12, H=2)
    expected = answers(lambda x: mlstm_triton(*x, reversed_from=1), x)
    y = natural(x)
    got = answers(lambda x: mlstm_triton(*x, reversed_from=1), y)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    h = mlstm_triton(*y, reversed_from=1)
    assert h.stride() == y[2].stride()
    grads = torch.autograd.grad(h.sum(), y)
    assert [g.stride() for g in grads] == [a.stride() for a in y]


def test_features_that_do_not_lie_side_by_side_are_copied():
    x = inputs(20, 16)
    turned = [a.detach().transpose(3, 4).contiguous().transpose(3, 4).requires_grad_() for a in x[:3]] + x[3:]
    torch.testing.assert_close(mlstm_triton(*turned), mlstm_triton(*x), rtol=0, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(mlstm_triton(*turned).sum(), turned), torch.autograd.grad(mlstm_triton(*x).sum(), x)
    )


def poisoned(x):
    """The tensor amid not-a-numbers on all sides, and the memory around it."""
    pads = [2] * x.dim()
    around = x.new_full([n + 2 * p for n, p in zip(x.shape, pads, strict=True)], float("nan"))
    inside = around[tuple(slice(p, p + n) for n, p in zip(x.shape, pads, strict=True))]
    inside.copy_(x)
    return inside, around


@pytest.mark.parametrize(("T", "D"), [(1, 20), (70, 20), (64, 16)])
def test_nothing_is_read_or_written_outside(T, D):
    x = [poisoned(a.detach())[0] for a in inputs(T, D, H=2)]
    pull = poisoned(torch.randn(x[0].shape))[0]
    cell, stats = Cell(1, 15.0, 1e-6), stats_like(x[0]).fill_(float("nan"))
    nothing = [poisoned(torch.full_like(a, float("nan"))) for a in (x[2], *x)]
    h, *grads = (inside for inside, _ in nothing)
    for call in forward_calls(*x, h, stats, cell) + backward_calls(tuple(x), h, stats, pull, tuple(grads), cell):
        call.run()
    for inside, around in nothing:
        assert torch.isfinite(inside).all()
        assert torch.isfinite(around).sum() == inside.numel()


def test_operators_pass_torchs_own_checks():
    q, k, v, i, f = natural(inputs(20, 8))
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.wavexlstm.mlstm.default, (q, k, v, i, f, 1, 15.0, 1e-6), test_utils=(*checks, "test_autograd_registration")
    )
    with torch.no_grad():
        h, stats = torch.ops.wavexlstm.mlstm(q, k, v, i, f, 1, None, 1e-6)
        plain = [a.detach() for a in (q, k, v, i, f)]
        torch.library.opcheck(torch.ops.wavexlstm.mlstm_backward.default, (h, *plain, h, stats, 1, None, 1e-6), test_utils=checks)


def test_a_compiled_graph_takes_it_whole():
    x = inputs(30, 8)

    def run(x):
        return 2.0 * mlstm_triton(*x, reversed_from=1)

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(answers(compiled, x), answers(run, x), rtol=0, atol=0)


def test_a_block_is_that_of_the_native_kernel():
    blocks = [MLSTMBlock(BlockSettings(width=16, directions=2, mlstm_num_heads=2, kernels=name)) for name in ("native", "triton")]
    demand_blocks_agree(blocks, torch.randn(2, 2, 40, 16), atol=1e-4)


def test_bad_input_is_refused_with_the_rule():
    q, k, v, i, f = inputs(20, 8)
    with pytest.raises(ValueError, match="must be alike"):
        mlstm_triton(q, k[..., :4], v, i, f)
    with pytest.raises(ValueError, match="that of q without features"):
        mlstm_triton(q, k, v, i[..., :4], f)
    with pytest.raises(ValueError, match="one of float32"):
        mlstm_triton(q.double(), k.double(), v.double(), i, f)
    with pytest.raises(ValueError, match="at most 256 wide"):
        mlstm_triton(*inputs(2, 257))
