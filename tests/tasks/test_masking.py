"""Laws of the span masks, and equality in distribution with wav2vec 2.0's sampler."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.masking import (
    MaskConfig,
    Sampler,
    conceal,
    demand_hidden,
    mask_channels,
    most_hidden,
    positions,
    span_mask,
    token_samples,
    token_valid,
)
from utils.errors import ConfigError
from utils.rng import Draw


def draw(traces, seed=0, epoch=0):
    return Draw(seed, torch.full((traces,), epoch), torch.arange(traces))


def everywhere(traces, length):
    return torch.ones(traces, length, dtype=torch.bool)


def runs(row):
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return edges[1::2] - edges[::2]


@pytest.mark.parametrize(
    ("ratio", "span", "length", "expected", "within"),
    [
        (0.65, 10, 1024, 0.491, 0.007),
        (0.75, 20, 4096, 0.524, 0.023),
        (0.75, 50, 4096, 0.524, 0.023),
        (0.75, 100, 4096, 0.524, 0.023),
    ],
)
def test_overlapping_hides_the_published_ratio(ratio, span, length, expected, within):
    hidden = span_mask(MaskConfig(ratio=ratio, span=span), everywhere(256, length), draw(256))
    assert abs(hidden.float().mean().item() - expected) < within


def test_overlapping_is_distributed_as_wav2vec2():
    wav2vec2 = pytest.importorskip("transformers.models.wav2vec2.modeling_wav2vec2")
    traces, length, short, span = 1200, 120, 70, 7
    valid = everywhere(traces, length)
    valid[: traces // 2, short:] = False
    ours = span_mask(MaskConfig(ratio=0.5, span=span), valid, draw(traces)).numpy()
    np.random.seed(0)  # noqa: NPY002
    attend = valid.long()
    calls = [wav2vec2._compute_mask_indices((40, length), 0.5, span, attend[i : i + 40]) for i in range(0, traces, 40)]
    theirs = np.concatenate(calls)
    for rows in (slice(0, traces // 2), slice(traces // 2, None)):
        a, b = ours[rows], theirs[rows]
        count = len(a)
        error = np.sqrt((a.sum(1).var() + b.sum(1).var()) / count)
        assert abs(a.sum(1).mean() - b.sum(1).mean()) < 4 * error
        assert 0.8 < a.sum(1).std() / b.sum(1).std() < 1.25
        along = np.abs(a.mean(0) - b.mean(0))  # the ends are hidden less often than the middle, alike
        assert along.max() < 5 * np.sqrt(0.5 / count)


@settings(deadline=None, max_examples=60)
@given(
    sampler=st.sampled_from(Sampler),
    ratio=st.floats(0.02, 0.98),
    span=st.integers(1, 30),
    length=st.integers(1, 150),
    seed=st.integers(0, 10_000),
    holes=st.floats(0, 1),
)
def test_laws_of_both_samplers(sampler, ratio, span, length, seed, holes):
    cfg = MaskConfig(sampler=sampler, ratio=ratio, span=span)
    valid = torch.rand(6, length, generator=torch.Generator().manual_seed(seed)) >= holes
    valid[0] = True
    if span > length:
        with pytest.raises(ConfigError):
            demand_hidden(cfg, length, of="tokens")
        return
    hidden = span_mask(cfg, valid, draw(6, seed))
    count, inside = hidden.sum(1), valid.sum(1)
    assert not (hidden & ~valid).any()
    assert (count <= most_hidden(cfg, length)).all()
    assert torch.equal(count >= 2, inside >= max(span, 2))
    assert (count[inside < max(span, 2)] == 0).all()
    for b in range(6):
        lengths = runs(hidden[b][valid[b]].numpy())
        assert (lengths >= span).all()
        if sampler is Sampler.exact and count[b] > 0:
            assert (lengths % span == 0).all()
            assert abs(count[b].item() - ratio * inside[b].item()) <= max(span, 2) + 1e-4


def test_a_trace_hides_the_same_whatever_its_batch():
    valid = everywhere(8, 200)
    valid[3, 90:120] = False
    cfg = MaskConfig(ratio=0.6, span=9)
    together = span_mask(cfg, valid, draw(8, epoch=2))
    order = torch.tensor([5, 3, 0])
    apart = span_mask(cfg, valid[order], Draw(0, torch.full((3,), 2), order))
    assert torch.equal(together[order], apart)
    assert not torch.equal(together, span_mask(cfg, valid, draw(8, epoch=3)))


def test_mean_number_of_hidden_positions_is_the_ratio_when_exact():
    hidden = span_mask(MaskConfig(sampler=Sampler.exact, ratio=0.37, span=11), everywhere(800, 90), draw(800))
    assert abs(hidden.float().mean().item() - 0.37) < 0.005
    along = hidden.float().mean(0)
    assert along[20:70].std() < 0.05


@settings(deadline=None, max_examples=30)
@given(length=st.integers(1, 40), spare=st.integers(0, 5), seed=st.integers(0, 1000))
def test_positions_list_every_true_in_order(length, spare, seed):
    where = torch.rand(5, length, generator=torch.Generator().manual_seed(seed)) < 0.4
    most = max(1, int(where.sum(1).max())) + spare
    at, scored = positions(where, most)
    assert at.shape == scored.shape == (5, most)
    for b in range(5):
        assert torch.equal(at[b][scored[b]], where[b].nonzero()[:, 0])
        assert (at[b][~scored[b]] == 0).all()


@pytest.mark.parametrize(("length", "stride"), [(16, 4), (17, 4), (5, 1)])
def test_a_token_is_valid_if_all_its_samples_are(length, stride):
    valid = everywhere(length, length)
    valid.fill_diagonal_(False)
    tokens = token_valid(valid, stride)
    assert tokens.shape[1] == -(-length // stride)
    for b in range(length):
        assert tokens[b].sum() == tokens.shape[1] - 1
        assert not tokens[b, b // stride]
    assert torch.equal(token_samples(tokens, stride, length) & valid, token_samples(tokens, stride, length))


@pytest.mark.parametrize(
    ("cfg", "says"),
    [
        (MaskConfig(span=50), "span = 50 is longer than a trace of 40 tokens"),
        (MaskConfig(ratio=0.04, span=1), "ratio = 0.04 of 40 tokens"),
    ],
)
def test_masks_that_hide_nothing_are_refused(cfg, says):
    with pytest.raises(ConfigError, match=says):
        demand_hidden(cfg, 40, of="tokens")


@pytest.mark.parametrize(
    "wrong", [{"ratio": 0.0}, {"ratio": 1.0}, {"span": 0}, {"mask_channel_prob": 1.0}, {"mask_channel_length": 0}]
)
def test_ranges(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MaskConfig(**wrong)


def test_bert_style_blanks_most_shuffles_some_and_keeps_some():
    length = 400
    cfg = MaskConfig(ratio=0.3, span=4, bert_style=True)
    valid = everywhere(200, length)
    valid[:, 300:] = False
    hidden = span_mask(cfg, valid, draw(200))
    values = 1.0 + torch.arange(length).float().expand(200, length)[..., None]
    shown = conceal(cfg, values, torch.tensor(-1.0), hidden, valid, draw(200))
    assert torch.equal(shown[~hidden], values[~hidden])
    inside = shown[hidden]
    blank, kept = (inside == -1).float().mean().item(), (inside == values[hidden]).float().mean().item()
    assert blank == pytest.approx(0.8, abs=0.04)
    assert kept == pytest.approx(0.1, abs=0.03)
    assert inside.max() <= 300  # others come from valid positions


def test_channels_are_masked_over_the_whole_trace():
    tokens = torch.ones(300, 5, 64)
    assert mask_channels(MaskConfig(), tokens, draw(300)) is tokens
    masked = mask_channels(MaskConfig(mask_channel_prob=0.25, mask_channel_length=8), tokens, draw(300))
    assert torch.equal(masked, masked[:, :1].expand_as(masked))
    assert 0.15 < 1 - masked.mean().item() < 0.25
