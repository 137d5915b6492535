"""Quantizers against wav2vec 2.0's and against plain loops; statistics over ranks."""

import types

import pytest
import torch
from torch import multiprocessing
from torch.nn import functional as F

from models.contracts import QUANTIZERS
from utils.errors import ConfigError
from utils.registry import import_parts

import_parts("models.quantizers")

SMALL = {"groups": 2, "codes": 11, "width": 8}


def features(batch=3, most=7, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    where = torch.rand(batch, most, generator=generator) < 0.7
    return torch.randn(batch, most, width, generator=generator), where


def pair():
    """Ours and transformers' Gumbel quantizer with the same weights."""
    wav2vec2 = pytest.importorskip("transformers.models.wav2vec2.modeling_wav2vec2")
    ours = QUANTIZERS.build({"_name_": "gumbel", **SMALL, "scale_logits_in_quantization": False}, d_in=6)
    config = types.SimpleNamespace(num_codevector_groups=2, num_codevectors_per_group=11, codevector_dim=8, conv_dim=(6,))
    theirs = wav2vec2.Wav2Vec2GumbelVectorQuantizer(config)
    theirs.weight_proj.load_state_dict(ours.to_logits.state_dict())
    theirs.codevectors.data.copy_(ours.vectors.data.view(1, 22, 4))
    return ours, theirs


def test_gumbel_is_wav2vec2_in_evaluation():
    ours, theirs = pair()
    x, where = features()
    codes = ours.eval()(x, where)
    vectors, perplexity = theirs.eval()(x, where)
    torch.testing.assert_close(codes.vectors, vectors)
    torch.testing.assert_close(codes.hard_perplexity, perplexity)


def test_gumbel_is_wav2vec2_in_training_with_its_gradients():
    ours, theirs = pair()
    x, where = features()
    weigh = torch.randn(3, 7, 8)
    results = []
    for quantizer in (ours, theirs):
        x.requires_grad_()
        torch.manual_seed(5)
        out = quantizer.train()(x, where)
        vectors, perplexity = (out.vectors, 22 * (1 - out.penalty)) if quantizer is ours else out
        parameters = (
            [x, ours.to_logits.weight, ours.vectors] if quantizer is ours else [x, theirs.weight_proj.weight, theirs.codevectors]
        )
        grads = torch.autograd.grad((vectors * weigh).sum() + 3 * perplexity, parameters)
        results.append([vectors, perplexity, *grads[:2], grads[2].reshape(2, 11, 4)])
    for mine, reference in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_gumbel_vectors_are_exactly_those_of_the_codebook():
    quantizer = QUANTIZERS.build({"_name_": "gumbel", **SMALL}, d_in=6)
    codes = quantizer(*features())
    book = quantizer.codebook()
    expected = torch.cat([book[g][codes.indices[..., g]] for g in range(2)], -1)
    assert torch.equal(codes.vectors, expected)
    assert book.shape == (2, 11, 4)


def test_logits_start_with_unit_variance():
    torch.manual_seed(0)
    quantizer = QUANTIZERS.build({"_name_": "gumbel"}, d_in=256)
    x = F.layer_norm(torch.randn(1, 64, 256), (256,))
    logits = quantizer.to_logits(x) * quantizer.scale
    assert logits.std().item() == pytest.approx(1.0, abs=0.05)


def test_temperature_falls_as_a_cosine_and_survives_a_checkpoint():
    quantizer = QUANTIZERS.build({"_name_": "gumbel", **SMALL}, d_in=6)
    seen = []
    for progress in (0.0, 0.25, 0.5, 1.0, 2.0):
        quantizer.anneal(progress)
        seen.append(quantizer.logs()["temperature"].item())
    assert seen == pytest.approx([2.0, 0.5 + 1.5 * (2 + 2**0.5) / 4, 1.25, 0.5, 0.5])
    again = QUANTIZERS.build({"_name_": "gumbel", **SMALL}, d_in=6)
    again.load_state_dict(quantizer.state_dict())
    assert again.logs()["temperature"] == 0.5


def test_temperature_hardens_the_choice():
    quantizer = QUANTIZERS.build({"_name_": "gumbel", "codes": 4, "groups": 1, "width": 4}, d_in=6)
    x = torch.randn(1, 1, 6).expand(1, 4000, 6)
    likely = (quantizer.to_logits(x[:, 0]) * quantizer.scale).softmax(-1)[0]
    torch.manual_seed(0)
    drawn = F.one_hot(quantizer(x, torch.ones(1, 4000, dtype=torch.bool)).indices[..., 0], 4).float().mean((0, 1))
    torch.testing.assert_close(drawn, likely, atol=0.04, rtol=0)  # hard choices follow the logits at every temperature


@pytest.mark.parametrize("name", QUANTIZERS.names)
def test_statistics_see_scored_positions_only(name):
    quantizer = QUANTIZERS.build({"_name_": name, **SMALL}, d_in=6).eval()
    x, where = features()
    first = quantizer(x, where)
    second = quantizer(torch.where(where[..., None], x, 50.0), where)
    for key in ("perplexity", "hard_perplexity", "penalty"):
        torch.testing.assert_close(getattr(first, key), getattr(second, key))
    assert 2 - 1e-4 <= first.hard_perplexity <= 22 + 1e-4


@pytest.mark.parametrize("name", QUANTIZERS.names)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_nothing_scored_is_defined(name, mode):
    quantizer = QUANTIZERS.build({"_name_": name, **SMALL}, d_in=6).train(mode == "train")
    x, where = features()
    before = quantizer.codebook().clone()
    codes = quantizer(x.requires_grad_(), torch.zeros_like(where))
    (codes.penalty + codes.vectors.sum() * 0).backward()
    for value in (codes.vectors, codes.perplexity, codes.hard_perplexity, codes.penalty, x.grad):
        assert torch.isfinite(value).all()
    assert torch.equal(quantizer.codebook(), before)


@pytest.mark.parametrize("name", QUANTIZERS.names)
def test_quantizers_compute_in_float32_under_autocast(name):
    quantizer = QUANTIZERS.build({"_name_": name, **SMALL}, d_in=6)
    with torch.autocast("cpu", torch.bfloat16):
        codes = quantizer(*features())
    for value in (codes.vectors, codes.perplexity, codes.hard_perplexity, codes.penalty):
        assert value.dtype == torch.float32


def nearest(**settings):
    return QUANTIZERS.build({"_name_": "nearest", **SMALL, **settings}, d_in=6)


def test_nearest_code_is_the_nearest():
    quantizer = nearest().eval()
    x, where = features()
    codes = quantizer(x, where)
    y = quantizer.to_code(x).view(3, 7, 2, 4)
    for g in range(2):
        distance = torch.cdist(y[:, :, g].flatten(0, 1), quantizer.codebook()[g])
        assert torch.equal(codes.indices[..., g].flatten(), distance.argmin(1))
        torch.testing.assert_close(codes.vectors.view(3, 7, 2, 4)[:, :, g], quantizer.codebook()[g][codes.indices[..., g]])


def test_nearest_passes_gradients_straight_through():
    quantizer = nearest(commitment=0.0)
    x, where = features()
    weigh = torch.randn(3, 7, 8)
    got = torch.autograd.grad((quantizer(x, where).vectors * weigh).sum(), quantizer.to_code.weight)
    wanted = torch.autograd.grad((quantizer.to_code(x) * weigh).sum(), quantizer.to_code.weight)
    torch.testing.assert_close(got, wanted)


def test_codes_move_to_the_mean_of_their_features():
    quantizer = nearest(decay=0.0, revive_below=0.0)
    x, where = features()
    before = quantizer.codebook().clone()
    y = quantizer.to_code(x).view(3, 7, 2, 4)
    indices = quantizer(x, where).indices
    for g in range(2):
        for v in range(11):
            mine = y[:, :, g][where & (indices[..., g] == v)]
            expected = mine.mean(0) if len(mine) else None
            if expected is not None:
                torch.testing.assert_close(quantizer.codebook()[g, v], expected)
    assert not torch.equal(before, quantizer.codebook())


def test_codes_nobody_chooses_are_moved_onto_features():
    torch.manual_seed(0)
    quantizer = nearest(codes=64, decay=0.9)
    quantizer.codes_mean += 100.0  # far from everything: one code would win for ever
    x = torch.randn(8, 64, 6)
    where = torch.ones(8, 64, dtype=torch.bool)
    where[:, 32:] = False
    poor = quantizer(x, where).hard_perplexity
    y = quantizer.to_code(x)[:, :32].reshape(-1, 2, 4)
    for g in range(2):
        onto = torch.cdist(quantizer.codebook()[g], y[:, g], compute_mode="donot_use_mm_for_euclid_dist").amin(1) < 1e-5
        assert onto.sum() >= 60
    assert quantizer(x, where).hard_perplexity > 10 * poor


def test_an_evaluation_moves_no_code():
    quantizer = nearest().eval()
    before = quantizer.codebook().clone()
    quantizer(*features())
    assert torch.equal(before, quantizer.codebook())


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("gumbel", "width", 7),
        ("gumbel", "codes", 1),
        ("gumbel", "temperature_end", 3.0),
        ("nearest", "decay", 1.0),
        ("nearest", "groups", 0),
    ],
)
def test_settings_out_of_range(name, setting, value):
    with pytest.raises(ConfigError, match=f"{setting} = {value}"):
        QUANTIZERS.build({"_name_": name, setting: value}, d_in=6)


def _measure(name, x, where):
    """Penalty, perplexities, and gradients of the penalty of one seeded quantizer; and its codebook afterwards."""
    torch.manual_seed(3)
    quantizer = QUANTIZERS.build({"_name_": name, **SMALL, **({} if name == "gumbel" else {"revive_below": 0.0})}, d_in=6)
    codes = quantizer(x, where)
    parameters = [p for p in quantizer.parameters() if p.shape != (2, 11, 4)]
    grads = torch.autograd.grad(codes.penalty, parameters)
    hard = codes.hard_perplexity if name == "nearest" else torch.zeros(())  # Gumbel noise differs between the two layouts
    moved = quantizer.codebook().detach() if name == "nearest" else torch.zeros(())
    return [value.detach() for value in (codes.penalty, codes.perplexity, hard, moved, *grads)]


def _rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x, where = features(batch=6)
    part = slice(0, 2) if rank == 0 else slice(2, 6)
    torch.save({name: _measure(name, x[part], where[part]) for name in QUANTIZERS.names}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.ddp
def test_two_ranks_give_the_statistics_and_gradients_of_one(tmp_path):
    multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name in QUANTIZERS.names:
        whole = _measure(name, *features(batch=6))
        first, second = ranks[0][name], ranks[1][name]
        for expected, a, b in zip(whole[:4], first, second, strict=False):
            torch.testing.assert_close(a, expected)
            torch.testing.assert_close(b, expected)
        for expected, a, b in zip(whole[4:], first[4:], second[4:], strict=True):
            torch.testing.assert_close((a + b) / 2, expected)  # what data-parallel training averages
