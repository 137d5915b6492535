"""Norms, dropout and projections around a block in Triton, against the same in plain PyTorch."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from models.xlstm import probe_child, stack
from models.xlstm.block import examples
from models.xlstm.fence import Fence
from models.xlstm.probe import Case
from models.xlstm.projections import joined_projection, normed_projection
from models.xlstm.settings import BlockSettings, BlockType
from models.xlstm.stack import Stage
from models.xlstm.triton import norm_op

EPS = 1e-6
SHAPES = [(2, 3, 7, 32), (1, 2, 5, 44), (2, 1, 1, 1), (3, 2, 4, 130)]


def random(*shape, scale=1.0):
    return scale * torch.randn(shape) + 0.3


def demand_close(got, expected, bound=1e-5):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert (a.double() - b).norm() <= bound * b.norm() + 1e-12, (a, b)


def both(ours, plain, x, bound=1e-5):
    """Outputs and all gradients, ours in float32 and plain in float64."""
    fast, wide = [one.requires_grad_() for one in x], [one.detach().double().requires_grad_() for one in x]
    got, expected = ours(*fast), plain(*wide)
    pull = torch.randn_like(got)
    got = [got, *torch.autograd.grad(got, fast, pull)]
    demand_close(got, [expected, *torch.autograd.grad(expected, wide, pull.double())], bound)


@pytest.mark.parametrize(("P", "B", "T", "D"), SHAPES)
def test_into_a_block(P, B, T, D):
    torch.manual_seed(0)
    x = [random(B, T, D, scale=5.0), random(P, D), random(P, 6, D)]

    def plain(x, gain, weight):
        return torch.einsum("btd,pd,pod->pbto", F.layer_norm(x, (D,), eps=EPS), gain, weight)

    both(lambda *x: normed_projection(*x, EPS), plain, x, 1e-4 if D == 1 else 1e-5)


@pytest.mark.parametrize(("P", "B", "T", "D"), SHAPES)
def test_out_of_a_layer(P, B, T, D):
    torch.manual_seed(0)
    x = [random(B, T, D), random(P, B, T, D), random(P, D), random(5, P * D), random(5)]

    def plain(x, out, gain, weight, bias):
        normed = F.layer_norm(x + out, (D,), eps=EPS) * gain[:, None, None]
        return F.linear(torch.cat(list(normed), -1), weight, bias)

    both(lambda x, out, *w: joined_projection(x, out, 0.0, *w, EPS), plain, x)


@pytest.mark.parametrize(("P", "B", "T", "D"), [(2, 3, 50, 32), (2, 2, 33, 44)])
def test_dropout_drops_the_same_numbers_both_ways_and_as_many_as_asked(P, B, T, D):
    torch.manual_seed(0)
    x, out, pull, seed = random(B, T, D), random(P, B, T, D), random(B, T, P * D), torch.tensor([123456789])
    z, scale = norm_op.joined_norm(x, out, seed, 0.25, EPS)
    dx, dout = norm_op.joined_norm_grad(pull, z, scale, seed, 0.25, torch.float32)
    kept = dout != 0
    wide = [one.double().requires_grad_() for one in (x, out)]
    branch = wide[1] * kept / 0.75
    expected = torch.cat(list(F.layer_norm(wide[0] + branch, (D,), eps=EPS)), -1)
    demand_close([z, dx, dout], [expected, *torch.autograd.grad(expected, wide, pull.double())])
    count, total = int((~kept).sum()), kept.numel()
    assert abs(count - 0.25 * total) < 5 * (total * 0.25 * 0.75) ** 0.5
    for one in (kept.flatten(1), kept.flatten(0, 2).T, kept.permute(1, 2, 0, 3).flatten(0, 1).flatten(1)):
        assert len(one.unique(dim=0)) == len(one)  # directions, features and tokens draw for themselves
    again, _ = norm_op.joined_norm(x, out, seed, 0.25, EPS)
    other, _ = norm_op.joined_norm(x, out, seed + 1, 0.25, EPS)
    assert torch.equal(again, z) and not torch.equal(other, z)


@pytest.mark.parametrize(("B", "T", "D"), [(2, 7, 44), (1, 3, 130)])
def test_everything_is_written_and_nothing_beside_it(B, T, D):
    fence = Fence()
    x, out = fence.around(random(B, T, D)), fence.around(random(2, B, T, D))
    seed = fence.around(torch.tensor([5]))
    with fence.up():
        y, scale = norm_op.token_norm(x, EPS, torch.float32)
        found = [y, scale, norm_op.token_norm_grad(fence.around(torch.randn(2, B, T, D)), y, scale, torch.float32)]
        z, scale = norm_op.joined_norm(x, out, seed, 0.1, EPS)
        found += [z, scale, *norm_op.joined_norm_grad(fence.around(torch.randn(z.shape)), z, scale, seed, 0.1, torch.float32)]
    assert fence.broken() is None
    assert all(torch.isfinite(one).all() for one in found)


def test_operators_pass_torchs_own_checks():
    x, out, seed = random(2, 5, 12), random(2, 2, 5, 12), torch.tensor([7])
    checks = ("test_schema", "test_faketensor")
    ops = torch.ops.wavexlstm
    y, scale = norm_op.token_norm(x, EPS, torch.float16)
    torch.library.opcheck(ops.token_norm.default, (x, EPS, torch.float16), test_utils=checks)
    torch.library.opcheck(ops.token_norm_backward.default, (out, y, scale, torch.float32), test_utils=checks)
    for given in (seed, None):
        z, scale = norm_op.joined_norm(x, out, given, 0.1, EPS)
        torch.library.opcheck(ops.joined_norm.default, (x, out, given, 0.1, EPS), test_utils=checks)
        told = (z, z, scale, given, 0.1, torch.float32)
        torch.library.opcheck(ops.joined_norm_backward.default, told, test_utils=checks)


def stages(residual=False, dropout=0.0):
    """A native stage in float64, weights off their starting values, and one by our kernels with the same."""
    torch.manual_seed(0)
    kinds, made = [BlockType.mlstm] * 2, []
    for name in ("native", "triton"):
        cfg = BlockSettings(width=32, directions=2, kernels=name, dropout=dropout)
        made.append(Stage(kinds, cfg, fuse_per_block=True, residual=residual, checkpointing=False))
    with torch.no_grad():
        for weight in made[0].parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    made[1].load_state_dict(made[0].state_dict())
    return made[0].double(), made[1]


def gradients(stage, x, pull):
    x = x.clone().requires_grad_()
    out = stage(x)
    return [out.detach(), *torch.autograd.grad(out, [x, *stage.parameters()], pull.to(out.dtype))]


@pytest.mark.parametrize("residual", [False, True])
def test_a_stage_of_whole_layers_is_the_native_stage(residual):
    native, fast = stages(residual)
    x, pull = random(2, 21, 32).double(), random(2, 21, 32).double()
    demand_close(gradients(fast, x.float(), pull), gradients(native, x, pull), 2e-5)


def test_float16_loses_its_own_rounding_only():
    native, fast = stages()
    x, pull = random(2, 40, 32).double(), random(2, 40, 32).double()
    with torch.autocast("cpu", torch.float16):
        got = gradients(fast, x.float(), pull)
    demand_close(got, gradients(native, x, pull), 2e-2)


def test_dropout_is_for_training_and_checkpointing_draws_the_same():
    _, fast = stages(dropout=0.5)
    x, pull = random(1, 9, 32), random(1, 9, 32)
    fast.eval()
    torch.testing.assert_close(fast(x), fast(x), rtol=0, atol=0)
    fast.train()
    torch.manual_seed(3)
    first = gradients(fast, x, pull)
    second = gradients(fast, x, pull)
    assert not torch.equal(first[0], second[0])
    fast.checkpointing = True
    torch.manual_seed(3)
    demand_close(gradients(fast, x, pull), [one.double() for one in first], 1e-6)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning")
def test_a_compiled_graph_takes_a_stage_whole():
    _, fast = stages()
    x, pull = random(1, 20, 32), random(1, 20, 32)
    expected = gradients(fast, x, pull)
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    y = x.clone().requires_grad_()
    out = compiled(y)
    got = [out.detach(), *torch.autograd.grad(out, [y, *fast.parameters()], pull)]
    demand_close(got, [one.double() for one in expected], 1e-6)


def test_a_probe_tells_of_a_wrong_way_out(monkeypatch):
    """Rounding a residual away, say: h and x would still look alike."""
    sound = stack.joined_projection
    case = Case((16,), chunk=16)
    told = []
    for way_out in (sound, lambda x, *others: sound(0.9 * x, *others)):
        monkeypatch.setattr(stack, "joined_projection", way_out)
        block, layer = probe_child.block_problems(partial(examples, "triton"), case)
        told += [probe_child.examine(problem, 5e-3) for problem in (block, layer)]
    assert told[:3] == ["", "", ""]
    assert "numbers are wrong" in told[3] and "norm and fusion behind it" in told[3]
