"""Masked pooling: what does not exist counts for nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contracts import DECODERS
from utils.errors import ConfigError
from utils.registry import import_parts

import_parts("models.decoders")
POOLINGS = ["mean", "mean_max", "attention"]


def head(pooling, *, stride=4, classes=3, dropout=0.0):
    torch.manual_seed(0)
    node = {"_name_": "sequence-classifier", "pooling": pooling, "dropout": dropout}
    return DECODERS.build(node, d_in=6, d_out=classes, stride=stride, d_wave=3).eval()


@settings(deadline=None, max_examples=30)
@given(
    pooling=st.sampled_from(POOLINGS),
    stride=st.sampled_from([1, 2, 4]),
    length=st.integers(2, 40),
    seed=st.integers(0, 999),
)
def test_tokens_without_a_valid_sample_change_nothing(pooling, stride, length, seed):
    generator = torch.Generator().manual_seed(seed)
    decoder, tokens = head(pooling, stride=stride), -(-length // stride)
    context, wave = torch.randn(2, tokens, 6, generator=generator), torch.zeros(2, length, 3)
    valid = torch.rand(2, length, generator=generator) < 0.5
    valid[:, 0] = True
    exists = torch.stack([valid[:, t * stride : (t + 1) * stride].any(1) for t in range(tokens)], 1)
    other = torch.where(exists[..., None], context, 1e4 * torch.randn(context.shape, generator=generator))
    torch.testing.assert_close(decoder(other, wave, valid), decoder(context, wave, valid))
    assert decoder(context, wave, valid).shape == (2, 3)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_that_of_the_tokens_that_exist_alone(pooling):
    decoder, context = head(pooling), torch.randn(1, 10, 6)
    valid = torch.zeros(1, 40, dtype=torch.bool)
    valid[:, :22] = True  # reaches into the sixth token
    short = context[:, :6]
    expected = {
        "mean": short.mean(1),
        "mean_max": torch.cat([short.mean(1), short.amax(1)], -1),
        "attention": decoder.score and (short * decoder.score(short).softmax(1)).sum(1),
    }[pooling]
    exists = decoder.tokens(valid, 10)
    assert exists.sum() == 6
    torch.testing.assert_close(decoder.pool(context, exists), expected)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_trace_without_samples_is_finite_and_gives_finite_gradients(pooling):
    decoder, context = head(pooling), torch.randn(2, 10, 6, requires_grad=True)
    valid = torch.zeros(2, 40, dtype=torch.bool)
    valid[0] = True
    scores = decoder(context, torch.zeros(2, 40, 3), valid)
    scores.sum().backward()
    assert torch.isfinite(scores).all()
    assert torch.isfinite(context.grad).all()
    assert not context.grad[1].any()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in decoder.parameters())


def test_no_mask_means_that_all_exists():
    decoder, context, wave = head("mean_max"), torch.randn(2, 5, 6), torch.zeros(2, 19, 3)
    torch.testing.assert_close(decoder(context, wave), decoder(context, wave, torch.ones(2, 19, dtype=torch.bool)))


@pytest.mark.parametrize(("setting", "value"), [("dropout", 1.0), ("pooling", "median")])
def test_settings_out_of_range(setting, value):
    with pytest.raises(ConfigError, match=setting):
        DECODERS.build({"_name_": "sequence-classifier", setting: value}, d_in=6, d_out=3, stride=4, d_wave=3)
