"""The Triton sLSTM as operators of torch: layouts, memory that is not theirs, compilation, blocks, bad input."""

import pytest
import torch
from slstm_cells import answers, inputs, poisoned
from triton_cells import demand_blocks_agree

from models.xlstm.settings import BlockSettings
from models.xlstm.slstm_block import SLSTMBlock
from models.xlstm.triton.slstm_launch import Scan, kept_like, partial_sums, slstm_backward_calls, slstm_forward_calls
from models.xlstm.triton.slstm_op import slstm_triton


def test_strides_are_taken_as_they_are():
    x, *weights = inputs(6, 12, H=2, B=2)
    natural = x.detach().permute(0, 2, 3, 1, 4, 5).contiguous().permute(0, 3, 1, 2, 4, 5).requires_grad_()
    expected = answers(lambda x: slstm_triton(*x, reversed_from=1), [x, *weights])
    got = answers(lambda x: slstm_triton(*x, reversed_from=1), [natural, *weights])
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_h_lies_with_its_heads_side_by_side():
    x = inputs(10, 12, H=2, B=2)
    assert slstm_triton(*x).permute(0, 2, 3, 1, 4).is_contiguous()


def test_gates_or_features_that_do_not_lie_side_by_side_are_copied():
    x, *weights = inputs(6, 8)
    turned = x.detach().transpose(4, 5).contiguous().transpose(4, 5)
    torch.testing.assert_close(slstm_triton(turned, *weights), slstm_triton(x, *weights), rtol=0, atol=0)
    expanded = torch.autograd.grad(slstm_triton(x, *weights).sum(), x)
    torch.testing.assert_close(expanded, torch.autograd.grad((slstm_triton(x, *weights) * torch.ones(8)).sum(), x))


@pytest.mark.parametrize(("T", "D", "B"), [(1, 20, 1), (7, 20, 9), (6, 16, 8)])
def test_nothing_is_read_or_written_outside(T, D, B):
    """T beyond, sequences beyond the last block and features beyond the head are poisoned."""
    x, recurrent, bias = (a.detach() for a in inputs(T, D, H=2, B=B))
    (x, _), (h, around_h), (dx, around_dx) = poisoned(x), poisoned(x[..., 0, :] * torch.nan), poisoned(x * torch.nan)
    dh, scan = poisoned(torch.randn(h.shape))[0], Scan(1, True)
    kept, sums = kept_like(x).fill_(torch.nan), [part.fill_(torch.nan) for part in partial_sums(h)]
    back = recurrent.permute(0, 1, 3, 4, 2).contiguous()
    calls = slstm_forward_calls(x, recurrent, bias, h, kept, scan)
    calls += slstm_backward_calls(dh, back, h, kept, dx, (sums[0], sums[1]), scan)
    for call in calls:
        call.run()
    for inside, around in ((h, around_h), (dx, around_dx)):
        assert torch.isfinite(inside).all()
        assert torch.isfinite(around).sum() == inside.numel()
    assert all(torch.isfinite(part).all() for part in sums)


def test_without_gradients_nothing_is_kept():
    x = inputs(6, 8)
    with torch.no_grad():
        assert torch.equal(slstm_triton(*x), slstm_triton(*x))
    h, kept = torch.ops.wavexlstm.slstm(*x, 1, False)
    assert kept.numel() == 1
    with pytest.raises(ValueError, match="keep=False: nothing is left for gradients"):
        h.sum().backward()


def test_operators_pass_torchs_own_checks():
    x, recurrent, bias = inputs(6, 8)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.wavexlstm.slstm.default, (x, recurrent, bias, 1, True), test_utils=(*checks, "test_autograd_registration")
    )
    with torch.no_grad():
        h, kept = torch.ops.wavexlstm.slstm(x, recurrent, bias, 1, True)
        torch.library.opcheck(torch.ops.wavexlstm.slstm_backward.default, (h, recurrent, bias, h, kept, 1), test_utils=checks)


def test_a_compiled_graph_takes_it_whole():
    x = inputs(5, 8)

    def run(x):
        return 2.0 * slstm_triton(*x, reversed_from=1)

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(answers(compiled, x), answers(run, x), rtol=0, atol=0)


def test_a_block_is_that_of_the_native_cell():
    blocks = [SLSTMBlock(BlockSettings(width=16, directions=2, slstm_num_heads=2, kernels=name)) for name in ("native", "triton")]
    torch.nn.init.normal_(blocks[0].recurrent, std=0.3)
    demand_blocks_agree(blocks, torch.randn(2, 2, 9, 16), atol=1e-5)


def test_bad_input_is_refused_with_the_rule():
    x, recurrent, bias = inputs(4, 8)
    with pytest.raises(ValueError, match="must be P H B T 4 D"):
        slstm_triton(x[0], recurrent, bias)
    with pytest.raises(ValueError, match=r"recurrent matrix and bias are .*: must be \(2, 1, 8, 4, 8\)"):
        slstm_triton(x, recurrent[:, :, :4], bias)
    with pytest.raises(ValueError, match="one of float32"):
        slstm_triton(x.double(), recurrent, bias)
    with pytest.raises(ValueError, match="sLSTM heads of 65 features in float32: at most 64"):
        slstm_triton(*inputs(2, 65))
    with pytest.raises(ValueError, match="sLSTM heads of 130 features in float16: at most 128"):
        slstm_triton(*inputs(2, 130, torch.float16))
