"""Inputs and the float64 reference for tests of the Triton kernels, in the interpreter and on a GPU."""

import torch
import torch.nn.functional as F

from models.xlstm.mlstm import Form, mlstm


def inputs(T, D, dtype=torch.float32, device="cpu", seed=0, P=2, B=1, H=1):
    """q, k, v ``P B H T D`` and gates ``P B H T``, forget gates mostly open, as leaves that want gradients."""
    gen = torch.Generator().manual_seed(seed)
    qkv = [torch.randn(P, B, H, T, D, generator=gen).to(dtype) for _ in range(3)]
    gates = [torch.randn(P, B, H, T, generator=gen) * 2 + shift for shift in (0.0, 3.0)]
    return [x.to(device).requires_grad_() for x in (*qkv, *gates)]


def head_norm(h):
    """What follows the cell: zero mean and unit variance over features."""
    return F.layer_norm(h.to(torch.promote_types(h.dtype, torch.float32)), h.shape[-1:], eps=1e-6)


def flipped(x, start):
    """Directions from ``start`` on with time reversed."""
    return torch.cat([x[:start], x[start:].flip(3)])


def reference(x, reversed_from, soft_cap, eps):
    """The recurrence token by token in float64, reversed directions by flips."""
    x = [flipped(a.double(), reversed_from) for a in x]
    h = mlstm(*(a.flatten(0, 1) for a in x), form=Form.recurrent, soft_cap=soft_cap, eps=eps)
    return flipped(h.view_as(x[2]), reversed_from)


def settled(x, reversed_from, soft_cap, most=100.0):
    """Tokens ``P B H T 1`` whose n · q is no less than a ``most``-th of the sizes of all products that are added up in it.

    What cancellation leaves is the rounding of operands many times over, however a cell computes it. The head norm makes as much
    of such a token as of others, or far more, and a few of them outweigh thousands.
    """
    q, k, _, i, f = (flipped(a.detach().double(), reversed_from) for a in x)
    if soft_cap is not None:
        i, f = (soft_cap * torch.tanh(gate / soft_cap) for gate in (i, f))
    b = F.logsigmoid(f).cumsum(-1)
    later = torch.ones(b.shape[-1], b.shape[-1], dtype=torch.bool, device=b.device).tril()
    log = (b[..., :, None] - b[..., None, :] + i[..., None, :]).where(later, -torch.inf)
    weights = (log - log.amax(-1, keepdim=True)).exp()
    left, sizes = (((q @ k.transpose(-1, -2)) * weights).sum(-1, keepdim=True) for q, k in ((q, k), (q.abs(), k.abs())))
    return flipped(sizes <= most * left.abs(), reversed_from)


def answers(run, x, after=head_norm, pull_seed=1, where=1.0):
    """The output after ``after``, and the five gradients of its product with fixed random numbers, ``where`` it counts."""
    out = after(run(x))
    pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(pull_seed)).to(out) * where
    return [out, *torch.autograd.grad(out, x, pull)]


def errors(got, expected, share=0.01):
    """Relative error of h and of the gradients of q, k, v, i, f.

    After the head norm a gradient can be nothing but rounding (the cell's scale is lost there): none is measured by less than a
    ``share`` of the largest.
    """
    sizes = [b.double().norm().item() for b in expected]
    least = share * max(sizes[1:])
    return [(a.double() - b.double()).norm().item() / max(n, least) for a, b, n in zip(got, expected, sizes, strict=True)]


def demand_compiled_is_eager(cell, x, dynamic):
    """Inductor takes the cell whole, with the same output and gradients to the rounding of half precision."""
    run = torch.compile(lambda x: cell(x) * 2.0, fullgraph=True, dynamic=dynamic)
    for a, b in zip(answers(run, x), answers(lambda x: cell(x) * 2.0, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


def demand_graph_replays(cell, x, fresh, pull):
    """A CUDA graph of forward and backward at ``x``, replayed with other inputs in its place, gives what these give."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            torch.autograd.grad(cell(x), x, pull)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        h = cell(x)
        grads = torch.autograd.grad(h, x, pull)
    with torch.no_grad():
        for a, b in zip(x, fresh, strict=True):
            a.copy_(b)
    graph.replay()
    expected = cell(fresh)
    assert torch.equal(h, expected)
    for a, b in zip(grads, torch.autograd.grad(expected, fresh, pull), strict=True):
        assert torch.equal(a, b)


def demand_blocks_agree(blocks, x, *, atol):
    """A block with Triton cells (the second) has the weights of a native one, its output and its gradients."""
    blocks[1].load_state_dict(blocks[0].state_dict())
    outs = [block(x) for block in blocks]
    torch.testing.assert_close(outs[1], outs[0], rtol=1e-4, atol=atol)
    grads = [torch.autograd.grad(out.square().sum(), list(block.parameters())) for out, block in zip(outs, blocks, strict=True)]
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-3, atol=1e-3)
