"""What is around blocks, and the contrastive head, in Triton on a GPU: ``pytest -m gpu`` with this file."""

import pytest
import torch
import torch.nn.functional as F
from triton_marks import ON_A_GPU

from models.quantizers.gumbel import Gumbel, GumbelConfig
from models.xlstm.settings import BlockSettings, BlockType
from models.xlstm.stack import Stage
from tasks.losses.info_nce import InfoNCE, InfoNCEConfig
from utils.rng import Draw

pytestmark = ON_A_GPU


def stages(width, dropout=0.0):
    """A native stage in float64 on the CPU, and one by our kernels with the same weights on the GPU."""
    torch.manual_seed(0)
    made = []
    for name in ("native", "triton"):
        cfg = BlockSettings(width=width, directions=2, kernels=name, dropout=dropout)
        made.append(Stage([BlockType.mlstm] * 2, cfg, fuse_per_block=True, residual=False, checkpointing=False))
    with torch.no_grad():
        for weight in made[0].parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    made[1].load_state_dict(made[0].state_dict())
    return made[0].double(), made[1].cuda()


def answers(stage, x, pull):
    """Output, gradients of the input and all weights, on the CPU in float64."""
    x = x.clone().requires_grad_()
    grads = torch.autograd.grad(out := stage(x), [x, *stage.parameters()], pull.to(out))
    return [one.detach().double().cpu() for one in (out, *grads)]


@pytest.mark.parametrize(("width", "tokens"), [(128, 300), (512, 64), (192, 100), (44, 33)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_stage_of_whole_layers_is_as_close_to_float64_as_native_code(width, tokens, dtype):
    reference, fast = stages(width)
    native = stages(width)[0].float().cuda()
    x = torch.randn(3, tokens, width).to(dtype).double()
    pull = torch.randn_like(x)
    expected = answers(reference, x, pull)
    with torch.autocast("cuda", dtype, enabled=dtype is not torch.float32):
        got, plain = (answers(stage, x.float().cuda(), pull) for stage in (fast, native))
    names = ["out", "x", *(name for name, _ in reference.named_parameters())]
    for name, *found in zip(names, got, plain, expected, strict=True):
        ours, theirs = (((one - found[2]).norm() / found[2].norm()).item() for one in found[:2])
        assert ours <= max(2e-5 if dtype is torch.float32 else 1e-2, 1.5 * theirs), f"{name}: {ours:.1e}, natively {theirs:.1e}"


def test_runs_with_dropout_are_bitwise_equal_for_a_seed():
    _, fast = stages(128, dropout=0.1)
    x, pull = torch.randn(16, 1024, 128, device="cuda"), torch.randn(16, 1024, 128, device="cuda")
    found = []
    with torch.autocast("cuda", torch.bfloat16):
        for _ in range(3):
            torch.manual_seed(4)
            found.append(answers(fast, x, pull))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("D", [128, 192, 512])
def test_dropout_drops_the_same_numbers_both_ways_and_as_many_as_asked(D):
    from models.xlstm.triton import norm_op

    x, out, pull = (torch.randn(*shape, 64, 300, D, device="cuda") for shape in ((), (2,), ()))
    pull, seed = torch.cat([pull, -pull], -1), torch.tensor([77], device="cuda")
    z, scale = norm_op.joined_norm(x, out, seed, 0.1, 1e-6)
    dx, dout = norm_op.joined_norm_grad(pull, z, scale, seed, 0.1, torch.float32)
    kept = dout != 0
    wide = [one.double().requires_grad_() for one in (x, out)]
    expected = torch.cat(list(F.layer_norm(wide[0] + wide[1] * kept / 0.9, (D,), eps=1e-6)), -1)
    for got, wanted in zip([z, dx, dout], [expected, *torch.autograd.grad(expected, wide, pull.double())], strict=True):
        torch.testing.assert_close(got.double(), wanted.detach(), rtol=1e-4, atol=1e-4)
    total = kept.numel()
    assert abs(int((~kept).sum()) - 0.1 * total) < 5 * (total * 0.09) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_without_noise_are_those_of_native_code(dtype):
    torch.manual_seed(0)
    quantizer = Gumbel(GumbelConfig(), d_in=256).cuda().eval()
    logits, where = (16 * torch.randn(64, 670, 2, 320, device="cuda")).to(dtype), torch.rand(64, 670, device="cuda") < 0.9
    pulls = torch.randn(64 * 670, 2, 128, device="cuda"), torch.randn(2, 320, device="cuda")
    found = []
    for way in (quantizer._natively, quantizer._by_kernels):
        x = logits.clone().requires_grad_()
        vectors, indices, soft, hard = way(x, where)
        grads = torch.autograd.grad((vectors * pulls[0]).sum() + (soft * pulls[1]).sum(), [x, quantizer.vectors])
        found.append([indices.double(), vectors, soft, hard, *grads])
    for number, (native, ours) in enumerate(zip(*found, strict=True)):
        error = (ours.double() - native.double()).norm() / native.double().norm()
        assert error <= (1e-5 if dtype is torch.float32 or number < 4 else 1e-2), (number, error)


def test_codes_are_chosen_as_often_as_the_softmax_says():
    from models.quantizers.gumbel_op import gumbel

    torch.manual_seed(0)
    N, V = 100_000, 320
    logits = (2.0 * torch.randn(V, device="cuda")).expand(N, 2, V).contiguous()
    told = (torch.ones(N, device="cuda"), torch.tensor(0.5, device="cuda"))
    _, sums, _ = gumbel(logits, *told, torch.tensor([4], device="cuda"), 1.0)
    expected = N * logits[0, 0].double().softmax(-1)
    for found in sums[1]:
        assert ((found - expected) ** 2 / expected).sum() < V - 1 + 5 * (2 * (V - 1)) ** 0.5


@pytest.mark.parametrize("codes", [9, 100_000])
def test_half_precision_contrast_is_that_of_float32_and_ties_are_no_hits(codes):
    torch.manual_seed(0)
    B, M, E = 16, 670, 256
    loss = InfoNCE(InfoNCEConfig())
    context, target = (torch.randn(B, M, E, device="cuda").bfloat16() for _ in range(2))
    context[:, ::2] += target[:, ::2]
    target[:, 6::5] = target[:, 1:-5:5]  # equal targets: neither is above the other
    numbers, scored = torch.randint(codes, (B, M), device="cuda"), torch.rand(B, M, device="cuda") < 0.9
    draw = Draw(3, torch.zeros(B, dtype=torch.long, device="cuda"), torch.arange(B, device="cuda"))
    pull, found = torch.randn(B, M, device="cuda") * scored, []
    for way in (loss._natively, loss._by_kernels):
        x = [one.clone().requires_grad_() for one in (context, target)]
        each, hits = way(*x, numbers, scored, draw)
        found.append([each * scored, hits & scored, *torch.autograd.grad((each * pull).sum(), x)])
    (each, hits, *grads), (ours, our_hits, *our_grads) = found
    torch.testing.assert_close(ours, each, rtol=1e-5, atol=1e-4)
    assert (our_hits != hits).float().mean() < 1e-3  # what float32 sums in another order decide otherwise
    for a, b in zip(our_grads, grads, strict=True):
        assert (a.double() - b.double()).norm() <= 1e-2 * b.double().norm()


def test_equal_targets_tie():
    from tasks.losses.info_nce_op import losses

    context = torch.randn(4, 300, 256, device="cuda").bfloat16()
    target = context[:, :1].expand(-1, 300, -1).contiguous()
    pick = (torch.arange(300, device="cuda")[:, None] + torch.arange(1, 20, device="cuda")) % 300
    _, hits = losses(context, target, None, pick.expand(4, -1, -1), 0.1)
    assert not hits.any()


def test_a_compiled_stage_with_dropout_trains():
    """The compiler takes it whole; without dropout it is the eager one (test_inner_triton_gpu.py)."""
    _, fast = stages(128, dropout=0.3)
    compiled = torch.compile(fast, fullgraph=True)
    x = torch.randn(4, 256, 128, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16):
        out = [compiled(x) for _ in range(3)]
    grads = torch.autograd.grad(sum(one.float().square().mean() for one in out), [x, *fast.parameters()])
    assert not torch.equal(out[1], out[2])
    assert all(torch.isfinite(one).all() and one.any() for one in grads)
