"""Weighted sets: shares, no trace again before all others, one order for any number of ranks, exact resume."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from composing import composed
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloaders import sampler
from dataloaders.batch import Batch
from dataloaders.contracts import Part, Split
from dataloaders.datamodule import WaveData
from dataloaders.mixture import Mixture
from dataloaders.sampler import TrainLoader, TrainOrder
from dataloaders.sources.phase_pick import PhasePickConfig
from dataloaders.sources.seisbench import SeisBench, SeisBenchConfig
from tasks.build import SOURCES
from utils.config import LoaderConfig
from utils.errors import DataError

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=4)
WEIGHTS = st.lists(st.floats(0.05, 4.0), min_size=4, max_size=4)


def mixed(sizes, weights, shuffle=0):
    which = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(shuffle).shuffle(which)
    return which, Mixture(which, weights[: len(sizes)], [f"set {number}" for number in range(len(sizes))])


@settings(deadline=None, max_examples=60)
@given(SIZES, WEIGHTS, st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_every_epoch_has_the_shares_asked_for(sizes, weights, seed, epoch):
    which, mixture = mixed(sizes, weights, seed)
    keys = mixture.epoch(seed, epoch)
    assert len(keys) == len(mixture)
    counts = np.bincount(which[keys[:, 1]], minlength=len(sizes))
    assert counts.tolist() == list(mixture.counts) == [max(1, round(w * n)) for n, w in zip(sizes, weights, strict=False)]


@settings(deadline=None, max_examples=60)
@given(SIZES, WEIGHTS, st.integers(0, 100), st.integers(1, 6))
def test_no_trace_comes_again_before_all_others_of_its_set(sizes, weights, seed, epochs):
    which, mixture = mixed(sizes, weights, seed)
    shown = np.concatenate([mixture.epoch(seed, epoch) for epoch in range(epochs)])
    assert len(np.unique(shown, axis=0)) == len(shown), "a pass showed a trace twice: its windows would be the same"
    for number in range(len(sizes)):
        mine = shown[which[shown[:, 1]] == number]
        visits = np.bincount(mine[:, 1], minlength=len(which))[which == number]
        assert visits.max() - visits.min() <= 1
        for each in range(int(mine[:, 0].max())):
            assert (mine[:, 0] == each).sum() == sizes[number], "a pass began before the one before it was over"


def test_epochs_and_seeds_differ_and_each_is_always_the_same():
    _, mixture = mixed([40, 20], [1.5, 0.5])
    made = [mixture.epoch(seed, epoch).tolist() for seed, epoch in itertools.product((1, 2), (0, 1))]
    assert all(one != other for one, other in itertools.combinations(made, 2))
    assert mixed([40, 20], [1.5, 0.5])[1].epoch(1, 1).tolist() == made[1]


@settings(deadline=None, max_examples=30)
@given(SIZES, WEIGHTS, st.sampled_from([1, 2, 3]), st.integers(0, 3))
def test_global_batches_do_not_depend_on_the_ranks(sizes, weights, ranks, epoch):
    _, mixture = mixed([size + 6 for size in sizes], [weight + 0.5 for weight in weights])

    def order(rank, ranks, batch):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampler, "rank", lambda: rank)
            patch.setattr(sampler, "world_size", lambda: ranks)
            made = TrainOrder(0, batch, 5, mixture)
        made.epoch = epoch
        return list(made)

    shared = [order(rank, ranks, 1) for rank in range(ranks)]
    assert [[key for keys in step for key in keys] for step in zip(*shared, strict=True)] == order(0, 1, ranks)


def test_without_weights_the_order_is_what_it_was():
    order = TrainOrder(50, 5, 3)
    order.epoch = 2
    before = torch.randperm(50, generator=torch.Generator().manual_seed(3 * 1_000_003 + 2)).tolist()
    assert [key for keys in order for key in keys] == [(2, position) for position in before]


def test_an_epoch_smaller_than_a_batch_is_told():
    with pytest.raises(DataError, match=r"train split: 5 windows an epoch, but.*loader\.batch_size to 5 or less"):
        TrainOrder(10, 6, 0, mixed([10], [0.5])[1])


class Numbers(Part):
    def __init__(self):
        _, self.mixture = mixed([12, 8], [0.5, 2.25])

    def __len__(self):
        return 20

    def __getitems__(self, keys):
        epoch, index = (torch.tensor([key[i] for key in keys]) for i in (0, 1))
        wave = index[:, None, None].float().expand(-1, 4, 1)
        return Batch(wave, torch.ones(len(keys), 4, dtype=torch.bool), torch.ones(len(keys), 1, dtype=torch.bool), index, epoch)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_a_loader_resumes_after_the_last_consumed_batch(workers, stop):
    def run(loader, count):
        taken = []
        while len(taken) < count:
            for batch in loader:
                taken.append(list(zip(batch.epoch.tolist(), batch.index.tolist(), strict=True)))
                if len(taken) == count:
                    break
        return taken

    def opened():
        return TrainLoader(Numbers(), 5, seed=3, num_workers=workers)

    whole = run(opened(), 12)
    assert len(opened()) == (6 + 18) // 5
    first = opened()
    begun = run(first, stop)
    second = opened()
    second.load_state_dict(first.state_dict())
    assert begun + run(second, 12 - stop) == whole


def weighted(**weights):
    return SeisBenchConfig(dataset_name=["ETHZ", "Iquique"], samples=512, weights=weights)


def test_sets_on_disk_are_weighted_by_name_and_counted_in_the_table(published_sets):
    source = SeisBench(weighted(Iquique=2.5), seed=1)
    traces = source.traces(Split.train)
    iquique = source.catalogue.which[traces] == 1
    data = WaveData(source, LoaderConfig(batch_size=1, num_workers=0), seed=1)
    batches = list(data.train_dataloader())
    seen = Counter(int(batch.index[0]) for batch in batches)
    assert len(batches) == data.windows == (~iquique).sum() + round(2.5 * iquique.sum())
    assert {seen[trace] for trace in traces[~iquique].tolist()} == {1}
    assert {seen[trace] for trace in traces[iquique].tolist()} == {2, 3}
    assert f"windows an epoch: {data.windows} = ETHZ {(~iquique).sum()} (" in source.describe()
    assert "each trace 2.5 ×)" in source.describe()
    assert source.part(Split.dev).mixture is None


def test_a_trace_that_comes_again_is_cut_anew(published_sets):
    part = SeisBench(weighted(ETHZ=3), seed=1).part(Split.train)
    assert part.mixture is not None
    keys = [tuple(key) for key in part.mixture.epoch(1, 0).tolist()]
    one = next(position for _, position in keys if sum(key[1] == position for key in keys) == 3)
    starts = {int(part.cut([key]).start[0]) for key in keys if key[1] == one}
    assert len(starts) == 3


def test_pickers_are_weighted_too(published_sets):
    cfg = {"_name_": "seisbench_phase_pick", "dataset_name": ["ETHZ", "Iquique"], "samples": 512, "weights": {"ETHZ": 0.5}}
    source = SOURCES.build(cfg, seed=1)
    part = source.part(Split.train)
    assert part.mixture is not None
    assert len(part.mixture) < len(part)
    assert "each trace 0.5 ×" in source.describe()


def test_equal_weights_are_none(published_sets):
    assert SeisBench(weighted(ETHZ=1.0), seed=1).part(Split.train).mixture is None
    assert "windows an epoch" not in SeisBench(weighted(), seed=1).describe()


@pytest.mark.parametrize("config", ["seisbench_auto_reg", "seisbench_phase_pick"])
def test_mistakes_in_weights_are_told_before_data_are_touched(config):
    assert SOURCES.config("seisbench_phase_pick") is PhasePickConfig
    node = {"_name_": config, "dataset_name": ["ETHZ", "my/set"], "weights": {"ETZH": 1, "my/set": 0, "ETHZ": -2}}
    told = "\n".join(SOURCES.mistakes(node))
    assert "weights: no set 'ETZH' in dataset_name. Did you mean 'ETHZ'? It has: ETHZ, my/set" in told
    assert "weights: my/set = 0.0: must be above 0" in told
    assert "weights: ETHZ = -2.0: must be above 0" in told
    assert "inf" in "\n".join(SOURCES.mistakes(node | {"weights": {"ETHZ": float("inf")}}))
    assert SOURCES.mistakes(node | {"weights": {"my/set": 0.1}}) == []


@pytest.mark.parametrize(
    ("override", "weights"),
    [
        ("dataset.weights.ETHZ=2", {"ETHZ": 2}),
        ("dataset.weights={ETHZ: 2.0, STEAD: 0.5}", {"ETHZ": 2.0, "STEAD": 0.5}),
        ("dataset.weights={packed/ethz: 2}", {"packed/ethz": 2}),
    ],
)
def test_weights_are_typed_on_the_command_line(override, weights):
    assert composed("experiment=contrastive/small", "dataset=seisbench_auto_reg", override)["dataset"]["weights"] == weights
