"""InfoNCE in Triton against the native loss in float64: losses, hits, gradients."""

import pytest
import torch

from models.xlstm.fence import Fence
from tasks.losses.info_nce import InfoNCE, InfoNCEConfig
from tasks.losses.info_nce_op import counted, info_nce, info_nce_grad
from utils.rng import Draw


def case(B, M, E, K, codes, temperature=0.1):
    """A loss; context, target, codes, scored, draws."""
    torch.manual_seed(0)
    loss = InfoNCE(InfoNCEConfig(count=K, temperature=temperature))
    context, target = (3 * torch.randn(B, M, E) for _ in range(2))
    context[:, ::2] += 2 * target[:, ::2]
    numbers = None if codes is None else torch.randint(codes, (B, M)) + 2**40
    scored = torch.rand(B, M) < 0.8
    return loss, context, target, numbers, scored, Draw(3, torch.zeros(B, dtype=torch.long), torch.arange(B))


@pytest.mark.parametrize(
    ("B", "M", "E", "K", "codes", "temperature"),
    [(2, 70, 32, 100, 9, 0.1), (1, 5, 20, 3, None, 0.1), (3, 64, 16, 255, 2, 0.02), (2, 33, 8, 7, 10_000, 1.0)],
)
def test_it_is_the_native_loss(B, M, E, K, codes, temperature):
    loss, context, target, numbers, scored, draw = case(B, M, E, K, codes, temperature)
    pull = torch.randn(B, M)
    found = []
    for way, wide in ((loss._natively, [context.double(), target.double()]), (loss._by_kernels, [context, target])):
        x = [one.clone().requires_grad_() for one in wide]
        each, hits = way(*x, numbers, scored, draw)
        found.append((each, hits, *torch.autograd.grad((each * pull * scored).sum(), x)))
    (each, hits, *grads), (ours, our_hits, *our_grads) = found
    torch.testing.assert_close((ours * scored).double(), each.double() * scored, rtol=1e-4, atol=1e-4)
    assert torch.equal(our_hits & scored, hits & scored)
    for a, b in zip(our_grads, grads, strict=True):
        assert (a.double() - b).norm() <= 1e-4 * b.norm() + 1e-6  # of 1 less a probability near 1


def test_a_batch_gives_the_same_choice_either_way():
    """Through the front door, a trace that is not scored included."""
    loss, context, target, numbers, scored, draw = case(3, 40, 16, 20, 50)
    scored[1] = False
    native = loss(context, target, numbers, scored, draw)
    loss._fast = lambda *_: True
    ours = loss(context, target, numbers, scored, draw)
    assert loss(context, target, numbers.T.contiguous().T, scored, draw).loss == ours.loss  # however codes lie in memory
    torch.testing.assert_close(ours.loss, native.loss, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.hits, native.hits) and torch.equal(ours.scored, native.scored)
    assert ours.accuracy == native.accuracy and ours.count == native.count


@pytest.mark.parametrize(("M", "K"), [(1, 255), (5, 255), (67, 100)])
def test_draws_are_counted(M, K):
    torch.manual_seed(0)
    pick = torch.randint(M, (2, M, K))
    pick[0, 0] = M - 1  # all of them the same
    expected = torch.nn.functional.one_hot(pick, M).sum(2)
    got = counted(pick)
    assert torch.equal(got[:, :, :M].long(), expected)
    assert not got[:, :, M:].any()


def test_a_vector_of_zeros_has_a_finite_gradient():
    loss, context, target, numbers, scored, draw = case(1, 9, 8, 5, 4)
    context[0, 2], target[0, 4] = 0.0, 0.0
    x = [context.requires_grad_(), target.requires_grad_()]
    each, _ = loss._by_kernels(*x, numbers, scored, draw)
    assert all(torch.isfinite(one).all() for one in (each, *torch.autograd.grad(each.sum(), x)))


def test_everything_is_written_and_nothing_beside_it():
    _, context, target, numbers, _, _ = case(2, 70, 20, 5, 4)
    fence = Fence()
    counts = fence.around(counted(torch.randint(70, (2, 70, 5))))
    x = [fence.around(one) for one in (context, target, torch.rand(2, 70), torch.rand(2, 70), numbers)]
    with fence.up():
        own, total, hit = info_nce(*x, counts, 0.1)
        grad = info_nce_grad(fence.around(torch.randn(2, 70)), *x, counts, total, 0.1)
    assert fence.broken() is None
    assert all(torch.isfinite(one).all() for one in (own, total, grad[:, :, :70]))
    assert hit.max() <= 1


def test_operators_pass_torchs_own_checks():
    _, context, target, numbers, _, _ = case(2, 20, 8, 5, 4)
    counts, checks = counted(torch.randint(20, (2, 20, 5))), ("test_schema", "test_faketensor")
    lengths = torch.rand(2, 20), torch.rand(2, 20)
    for codes in (numbers, None):
        told = (context, target, *lengths, codes, counts)
        torch.library.opcheck(torch.ops.wavexlstm.info_nce.default, (*told, 0.1), test_utils=checks)
        total = info_nce(*told, 0.1)[1]
        # what lies beyond the positions is not set, so values are not compared
        torch.library.opcheck(torch.ops.wavexlstm.info_nce_backward.default, (total, *told, total, 0.1), test_utils=checks[:1])
