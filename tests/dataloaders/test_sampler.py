"""Order of samples: every trace once an epoch, the same for any number of ranks, resumable."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloaders import sampler
from dataloaders.batch import Batch
from dataloaders.contracts import Part
from dataloaders.sampler import PADDING, EvalOrder, TrainLoader, TrainOrder, mark_padding
from utils.errors import CheckpointError, DataError


def orders(kind, ranks, monkeypatch, *args):
    made = []
    for rank in range(ranks):
        monkeypatch.setattr(sampler, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(sampler, "world_size", lambda: ranks)
        made.append(kind(*args))
    return made


@settings(deadline=None, max_examples=40)
@given(st.integers(8, 60), st.integers(1, 4), st.sampled_from([1, 2]), st.integers(0, 3))
def test_global_batches_do_not_depend_on_the_ranks(traces, batch, ranks, epoch):
    with pytest.MonkeyPatch.context() as patch:
        (alone,) = orders(TrainOrder, 1, patch, traces, batch * ranks, 5)
        shared = orders(TrainOrder, ranks, patch, traces, batch, 5)
    for order in (alone, *shared):
        order.epoch = epoch
    steps = list(zip(*shared, strict=True))
    assert [[key for keys in step for key in keys] for step in steps] == list(alone)
    positions = [position for step in alone for _, position in step]
    assert len(positions) == len(set(positions)) == traces // (batch * ranks) * batch * ranks


def test_epochs_differ_and_seeds_differ(monkeypatch):
    (order,) = orders(TrainOrder, 1, monkeypatch, 50, 5, 1)
    (other,) = orders(TrainOrder, 1, monkeypatch, 50, 5, 2)
    first = list(order)
    assert first == list(order)
    assert first != list(other)
    order.epoch = 1
    assert [p for b in order for _, p in b] != [p for b in first for _, p in b]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 4))
def test_evaluation_sees_every_trace_once(traces, batch, ranks):
    with pytest.MonkeyPatch.context() as patch:
        made = orders(EvalOrder, ranks, patch, traces, batch)
    batches = [list(order) for order in made]
    assert {len(rank) for rank in batches} == {len(made[0])}
    assert all(1 <= len(keys) <= batch for rank in batches for keys in rank)
    seen = [position for rank in batches for keys in rank for epoch, position in keys if epoch != PADDING]
    assert sorted(seen) == list(range(traces))


def test_a_batch_larger_than_the_set_is_told(monkeypatch):
    with pytest.raises(DataError, match=r"train split: 7 traces.*8.*loader\.batch_size to 7 or less"):
        orders(TrainOrder, 1, monkeypatch, 7, 8, 0)


class Numbers(Part):
    def __len__(self):
        return 20

    def __getitems__(self, keys):
        epoch, index = (torch.tensor([key[i] for key in keys]) for i in (0, 1))
        wave = index[:, None, None].float().expand(-1, 4, 1)
        return Batch(wave, torch.ones(len(keys), 4, dtype=torch.bool), torch.ones(len(keys), 1, dtype=torch.bool), index, epoch)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop", [1, 3, 4, 7])
def test_a_loader_resumes_after_the_last_consumed_batch(workers, stop):
    def run(loader, count):
        taken = []
        while len(taken) < count:
            for batch in loader:
                taken.append(list(zip(batch.epoch.tolist(), batch.index.tolist(), strict=True)))
                if len(taken) == count:
                    break
        return taken

    whole = run(TrainLoader(Numbers(), 5, seed=3, num_workers=workers), 12)
    first = TrainLoader(Numbers(), 5, seed=3, num_workers=workers)
    begun = run(first, stop)
    second = TrainLoader(Numbers(), 5, seed=3, num_workers=workers)
    second.load_state_dict(first.state_dict())
    assert begun + run(second, 12 - stop) == whole


def test_another_order_cannot_resume():
    state = TrainLoader(Numbers(), 5, seed=3).state_dict()
    with pytest.raises(CheckpointError, match="global_batch 5 → 4; seed 3 → 2"):
        TrainLoader(Numbers(), 4, seed=2).load_state_dict(state)


def test_windows_that_only_fill_a_batch_are_invalid():
    batch = mark_padding(Numbers().__getitems__([(0, 4), (PADDING, 0)]))
    assert batch.valid.all(1).tolist() == [True, False]
    assert not batch.valid[1].any()


def test_an_epoch_cut_short_is_followed_by_the_next_one():
    loader = TrainLoader(Numbers(), 5, seed=3)
    loader.limit = 2
    whole = TrainLoader(Numbers(), 5, seed=3)
    epochs = [
        [batch.index.tolist() for batch, _ in zip(iterated, range(2), strict=False)] for iterated in (iter(loader), iter(loader))
    ]
    full = [[batch.index.tolist() for batch in whole] for _ in range(2)]
    assert epochs == [epoch[:2] for epoch in full]
    assert loader.state_dict()["epoch"] == 2
    assert loader.state_dict()["done"] == 0
