"""The Gumbel softmax in Triton: without noise against the native quantizer, with noise by its laws."""

import pytest
import torch

from models.quantizers.gumbel import Gumbel, GumbelConfig
from models.quantizers.gumbel_op import chosen_codes, gumbel, gumbel_grad
from models.xlstm.fence import Fence


@pytest.mark.parametrize(("groups", "codes", "shape"), [(2, 320, (3, 7)), (1, 5, (1, 1)), (3, 65, (2, 9))])
def test_it_is_the_native_quantizer_but_for_noise(groups, codes, shape):
    torch.manual_seed(0)
    native = Gumbel(GumbelConfig(groups=groups, codes=codes, width=groups * 4), d_in=6).eval()
    features, where = torch.randn(*shape, 6), torch.rand(shape) < 0.7
    found = []
    for way in (native._natively, native._by_kernels):
        logits = native.to_logits(features).unflatten(-1, (groups, codes))
        vectors, indices, soft, hard = way(logits, where)
        torch.manual_seed(1)
        pulled = (vectors * torch.randn(vectors.shape)).sum() + (soft * torch.randn(soft.shape)).sum()
        found.append(
            (vectors, indices, soft, hard, *torch.autograd.grad(pulled, [native.vectors, *native.to_logits.parameters()]))
        )
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)


def noisy_softmax(logits, weight, temperature, seed, log_sums):
    """p of tokens by what the gradient says: of p_a the gradient is −p_a · p_b / T, so three codes tell each other's."""
    N, G, V = logits.shape
    products = torch.zeros(V, N, G, V)
    for v in range(V):
        pull = torch.zeros(G, N, V)
        pull[..., v] = 1.0
        products[v] = -gumbel_grad(pull, torch.zeros(G, V), logits, weight, temperature, seed, log_sums, 1.0) * temperature
    a, b = (torch.arange(V) + 1) % V, (torch.arange(V) + 2) % V
    v = torch.arange(V)
    return (products[v, :, :, a] * products[v, :, :, b] / products[a, :, :, b]).sqrt().permute(1, 2, 0)


def test_noise_is_the_same_both_ways_and_its_gradient_that_of_a_softmax():
    torch.manual_seed(0)
    N, G, V, temperature, seed = 21, 2, 5, torch.tensor(1.7), torch.tensor([99])
    logits, weight = torch.randn(N, G, V), torch.rand(N)
    chosen, sums, log_sums = gumbel(logits, weight, temperature, seed, 1.0)
    p = noisy_softmax(logits, weight, temperature, seed, log_sums)
    torch.testing.assert_close(p.sum(-1), torch.ones(N, G), rtol=1e-4, atol=1e-4)
    assert torch.equal(p.argmax(-1), chosen)
    pull, shares = torch.randn(G, N, V), torch.randn(G, V)
    got = gumbel_grad(pull, shares, logits, weight, temperature, seed, log_sums, 1.0)
    of_soft = p * (pull.transpose(0, 1) - (p * pull.transpose(0, 1)).sum(-1, keepdim=True)) / temperature
    q = logits.softmax(-1)
    of_shares = weight[:, None, None] * q * (shares - (q * shares).sum(-1, keepdim=True))
    torch.testing.assert_close(got, of_soft + of_shares, rtol=1e-3, atol=1e-4)
    hard = torch.nn.functional.one_hot(chosen, V) * weight[:, None, None]
    torch.testing.assert_close(sums, torch.stack([(q * weight[:, None, None]).sum(0), hard.sum(0)]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("codes", [3, 130])
def test_codes_are_chosen_as_often_as_the_softmax_says(codes):
    """The Gumbel-max law, by χ² against its own spread; and another seed chooses anew, token by token and group by group."""
    torch.manual_seed(0)
    N, G = 4096, 2
    logits = (2.0 * torch.randn(codes)).expand(N, G, codes).contiguous()
    told = (torch.ones(N), torch.tensor(0.5))
    chosen, sums, _ = gumbel(logits, *told, torch.tensor([4]), 1.0)
    expected = N * logits[0, 0].softmax(-1)
    for found in sums[1]:
        assert ((found - expected) ** 2 / expected).sum() < codes - 1 + 5 * (2 * (codes - 1)) ** 0.5
    other, _, _ = gumbel(logits, *told, torch.tensor([5]), 1.0)
    same = (logits[0, 0].softmax(-1) ** 2).sum()  # how often independent choices agree
    for one, two in ((chosen, other), (chosen[:, 0], chosen[:, 1]), (chosen[1:], chosen[:-1])):
        assert abs((one == two).float().mean() - same) < 5 * (same * (1 - same) / one.numel()) ** 0.5


def test_a_bent_gradient_reaches_logits_and_vectors_once():
    """Straight through: vectors are exactly the codebook's, the gradient is that of Σ soft · vectors."""
    torch.manual_seed(0)
    logits, vectors = torch.randn(11, 2, 7, requires_grad=True), torch.randn(2, 7, 3, requires_grad=True)
    out, chosen, *_ = chosen_codes(logits, vectors, torch.ones(11), torch.tensor(1.0), scale=0.5, noisy=False)
    pull = torch.randn(out.shape)
    got = torch.autograd.grad(out, [logits, vectors], pull)
    choice = (0.5 * logits.detach()).requires_grad_()
    mixed = torch.einsum("ngv,gvd->ngd", choice.softmax(-1), vectors.detach())
    torch.testing.assert_close(got[0], 0.5 * torch.autograd.grad(mixed, choice, pull)[0])
    looked_up = vectors[torch.arange(2), chosen]
    assert torch.equal(out, looked_up)
    torch.testing.assert_close(got[1], torch.autograd.grad(looked_up, vectors, pull)[0])


def test_everything_is_written_and_nothing_beside_it():
    fence, (N, G, V) = Fence(), (9, 2, 70)
    logits, weight = fence.around(torch.randn(N, G, V)), fence.around(torch.rand(N))
    temperature, seed = fence.around(torch.ones(1)), fence.around(torch.tensor([5]))
    with fence.up():
        chosen, sums, log_sums = gumbel(logits, weight, temperature, seed, 1.0)
        pulls = fence.around(torch.randn(G, N, V)), fence.around(torch.randn(G, V))
        dlogits = gumbel_grad(*pulls, logits, weight, temperature, seed, log_sums, 1.0)
    assert fence.broken() is None
    assert ((chosen >= 0) & (chosen < V)).all()
    assert all(torch.isfinite(one).all() for one in (sums, log_sums, dlogits))


def test_operators_pass_torchs_own_checks():
    logits, weight, checks = torch.randn(5, 2, 7), torch.rand(5), ("test_schema", "test_faketensor")
    for seed in (torch.tensor([3]), None):
        told = (logits, weight, torch.tensor(2.0), seed)
        torch.library.opcheck(torch.ops.wavexlstm.gumbel.default, (*told, 0.5), test_utils=checks)
        log_sums = gumbel(*told, 0.5)[2]
        grads = torch.randn(2, 5, 7), torch.randn(2, 7)
        torch.library.opcheck(torch.ops.wavexlstm.gumbel_backward.default, (*grads, *told, log_sums, 0.5), test_utils=checks)
