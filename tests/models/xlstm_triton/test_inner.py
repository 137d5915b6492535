"""A block whose inside is ours in Triton, against the same block natively in float64: outputs, all gradients, memory."""

import pytest
import torch
from triton_cells import flipped

from models.xlstm.block import CELL_EPS, MLSTMBlock
from models.xlstm.fence import Fence
from models.xlstm.settings import BlockSettings, BlockType
from models.xlstm.stack import Stage
from models.xlstm.triton.available import takes_whole_blocks
from models.xlstm.triton.inner_op import Weights, mlstm_inner

TOKENS = (3, 70)


def blocks(cfg):
    """A native block in float64 with weights off their starting values, and one by our kernels with the same."""
    torch.manual_seed(0)
    native = MLSTMBlock(BlockSettings(**{**cfg, "kernels": "native"})).double()
    with torch.no_grad():
        for weight in native.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    fast = MLSTMBlock(BlockSettings(**{**cfg, "kernels": "triton"}))
    fast.load_state_dict(native.state_dict())
    return native, fast


def answers(block, x, run, pull):
    """Output, and gradients of the input and all weights, by name."""
    x = x.clone().requires_grad_()
    out = run(block, x)
    names = ["x", *(name for name, _ in block.named_parameters())]
    grads = torch.autograd.grad(out, [x, *block.parameters()], pull.to(out.dtype))
    return {"out": out.detach()} | dict(zip(names, grads, strict=True))


def demand_close(got, expected, bound):
    for name, value in expected.items():
        error = (got[name].double() - value).norm() / value.norm()
        assert error <= bound, f"{name}: {error:.1e}"


@pytest.mark.parametrize(
    ("cfg", "tokens"),
    [
        ({"width": 32, "directions": 2}, 70),
        ({"width": 48, "directions": 2, "mlstm_num_heads": 2, "mlstm_qkv_proj_blocksize": 8}, 33),
        ({"width": 32, "directions": 1, "mlstm_conv1d_kernel_size": 1, "gate_soft_cap": None}, 5),
        ({"width": 32, "directions": 2, "mlstm_conv1d_kernel_size": 5, "mlstm_num_heads": 1}, 1),
    ],
)
@pytest.mark.parametrize("turn", [False, True])
def test_it_is_the_native_block(cfg, tokens, turn):
    native, fast = blocks(cfg)
    x = torch.randn(cfg["directions"], 2, tokens, cfg["width"], dtype=torch.float64)
    pull = torch.randn_like(x)
    expected = answers(native, x, lambda block, x: turned(block(turned(x))) if turn else block(x), pull)
    got = answers(fast, x.float(), lambda block, x: block(x, turn=turn), pull)
    demand_close(got, expected, 1e-5)


def turned(x):
    """The second direction flipped in time."""
    return flipped(x[:, :, None], 1)[:, :, 0]


def test_float16_loses_its_own_rounding_only():
    native, fast = blocks({"width": 32, "directions": 2})
    x = torch.randn(2, 2, 90, 32, dtype=torch.float64)
    pull = torch.randn_like(x)
    expected = answers(native, x, lambda block, x: turned(block(turned(x))), pull)
    with torch.autocast("cpu", torch.float16):
        got = answers(fast, x.float(), lambda block, x: block(x, turn=True), pull)
    demand_close(got, expected, 1e-2)


@pytest.mark.parametrize("kinds", [[BlockType.mlstm], [BlockType.mlstm, BlockType.slstm]])
def test_a_stage_turns_what_its_blocks_do_not(kinds):
    """Stages of whole blocks flip nothing; one with an sLSTM in it flips for all."""
    made = {}
    for name in ("native", "triton"):
        cfg = BlockSettings(width=32, directions=2, kernels=name)
        made[name] = Stage(kinds, cfg, fuse_per_block=False, residual=True, checkpointing=False)
    made["triton"].load_state_dict(made["native"].state_dict())
    x = torch.randn(2, 21, 32)
    torch.testing.assert_close(made["triton"](x), made["native"](x), rtol=1e-4, atol=1e-4)


def prepared(tokens, dtype=torch.float32):
    """Arguments of the operator."""
    _, block = blocks({"width": 32, "directions": 2})
    first = (block.conv.weight.mT, block.conv.bias, block.q.weight, block.k.weight, block.v.weight)
    weights = (*first, *block._gate_weights(), block.gate_bias, block.head_gain, block.skip)
    up = torch.randn(2, 2, tokens, 128).to(dtype)
    return up, Weights(*(weight.detach() for weight in weights))


@pytest.mark.parametrize("tokens", TOKENS)
def test_everything_is_written_and_nothing_beside_it(tokens):
    up, weights = prepared(tokens)
    fence = Fence()
    x = [fence.around(one).requires_grad_() for one in (up, *weights)]
    with fence.up():
        out = mlstm_inner(x[0], Weights(*x[1:]), heads=4, reversed_from=1, soft_cap=15.0, cell_eps=CELL_EPS, norm_eps=1e-6)
        grads = torch.autograd.grad(out, x, fence.around(torch.randn(out.shape)))
    assert fence.broken() is None
    assert all(torch.isfinite(one).all() for one in (out, *grads))


@pytest.mark.parametrize("recompute", [False, True])
def test_operators_pass_torchs_own_checks(recompute):
    up, weights = prepared(20)
    told = (4, 1, 15.0, CELL_EPS, 1e-6)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.wavexlstm.mlstm_inner.default,
        (up.requires_grad_(), *weights, *told, recompute),
        test_utils=(*checks, "test_autograd_registration"),
    )
    with torch.no_grad():
        y, *kept = torch.ops.wavexlstm.mlstm_inner(up, *weights, *told, recompute)
        if recompute:
            kept[:4] = [None] * 4
        torch.library.opcheck(
            torch.ops.wavexlstm.mlstm_inner_backward.default, (y, up.detach(), *weights, *kept, *told), test_utils=checks
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_computed_again_has_the_same_bits_and_is_not_kept(dtype):
    up, weights = prepared(70, dtype)
    pull, found, kept = torch.randn(2, 2, 70, 64).to(dtype), [], []
    for recompute in (False, True):
        x = [one.clone().requires_grad_() for one in (up, *weights)]
        held = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, held=held: held.append(t.nbytes) or t, lambda t: t):
            told = {"heads": 4, "reversed_from": 1, "soft_cap": 15.0, "cell_eps": CELL_EPS, "norm_eps": 1e-6}
            out = mlstm_inner(x[0], Weights(*x[1:]), **told, recompute=recompute)
        found.append([out, *torch.autograd.grad(out, x, pull)])
        kept.append(sum(held))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert kept[0] - kept[1] == 4 * pull.nbytes  # c, q, k and v


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning")
def test_a_compiled_graph_takes_a_block_whole():
    _, block = blocks({"width": 32, "directions": 2})
    x = torch.randn(2, 2, 20, 32)
    compiled = torch.compile(lambda x: block(x, turn=True), backend="aot_eager", fullgraph=True)
    pull = torch.randn_like(x)
    got = answers(block, x, lambda _, x: compiled(x), pull)
    demand_close(got, answers(block, x, lambda block, x: block(x, turn=True), pull), 1e-6)


def test_sizes_that_do_not_fit_are_left_to_native_code():
    assert takes_whole_blocks(256, 4, 4, 17)
    assert takes_whole_blocks(384, 4, 64, 4)
    assert not takes_whole_blocks(256, 4, 96, 4)  # blocks that lie across 64 features
    assert not takes_whole_blocks(1024, 2, 4, 4)  # heads of 512
    assert not takes_whole_blocks(256, 4, 4, 18)  # a convolution that reaches over more than a product's tokens
    native, fast = blocks({"width": 48, "directions": 2, "mlstm_qkv_proj_blocksize": 128})
    assert not fast.turns(torch.zeros(1))
    x = torch.randn(2, 1, 9, 48, dtype=torch.float64)
    torch.testing.assert_close(fast(x.float()).double(), native(x), rtol=1e-4, atol=1e-4)
