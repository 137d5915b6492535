"""Lengths, causality and widths of the encoders."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contracts import ENCODERS
from utils.errors import ConfigError
from utils.registry import import_parts

import_parts("models.encoders")

NODES = {
    "identity": {"_name_": "identity"},
    "linear": {"_name_": "linear"},
    "conv": {"_name_": "conv-down-encoder-contrastive", "width": 12},
    "conv-three": {"_name_": "conv-down-encoder-contrastive", "width": 12, "layers": 3},
    "bidir": {"_name_": "bidir-autoreg-encoder"},
    "bidir-data": {"_name_": "bidir-autoreg-encoder", "channels": "data"},
}


def build(key, d_in=3, d_out=8):
    torch.manual_seed(0)
    return ENCODERS.build(NODES[key], d_in=d_in, d_out=d_in if key == "identity" else d_out).eval()


@settings(deadline=None, max_examples=40)
@given(key=st.sampled_from(sorted(NODES)), length=st.integers(1, 70))
def test_a_token_covers_stride_samples_at_every_length(key, length):
    encoder = build(key)
    wave = torch.randn(2, length, 3)
    features = encoder.features(wave)
    tokens = -(-length // encoder.stride)
    assert features.shape == (2, tokens, encoder.d_features)
    assert encoder.project(features).shape == (2, tokens, encoder.d_out)
    torch.testing.assert_close(encoder(wave), encoder.project(features))


@pytest.mark.parametrize("key", NODES)
def test_no_token_sees_a_sample_after_its_last(key):
    encoder = build(key)
    assert encoder.causal
    wave = torch.randn(1, 67, 3)
    tokens = encoder(wave)
    for t in range(tokens.shape[1]):
        later = wave.clone()
        later[:, (t + 1) * encoder.stride :] += 10.0
        torch.testing.assert_close(encoder(later)[:, : t + 1], tokens[:, : t + 1])


@pytest.mark.parametrize("key", [key for key in NODES if key != "bidir-data"])  # three ReLUs may all be shut
def test_every_sample_reaches_its_token(key):
    encoder = build(key)
    wave = torch.randn(1, 32, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(encoder(wave).square().sum(), wave)
    assert (grad.abs().amax(-1) > 0).all()


def test_features_are_normalised_in_float32():
    encoder = build("conv")
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder.features(torch.randn(2, 64, 3))
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.mean(-1), torch.zeros(2, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.var(-1, unbiased=False), torch.ones(2, 16), atol=1e-2, rtol=0)


def test_published_size_of_the_contrastive_encoder():
    encoder = ENCODERS.build({"_name_": "conv-down-encoder-contrastive"}, d_in=3, d_out=128)
    convs = 3 * 3 * 256 + 256 + 3 * 256 * 256 + 256
    assert sum(p.numel() for p in encoder.parameters()) == convs + 3 * 2 * 256 + 256 * 128 + 128
    assert encoder.stride == 4


def test_identity_refuses_another_width():
    with pytest.raises(ConfigError, match=r"3 channels but the backbone takes width 8.*encoder=linear"):
        ENCODERS.build({"_name_": "identity"}, d_in=3, d_out=8)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("conv-down-encoder-contrastive", "width", 0),
        ("conv-down-encoder-contrastive", "layers", 0),
        ("conv-down-encoder-contrastive", "norm_eps", 0.0),
        ("bidir-autoreg-encoder", "dropout", 1.0),
        ("bidir-autoreg-encoder", "channels", "both"),
    ],
)
def test_settings_out_of_range(name, setting, value):
    with pytest.raises(ConfigError, match=setting):
        ENCODERS.build({"_name_": name, setting: value}, d_in=3, d_out=8)


@settings(deadline=None, max_examples=20)
@given(length=st.integers(1, 40), layers=st.integers(1, 3))
def test_convolving_as_a_matrix_product_is_convolving(length, layers):
    torch.manual_seed(length)
    node = {"_name_": "conv-down-encoder-contrastive", "width": 5, "layers": layers}
    encoder = ENCODERS.build(node, d_in=3, d_out=4)
    wave = torch.randn(2, length, 3, requires_grad=True)
    x = wave
    for conv, norm in zip(encoder.convs, encoder.norms, strict=True):
        x = torch.nn.functional.gelu(norm(conv(x.transpose(1, 2)).transpose(1, 2)))
    expected = encoder.norm(x)
    found = encoder.features(wave)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = [wave, *(conv.weight for conv in encoder.convs), *(conv.bias for conv in encoder.convs)]
    pull = torch.randn_like(found)
    for ours, theirs in zip(torch.autograd.grad(found, weights, pull), torch.autograd.grad(expected, weights, pull), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
