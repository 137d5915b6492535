"""Overlaps of sets by station and time and by event: against a comparison of every pair, and as a command."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.contamination import Arguments, check, compare, main, overlapping, read
from utils.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
T0 = pd.Timestamp("2016-10-26T12:00:00Z")


def write(folder, rows, drop=()):
    """A set's metadata: (station, seconds after T0, event, origin in seconds after T0 or None) a row; waveforms are not read."""
    folder.mkdir(parents=True)
    table = pd.DataFrame(
        {
            "trace_name": [f"bucket0${row},:3,:6000" for row in range(len(rows))],
            "station_network_code": ["IV"] * len(rows),
            "station_code": [station for station, *_ in rows],
            "trace_start_time": ["" if at is None else (T0 + pd.Timedelta(seconds=at)).isoformat() for _, at, *_ in rows],
            "trace_npts": 6000,
            "trace_sampling_rate_hz": 100.0,
            "source_id": [event for *_, event, _ in rows],
            "source_origin_time": ["" if at is None else (T0 + pd.Timedelta(seconds=at)).isoformat() for *_, at in rows],
            "split": ["test" if row % 2 else "train" for row in range(len(rows))],
        }
    )
    table.drop(columns=list(drop)).to_csv(folder / "metadata.csv", index=False)
    (folder / "waveforms.hdf5").touch()
    return str(folder)


@settings(deadline=None, max_examples=100)
@given(
    mine=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 15)), min_size=1, max_size=12),
    theirs=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 15)), max_size=12),
)
def test_intervals_overlap_as_every_pair_says(mine, theirs):
    (start, length), (other, others) = (np.array(each, float).reshape(-1, 2).T for each in (mine, theirs))
    found = overlapping(start, start + length, other, other + others)
    expected = [any(s <= o + b and o <= s + a for o, b in theirs) for s, a in mine]
    assert found.tolist() == expected


def test_time_counts_at_the_same_station_only_and_events_everywhere(tmp_path):
    pretraining = write(tmp_path / "pre", [("NRCA", 0, "a", 1), ("NRCA", 500, "b", None), ("T1212", 0, "12", 7)])
    rows = [
        ("NRCA", 59, "x", None),  # overlaps for a second
        ("NRCA", 61, "x", None),
        ("CAMP", 0, "x", None),  # another station at that time
        ("CAMP", 9999, "a", 2),  # the same event elsewhere
        ("CAMP", 9999, "b", 900),  # the other set states no origin
        ("CAMP", 9999, "12", 70_000),  # only the same number
        ("CAMP", 9999, "", None),
        ("NRCA", None, "x", None),  # undated
    ]
    found = compare(read(pretraining), read(write(tmp_path / "eval", rows)))
    assert found.in_time.tolist() == [True] + 7 * [False]
    assert found.of_event.tolist() == [False, False, False, True, True, False, False, False]
    assert found.contaminated == 3


def test_every_event_with_a_number_counts_where_catalogues_are_merged(tmp_path):
    merged = write(tmp_path / "pre", [("A", 0, "12", 7), ("B", 90_000, "12", 90_000), ("C", 200_000, "7", 200_000)])
    rows = [("X", 9999, "12", 8), ("X", 9999, "12", 90_005), ("X", 9999, "12", 50_000), ("X", 9999, "7", 8)]
    found = compare(read(merged), read(write(tmp_path / "eval", rows)))
    assert found.of_event.tolist() == [True, True, False, False]


def test_an_unknown_length_is_rather_told_than_missed(tmp_path):
    pretraining = write(tmp_path / "pre", [("NRCA", 0, "", None)], drop=["trace_npts"])
    assert read(pretraining).guessed == 1
    assert compare(read(pretraining), read(write(tmp_path / "eval", [("NRCA", 200, "", None)]))).contaminated == 1


def test_the_command_prints_lists_and_its_exit_code_tells_the_truth(tmp_path, capsys):
    one = write(tmp_path / "one", [("NRCA", 0, "a", 1), ("NRCA", 100, "b", 1)])
    other = write(tmp_path / "other", [("NRCA", 5000, "c", None), ("NRCA", 30, "d", None)])
    with pytest.raises(SystemExit, match="contaminated: 1 overlaps"):
        main(Arguments(pretraining=[one], evaluation=[other], output=str(tmp_path / "list.csv")))
    listed = pd.read_csv(tmp_path / "list.csv")
    assert listed["event"].tolist() == ["d"]
    assert listed["same_station_and_time"].tolist() == [True]
    main(Arguments(pretraining=[one], evaluation=[other], split="train"))
    assert "clean" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_line(tmp_path):
    one, other = write(tmp_path / "one", [("NRCA", 0, "a", 1)]), write(tmp_path / "other", [("NRCA", 0, "a", 1)])
    command = [sys.executable, "-m", "evaluation.contamination", f"pretraining=[{one}]"]
    for evaluation, code in ((other, 1), (write(tmp_path / "far", [("NRCA", 9999, "z", 9999)]), 0)):
        done = subprocess.run([*command, f"evaluation=[{evaluation}]"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr


@pytest.mark.parametrize("column", ["station_code", "station_network_code", "trace_start_time"])
def test_a_missing_column_is_an_error_that_names_what_there_is(tmp_path, column):
    name = write(tmp_path / "one", [("NRCA", 0, "a", 1)], drop=[column])
    with pytest.raises(DataError, match=rf"without {column} no overlap .* It has: trace_name, "):
        read(name)
    with pytest.raises(DataError, match=r"no SeisBench set has that name|no set in SeisBench's format"):
        check(Arguments(pretraining=["nowhere"], evaluation=[name]))


def test_a_set_that_cannot_be_compared_is_no_clean_set(tmp_path):
    blind = write(tmp_path / "blind", [("NRCA", None, "", None), ("", 5, "", None)])
    with pytest.raises(DataError, match=r"evaluation .*blind: .* no overlap can be ruled out"):
        check(Arguments(pretraining=[write(tmp_path / "one", [("NRCA", 0, "a", 1)])], evaluation=[blind]))


def test_a_split_must_be_there(tmp_path):
    one = write(tmp_path / "one", [("NRCA", 0, "a", 1)], drop=["split"])
    with pytest.raises(DataError, match="column 'split' is missing"):
        read(one, "test")
    with pytest.raises(ValueError, match="pretraining = "):
        Arguments(evaluation=[one])


@pytest.mark.data
def test_real_records_overlap_with_themselves(real_set):
    traces = read(str(real_set))
    found = compare(traces, traces)
    dated = ~np.isnan(traces.start) & (traces.station != "")
    assert found.in_time[dated].all()
    assert found.of_event[traces.event != ""].all()
