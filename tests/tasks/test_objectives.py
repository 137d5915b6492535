"""The pretraining objectives on a tiny network: gradients, leaks, padding, averages."""

import pytest
import torch
from matplotlib.figure import Figure

from dataloaders.batch import Batch
from tasks.contracts import TASKS
from utils.errors import ConfigError

CONV = {"_name_": "conv-down-encoder-contrastive", "width": 12}
BIDIR = {"_name_": "bidir-autoreg-encoder", "dropout": 0.0}
LINEAR = {"_name_": "linear"}
NONE = {"_name_": "none"}
GUMBEL = {"_name_": "gumbel", "codes": 9, "width": 8}
NCE = {"_name_": "info_nce", "count": 20}
SPANS = {"ratio": 0.5, "span": 5}

CONTRASTIVE = {
    "plain": {"quantizer": GUMBEL},
    "nearest": {"quantizer": {"_name_": "nearest", "codes": 9, "width": 8}},
    "continuous": {"task": {"quantize": False}},
    "all-tokens": {"quantizer": GUMBEL, "task": {"only_masked": False}},
    "bert": {"quantizer": GUMBEL, "mask": {"bert_style": True, "mask_channel_prob": 0.3, "mask_channel_length": 2}},
    "exact": {"quantizer": GUMBEL, "mask": {"sampler": "exact"}},
    "batch": {"quantizer": GUMBEL, "loss": {"negatives": "batch"}},
}
RECONSTRUCTION = {
    "samples": {},
    "tokens": {"where": "tokens"},
    "noise": {"corrupt": "noise"},
    "apart": {"components": "apart"},
    "apart-noise": {"components": "apart", "corrupt": "noise"},
    "apart-bert": {"components": "apart", "mask": {**SPANS, "bert_style": True}},
    "token-noise": {"where": "tokens", "corrupt": "noise"},
    "bert": {"mask": {**SPANS, "bert_style": True, "mask_channel_prob": 0.3, "mask_channel_length": 2}},
}
KEYS = [*(f"contrastive/{key}" for key in CONTRASTIVE), *(f"regression/{key}" for key in RECONSTRUCTION), "autoregressive/next"]


@pytest.fixture
def built(make):
    def objective(key, **changes):
        torch.manual_seed(0)
        kind, variant = key.split("/")
        if kind == "contrastive":
            node = CONTRASTIVE[variant]
            task = {"_name_": kind, "width": 8, "mask": {**SPANS, **node.get("mask", {})}, **node.get("task", {})}
            parts = {
                "encoder": CONV,
                "decoder": NONE,
                "loss": {**NCE, **node.get("loss", {})},
                "quantizer": node.get("quantizer"),
            }
        elif kind == "regression":
            task = {"_name_": kind, "mask": SPANS, **RECONSTRUCTION[variant]}
            parts = {
                "encoder": BIDIR,
                "decoder": {"_name_": "upsampling-decoder"},
                "loss": {"_name_": "masked_mse"},
                "metrics": ("mae",),
            }
        else:
            task, parts = {"_name_": kind}, {"encoder": CONV, "decoder": LINEAR, "loss": {"_name_": "mse"}, "causal": True}
        return make(task, **{**parts, **changes})

    return objective


@pytest.mark.parametrize("key", KEYS)
def test_gradients_reach_every_parameter(built, make_batch, draw_for, key):
    net, task = built(key)
    batch = make_batch()
    out = task.step(net, batch, draw_for(batch))
    (out.loss + out.penalty).backward()
    modules = (net, task)
    dead = [name for module in modules for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead
    assert out.count > 0


@pytest.mark.parametrize("key", KEYS)
def test_only_padding_gives_zero_and_no_nan(built, make_batch, draw_for, key):
    net, task = built(key)
    batch = make_batch()
    batch = batch._replace(valid=torch.zeros_like(batch.valid), wave=torch.zeros_like(batch.wave))
    out = task.step(net, batch, draw_for(batch))
    (out.loss + out.penalty).backward()
    assert out.loss == out.count == 0
    for value in [*out.logs.values(), *out.gauges.values(), torch.as_tensor(out.penalty)]:
        assert torch.isfinite(value)
    for module in (net, task):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("key", [key for key in KEYS if key != "contrastive/batch"])
def test_a_batch_is_the_mean_of_its_traces(built, make_batch, draw_for, key):
    net, task = built(key)
    net.eval(), task.eval()
    batch = make_batch()
    with torch.no_grad():
        whole = task.step(net, batch, draw_for(batch))
        alone = []
        for b in range(len(batch.wave)):
            one = Batch(*(None if x is None else x[b : b + 1] for x in batch))
            alone.append(task.step(net, one, draw_for(one)))
    total = sum(out.count for out in alone)
    assert total == whole.count
    torch.testing.assert_close(sum(out.loss * out.count for out in alone) / total, whole.loss, rtol=1e-4, atol=1e-5)
    for name, value in whole.logs.items():
        torch.testing.assert_close(sum(out.logs[name] * out.count for out in alone) / total, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", KEYS)
def test_the_same_draw_gives_the_same_step_and_another_does_not(built, make_batch, draw_for, key):
    net, task = built(key)
    net.eval(), task.eval()
    batch = make_batch()
    with torch.no_grad():
        first, again, other = (task.step(net, batch, draw_for(batch, seed)) for seed in (1, 1, 2))
    assert first.loss == again.loss
    if key != "autoregressive/next":
        assert first.loss != other.loss


@pytest.mark.parametrize("key", KEYS)
def test_losses_are_float32_under_autocast(built, make_batch, draw_for, key):
    net, task = built(key)
    batch = make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        out = task.step(net, batch, draw_for(batch))
    for value in (out.loss, out.count, *out.logs.values()):
        assert value.dtype == torch.float32
    (out.loss + out.penalty).backward()


@pytest.mark.parametrize("key", [f"regression/{key}" for key in ("samples", "noise", "apart", "apart-noise")])
def test_what_is_hidden_does_not_reach_the_guess(built, make_batch, draw_for, key):
    net, task = built(key)
    net.eval(), task.eval()
    batch = make_batch()
    seen = []
    inner = net.encoder.features
    net.encoder.features = lambda wave: (seen.append(wave), inner(wave))[1]
    draw = draw_for(batch)
    with torch.no_grad():
        first = task.step(net, batch, draw)
        hidden = seen[0] != batch.wave
        loud = torch.where(hidden, 100.0 * torch.randn_like(batch.wave), batch.wave)
        second = task.step(net, batch._replace(wave=loud), draw)
    assert torch.equal(seen[0], seen[1])
    assert second.loss > 100 * first.loss
    assert hidden.sum() == first.count
    assert first.gauges["hidden_ratio"] == hidden.sum() / (batch.valid.sum() * batch.wave.shape[-1])


def test_components_are_hidden_together_or_apart(built, make_batch, draw_for):
    """Together as in a gap; apart each as often, and independently: two of them at once as chance has it."""
    batch = make_batch(64, 400)
    hidden = {}
    for key in ("samples", "apart"):
        net, task = built(f"regression/{key}")
        _, hidden[key] = task.reconstruct(net, batch, draw_for(batch))
    assert torch.equal(hidden["samples"], hidden["samples"][..., :1].expand_as(batch.wave))
    assert torch.equal(hidden["apart"][..., 0], hidden["samples"][..., 0])
    within = hidden["apart"][batch.valid].double()
    share = within.mean(0)
    torch.testing.assert_close(share, share.mean().expand(3), rtol=0.05, atol=0)
    both = torch.stack([(within[:, a] * within[:, b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))])
    torch.testing.assert_close(both, share.mean().square().expand(3), rtol=0.1, atol=0)


def test_tokens_have_no_components():
    with pytest.raises(ConfigError, match="components = apart: tokens hold all components; choose where=samples"):
        TASKS.build({"_name_": "regression", "where": "tokens", "components": "apart"}, parts=None)


@pytest.mark.parametrize("key", ["regression/samples", "regression/tokens"])
def test_mse_scores_every_valid_sample_and_masked_mse_the_hidden(built, make_batch, draw_for, key):
    batch = make_batch()
    for loss in ("mse", "masked_mse"):
        net, task = built(key, loss={"_name_": loss})
        out = task.step(net, batch, draw_for(batch))
        share = 1.0 if loss == "mse" else out.gauges["hidden_ratio"].item()
        assert out.count.item() == pytest.approx(share * batch.valid.sum().item() * batch.wave.shape[-1])


def test_hidden_tokens_look_alike_to_the_backbone(built, make_batch, draw_for):
    net, task = built("contrastive/plain")
    batch = make_batch()
    seen = []
    inner = net.backbone.forward
    net.backbone.forward = lambda tokens: (seen.append(tokens), inner(tokens))[1]
    out = task.step(net, batch, draw_for(batch))
    replaced = (seen[0] == task.mask_token).all(-1)
    assert replaced.sum() == out.count
    clean = net.encoder(batch.wave)
    torch.testing.assert_close(seen[0][~replaced], clean[~replaced])


def test_contrastive_reports_what_tells_a_collapse(built, make_batch, draw_for):
    net, task = built("contrastive/plain")
    net.eval(), task.eval()
    batch = make_batch()
    task.anneal(1.0)
    out = task.step(net, batch, draw_for(batch))
    assert set(out.gauges) == {"hidden_ratio", "perplexity", "hard_perplexity", "temperature"}
    assert out.gauges["temperature"] == 0.5
    with torch.no_grad():
        task.quantizer.to_logits.weight.zero_()
        task.quantizer.to_logits.bias[::9] = 50.0
        collapsed = task.step(net, batch, draw_for(batch))
    assert collapsed.logs["accuracy"] == 0
    assert collapsed.gauges["hard_perplexity"].item() == pytest.approx(2.0, abs=1e-4)
    assert collapsed.penalty == pytest.approx(0.1 * 16 / 18, rel=1e-3)


@pytest.mark.parametrize("encoder", [LINEAR, CONV], ids=["stride1", "stride4"])
def test_the_future_does_not_leak_into_a_prediction(built, make_batch, encoder):
    net, _ = built("autoregressive/next", encoder=encoder)
    net.eval()
    wave = make_batch().wave
    stride = net.encoder.stride
    with torch.no_grad():
        guess = net(wave)
        for at in (0, 17, 100, 255):
            later = wave.clone()
            later[:, at:] = -later[:, at:] + 3.0
            first = at // stride * stride  # the first sample of the token that holds the change
            torch.testing.assert_close(net(later)[:, :first], guess[:, :first])
            assert not torch.allclose(net(later)[:, first:], guess[:, first:])


def test_autoregressive_compares_a_guess_with_the_sample_one_stride_ahead(built, make_batch, draw_for):
    net, task = built("autoregressive/next")
    batch = make_batch()
    out = task.step(net, batch, draw_for(batch))
    guess, errors = net(batch.wave), []
    for b in range(len(batch.wave)):
        for at in range(256 - 4):
            if batch.valid[b, at] and batch.valid[b, at + 4]:
                errors.append((guess[b, at] - batch.wave[b, at + 4]).square().mean())
    torch.testing.assert_close(out.loss, torch.stack(errors).mean())
    assert out.count == 3 * len(errors)


@pytest.mark.parametrize(
    ("key", "changes", "says"),
    [
        ("contrastive/plain", {"quantizer": None}, "set quantizer=gumbel"),
        ("contrastive/continuous", {"quantizer": GUMBEL}, "set quantizer=none"),
        ("contrastive/plain", {"samples": 16}, "span = 5 is longer than a trace of 4 tokens"),
        ("regression/tokens", {"samples": 12}, "longer than a trace of 3 tokens"),
        ("autoregressive/next", {"causal": False}, "sees the future"),
        ("autoregressive/next", {"samples": 4}, "4 samples"),
    ],
)
def test_what_cannot_work_is_refused_when_built(built, key, changes, says):
    with pytest.raises(ConfigError, match=says):
        built(key, **changes)


@pytest.mark.parametrize("key", ["contrastive/plain", "contrastive/continuous", "regression/samples", "autoregressive/next"])
def test_figures_draw_even_padding(built, make_batch, draw_for, key):
    net, task = built(key)
    net.eval(), task.eval()
    batch = make_batch()
    batch = Batch(*(None if x is None else x.flip(0) for x in batch))  # the trace of padding first
    with torch.no_grad():
        figures = task.figures(net, batch, draw_for(batch))
    assert figures
    for figure in figures.values():
        assert isinstance(figure, Figure)
        figure.canvas.draw()
