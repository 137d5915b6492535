"""The whole contrastive model against one assembled from NX-AI's xlstm and the public wav2vec 2.0 recipe."""

import warnings

import numpy as np
import pytest
import torch
from composing import composed

from dataloaders.batch import Batch, DataSpec
from tasks import build

SAMPLES = 512
TINY = ["experiment=contrastive/xlstm_unet_seisbench", f"dataset.samples={SAMPLES}", "model.d_model=32", "model.n_layers=2",
        "encoder.width=48", "quantizer.codes=16", "loss.count=9"]  # fmt: skip
AS_XLSTM = ["model.gate_soft_cap=null", "model.norm_eps=1e-5"]


@pytest.fixture(scope="module")
def peer():
    """The benchmark's opponent; importing xlstm warns of things that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from benchmarks import peer_weights, peer_xlstm
    return peer_weights, peer_xlstm


def both(peer, *overrides):
    torch.manual_seed(0)
    module = build.build_module(composed(*TINY, *overrides), DataSpec(samples=SAMPLES))
    index = torch.arange(3)
    valid, live = torch.ones(3, SAMPLES, dtype=torch.bool), torch.ones(3, 3, dtype=torch.bool)
    batch = Batch(torch.randn(3, SAMPLES, 3), valid, live, index, torch.zeros_like(index))
    return peer[0].losses(module, batch)


@pytest.mark.parametrize("pool", ["[4,4]", "[2]"])
def test_the_loss_is_that_of_a_model_assembled_from_xlstm(peer, pool):
    ours, theirs = both(peer, *AS_XLSTM, f"model.pool={pool}")
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("fault", ["model.residual=true", "loss.temperature=0.11", "task.diversity=0.11"])
def test_a_model_that_computes_something_else_is_noticed(peer, fault, monkeypatch):
    section, _, setting = fault.partition("=")[0].partition(".")
    right = composed(*TINY)[section].get(setting)
    plain = peer[1].PeerConfig.of

    def unaware(config, samples):
        return plain({**config, section: {**config[section], setting: right}}, samples)

    monkeypatch.setattr(peer[1].PeerConfig, "of", unaware)
    ours, theirs = both(peer, *AS_XLSTM, fault)
    assert ours != pytest.approx(theirs, rel=1e-4)


def test_the_peer_has_as_many_parameters(peer):
    config = composed(*TINY)
    ours = build.build_module(config, DataSpec(samples=SAMPLES))
    theirs = peer[1].Peer(peer[1].PeerConfig.of(config, SAMPLES))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_the_peers_negatives_are_other_hidden_frames_of_the_same_trace(peer):
    rng = np.random.default_rng(0)
    hidden = peer[1].draw_mask(3, 64, {"ratio": 0.5, "span": 5}, rng)
    negatives = peer[1].draw_negatives(hidden, 50, rng)
    for b, t in np.argwhere(hidden):
        chosen = negatives[b, t]
        assert (chosen // 64 == b).all()
        assert hidden.ravel()[chosen].all()
        assert (chosen != b * 64 + t).all()


def test_the_peer_refuses_lengths_it_would_have_to_pad(peer):
    with pytest.raises(ValueError, match="samples = 100: the peer pads nothing, so it must be a multiple of 64"):
        peer[1].PeerConfig.of(composed(*TINY), 100)
