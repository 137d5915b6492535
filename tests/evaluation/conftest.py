"""Sets of labelled traces, written by hand or simulated, and a picker that knows where the arrivals are."""

import numpy as np
import pytest
import torch
from labelled_sets import write_hand_set

from dataloaders.synthesise import write_set as simulate
from evaluation.records import open_records


@pytest.fixture(scope="session")
def hand_set(tmp_path_factory):
    return write_hand_set(tmp_path_factory.mktemp("sets") / "hand")


@pytest.fixture(scope="session")
def simulated_set(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("sets") / "synthetic", 40, seed=3)


@pytest.fixture
def hand_records(hand_set):
    return open_records([str(hand_set)])


class Oracle:
    """A picker that reads its answers in the labels: P and S at their onsets, moved by ``late`` samples."""

    rate, channels = 100.0, 3

    def __init__(self, records, samples=4096, late=0.0, height=0.9):
        self.records, self.samples, self.late, self.height = records, samples, late, height
        self.starts = {}

    def __call__(self, batch):
        time = torch.arange(batch.wave.shape[1])
        chance = torch.zeros(len(batch.wave), batch.wave.shape[1], 3)
        for row, trace in enumerate(batch.index.tolist()):
            start = first_sample(self.records, trace, batch.wave[row].numpy(), int(batch.valid[row].sum()))
            for onset, phase in zip(self.records.onset[trace], self.records.phase[trace], strict=True):
                if phase >= 0:
                    bell = self.height * torch.exp(-0.5 * ((time - (round(onset) + self.late - start)) / 10) ** 2)
                    chance[row, :, phase] = torch.maximum(chance[row, :, phase], bell)
        chance[..., 2] = 1 - chance[..., :2].sum(-1).clamp_max(1)
        return torch.where(batch.valid[..., None], chance, torch.tensor([0.0, 0.0, 1.0]))


def first_sample(records, trace, wave, count):
    """Where a window lies in its trace, found by its samples."""
    length = int(records.catalogue.length[trace])
    whole, _ = records.reader.read(np.array([trace]), np.array([0]), np.array([length]), length)
    probe = wave[:count, 0][: min(count, 50)]
    windows = np.lib.stride_tricks.sliding_window_view(whole[0, :, 0], len(probe))
    return int(np.abs(windows - probe).sum(1).argmin())


@pytest.fixture
def oracle():
    """Makes a picker that knows the labels of records."""
    return Oracle
