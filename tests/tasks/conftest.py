"""A tiny world for objectives: a causal or bidirectional backbone, batches with padding and gaps."""

import pytest
import torch
from torch import nn

from dataloaders.batch import Batch, DataSpec
from models.contracts import DECODERS, ENCODERS, QUANTIZERS, Backbone
from models.network import Network
from tasks.contracts import LOSSES, TASKS, Parts
from utils.registry import import_parts
from utils.rng import Draw

for room in ("models.encoders", "models.decoders", "models.quantizers", "tasks.losses", "tasks"):
    import_parts(room)


class Recurrent(Backbone):
    def __init__(self, width, causal):
        super().__init__()
        self.d_in = self.d_out = width
        self.causal = causal
        self.cell = nn.GRU(width, width, batch_first=True, bidirectional=not causal)
        self.out = nn.Linear(width if causal else 2 * width, width)

    def forward(self, tokens):
        return self.out(self.cell(tokens)[0])


def build(task, *, encoder, decoder, loss, quantizer=None, metrics=(), samples=256, width=8, causal=False):
    spec = DataSpec(samples=samples)
    backbone = Recurrent(width, causal)
    first = ENCODERS.build(encoder, d_in=3, d_out=width)
    last = DECODERS.build(decoder, d_in=width, d_out=3, stride=first.stride, d_wave=3)
    network = Network(first, backbone, last)
    codes = None if quantizer is None else QUANTIZERS.build(quantizer, d_in=first.d_features)
    scored = LOSSES.build(loss)
    parts = Parts(spec, network, scored, scored, {name: LOSSES.build({"_name_": name}) for name in metrics}, codes)
    return network, TASKS.build(task, parts=parts)


@pytest.fixture(scope="session")
def make():
    """(network, task) from config nodes."""
    return build


@pytest.fixture(scope="session")
def make_batch():
    """Smooth waves; trace 1 ends half-way, trace 2 has a gap, the last is all padding."""

    def batch(traces=5, samples=256, seed=0):
        generator = torch.Generator().manual_seed(seed)
        wave = torch.randn(traces, samples, 3, generator=generator).cumsum(1)
        wave = (wave - wave.mean(1, keepdim=True)) / wave.std(1, keepdim=True)
        valid = torch.ones(traces, samples, dtype=torch.bool)
        valid[1, samples // 2 :] = False
        valid[2, samples // 4 : samples // 4 + 30] = False
        valid[-1] = False
        wave = torch.where(valid[..., None], wave, 0.0)
        live = torch.ones(traces, 3, dtype=torch.bool)
        return Batch(wave, valid, live, torch.arange(traces) + 7, torch.zeros(traces, dtype=torch.int64))

    return batch


@pytest.fixture(scope="session")
def draw_for():
    """The random numbers of a batch."""
    return lambda batch, seed=1: Draw(seed, batch.epoch, batch.index)
