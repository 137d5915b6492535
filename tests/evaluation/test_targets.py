"""Target windows: the protocol's laws, golden files, files of others."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_sets import HAND, NAN, write_hand_set

from dataloaders.sources.phase_pick import Unlabelled
from evaluation.picking import ask
from evaluation.records import open_records
from evaluation.target_files import find_traces, read_targets, write_targets
from evaluation.targets import (
    TASK1,
    TASK23,
    detection_windows,
    make_targets,
    noise_windows_before,
    onset_windows,
)
from utils.errors import DataError

GOLDEN = Path(__file__).parent / "golden"
lengths = st.integers(1, 20_000)
chances = st.floats(0, 1, exclude_max=True)


@settings(deadline=None, max_examples=100)
@given(length=lengths, place=chances, chance=chances, arrives=st.booleans())
def test_detection_windows_keep_their_arrival_from_the_edges(length, place, chance, arrives):
    onset = place * (length - 1) if arrives else NAN
    windows = detection_windows(np.array([onset]), np.array([length]), np.array([chance]))
    if length <= 100:
        assert not len(windows.row)
        return
    start, end = windows.start[0], windows.end[0]
    assert start >= 0
    assert end <= length
    assert end - start == min(3000, length)
    if arrives:
        assert start <= onset < end
        assert onset - start >= min(100, onset) - 1e-9 or start == 0 or end == length
        assert onset - start >= 100 or start == 0 or end == length
        assert end - onset >= 100 or end == length


@settings(deadline=None, max_examples=100)
@given(length=st.integers(3001, 20_000), place=chances, chance=chances)
def test_noise_windows_end_before_the_first_arrival(length, place, chance):
    onset = place * (length - 1)
    windows = noise_windows_before(np.array([onset]), np.array([length]), np.array([chance]))
    assert len(windows.row) == (onset > 3000)
    for start, end in zip(windows.start, windows.end, strict=True):
        assert start >= 0
        assert end - start == 3000
        assert end <= onset


@settings(deadline=None, max_examples=100)
@given(length=lengths, places=st.lists(chances, max_size=5), data=st.data())
def test_onset_windows_hold_one_arrival_with_its_margins(length, places, data):
    onset = np.sort(np.array([place * (length - 1) for place in places] + [NAN] * (6 - len(places))))
    chance = np.array([[data.draw(chances) for _ in range(6)]])
    windows, column, skipped = onset_windows(onset[None], np.array([length]), chance)
    assert len(column) + sum(skipped.values()) == len(places)
    for start, end, which in zip(windows.start, windows.end, column, strict=True):
        own = onset[which]
        others = np.delete(onset[: len(places)], which)
        assert 0 <= start < end <= length
        assert end - start == 1000
        assert own - start >= 50
        assert end - own >= 50
        assert not ((others > start - 50 + 1e-6) & (others < end + 50 - 1e-6)).any()
    for which in set(range(len(places))) - set(column.tolist()):  # what is left out has no admissible window
        low = onset[which - 1] + 50 if which else 0
        high = onset[which + 1] - 50 if which + 1 < len(places) else length
        room = np.floor(high) - np.ceil(low)
        assert room < 1000 or onset[which] - np.ceil(low) < 50 or np.floor(high) - onset[which] < 50


def test_golden_files(hand_set, tmp_path):
    tables, skipped = make_targets(open_records([str(hand_set)]), seed=7)
    write_targets(tables, tmp_path)
    for task, columns in (("1", TASK1), ("23", TASK23)):
        assert tuple(tables[task].columns) == (*columns, "trace_chunk")
        assert (tmp_path / f"task{task}.csv").read_text() == (GOLDEN / f"task{task}.csv").read_text()
    assert skipped["earthquakes without a usable P or S pick"] == 2
    assert skipped["traces of 1 s or less"] == 1


def test_every_arrival_is_used_or_counted(hand_records):
    tables, skipped = make_targets(hand_records)
    valid = int(np.isfinite(hand_records.onset[hand_records.usable]).sum())
    crowded = sum(count for what, count in skipped.items() if what.startswith("arrivals"))
    assert len(tables["23"]) + crowded == valid
    assert hand_records.skipped["arrivals outside their trace"] == 2
    assert hand_records.skipped["repeated arrivals"] == 1
    assert hand_records.skipped["arrivals of trace_PcP_arrival_sample, neither P nor S"] == 2


def test_windows_do_not_depend_on_other_traces_or_their_order(hand_set, simulated_set):
    alone, _ = make_targets(open_records([str(hand_set)]))
    together, _ = make_targets(open_records([str(simulated_set), str(hand_set)]))
    for task, table in alone.items():
        mine = together[task][together[task]["trace_set"] == "hand"].reset_index(drop=True)
        pd.testing.assert_frame_equal(table.drop(columns="trace_idx"), mine.drop(columns=["trace_idx", "trace_set"]))
    other, _ = make_targets(open_records([str(hand_set)]), seed=1)
    assert (other["23"]["start_sample"] != alone["23"]["start_sample"]).any()


def test_onsets_of_other_rates_are_counted_at_100_hz(hand_records):
    tables, _ = make_targets(hand_records)
    slow = tables["23"][tables["23"]["trace_name"] == "slow"]
    assert slow["phase_onset"].tolist() == [4002.5, 5500.0]
    assert (slow["sampling_rate"] == 100).all()


def test_to_the_letter_of_the_benchmark_what_nobody_picked_is_noise(hand_set):
    records = open_records([str(hand_set)], unlabelled=Unlabelled.absent)
    tables, skipped = make_targets(records)
    types = tables["1"].set_index("trace_name")["trace_type"]
    assert types["unpicked"] == types["outside"] == "noise"
    assert "earthquakes without a usable P or S pick" not in skipped
    assert records.known.all()


def case(name, split, event, p, s, npts=9000):
    return (name, split, 100, npts, "earthquake_local", event, p, NAN, NAN, s, NAN)


def test_before_an_s_without_a_p_there_may_be_a_p_so_it_is_no_noise(tmp_path):
    rows = [case("both", "dev", "e1", 4000, 5000), case("only_s", "test", "e2", NAN, 5000)]
    folder = write_hand_set(tmp_path / "set", rows=rows)
    tables, skipped = make_targets(open_records([str(folder)]))
    assert tables["1"][["trace_name", "trace_type"]].to_numpy().tolist() == [
        ["both", "noise"],
        ["both", "earthquake"],
        ["only_s", "earthquake"],
    ]
    assert skipped["noise windows before an S whose P is unlabelled"] == 1
    letter, _ = make_targets(open_records([str(folder)], unlabelled=Unlabelled.absent))
    assert letter["1"]["trace_type"].tolist() == ["noise", "earthquake"] * 2


def test_what_was_picked_outside_its_trace_is_no_unlabelled_phase(tmp_path):
    rows = [
        case("inside", "dev", "e1", 4000, 5000),
        case("after", "test", "e2", 4000, 9500),
        case("never", "test", "e3", 4000, NAN),
    ]
    records = open_records([str(write_hand_set(tmp_path / "set", rows=rows))])
    assert records.known.tolist() == [[True, True], [True, True], [True, False]]


def test_no_threshold_is_chosen_on_an_event_of_test(tmp_path):
    rows = [case("own", "dev", "e1", 4000, 5000), case("shared", "dev", "e2", 4000, 5000), case("test", "test", "e2", 4000, 5000)]
    records = open_records([str(write_hand_set(tmp_path / "set", rows=rows))])
    assert records.usable.tolist() == [True, False, True]
    assert records.skipped["traces of dev whose event is also in test"] == 1
    assert set(make_targets(records)[0]["23"]["trace_name"]) == {"own", "test"}


def test_windows_of_others_on_traces_that_are_left_out_are_counted(tmp_path):
    rows = [case("own", "dev", "e1", 4000, 5000), case("shared", "dev", "e2", 4000, 5000), case("test", "test", "e3", 4000, 5000)]
    tables, _ = make_targets(open_records([str(write_hand_set(tmp_path / "a", rows=rows))]))
    write_targets(tables, tmp_path)
    rows[2] = case("test", "test", "e2", 4000, 5000)
    asked = ask(open_records([str(write_hand_set(tmp_path / "b", rows=rows))]), str(tmp_path), 0)
    assert set(asked.tables["1"]["trace_name"]) == {"own", "test"}
    assert asked.skipped["target windows of traces that are left out"] == 4  # two of task 1, a P and an S


def test_files_are_read_back(hand_records, tmp_path):
    tables, _ = make_targets(hand_records)
    write_targets(tables, tmp_path)
    for task, table in read_targets(tmp_path, hand_records).items():
        pd.testing.assert_frame_equal(table, tables[task], check_dtype=False)
        assert (find_traces(table, hand_records, tmp_path) == tables[task]["trace_idx"]).all()


def test_files_of_the_benchmark_have_no_chunk_and_other_numbers(hand_records, tmp_path):
    tables, _ = make_targets(hand_records)
    theirs = {task: table.drop(columns="trace_chunk").assign(trace_idx=0) for task, table in tables.items()}
    write_targets(theirs, tmp_path)
    for task, table in read_targets(tmp_path, hand_records).items():
        assert (find_traces(table, hand_records, tmp_path) == tables[task]["trace_idx"]).all()


def broken_name(table):
    table.loc[2, "trace_name"] = "elsewhere"


def broken_window(table):
    table.loc[1, "end_sample"] = 10**6


def broken_split(table):
    table.loc[0, "trace_split"] = {"dev": "test", "test": "dev"}[table.loc[0, "trace_split"]]


def broken_rate(table):
    table["sampling_rate"] = 50.0


def broken_onset(table):
    table.loc[0, "phase_onset"] = table.loc[0, "end_sample"] + 5


def broken_label(table):
    table.loc[0, "phase_label"] = "p"


def broken_number(table):
    table["start_sample"] = table["start_sample"].astype(object)
    table.loc[3, "start_sample"] = "soon"


def without_column(table):
    del table["phase_label"]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (broken_name, "evaluation targets for another dataset: 1 of"),
        (broken_window, "'1000000': the window does not lie inside its trace: these are evaluation targets for another dataset"),
        (broken_split, "column 'trace_split', row 1"),
        (broken_rate, "counted at 100 Hz"),
        (broken_onset, "column 'phase_onset', row 1"),
        (broken_label, "column 'phase_label', row 1: 'p' is none of P, S"),
        (broken_number, "column 'start_sample', row 4: 'soon' is no whole number"),
        (without_column, "columns phase_label are missing. The file has: trace_name,"),
    ],
)
def test_files_that_cannot_be_meant_are_refused(hand_records, tmp_path, harm, said):
    tables, _ = make_targets(hand_records)
    harm(tables["23"])
    write_targets(tables, tmp_path)
    with pytest.raises(DataError, match=r"task23\.csv") as caught:
        read_targets(tmp_path, hand_records)
    assert said in str(caught.value)


def test_a_missing_file_is_told(hand_records, tmp_path):
    with pytest.raises(DataError, match=r"task1\.csv: cannot be read"):
        read_targets(tmp_path, hand_records)


def test_names_that_repeat_across_chunks_need_their_chunk(tmp_path):
    folder = write_hand_set(tmp_path / "set", "_a")
    write_hand_set(folder, "_b", rows=[(*row[:5], f"{row[5]}b" if row[5] else "", *row[6:]) for row in HAND])
    (folder / "chunks").write_text("_a\n_b\n")
    records = open_records([str(folder)])
    tables, _ = make_targets(records)
    write_targets(tables, tmp_path)
    assert (find_traces(read_targets(tmp_path, records)["1"], records, tmp_path) == tables["1"]["trace_idx"]).all()
    first, second = (tables["1"][tables["1"]["trace_chunk"] == chunk]["start_sample"].tolist() for chunk in ("_a", "_b"))
    assert first != second  # the same name in another chunk is another trace
    write_targets({task: table.drop(columns="trace_chunk") for task, table in tables.items()}, tmp_path)
    with pytest.raises(DataError, match=r"is that of 2 traces, in chunks _a, _b\. Add column 'trace_chunk'"):
        read_targets(tmp_path, records)


def test_noise_of_instance_keeps_its_prefix(tmp_path):
    folder = write_hand_set(tmp_path / "InstanceNoise")
    records = open_records([str(folder)])
    tables, _ = make_targets(records)
    assert tables["1"]["trace_name"].str.startswith("noise_").all()
    write_targets(tables, tmp_path)
    assert len(read_targets(tmp_path, records)["1"]) == len(tables["1"])
