"""Parts with gradients by hand against the plain operations they stand for, and what a block keeps for its backward pass."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from models.xlstm.block import MLSTMBlock
from models.xlstm.lean import conv_silu, gated_projection, norm_of_directions
from models.xlstm.settings import BlockSettings


def drawn(*shapes, dtype=torch.float64):
    gen = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=gen, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def plain_conv(x, weight, bias):
    P, B, T, D = x.shape
    rows = F.pad(x.permute(1, 0, 3, 2).reshape(B, P * D, T), (weight.shape[-1] - 1, 0))
    y = F.conv1d(rows, weight.view(P * D, 1, -1), bias.view(-1), groups=P * D)
    return F.silu(y).view(B, P, D, T).permute(1, 0, 3, 2)


def plain_norm(x, weight):
    return F.layer_norm(x, x.shape[-1:], eps=1e-3) * weight[:, None, None]


def plain_projection(h, c, z, skip, gain, weight):
    h = F.layer_norm(h, h.shape[-1:], eps=1e-3).permute(0, 2, 3, 1, 4).reshape(c.shape)
    y = (skip[:, None, None] * c + gain[:, None, None] * h) * F.silu(z)
    return torch.einsum("pbti,poi->pbto", y, weight)


def conv_inputs(T=5, **kind):
    return drawn((2, 2, T, 3), (2, 3, 4), (2, 3), **kind)


def projection_inputs(**kind):
    return drawn((2, 2, 2, 3, 4), (2, 2, 3, 8), (2, 2, 3, 8), (2, 8), (2, 8), (2, 5, 8), **kind)


def norm(x, weight):
    return norm_of_directions(x, weight, 1e-3)


def projection(h, c, z, skip, gain, weight):
    return gated_projection(h, c, z, skip, gain, weight, 1e-3)


PAIRS = [
    (conv_silu, plain_conv, conv_inputs()),
    (conv_silu, plain_conv, conv_inputs(T=1)),
    (conv_silu, plain_conv, conv_inputs(T=2)),
    (norm, plain_norm, drawn((2, 2, 3, 4), (2, 4))),
    (projection, plain_projection, projection_inputs()),
]


@pytest.mark.parametrize(("lean", "plain", "x"), PAIRS)
def test_values_and_gradients_are_those_of_plain_operations(lean, plain, x):
    got, expected = lean(*x), plain(*x)
    torch.testing.assert_close(got, expected)
    weight = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(got, x, weight), torch.autograd.grad(expected, x, weight))


@pytest.mark.parametrize(("lean", "_plain", "x"), PAIRS)
def test_gradcheck(lean, _plain, x):
    assert gradcheck(lean, x)


@pytest.mark.parametrize(("lean", "plain", "shapes"), [
    (conv_silu, plain_conv, conv_inputs()), (projection, plain_projection, projection_inputs()),
])  # fmt: skip
def test_half_precision_stays_close_and_gradients_keep_their_dtypes(lean, plain, shapes):
    """As under autocast: activations (four dimensions and more) bfloat16, weights float32, gradients asked for outside of it."""
    exact = shapes
    mixed = [x.detach().to(torch.bfloat16 if x.ndim > 3 else torch.float32).requires_grad_() for x in exact]
    with torch.autocast("cpu", torch.bfloat16):
        got = lean(*mixed)
    expected = plain(*exact)
    assert got.dtype is torch.bfloat16
    torch.testing.assert_close(got.double(), expected, rtol=0.05, atol=0.03 * expected.abs().max().item())
    grads = torch.autograd.grad(got.sum(), mixed)
    for g, x, e in zip(grads, mixed, torch.autograd.grad(expected.sum(), exact), strict=True):
        assert g.dtype is x.dtype
        torch.testing.assert_close(g.double(), e, rtol=0.05, atol=0.03 * e.abs().max().item())


def kept_bytes(module, x):
    """Bytes of different storages that a forward pass keeps, parameters not counted."""
    known = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept = []

    def pack(t):
        kept.append(t.untyped_storage())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        module(x)
    return sum({s.data_ptr(): s.nbytes() for s in kept if s.data_ptr() not in known}.values())


@pytest.mark.parametrize("directions", [1, 2])
def test_an_mlstm_block_keeps_little(directions):
    """Counted in tensors of inner width: both halves of up, c, q, k, v, h, two of width D for the norm, and inside the cell."""
    T = 512
    block = MLSTMBlock(BlockSettings(width=128, directions=directions))
    x = torch.randn(directions, 2, T, 128, requires_grad=True)
    wide = directions * 2 * T * block.inner * x.element_size()
    assert kept_bytes(block, x) < 11 * wide


def test_one_sequence_in_one_direction():
    """Gates are then views whose tokens do not lie side by side."""
    block, x = MLSTMBlock(BlockSettings(width=32)), torch.randn(1, 2, 200, 32)
    torch.testing.assert_close(block(x[:, :1]), block(x)[:, :1], rtol=1e-4, atol=1e-5)
