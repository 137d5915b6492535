"""Matching picks of continuous records with an analyst's."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_folders import write_picking

from evaluation.continuous import Arguments, evaluate, main, read_picks
from evaluation.pairing import pairs
from evaluation.reporting.folder import read as read_evaluation
from utils import cli
from utils.errors import ConfigError, DataError

times = st.lists(st.integers(0, 40), max_size=5)


@settings(deadline=None, max_examples=150)
@given(ours=times, theirs=times)
def test_pairs_are_the_most_and_the_nearest_that_there_can_be(ours, theirs):
    picks, references = np.array(ours, float) / 10, np.array(theirs, float) / 10
    one, other = pairs(picks, references, 0.5)
    assert len(set(one.tolist())) == len(one) == len(other) == len(set(other.tolist()))
    distance = np.abs(picks[one] - references[other])
    assert (distance <= 0.5 + 1e-6).all()
    best = (0, 0.0)
    longer, shorter = (picks, references) if len(picks) >= len(references) else (references, picks)
    for some in permutations(longer, len(shorter)):
        gap = np.abs(np.array(some) - shorter)
        near = gap[gap <= 0.5 + 1e-6]
        best = max(best, (len(near), -near.sum()))
    assert (len(one), -distance.sum()) == pytest.approx(best)


def test_far_groups_do_not_change_each_other():
    rng = np.random.default_rng(0)
    references = np.sort(rng.uniform(0, 3600, 400))
    picks = np.sort(np.r_[references[:300] + rng.normal(0, 0.1, 300), rng.uniform(0, 3600, 50)])
    one, other = pairs(picks, references, 0.5)
    assert len(one) >= 295
    assert (np.abs(picks[one] - references[other]) <= 0.5 + 1e-6).all()


def written(tmp_path):
    picks, reference = tmp_path / "picks.csv", tmp_path / "manual.csv"
    pd.DataFrame(
        {
            "trace_id": ["UW.SHW.", "UW.SHW.", "UW.SHW.", "UW.SHW.", "UW.OTH."],
            "station": ["SHW", "SHW", "SHW", "SHW", "OTH"],
            "phase": ["P", "P", "S", "P", "P"],
            "time": [
                "2022-02-06T15:00:21.760000Z",
                "2022-02-06T15:00:22.100000Z",
                "2022-02-06T15:00:23.300000Z",
                "2022-02-06T20:00:00.000000Z",
                "2022-02-06T15:00:21.750000Z",
            ],
            "probability": 0.9,
        }
    ).to_csv(picks, index=False)
    reference.write_text(
        "network,station,timestamp,phase\nUW,SHW,1644159621.750000,P\nUW,SHW,1644159622.930000,S\nUW,SHW,1644174642.18,P\n"
    )
    return picks, reference


def test_precision_recall_and_false_picks_an_hour(tmp_path):
    picks, reference = written(tmp_path)
    args = Arguments(picks=str(picks), reference=str(reference), start="2022-02-06T15:00:00", end="2022-02-06T17:00:00Z")
    found = evaluate(args).set_index(["phase", "tolerance"])
    p, s = found.loc[("P", 0.1)], found.loc[("S", 0.1)]
    assert (p["hits"], p["picks"], p["references"]) == (1, 3, 1)
    assert p["precision"] == pytest.approx(1 / 3)
    assert p["false_per_station_hour"] == pytest.approx(2 / (2 * 2))  # two hours, two stations
    assert (s["hits"], s["recall"]) == (0, 0)
    assert found.loc[("S", 0.5), "f1"] == 1
    alone = Arguments(picks=str(picks), reference=str(reference), start=args.start, end=args.end, stations=4)
    assert evaluate(alone)["hours"].iloc[0] == 8


def test_without_references_nothing_is_claimed(tmp_path):
    picks, reference = written(tmp_path)
    args = Arguments(picks=str(picks), reference=str(reference), start="2022-02-06T19:30", end="2022-02-06T20:30")
    found = evaluate(args).set_index(["phase", "tolerance"])
    assert np.isnan(found.loc[("P", 0.5), "recall"])
    assert found.loc[("P", 0.5), "note"] == "undefined: the reference has no P"
    assert found.loc[("P", 0.5), "false_per_station_hour"] == 1


def test_what_is_undefined_says_so_and_what_lies_outside_is_told(tmp_path, capsys):
    picks, reference = written(tmp_path)
    pd.read_csv(picks).query("phase == 'S'").to_csv(picks, index=False)
    reference.write_text("network,station,timestamp,phase\nUW,SHW,1644159621.750000,P\nUW,SHW,1644174642.18,P\n")
    args = Arguments(picks=str(picks), reference=str(reference), start="2022-02-06T15:00", end="2022-02-06T17:00")
    found = evaluate(args).set_index(["phase", "tolerance"])
    assert np.isnan(found.loc[("P", 0.5), "precision"])
    assert found.loc[("P", 0.5), "note"] == "no P picks: precision undefined"
    assert np.isnan(found.loc[("S", 0.5), "precision"])  # of phases that the analyst did not pick nothing is known
    main(args)
    said = " ".join(capsys.readouterr().out.split())
    assert "0 picks and 1 reference picks lie outside the record: not compared" in said
    assert "nan" not in said


def test_a_station_picked_on_several_instruments_is_told(tmp_path, capsys):
    picks, reference = written(tmp_path)
    args = Arguments(picks=str(picks), reference=str(reference), start="2022-02-06T15:00", end="2022-02-06T17:00")
    main(args)
    assert "each counts" not in capsys.readouterr().out
    pd.read_csv(picks).assign(instrument=["HH", "EN", "HH", "HH", "HH"]).to_csv(picks, index=False)
    main(args)
    assert "UW.SHW was picked on UW.SHW..EN, UW.SHW..HH: each counts" in capsys.readouterr().out


def test_figures_join_an_evaluation_with_intervals_over_station_hours(tmp_path):
    begin, events = 1644152400.0, 3600.0 * np.arange(0, 40, 4) + 5
    reference, picks, folder = tmp_path / "manual.csv", tmp_path / "picks.csv", write_picking(tmp_path / "run", rows=30)
    lines = [f"UW,SHW,{begin + at},P" for at in events]
    reference.write_text("\n".join(["network,station,timestamp,phase", *lines]) + "\n")
    late = [0.05, 0.3, 0.05, 0.3, 0.05, 0.3, 0.05, 0.3, -5.1, 700.0]  # the one before the last is picked an hour earlier
    times = pd.to_datetime(begin + events + late, unit="s", utc=True)
    pd.DataFrame({"trace_id": "UW.SHW.", "phase": "P", "time": times}).to_csv(picks, index=False)
    args = Arguments(
        picks=str(picks), reference=str(reference), start="2022-02-06T13:00", end="2022-02-08T05:00", tolerances=[0.1, 6.0],
        evaluation=str(folder),
    )  # fmt: skip
    before = len(read_evaluation(folder).metrics)
    for _ in range(2):  # the second time replaces the first
        main(args)
    known = read_evaluation(folder).metrics
    rows = {(row.phase, row.metric): row for row in known if row.protocol == "continuous"}
    assert len(known) == before + len(rows) == before + 2 * 2 * 4
    assert rows["P", "recall_at_0.1"].value == rows["P", "f1_at_0.1"].value == pytest.approx(0.4)
    assert rows["P", "recall_at_6"].value == rows["P", "precision_at_6"].value == pytest.approx(0.9)
    assert rows["P", "false_per_station_hour_at_6"].value == pytest.approx(1 / 40)
    assert rows["P", "recall_at_0.1"].low < 0.4 < rows["P", "recall_at_0.1"].high
    assert rows["P", "recall_at_0.1"].events == 10
    assert rows["P", "false_per_station_hour_at_0.1"].events == 40
    assert rows["S", "f1_at_6"].note.startswith("undefined: the reference has no S")
    assert "Continuous records: P F1 at 0.1 s" not in (folder / "report.html").read_text()
    assert "F1 at 0.1 s" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("station,phase\nA,P\n", "columns trace_id, time are missing"),
        ("trace_id,phase,time\nX.A.,P,yesterday\n", "row 1: phase 'P' at 'yesterday' is no pick"),
        ("trace_id,phase,time\nX.A.,Lg,2022-02-06T15:00:21Z\n", "row 1: phase 'Lg'"),
    ],
)
def test_files_that_are_no_picks_are_refused(tmp_path, content, said):
    (tmp_path / "picks.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        read_picks(str(tmp_path / "picks.csv"))
    assert said in str(caught.value)


def test_times_must_be_in_order(tmp_path):
    picks, reference = written(tmp_path)
    with pytest.raises(DataError, match="the second later"):
        evaluate(Arguments(picks=str(picks), reference=str(reference), start="2022-02-07", end="2022-02-06"))
    with pytest.raises(ConfigError, match="'start' must be given"):
        cli.parse(Arguments, ["picks=a", "reference=b"], where="evaluation.continuous")


@pytest.mark.data
def test_the_analysts_file_agrees_with_itself(real_set):
    path = str(real_set.parent / "continuous" / "UW.SHW.20220206.manual_picks.csv")
    reference = read_picks(path)
    assert set(reference["station"]) == {"UW.SHW"}
    one, other = pairs(reference["time"].to_numpy(), reference["time"].to_numpy(), 0.1)
    assert (one == other).all()
    assert len(one) == len(reference)
