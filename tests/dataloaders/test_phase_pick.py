"""Arrivals on disk become onsets in windows; what cannot be used is counted, what is wrong is refused."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seisbench_sets import Quirk, write_set

from dataloaders.contracts import Split
from dataloaders.sets.arrivals import PHASES, read_arrivals
from dataloaders.sets.catalogue import open_sets
from dataloaders.sources.phase_pick import PhasePick, PhasePickConfig, Unlabelled, impure, labels_of
from dataloaders.windows import starts_around
from utils.errors import DataError


def opened(*names, seed=0, **settings):
    return PhasePick(PhasePickConfig(dataset_name=[str(name) for name in names], **settings), seed=seed)


def rewrite(folder, change):
    """Let ``change`` work on the metadata of a set."""
    frame = pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False)
    change(frame).to_csv(folder / "metadata.csv", index=False)
    return folder


@settings(deadline=None, max_examples=200)
@given(
    length=st.integers(1, 9000),
    samples=st.integers(16, 4096),
    margin=st.integers(0, 60),
    onsets=st.lists(st.integers(-1, 8999), min_size=1, max_size=4),
    chance=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_a_window_around_picks_holds_one_and_stays_in_its_trace(length, samples, margin, onsets, chance):
    margin = min(margin, (samples - 1) // 2)
    inside = [onset if onset < length else -1 for onset in onsets]
    start = int(starts_around(np.array([inside]), np.array([length]), samples, margin=margin, chance=np.array([chance]))[0])
    there = [onset for onset in inside if onset >= 0]
    assert (start == -1) == (not there)
    if there:
        assert 0 <= start <= max(length - samples, 0)
        held = [onset for onset in there if start <= onset < start + samples]
        assert held
        free = 0 < start < length - samples
        assert not free or any(start + margin <= onset < start + samples - margin for onset in held)


def test_every_arrival_and_every_place_is_as_likely():
    many = 20_000
    chance = np.random.default_rng(0).uniform(size=(many, 2))
    onset = np.tile([[3000, -1, 4000]], (many, 1))
    start = starts_around(onset, np.full(many, 9000), 2000, margin=100, chance=chance)
    first = (start + 100 <= 3000) & (start + 1900 > 3000) & ~((start + 100 <= 4000) & (start + 1900 > 4000))
    place = 3000 - start[(start > 2000 - 1900 + 1000) & first]
    assert abs(np.isin(start, range(1100, 2900 + 1)).mean() - (0.5 + 0.5 * 800 / 1800)) < 0.02
    assert place.min() >= 100 and place.max() < 1900


@pytest.fixture
def rich_set(tmp_path):
    """A set with many phases, arrivals outside, repeated and unsorted ones, unlabelled S, and noise."""

    def change(frame):
        # the first five rows are a train/train/train/dev/test pattern that repeats
        frame["trace_Pn_arrival_sample"] = ["1200", "1500", ""] + [""] * 17
        frame["trace_Sg_arrival_sample"] = ["", "", "900"] + [""] * 17
        frame["trace_PKP_arrival_sample"] = ["", "4000"] + [""] * 18
        frame.loc[5, "trace_s_arrival_sample"] = ""
        frame.loc[6, ["trace_p_arrival_sample", "trace_s_arrival_sample"]] = ["7000", "2300"]
        frame.loc[10, ["trace_p_arrival_sample", "trace_s_arrival_sample", "source_id"]] = ["", "", ""]
        frame.loc[11, ["trace_p_arrival_sample", "trace_s_arrival_sample"]] = ["", "nan"]
        return frame

    return rewrite(write_set(tmp_path / "rich", Quirk()), change)


def test_arrivals_of_all_columns_sorted_in_time_with_what_is_left_out_counted(rich_set):
    source = opened(rich_set)
    labels, arrivals = source.arrivals, read_arrivals([str(rich_set)])
    named = [[arrivals.names[n] for n in row if n >= 0] for row in arrivals.name]
    assert named[0] == ["Pn", "p", "s"] and named[2] == ["Sg", "p", "s"]
    assert labels.onset[0].tolist()[:3] == [1200, 1500, 2300] and labels.phase[0].tolist()[:3] == [0, 0, 1]
    assert labels.onset[1].tolist() == [1500, -1, 2300]  # p and Pn at the same sample: one of them
    assert labels.phase[6].max() == 1 and (labels.phase[6] == 0).sum() == 0  # its P lies beyond the trace …
    assert labels.known[6].tolist() == [True, True]  # … but was picked: there is none in the trace
    assert labels.known[5].tolist() == [True, False]
    assert labels.noise[10] and labels.labelled[10]
    assert not labels.noise[11] and not labels.labelled[11]
    assert labels.skipped == {
        "arrivals outside their trace": 1,
        "repeated arrivals": 1,
        "arrivals of trace_PKP_arrival_sample, neither P nor S": 1,
    }
    said = source.describe()
    for text in (
        "1 of an earthquake without a usable P or S pick",
        "1 arrivals outside their trace",
        "1 repeated arrivals",
        "PKP",
    ):
        assert text in said
    assert not source.sets.usable[11]


def test_an_unlabelled_phase_may_be_taken_as_absent(rich_set):
    assert opened(rich_set, unlabelled=Unlabelled.absent).arrivals.known.all()


def test_onsets_in_windows_are_onsets_in_traces(rich_set):
    source = opened(rich_set, samples=1024, seed=3)
    part = source.part(Split.train)
    keys = [(epoch, position) for epoch in range(6) for position in range(len(part))]
    batch, cut = part.__getitems__(keys), part.cut(keys)
    held = 0
    for row, (trace, start) in enumerate(zip(cut.trace, cut.start, strict=True)):
        expect = sorted(
            (int(onset - start), int(phase))
            for onset, phase in zip(source.arrivals.onset[trace], source.arrivals.phase[trace], strict=True)
            if phase >= 0 and start <= onset < start + 1024
        )
        found = [(o, p) for o, p in zip(batch.onsets[row].tolist(), batch.phases[row].tolist(), strict=True) if o >= 0]
        assert sorted(found) == expect
        held += bool(expect)
        wave, _ = part.windows.reader.read(cut.trace[[row]], cut.start[[row]], cut.count[[row]], 1024)
        np.testing.assert_array_equal(batch.wave[row], wave[0])
    assert 0.67 < held / len(keys) < 0.95  # two in three around a pick, and some of the others by chance


def test_dev_windows_are_the_same_in_every_epoch_and_run(rich_set):
    one, other = (opened(rich_set, samples=1024, seed=seed).part(Split.dev) for seed in (1, 2))
    keys = [(0, position) for position in range(len(one))]
    later = [(4, position) for position in range(len(one))]
    assert (one.cut(keys).start == other.cut(later).start).all()
    train = [opened(rich_set, samples=1024, seed=seed).part(Split.train) for seed in (1, 2)]
    keys = [(0, position) for position in range(len(train[0]))]
    assert (train[0].cut(keys).start != train[1].cut(keys).start).any()


def test_training_fractions_are_nested_and_leave_dev_and_test_alone(tmp_path):
    folder = write_set(tmp_path / "many", Quirk(lengths=(5000,)), traces=60)
    whole = opened(folder)
    before: set[int] = set()
    for fraction in (0.05, 0.1, 0.2, 0.5, 1.0):
        part = opened(folder, training_fraction=fraction)
        traces = set(part.part(Split.train).windows.traces.tolist())
        assert before <= traces
        before = traces
        for split in (Split.dev, Split.test):
            assert (part.part(split).windows.traces == whole.part(split).windows.traces).all()


def test_no_event_is_learnt_from_and_judged_by(tmp_path):
    folder = write_set(tmp_path / "impure", Quirk())  # pairs of traces share an event, splits go train, train, train, dev, test
    catalogue = open_sets([str(folder)], 0)
    everything = np.ones(len(catalogue), bool)
    left = everything & ~impure(catalogue, everything)
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        one, other = (set(catalogue.event[left & (catalogue.split == split)].tolist()) for split in (earlier, later))
        assert not one & other
    assert (left[catalogue.split == 2]).all()
    assert "whose event is also in a later split" in opened(folder).describe()


def test_traces_of_two_sets_that_share_a_name_share_no_event(tmp_path):
    folders = [write_set(tmp_path / name, Quirk(events=False)) for name in ("one", "other")]
    rewrite(folders[1], lambda frame: frame.assign(split=["test", *frame.split[:-1]]))  # the same names in other splits
    both, alone = opened(*folders), [opened(folder) for folder in folders]
    for split in Split:
        assert len(both.part(split)) == sum(len(one.part(split)) for one in alone)


def test_onsets_follow_the_resampling(tmp_path):
    folder = write_set(tmp_path / "slow", Quirk(rates=(50.0,), lengths=(3000,)))
    source = opened(folder)
    assert set(source.arrivals.onset[source.arrivals.phase == 0].tolist()) == {3000}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"trace_p_arrival_sample": "trace_p_arival_sample"}, "columns trace_p_arival_sample look misspelt"),
        ({"trace_s_arrival_sample": "trace_s_arrival_samples"}, "columns trace_s_arrival_samples look misspelt"),
        ({"trace_p_arrival_sample": "P_pick", "trace_s_arrival_sample": "S_pick"}, "there is no column of P or S arrivals"),
    ],
)
def test_absent_or_misspelt_columns_list_what_the_file_has(small_set, names, said):
    rewrite(small_set, lambda frame: frame.rename(columns=names))
    with pytest.raises(DataError, match=said) as caught:
        opened(small_set)
    for name in (*names.values(), "trace_name", "source_id"):
        assert name in str(caught.value)


def test_an_onset_that_is_no_number_is_refused(small_set):
    rewrite(small_set, lambda frame: frame.assign(trace_p_arrival_sample=["12:03:04"] + ["1500"] * 19))
    with pytest.raises(DataError, match="row 1: '12:03:04' is no sample number"):
        opened(small_set)


def test_a_set_without_picks_is_refused(small_set):
    rewrite(small_set, lambda frame: frame.assign(trace_p_arrival_sample="", trace_s_arrival_sample="", trace_category="noise"))
    with pytest.raises(DataError, match="no arrival of P or S"):
        opened(small_set).part(Split.train)
    rewrite(small_set, lambda frame: frame.assign(trace_category="earthquake"))
    with pytest.raises(DataError, match="20 of an earthquake without a usable P or S pick"):
        opened(small_set)


def test_phases_are_those_of_the_benchmark():
    assert {name for name, phase in PHASES.items() if phase == 0} == {"p", "pP", "P", "P1", "Pg", "Pn", "PmP", "pwP", "pwPm"}
    assert {name for name, phase in PHASES.items() if phase == 1} == {"s", "S", "S1", "Sg", "SmS", "Sn"}


@pytest.mark.parametrize("setting", [{"around_picks": 1.5}, {"margin": -1}, {"margin": 2048}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        PhasePickConfig(**setting)


def test_settings_and_labels_of_several_sets_keep_the_order_of_the_catalogue(tmp_path, rich_set):
    plain = write_set(tmp_path / "plain", Quirk(chunks=("_a", "_b")), seed=9)
    both = opened(plain, rich_set)
    alone = opened(rich_set)
    assert (both.arrivals.onset[20:, :3] == alone.arrivals.onset[:, :3]).all()
    assert (np.sort(both.arrivals.onset[:20], 1)[:, -2:] == [1500, 2300]).all()
    relabelled = labels_of(both.sets.catalogue, read_arrivals([str(plain), str(rich_set)]), Unlabelled.mask)
    for field in dataclasses.fields(relabelled):
        assert np.array_equal(getattr(relabelled, field.name), getattr(both.arrivals, field.name))


@pytest.mark.data
def test_real_records_have_the_labels_they_are_known_for(real_set):
    source = opened(real_set)
    table = pd.read_csv(real_set / "metadata.csv")
    unlabelled = (~source.arrivals.known[:, 1]).astype(int)
    by_source = pd.Series(unlabelled).groupby(table["source_dataset"]).sum()
    assert by_source["ncedc_deepdenoiser"] == 99 and by_source["ncedc_phasenet"] == 0 and by_source["obst"] == 0
    assert source.arrivals.noise.sum() == (table["trace_category"] == "noise").sum() == 19
