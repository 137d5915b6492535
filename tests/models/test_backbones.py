"""Backbones: parameter counts of the published models, any length, causality, gradients, half precision, texts of mistakes."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from models.backbones.identity import IdentityBackbone
from models.backbones.lstm import LSTMBackbone, LSTMConfig
from models.backbones.transformer import TransformerBackbone, turned, turns
from models.backbones.xlstm_unet import XLSTMUNet
from models.contracts import BACKBONES
from models.xlstm import kernels
from utils.errors import ConfigError

SEQUENTIAL = {"d_model": 176, "n_layers": 24, "use_unet": False, "mlstm_qkv_proj_blocksize": 8}
OURS = {"identity": IdentityBackbone, "lstm": LSTMBackbone, "transformer": TransformerBackbone, "xlstm-unet": XLSTMUNet}


def build(name="xlstm-unet", **given):
    return BACKBONES.build({"_name_": name, **given})


def small(name="xlstm-unet", **given):
    """A small backbone with weights far from where they start, in float64, without dropout."""
    sizes = {
        "identity": {},
        "lstm": {"n_layers": 2},
        "transformer": {"n_layers": 2},
        "xlstm-unet": {"n_layers": 1, "pool": [2, 3], "mlstm_num_heads": 2, "chunk_size": 8},
    }
    torch.manual_seed(0)
    made = build(name, d_model=8, **{**sizes[name], **given})
    for p in made.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return made.double().eval()


@pytest.mark.parametrize(
    ("settings_", "count"),
    [({}, 19_884_528), ({"d_model": 256, "n_layers": 4}, 102_481_216), (SEQUENTIAL, 12_254_560)],
    ids=["xlstm_unet_seisbench", "xlstm_unet_seisbench_large", "pure_mlstm_sequential_12m"],
)
def test_published_parameter_counts(settings_, count):
    with torch.device("meta"):
        made = build(**settings_)
    assert sum(p.numel() for p in made.parameters()) == count


def test_published_counts_that_are_rounded():
    small_ = {"n_layers": 3, "d_model": 12, "mlstm_num_heads": 2, "mlstm_qkv_proj_blocksize": 2, "slstm_num_heads": 4}
    with torch.device("meta"):
        unet = build(d_model=80, n_layers=5, mlstm_proj_factor=1.6)
        kinds = [
            build(**{**small_, "block_type": "mlstm"}),
            build(**{**small_, "block_type": "mixed"}),
            build(**{**small_, "block_type": "slstm", "d_model": 16, "n_layers": 2}),
        ]
    assert round(sum(p.numel() for p in unet.parameters()) / 1e6, 1) == 10.7
    for made in kinds:
        assert 265_000 <= sum(p.numel() for p in made.parameters()) <= 288_000


@pytest.mark.parametrize("name", sorted(OURS))
def test_its_yaml_is_complete_and_builds(name):
    path = Path(__file__).parents[2] / "configs" / "model" / f"{name}.yaml"
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert BACKBONES.mistakes(node) == []
    assert set(node) == {"_name_", *BACKBONES.config(name).__dataclass_fields__}
    assert node["_name_"] == name
    with torch.device("meta"):
        assert type(BACKBONES.build(node)) is OURS[name]


@given(
    T=st.integers(1, 40),
    pool=st.lists(st.integers(1, 4), max_size=2),
    kind=st.sampled_from(["mlstm", "slstm", "mixed"]),
    bidirectional=st.booleans(),
    per_block=st.booleans(),
    residual=st.booleans(),
)
@settings(deadline=None, max_examples=15)
def test_any_length_any_combination(T, pool, kind, bidirectional, per_block, residual):
    made = small(pool=pool, block_type=kind, bidirectional=bidirectional, fuse_per_block=per_block, residual=residual, n_layers=2)
    x = torch.randn(2, T, 8, dtype=torch.float64)
    y = made(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    for name, p in made.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
    torch.testing.assert_close(made(x[:1]), y[:1])


@pytest.mark.parametrize(
    ("name", "given_"),
    [
        ("identity", {}),
        ("lstm", {"bidirectional": False}),
        ("lstm", {"bidirectional": True}),
        ("transformer", {"causal": True}),
        ("transformer", {"causal": True, "positions": "sinusoidal"}),
        ("transformer", {"causal": False}),
        ("xlstm-unet", {"use_unet": False, "bidirectional": False, "residual": True}),
        ("xlstm-unet", {"use_unet": False, "bidirectional": False, "block_type": "mixed", "n_layers": 2}),
        ("xlstm-unet", {"use_unet": False, "bidirectional": True}),
        ("xlstm-unet", {"use_unet": True, "bidirectional": False}),
    ],
)
def test_causal_says_what_is_so(name, given_):
    made = small(name, **given_)
    x = torch.randn(1, 20, 8, dtype=torch.float64, requires_grad=True)
    seen = [torch.autograd.grad(made(x)[:, t].square().sum(), x)[0].abs().sum((0, 2)) for t in range(19)]
    sees_later = any(bool((row[t + 1 :] > 0).any()) for t, row in enumerate(seen))
    assert made.causal is not sees_later


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal"])
def test_transformer_knows_order(positions):
    made = small("transformer", positions=positions)
    x = torch.randn(1, 12, 8, dtype=torch.float64)
    assert (made(x.flip(1)).flip(1) - made(x)).abs().max() > 1e-3


def test_rotary_scores_depend_on_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 8)
    angles = turns(30, 8, q)
    scores = (turned(q.expand(1, 1, 30, 8), angles) @ turned(k.expand(1, 1, 30, 8), angles).transpose(2, 3))[0, 0]
    torch.testing.assert_close(scores[5:, 5:], scores[:-5, :-5], rtol=1e-4, atol=1e-4)
    assert (scores[0, 1:] - scores[0, :-1]).abs().max() > 0.01
    torch.testing.assert_close(scores.diagonal(), (q * k).sum().expand(30), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block_type", ["mlstm", "mixed"])
def test_a_live_stream_gives_what_the_whole_gives(block_type):
    made = small(use_unet=False, bidirectional=False, block_type=block_type, n_layers=2, residual=True)
    x = torch.randn(2, 13, 8, dtype=torch.float64)
    states, out = made.start(x), []
    for t in range(13):
        y, states = made.step(x[:, t : t + 1], states)
        out.append(y)
    torch.testing.assert_close(torch.cat(out, 1), made(x), rtol=1e-9, atol=1e-10)


def test_a_model_that_sees_the_future_cannot_step():
    with pytest.raises(ValueError, match="a U-Net folds tokens with later ones"):
        small().start(torch.zeros(1, 1, 8))
    with pytest.raises(ValueError, match=r"reads the window from its end as well: train it with model\.bidirectional=false"):
        small(use_unet=False).step(torch.zeros(1, 1, 8), [])


@pytest.mark.parametrize("name", sorted(OURS))
def test_bfloat16_autocast_runs_and_is_close(name):
    torch.manual_seed(0)
    made = build(name, d_model=32, n_layers=1) if name != "identity" else build(name, d_model=32)
    made.eval()
    x = torch.randn(2, 70, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = made(x)
    y.float().square().sum().backward()
    expected = made(x)
    assert ((y - expected).norm(dim=-1) / expected.norm(dim=-1)).median() < 0.03
    assert all(torch.isfinite(p.grad).all() for p in made.parameters())


def test_padding_is_cropped_and_short_traces_run():
    made = small(pool=[4, 4])
    assert made(torch.randn(1, 1, 8, dtype=torch.float64)).shape == (1, 1, 8)
    assert made(torch.randn(1, 17, 8, dtype=torch.float64)).shape == (1, 17, 8)


def test_an_lstm_of_one_layer_has_nothing_to_drop_between():
    assert LSTMBackbone(LSTMConfig(d_model=4, n_layers=1, dropout=0.5)).lstm.dropout == 0.0


def test_what_was_not_seen_to_be_one_graph_is_not_called_so():
    assert small().one_graph
    assert not small(block_type="slstm").one_graph
    assert not small(gradient_checkpointing=True).one_graph


def test_it_says_which_kernels_run(monkeypatch):
    monkeypatch.setattr(kernels, "_settled", {})  # what a run in this process found
    assert small().describe() == "native: runs everywhere"
    assert small(kernels="recurrent").describe().startswith("recurrent: native recurrence token by token, as asked")
    assert small(block_type="slstm").describe() == ""


@pytest.mark.parametrize(
    ("given_", "text"),
    [
        ({"d_model": 0}, "d_model = 0: must be at least 1"),
        ({"pool": [4, 0]}, r"pool = \[4, 0\]: every step"),
        ({"dropout": 1.0}, r"dropout = 1.0: must be in \[0, 1\)"),
        ({"kernels": "chunkwize"}, "Did you mean 'chunkwise'"),
        ({"mlstm_num_heads": 5}, "mlstm_num_heads = 5: must divide the inner width 256"),
        ({"block_type": "slstm", "slstm_num_heads": 5}, "slstm_num_heads = 5: must divide the width 128"),
        ({"block_type": "gru"}, "block_type = 'gru'"),
        ({"override_gate_bias": [1.0]}, "must be .input, first forget, last forget."),
        ({"gate_soft_cap": -1.0}, "gate_soft_cap = -1.0: must be above 0, or null"),
        ({"n_layer": 3}, "Did you mean 'n_layers'"),
    ],
)
def test_mistakes_are_told(given_, text):
    with pytest.raises(ConfigError, match=text):
        build(**given_)


DEPTHS = {
    "identity": [("identity", {}, 0)],
    "lstm": [("lstm", {"n_layers": 3}, 3), ("lstm", {"n_layers": 2, "bidirectional": False}, 2)],
    "transformer": [("transformer", {"n_layers": 3}, 3)],
    "xlstm-unet": [
        ("xlstm-unet", {"n_layers": 2, "pool": [2, 3]}, 10),
        ("xlstm-unet", {"n_layers": 3, "use_unet": False, "fuse_per_block": False}, 3),
        ("xlstm-unet", {"n_layers": 2, "use_unet": False, "bidirectional": False, "block_type": "slstm"}, 2),
    ],
}


@pytest.mark.parametrize("name", BACKBONES.names)
def test_every_parameter_is_in_one_layer_by_depth(name):
    for _, given_, count in DEPTHS.get(name, [(name, {}, 1)]):
        made = small(name, **given_) if name in DEPTHS else build(name)
        layers = [layer for layer in made.by_depth() if layer]
        found = [parameter for layer in layers for parameter in layer]
        assert len(layers) == count
        assert len(found) == len(set(found))
        assert set(found) == set(made.parameters())


@pytest.mark.parametrize(("name", "given_", "count"), [*DEPTHS["transformer"], *DEPTHS["xlstm-unet"]])
def test_layers_by_depth_are_in_the_order_in_which_they_compute(name, given_, count):
    made = small(name, **given_)
    called = []
    for module in made.modules():
        module.register_forward_pre_hook(lambda module, _: called.append(module))
    made(torch.randn(1, 12, 8, dtype=torch.float64))
    last = -1
    for layer in made.by_depth():
        own = set(layer)
        inside = [n for n, module in enumerate(called) if (held := set(module.parameters())) and held <= own]
        assert inside
        assert min(inside) > last
        last = max(inside)
