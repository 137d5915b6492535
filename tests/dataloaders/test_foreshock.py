"""Classes and splits in time, and the source on a converted set."""

from pathlib import Path

import foreshock_tables as tables
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloaders.contracts import Split
from dataloaders.convert_foreshock import Arguments, convert
from dataloaders.foreshock.classes import CLASS_COUNTS, class_names, classify, split_in_time, thinned
from dataloaders.foreshock.sequence import ClassesConfig, sort_traces
from dataloaders.sources.foreshock import Foreshock, ForeshockConfig
from utils.errors import DataError


@st.composite
def sequences(draw):
    """Events (identifier, time, part) of a sequence, some with several traces, some at the same time."""
    sizes = [draw(st.integers(12, 60)) for _ in range(3)]
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    parts = np.repeat(["pre", "visso", "post"], sizes)
    time = np.round(rng.uniform(1, 1000, len(parts)), draw(st.integers(0, 3)))
    time = np.where(parts == "post", time, -time)
    event = np.array([f"e{number}" for number in rng.permutation(10_000)[: len(parts)]])
    rows = np.concatenate([np.arange(len(parts)), rng.integers(0, len(parts), 20)])
    return event[rows], time[rows], parts[rows]


def numbers_of(event):
    return np.array([int(name[1:]) * 7919 for name in event], np.int64)


def of_split(cfg, event, time, part, split=2):
    found = sort_traces(cfg, event, time, part, numbers_of(event))
    return dict(zip(event[found.split == split].tolist(), found.label[found.split == split].tolist(), strict=True))


@settings(deadline=None, max_examples=40)
@given(
    data=sequences(),
    classes=st.sampled_from(CLASS_COUNTS),
    fraction=st.floats(0.01, 1),
    seed=st.integers(0, 99),
    order=st.randoms(use_true_random=False),
)
def test_the_test_and_dev_sets_move_with_nothing(data, classes, fraction, seed, order):
    """The fault of earlier work: what is tested changed with the seed and with the share of labels."""
    rows = list(range(len(data[0])))
    order.shuffle(rows)
    shuffled = tuple(column[rows] for column in data)
    for split in (1, 2):
        first = of_split(ClassesConfig(classes=classes), *data, split=split)
        assert first == of_split(
            ClassesConfig(classes=classes, training_fraction=fraction, split_seed=seed), *shuffled, split=split
        )
    eight, nine = (of_split(ClassesConfig(classes=count), *data) for count in (8, 9))
    assert set(eight) == {name for name, label in nine.items() if label != 4}


@settings(deadline=None, max_examples=40)
@given(data=sequences(), classes=st.sampled_from(CLASS_COUNTS), fraction=st.floats(0.01, 1), larger=st.floats(0, 1))
def test_splits_are_by_event_ordered_in_time_and_balanced(data, classes, fraction, larger):
    event, time, part = data
    found = sort_traces(ClassesConfig(classes=classes, training_fraction=fraction), event, time, part, numbers_of(event))
    more = fraction + (1 - fraction) * larger
    other = sort_traces(ClassesConfig(classes=classes, training_fraction=more), event, time, part, numbers_of(event))
    assert set(found.traces(Split.train)) <= set(other.traces(Split.train))
    owners = {
        name: {(s, c) for s, c in zip(found.split[event == name], found.label[event == name], strict=True)} for name in event
    }
    assert all(len(found_in) == 1 for found_in in owners.values())
    sizes, last = [], -np.inf
    for label in range(classes):
        mine = found.label == label
        spans = [time[mine & (found.split == split)] for split in range(3)]
        assert all(len(span) for span in spans)
        assert spans[0].max() <= spans[1].min() <= spans[1].max() <= spans[2].min()
        assert np.isin(label, found.label[found.traces(Split.train)])
        if classes % 2 and label == classes // 2:
            assert set(part[mine]) == {"visso"}
            continue
        assert set(part[mine]) == {"pre" if label < classes // 2 else "post"}
        assert last <= time[mine].min()
        last = time[mine].max()
        sizes.append(len(set(event[mine])))
        shares = [len(set(event[mine & (found.split == split)])) / sizes[-1] for split in range(3)]
        assert shares == pytest.approx([0.7, 0.1, 0.2], abs=1.2 / sizes[-1])
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == 2 * min(len(set(event[part == "pre"])), len(set(event[part == "post"])))


def test_names_are_in_the_order_of_time():
    assert class_names(2) == ("FEQ", "AEQ")
    assert class_names(4) == ("FEQ1", "FEQ2", "AEQ1", "AEQ2")
    assert class_names(9) == (*(f"FEQ{n}" for n in range(1, 5)), "Visso", *(f"AEQ{n}" for n in range(1, 5)))


def test_too_few_events_are_told():
    events, times, parts = np.array(list("abcdef")), np.arange(6) - 2.5, np.array(["pre"] * 3 + ["post"] * 3)
    label = classify(events, times, parts, 4)
    with pytest.raises(DataError, match=r"fewer than three events .*: FEQ1 2, FEQ2 1, AEQ1 2, AEQ2 1\. Choose fewer classes"):
        split_in_time(events, times, label, class_names(4))
    with pytest.raises(DataError, match=r"3 pre, 0 visso, 3 post\. .*dataset.classes=8"):
        classify(events, times, parts, 9)
    with pytest.raises(DataError, match=r"0 pre, 3 post"):
        classify(events, times, np.where(parts == "pre", "visso", parts), 2)


def test_at_least_one_training_event_of_each_class_is_kept():
    events, label = np.arange(20, dtype=np.int64), np.repeat([0, 1], 10)
    used = thinned(events, label, np.zeros(20, np.int8), 0.001, 0)
    assert [int(used[label == k].sum()) for k in (0, 1)] == [1, 1]


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """A converted set of a small sequence."""
    root = tmp_path_factory.mktemp("nrca")
    counts = {"pre": 24, "visso": 6, "post": 30}
    tables.write(root / "in", {name: tables.frame(name, count) for name, count in counts.items()})
    convert(Arguments(input=str(root / "in"), path=str(root / "set")))
    return root / "set"


def opened(converted, seed=1, **changes):
    return Foreshock(ForeshockConfig(**{"path": str(converted), "samples": 256, "before_p": 0.5, **changes}), seed=seed)


def test_batches_carry_the_class_of_their_event(converted):
    source = opened(converted)
    table = pd.read_csv(converted / "metadata.csv")
    for split in Split:
        part = source.part(split)
        batch = part.__getitems__([(0, n) for n in range(len(part))])
        names = np.array(source.spec.classes)[batch.label.numpy()]
        sequence = table["source_sequence"].to_numpy()[batch.index.numpy()]
        assert all(
            name.startswith({"pre": "FEQ", "visso": "Vis", "post": "AEQ"}[s]) for name, s in zip(names, sequence, strict=True)
        )
        assert set(names) == set(source.spec.classes)
        assert batch.wave.shape == (len(part), 256, 3)
        assert batch.valid.all()
        assert len(part.event) == len(part.label) == len(part)
    equal = "6 traces left out, to make foreshocks and aftershocks equally many"
    assert f"60 traces; {equal}\n" in source.describe()
    assert f"60 traces; {equal}; 6 traces of Visso left out" in opened(converted, classes=8).describe()


def test_windows_begin_before_p_the_same_ones_outside_training(converted):
    source = opened(converted)
    part = source.part(Split.test)
    first, again = (part.__getitems__([(epoch, 0)]).wave for epoch in (0, 5))
    assert torch.equal(first, again)
    trace = int(part.traces[0])
    whole, _ = part.reader.read(np.array([trace]), np.zeros(1, int), np.array([512]), 512)
    np.testing.assert_array_equal(first[0].numpy(), whole[0, 175:431])  # P at 225
    train = source.part(Split.train)
    starts = {int(train.windows.starts(np.zeros(1, int), np.array([e]), np.zeros(1, int), np.array([512]))[0]) for e in range(40)}
    assert len(starts) > 10
    assert min(starts) >= 150
    assert max(starts) <= 200


def test_short_traces_are_padded(converted):
    part = opened(converted, samples=600).part(Split.train)
    batch = part.__getitems__([(0, 0)])
    assert batch.valid[0].sum() == 512
    assert not batch.wave[0, 512:].any()


def test_the_seed_of_the_run_moves_no_trace_between_splits(converted):
    sources = [opened(converted, seed=seed, training_fraction=share) for seed, share in ((1, 1.0), (2, 0.3))]
    for split in (Split.dev, Split.test):
        one, other = (source.part(split) for source in sources)
        assert one.traces.tolist() == other.traces.tolist()
        assert torch.equal(one.__getitems__([(0, 3)]).wave, other.__getitems__([(4, 3)]).wave)
    assert len(sources[1].part(Split.train)) < len(sources[0].part(Split.train))


def test_a_damaged_trace_has_no_class(converted):
    part = opened(converted, max_damaged_fraction=1.0).part(Split.train)
    part.reader.catalogue.blocks[:] = b"gone"
    with pytest.warns(UserWarning, match="damaged trace"):
        batch = part.__getitems__([(0, 0), (0, 1)])
    assert batch.label.tolist() == [-1, -1]
    assert not batch.valid.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="source_time_to_mainshock_s"), r"source_time_to_mainshock_s are missing\. It has: trace_name"),
        (lambda t: t.assign(source_sequence=""), "without a value in source_sequence"),
        (lambda t: t.assign(source_time_to_mainshock_s="soon"), "without a value in source_time_to_mainshock_s"),
        (lambda t: t.assign(trace_sampling_rate_hz=50.0), "not at 100 Hz"),
    ],
)
def test_a_set_that_is_not_ours_is_told(converted, tmp_path, change, said):
    (tmp_path / "waveforms.hdf5").symlink_to(converted / "waveforms.hdf5")
    change(pd.read_csv(converted / "metadata.csv")).to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(DataError, match=said):
        opened(tmp_path)


def test_a_missing_set_says_which_command_makes_it_and_what_stands_in(tmp_path):
    with pytest.raises(DataError, match=r"dataloaders\.convert_foreshock .*dataset=foreshock_synthetic"):
        opened(tmp_path / "nowhere")


@pytest.mark.parametrize(("setting", "value"), [("classes", 3), ("samples", 8), ("training_fraction", 0.0), ("before_p", 99.0)])
def test_settings_out_of_range(setting, value):
    with pytest.raises(ValueError, match=f"{setting} = {value}"):
        ForeshockConfig(**{setting: value})
