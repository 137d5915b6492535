"""Networks on live streams: pieces are the whole, later samples change nothing, memory does not grow; long windows in pieces."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import network as networks
from models import streaming
from models.contracts import BACKBONES, DECODERS, ENCODERS
from models.network import Network
from models.streaming import held
from models.xlstm import stack
from utils.registry import import_parts

for room in ("encoders", "backbones", "decoders"):
    import_parts(f"models.{room}")

BOUND = {torch.float32: 1e-5, torch.float64: 1e-10}
XLSTM = {
    "_name_": "xlstm-unet", "d_model": 16, "n_layers": 3, "mlstm_num_heads": 2, "slstm_num_heads": 2, "chunk_size": 16,
    "residual": True, "use_unet": False, "bidirectional": False,
}  # fmt: skip
BACKBONE = {
    "mlstm": XLSTM,
    "slstm": {**XLSTM, "block_type": "slstm"},
    "mixed": {**XLSTM, "block_type": "mixed", "gate_soft_cap": None, "residual": False},
    "no convolution": {**XLSTM, "block_type": "mixed", "slstm_conv1d_kernel_size": 0, "mlstm_conv1d_kernel_size": 1},
    "lstm": {"_name_": "lstm", "d_model": 16, "n_layers": 2, "bidirectional": False},
    "identity": {"_name_": "identity", "d_model": 16},
}
ENCODER = {
    "linear": {"_name_": "linear"},
    "conv": {"_name_": "conv-down-encoder-contrastive", "width": 12},
    "bidir": {"_name_": "bidir-autoreg-encoder", "layers": 3, "channels": "data"},
}
DECODER = {
    "linear": {"_name_": "linear"},
    "double": {"_name_": "double-conv-phase-pick"},
    "concat": {"_name_": "double-conv-phase-pick-concat", "kernel": 5},
    "up": {"_name_": "upsampling-decoder", "kernel": 5},
}


@cache
def network(encoder="conv", backbone="mixed", decoder="concat", dtype=torch.float64):
    torch.manual_seed(0)
    middle = BACKBONES.build({**BACKBONE, **LATER}[backbone])
    front = ENCODERS.build(ENCODER[encoder], d_in=3, d_out=middle.d_in)
    back = DECODERS.build({**DECODER, **WHOLE}[decoder], d_in=middle.d_out, d_out=2, stride=front.stride, d_wave=3)
    made = Network(front, middle, back).eval()
    for p in made.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return made.to(dtype)


LATER = {
    "unet": {**XLSTM, "use_unet": True, "pool": [2]},
    "both": {**XLSTM, "bidirectional": True},
    "lstm both": {"_name_": "lstm", "d_model": 16},
    "transformer": {"_name_": "transformer", "d_model": 16, "causal": True},
}
WHOLE = {"classifier": {"_name_": "sequence-classifier"}, "fine": {"_name_": "fine-unet-phase-pick", "pool": [4]}}


@torch.no_grad()
def streamed(net, wave, cuts):
    """All predictions, piece by piece, and the bytes of every state."""
    state, out, sizes = net.start(wave), [], []
    for piece in wave.tensor_split(sorted(cuts), 1):
        y, state = net.step(piece, state)
        out.append(y)
        sizes.append(held(state))
    return [*out, net.finish(state)], sizes


def waves(samples, dtype=torch.float64, seed=0):
    return torch.randn(2, samples, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


@given(
    st.sampled_from(sorted(ENCODER)), st.sampled_from(sorted(BACKBONE)), st.sampled_from(sorted(DECODER)),
    st.sampled_from(list(BOUND)), st.integers(1, 300), st.data(),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_pieces_of_any_length_are_the_whole(encoder, backbone, decoder, dtype, samples, data):
    net, wave = network(encoder, backbone, decoder, dtype), waves(samples, dtype)
    out, _ = streamed(net, wave, data.draw(st.lists(st.integers(0, samples), max_size=12)))
    with torch.no_grad():
        whole, exact = net(wave), network(encoder, backbone, decoder)(wave.double())
    got = torch.cat(out, 1)
    assert got.shape == whole.shape
    rounding = (whole - exact).norm()  # a normaliser near zero costs the whole window digits as well
    assert (got - whole).norm() <= max(BOUND[dtype] * whole.norm(), 4 * rounding)


@given(st.sampled_from(sorted(BACKBONE)), st.sampled_from(sorted(DECODER)), st.integers(0, 199))
@settings(deadline=None, max_examples=20)
def test_what_is_given_out_depends_bitwise_on_no_later_sample(backbone, decoder, place):
    """Also within a piece: samples from ``place`` on are others, and nothing due before them changes."""
    net, wave = network("conv", backbone, decoder, torch.float32), waves(200, torch.float32)
    other = torch.cat([wave[:, :place], 9 * waves(200 - place, torch.float32, seed=1)], 1)
    cuts = [50, 51, 150]
    a, b = (torch.cat(streamed(net, x, cuts)[0], 1) for x in (wave, other))
    due = max(0, place - net.delay)
    assert torch.equal(a[:, :due], b[:, :due])


def test_predictions_come_no_later_than_the_delay():
    net, wave = network(), waves(120)
    assert net.delay == 4 * (1 + 1 + 1) - 1
    state, given = net.start(wave), 0
    for sample in range(120):
        y, state = net.step(wave[:, sample : sample + 1], state)
        given += y.shape[1]
        assert sample + 1 - given <= net.delay


@pytest.mark.parametrize("backbone", ["mlstm", "slstm", "lstm"])
def test_memory_does_not_grow_with_the_stream(backbone):
    net = network("conv", backbone, "concat")
    early = streamed(net, waves(400), range(7, 400, 7))[1]
    late = streamed(net, waves(2400), range(800, 2400, 7))[1]
    assert max(late) == max(early[20:])
    assert max(late) < 400_000


def test_a_piece_as_long_as_an_hour_is_cut_and_leaves_no_more_behind_than_many(monkeypatch):
    monkeypatch.setattr(networks, "LONG", 64)
    net, wave = network("conv", "mixed", "concat"), waves(400)
    out, sizes = streamed(net, wave, [])
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(out, 1), net(wave), rtol=1e-9, atol=1e-10)
    assert sizes == streamed(net, wave, [200])[1][1:]


@pytest.mark.parametrize(
    ("encoder", "backbone", "decoder", "reason"),
    [
        ("conv", "unet", "linear", r"backbone: a U-Net folds tokens with later ones: train it with model\.use_unet=false$"),
        ("conv", "both", "linear", r"backbone: it reads the window from its end as well: .*model\.bidirectional=false$"),
        ("conv", "lstm both", "linear", "backbone: it reads the window from its end"),
        ("conv", "transformer", "linear", "backbone: attention looks at every token so far"),
        ("conv", "mlstm", "classifier", "decoder: it looks at the whole trace"),
        ("linear", "unet", "fine", "backbone: a U-Net .*; decoder: it looks at"),
    ],
)
def test_a_network_that_cannot_stream_says_why(encoder, backbone, decoder, reason):
    net = network(encoder, backbone, decoder)
    with pytest.raises(ValueError, match=rf"cannot run on a live stream\. {reason}"):
        net.start(waves(1))


@pytest.mark.parametrize("backbone", sorted(LATER))
def test_a_backbone_that_cannot_stream_does_not_begin(backbone):
    part = network("conv", backbone, "linear").backbone
    with pytest.raises(ValueError, match=r"later ones|from its end|attention"):
        part.step(waves(1), part.start(waves(1)))


def test_a_network_in_training_is_refused():
    net = network("linear", "identity", "linear").train()
    with pytest.raises(ValueError, match="call eval"):
        net.start(waves(1))
    net.eval()


@pytest.mark.parametrize("backbone", ["mixed", "unet", "both"])
@pytest.mark.parametrize("decoder", ["concat", "up", "linear"])
def test_a_long_window_in_pieces_gives_the_same(backbone, decoder, monkeypatch):
    net, wave = network("conv", backbone, decoder), waves(1003)
    with torch.no_grad():
        plain = net(wave)
        monkeypatch.setattr(streaming, "LONG", 100)
        monkeypatch.setattr(stack, "PIECE", 16)
        torch.testing.assert_close(net(wave), plain, rtol=1e-9, atol=1e-10)


def test_with_gradients_nothing_is_cut(monkeypatch):
    def never(*args):
        raise AssertionError("cut")

    monkeypatch.setattr(stack, "in_pieces", never)
    monkeypatch.setattr(stack, "PIECE", 16)
    net = network("conv", "both", "concat")
    net(waves(200)).sum().backward()
    with torch.no_grad(), pytest.raises(AssertionError, match="cut"):
        net(waves(200))
