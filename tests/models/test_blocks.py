"""Blocks against NX-AI's xlstm 2.0.6, the step form against the whole sequence, directions against flips."""

import warnings

import pytest
import torch

from models.xlstm import convert
from models.xlstm.block import MLSTMBlock
from models.xlstm.kernels import KERNELS, kernel
from models.xlstm.settings import BiasInit, BlockSettings, BlockType
from models.xlstm.slstm_block import SLSTMBlock
from models.xlstm.stack import Stage, kinds_of
from utils.errors import CheckpointError, ConfigError
from utils.optim_params import decays

NXAI = {"gate_soft_cap": None, "norm_eps": 1e-5}


@pytest.fixture(scope="module")
def nxai():
    """NX-AI's package, whose import warns of things that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import xlstm

        return xlstm


def disturbed(module):
    """Every parameter away from zeros and ones, so that none can be mixed up or left out."""
    torch.manual_seed(3)
    for p in module.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return module


def their_stack(nxai, *, length, blocks=1, slstm_at=(), width=32, **mlstm):
    slstm = nxai.sLSTMBlockConfig(
        slstm=nxai.sLSTMLayerConfig(backend="vanilla", num_heads=4, conv1d_kernel_size=4),
        feedforward=nxai.FeedForwardConfig(proj_factor=1.3, act_fn="gelu"),
    )
    mlstm_layer = nxai.mLSTMLayerConfig(conv1d_kernel_size=4, qkv_proj_blocksize=4, num_heads=4, **mlstm)
    config = nxai.xLSTMBlockStackConfig(
        mlstm_block=nxai.mLSTMBlockConfig(mlstm=mlstm_layer), slstm_block=slstm, context_length=length,
        num_blocks=blocks, embedding_dim=width, slstm_at=list(slstm_at),
    )  # fmt: skip
    return disturbed(nxai.xLSTMBlockStack(config).double())


@pytest.mark.parametrize(("width", "factor"), [(32, 2.0), (80, 1.6)])
@pytest.mark.parametrize("T", [5, 70])
def test_mlstm_block_is_xlstms(nxai, T, width, factor):
    theirs = their_stack(nxai, length=T, width=width, proj_factor=factor).blocks[0]
    ours = MLSTMBlock(BlockSettings(width=width, mlstm_proj_factor=factor, **NXAI)).double()
    ours.load_state_dict(convert.mlstm_block(theirs.state_dict()), strict=True)
    x = torch.randn(2, T, width, dtype=torch.float64, requires_grad=True)
    got, expected = ours(x[None])[0], theirs(x)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (got, expected)]
    torch.testing.assert_close(*grads, rtol=1e-7, atol=1e-8)


def test_slstm_block_is_xlstms(nxai):
    theirs = their_stack(nxai, length=20, slstm_at=[0]).blocks[0]
    ours = SLSTMBlock(BlockSettings(width=32, **NXAI)).double()
    ours.load_state_dict(convert.slstm_block(theirs.state_dict()), strict=True)
    x = torch.randn(2, 20, 32, dtype=torch.float64, requires_grad=True)
    got, expected = ours(x[None])[0], theirs(x)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (got, expected)]
    torch.testing.assert_close(*grads, rtol=1e-7, atol=1e-8)


def test_a_stack_is_xlstms(nxai):
    """Blocks in a residual chain with one norm at the end, in float32."""
    theirs = their_stack(nxai, length=30, blocks=3, slstm_at=[1]).float()
    x = torch.randn(2, 30, 32)
    y = x[None]
    for j, block in enumerate(theirs.blocks):
        ours = (SLSTMBlock if j == 1 else MLSTMBlock)(BlockSettings(width=32, **NXAI))
        ours.load_state_dict((convert.slstm_block if j == 1 else convert.mlstm_block)(block.state_dict()))
        y = ours(y)
    torch.testing.assert_close(theirs.post_blocks_norm(y[0]), theirs(x), rtol=2e-4, atol=2e-4)


def test_a_foreign_state_dict_is_refused():
    with pytest.raises(CheckpointError, match=r"missing \['ffn.proj_down.weight'"):
        convert.slstm_block({"head.weight": torch.zeros(1)})


@pytest.mark.parametrize("init", [*BiasInit])
def test_initial_values_are_nxais(nxai, init):
    """Constants are equal, and random values have the same spread."""
    config = nxai.sLSTMBlockConfig(
        slstm=nxai.sLSTMLayerConfig(backend="vanilla", num_heads=4, embedding_dim=32, bias_init=init.value),
        _block_idx=1,
        _num_blocks=3,
    )
    expected = convert.slstm_block(nxai.sLSTMBlock(config).state_dict())
    ours = dict(SLSTMBlock(BlockSettings(width=32, slstm_bias_init=init, index=1, blocks=3)).state_dict())
    for name, value in ours.items():
        if init is BiasInit.standard or name.endswith("weight") or name == "conv.bias":
            torch.testing.assert_close(value.std(), expected[name].std(), rtol=0.5, atol=1e-6)
        else:
            torch.testing.assert_close(value, expected[name])


def test_initial_values_of_the_mlstm_are_nxais(nxai):
    layer = nxai.mLSTMBlockConfig(mlstm=nxai.mLSTMLayerConfig(num_heads=4))
    config = nxai.xLSTMBlockStackConfig(mlstm_block=layer, context_length=4, num_blocks=3, embedding_dim=128)
    theirs = convert.mlstm_block(nxai.xLSTMBlockStack(config).blocks[0].state_dict())
    ours = MLSTMBlock(BlockSettings(width=128, blocks=3)).state_dict()
    assert (ours["gate_bias"][0, 4:] == torch.linspace(3, 6, 4)).all()
    for name, value in ours.items():
        if name == "gate_bias":
            assert value[0, :4].abs().max() < 0.6
        else:
            torch.testing.assert_close(value.std(unbiased=False), theirs[name].std(unbiased=False), rtol=0.1, atol=1e-6)


def test_gate_biases_can_be_overridden():
    bias = MLSTMBlock(BlockSettings(width=32, override_gate_bias=(-10.0, 2.0, 5.0))).gate_bias[0]
    assert bias.tolist() == [-10.0] * 4 + [2.0, 3.0, 4.0, 5.0]


def test_parameter_counts():
    with torch.device("meta"):
        block = MLSTMBlock(BlockSettings(width=128))
        stage = Stage([BlockType.mlstm], BlockSettings(width=128), fuse_per_block=True, residual=False, checkpointing=False)
    assert sum(p.numel() for p in block.parameters()) == 109_448
    assert sum(p.numel() for p in stage.parameters()) == 109_576


def test_gates_biases_and_norms_do_not_decay():
    for block in (MLSTMBlock(BlockSettings(width=32, directions=2)), SLSTMBlock(BlockSettings(width=32, directions=2))):
        free = {name for name, p in block.named_parameters() if not decays(p)}
        assert {"gate_bias", "head_gain", "norm.weight", "conv.bias"} <= free
        assert not any(name.startswith(("up.", "down.", "q.", "ff_up.")) for name in free)


def stage(kind, directions=2, *, per_block=True, residual=False, checkpointing=False, layers=2):
    torch.manual_seed(0)
    cfg = BlockSettings(width=16, directions=directions, chunk_size=8, mlstm_num_heads=2)
    made = Stage([kind] * layers, cfg, fuse_per_block=per_block, residual=residual, checkpointing=checkpointing)
    return disturbed(made).double()


@pytest.mark.parametrize("kind", [BlockType.mlstm, BlockType.slstm])
def test_steps_are_the_sequence(kind):
    model = stage(kind, directions=1, residual=True)
    x = torch.randn(2, 11, 16, dtype=torch.float64)
    states, out = model.start(x), []
    for piece in x.split([1, 1, 3, 5, 1], 1):
        y, states = model.step(piece, states)
        out.append(y)
    torch.testing.assert_close(torch.cat(out, 1), model(x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("per_block", [True, False])
@pytest.mark.parametrize("kind", [BlockType.mlstm, BlockType.slstm])
def test_swapping_the_directions_reverses_time(kind, per_block):
    """A stage with forward and backward weights exchanged, on the reversed trace, gives the reversed output."""
    model, swapped = stage(kind, per_block=per_block), stage(kind, per_block=per_block)
    for name, p in swapped.named_parameters():
        ours = dict(model.named_parameters())[name].data
        p.data = (
            ours.roll(8 * 2, -1) if name.endswith("weight") and "fusions" in name else ours if "fusions" in name else ours.flip(0)
        )
    x = torch.randn(2, 13, 16, dtype=torch.float64)
    torch.testing.assert_close(swapped(x.flip(1)).flip(1), model(x))


def test_both_directions_in_one_call_are_two_blocks():
    both = disturbed(MLSTMBlock(BlockSettings(width=16, directions=2)))
    x = torch.randn(2, 3, 9, 16)
    for p in range(2):
        one = MLSTMBlock(BlockSettings(width=16))
        one.load_state_dict({name: value[p : p + 1] for name, value in both.state_dict().items()})
        torch.testing.assert_close(one(x[p : p + 1])[0], both(x)[p], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [BlockType.mlstm, BlockType.slstm])
def test_checkpointing_changes_no_number(kind):
    plain, saving = stage(kind), stage(kind, checkpointing=True)
    x = torch.randn(1, 9, 16, dtype=torch.float64)
    plain(x).square().sum().backward()
    saving(x).square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("block", [3, 16, 64])
def test_block_diagonal_of_any_block_size(block):
    from models.xlstm.layers import BlockDiagonal

    layer = BlockDiagonal(2, 192, 4, block)
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 1, 5, 192)
    dense = torch.stack([torch.block_diag(*w) for w in layer.weight])
    expected = torch.einsum("pbti,poi->pbto", x, dense).unflatten(-1, (4, 48)).permute(0, 3, 1, 2, 4)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_a_mix_repeats():
    a, b = BlockType.mlstm, BlockType.slstm
    assert kinds_of(BlockType.mixed, [a, b], 5) == [a, b, a, b, a]
    assert kinds_of(b, [a], 2) == [b, b]


def test_every_kernel_gives_the_same_numbers():
    x = [torch.randn(1, 2, 70, 16) for _ in range(3)] + [torch.randn(1, 2, 70), torch.randn(1, 2, 70) + 3]
    made = {name: kernel(name, chunk=32, soft_cap=15.0, eps=1e-6) for name in KERNELS if name != "triton"}
    for k in made.values():
        torch.testing.assert_close(k.cell(*x), made["recurrent"].cell(*x), rtol=1e-3, atol=1e-3)


def test_an_unknown_kernel_is_refused_with_the_list():
    with pytest.raises(ConfigError, match=r"'chunkwize': no such backend. Did you mean 'chunkwise'\? Known: auto, native"):
        kernel("chunkwize", chunk=64, soft_cap=15.0, eps=1e-6)
