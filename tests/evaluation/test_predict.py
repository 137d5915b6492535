"""Reading answers inside windows, thresholds from dev, stability, examples: with a picker that knows the labels."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from impulse_picker import impulse_module
from obspy import Stream, Trace

from dataloaders.batch import raw_batch
from evaluation import scoring
from evaluation.calibration import calibrate
from evaluation.export import bridge
from evaluation.picker import Picker
from evaluation.predict import OWN, SCORES, ClassicalJudge, PickerJudge, context_starts, predict, read_inside, write_predictions
from evaluation.records import DEV
from evaluation.scoring import Bootstrap, as_table, score_tasks
from evaluation.stability import stability
from evaluation.targets import TASK1, TASK23, make_targets
from evaluation.thresholds import Peaks, best_threshold, choose_thresholds, dev_peaks, match, peaks_of, read_traces
from utils.errors import DataError

FEW = Bootstrap(rounds=50)


@settings(deadline=None, max_examples=100)
@given(length=st.integers(101, 9000), samples=st.integers(1000, 5000), place=st.floats(0, 1))
def test_a_model_sees_the_window_in_its_middle_and_nothing_beyond_the_trace(length, samples, place):
    width = min(1000, length)
    start = int(place * (length - width))
    first = int(context_starts(np.array([start]), np.array([start + width]), np.array([length]), samples)[0])
    assert first <= start
    assert start + width <= first + samples
    assert first >= 0
    assert first + samples <= max(length, samples)
    left, right = start - first, first + samples - start - width
    assert abs(left - right) <= 1 or first == 0 or first + samples == length


def test_scores_are_read_inside_only():
    chance = torch.tensor([[[0.9, 0.0, 0.1], [0.2, 0.1, 0.7], [0.1, 0.4, 0.5], [0.0, 0.95, 0.05]]])
    inside = torch.tensor([[False, True, True, False]])
    answer = read_inside(chance, inside)
    assert answer.detection == pytest.approx([0.5])
    assert (*answer.p, *answer.s) == pytest.approx((0.2, 0.4))
    assert (*answer.p_at, *answer.s_at) == (1, 2)


def answers(judge, records, **options):
    tables, _ = make_targets(records)
    return {task: predict(judge, records, table, table["trace_idx"].to_numpy(), **options) for task, table in tables.items()}


@pytest.mark.parametrize("samples", [700, 2048, 4096, 15_000])
def test_a_picker_that_knows_the_labels_is_perfect_whatever_it_sees_at_a_time(hand_records, oracle, samples):
    found = answers(PickerJudge(oracle(hand_records, samples)), hand_records)
    for phase, column in (("P", "p_sample_pred"), ("S", "s_sample_pred")):
        mine = found["23"][found["23"]["phase_label"] == phase]
        assert (mine[column] - mine["phase_onset"]).abs().max() <= 0.5
    rows, chosen = score_tasks(found, FEW)
    table = as_table(rows)
    test = table[(table["split"] == "test") & (table["source"] == "hand")]
    values = test.set_index(["protocol", "phase", "metric"])["value"]
    assert values["task1", "", "auc"] == values["task1", "", "f1"] == 1
    assert values["task2", "", "auc"] == values["task2", "", "mcc"] == 1
    assert values["task3", "P", "within_0.1"] == values["task3", "S", "within_0.1"] == 1
    assert set(chosen) == {"detection", "p_or_s", "p_or_s_mcc"}


def test_a_late_picker_is_late_by_so_much(hand_records, oracle):
    found = answers(PickerJudge(oracle(hand_records, late=23)), hand_records)
    values = as_table(score_tasks(found, FEW)[0]).set_index(["protocol", "split", "phase", "metric"])["value"]
    assert values["task3", "test", "S", "mean"] == pytest.approx(0.23)
    assert values["task3", "test", "S", "beyond_0.1"] == 1
    assert values["task3", "test", "S", "beyond_0.45"] == 0


def test_what_is_unlabelled_is_not_scored_and_counted(hand_records, oracle):
    table = as_table(score_tasks(answers(PickerJudge(oracle(hand_records)), hand_records), FEW)[0])
    test = table[(table["protocol"] == "task2") & (table["split"] == "test") & (table["metric"] == "auc")]
    assert test["note"].tolist() == ["1 rows with an unlabelled phase not scored"]
    assert test["n"].tolist() == [8]


def test_thresholds_come_from_dev_alone(hand_records, oracle):
    found = answers(PickerJudge(oracle(hand_records)), hand_records)
    chosen = score_tasks(found, FEW)[1]
    rng = np.random.default_rng(0)
    for table in found.values():
        test = (table["trace_split"] == "test").to_numpy()
        for name in ("score_detection", "score_p_or_s"):
            table.loc[test, name] = rng.random(test.sum())
    assert score_tasks(found, FEW)[1] == chosen


def test_one_class_says_so_and_gives_no_number(hand_records, oracle):
    found = answers(PickerJudge(oracle(hand_records)), hand_records)
    found["1"] = found["1"][found["1"]["trace_type"] == "earthquake"]
    found["23"] = found["23"][(found["23"]["phase_label"] == "P") | (found["23"]["trace_split"] == "dev")]
    table = as_table(score_tasks(found, FEW)[0])
    undefined = table[table["value"].isna()]
    assert undefined["note"].str.startswith("undefined: ").all()
    said = table.set_index(["protocol", "split", "phase", "metric"])["note"]
    assert said["task1", "test", "", "auc"].startswith("undefined: one class, no noise rows")
    assert said["task3", "test", "S", "mae"].startswith("undefined: no S onsets")


def test_every_source_has_its_own_rows_beside_all(simulated_set, hand_set, oracle):
    from evaluation.records import open_records

    records = open_records([str(simulated_set), str(hand_set)])
    table = as_table(score_tasks(answers(PickerJudge(oracle(records)), records), FEW)[0])
    assert set(table["source"]) == {"all", "hand", "synthetic"}
    counts = table[(table["protocol"] == "task3") & (table["split"] == "test") & (table["phase"] == "P")].set_index(
        ["source", "metric"]
    )
    assert counts["n"]["all", "mae"] == counts["n"]["hand", "mae"] + counts["n"]["synthetic", "mae"]


def test_files_have_the_benchmarks_columns_first(hand_records, oracle, tmp_path):
    write_predictions(answers(PickerJudge(oracle(hand_records)), hand_records), tmp_path)
    for split in ("dev", "test"):
        for task, columns in (("1", TASK1), ("23", TASK23)):
            table = pd.read_csv(tmp_path / f"{split}_task{task}.csv")
            assert tuple(table.columns) == (*columns, "trace_chunk", *SCORES, *OWN)
            assert set(table["trace_split"]) == {split}


def test_answers_do_not_depend_on_the_batch(hand_records, oracle):
    judge = PickerJudge(oracle(hand_records))
    one, many = answers(judge, hand_records, batch_size=1), answers(judge, hand_records, batch_size=50)
    for task, table in one.items():
        pd.testing.assert_frame_equal(table, many[task])


def test_a_damaged_trace_has_no_scores_and_is_told(hand_records, oracle, monkeypatch):
    read = hand_records.reader.read

    def damaged(traces, start, count, samples):
        wave, sound = read(traces, start, count, samples)
        return np.where((traces == 1)[:, None, None], 0, wave), sound & (traces != 1)

    monkeypatch.setattr(hand_records.reader, "read", damaged)
    found = answers(PickerJudge(undecided), hand_records)
    lost = found["23"]["trace_name"] == "early"
    assert found["23"].loc[lost, list(SCORES)].isna().all(axis=None)
    assert found["23"].loc[~lost, list(SCORES)].notna().all(axis=None)
    table = as_table(score_tasks(found, FEW)[0])
    note = table[(table["protocol"] == "task3") & (table["split"] == "test") & (table["phase"] == "S")]["note"].iloc[0]
    assert note.startswith("1 of 3 without a pick")


def undecided(batch):
    return torch.full((*batch.wave.shape[:2], 3), 1 / 3)


undecided.samples = 4096


def test_calibration_of_a_picker_that_is_right_nine_times_of_ten_and_says_so(hand_records, oracle):
    found = answers(PickerJudge(oracle(hand_records, height=0.9)), hand_records)
    rows, curves = calibrate(found, FEW)
    high = curves[curves["confidence"] > 0.85]
    assert (high["frequency"] == 1).all()  # always right, said 0.9: 0.1 too modest
    assert high["confidence"].to_numpy() == pytest.approx(0.9, abs=0.01)
    assert {row.phase for row in rows} == {"P", "S"}
    assert all(0 <= row.value <= 0.1 for row in rows)


def test_peaks_at_either_end_count():
    at, height = peaks_of(np.r_[0.9, np.zeros(200), 0.5, np.zeros(200), 0.7])
    assert at.tolist() == [0, 201, 402]
    assert height.tolist() == [0.9, 0.5, 0.7]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_a_cut_of_the_matching_is_the_matching_of_the_cut(seed):
    rng = np.random.default_rng(seed)
    at, score, onsets = rng.integers(0, 600, 12), rng.random(12), rng.integers(0, 600, 4)
    hit = match(at, score, onsets)
    assert hit.sum() <= len(onsets)
    for cut in (0.3, 0.6):
        high = score >= cut
        assert (match(at[high], score[high], onsets) == hit[high]).all()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_the_best_threshold_is_that_of_trying_all(seed):
    rng = np.random.default_rng(seed)
    score, hit = rng.integers(1, 15, 30) / 16, rng.random(30) < 0.5
    hit[0] = True
    arrivals = int(hit.sum()) + 3
    cut, f1 = best_threshold(Peaks(score, hit, np.arange(arrivals)))
    tried = [2 * hit[score >= value].sum() / ((score >= value).sum() + arrivals) for value in np.unique(score)]
    assert f1 == pytest.approx(max(tried))
    assert 2 * hit[score >= cut].sum() / ((score >= cut).sum() + arrivals) == pytest.approx(f1)


def test_whole_traces_are_read_without_seams(hand_records, oracle):
    picker = oracle(hand_records, samples=2048)
    traces = np.flatnonzero(hand_records.usable)
    for trace, chance in zip(traces, read_traces(picker, hand_records, traces), strict=True):
        assert chance.shape == (hand_records.catalogue.length[trace], 3)
        for number in (0, 1):
            onsets = hand_records.onset[trace][hand_records.phase[trace] == number]
            found, _ = peaks_of(chance[:, number])
            assert len(found) == len(onsets)
            assert np.abs(found - onsets).max(initial=0) <= 0.5


def test_thresholds_are_chosen_on_the_curves_that_picks_are_made_of(hand_records):
    """A window's normalisation, and so its answer, hangs on where it lies: a threshold belongs to one way of placing them."""
    module = impulse_module()
    with torch.no_grad():
        for weight in module.network.parameters():
            weight.mul_(0.1)  # probabilities that are neither 0 nor 1
    trace = int(np.flatnonzero(hand_records.name == "plain")[0])
    length = int(hand_records.catalogue.length[trace])
    wave, _ = hand_records.reader.read(np.array([trace]), np.array([0]), np.array([length]), length)
    header = {"network": "XX", "station": "A", "sampling_rate": 100.0}
    stream = Stream([Trace(wave[0, :, at], {**header, "channel": f"HH{letter}"}) for at, letter in enumerate("ZNE")])
    curves, _ = bridge(module, {}).curves(stream)
    ((_, expected),) = curves
    (found,) = read_traces(Picker(module), hand_records, np.array([trace]))
    assert found == pytest.approx(expected, abs=1e-5)


def test_thresholds_of_picks_are_chosen_on_dev(hand_records, oracle):
    picker = oracle(hand_records)
    chosen = choose_thresholds(picker, hand_records)
    assert set(chosen) == {"P", "S"}
    assert all(0 < value <= 0.9 for value in chosen.values())
    assert dev_peaks(picker, hand_records)["P"].arrivals == 2
    few = dev_peaks(picker, hand_records, most=1)
    assert few["P"].arrivals <= 1  # what a threshold is said to rest on is what was looked at
    assert (hand_records.catalogue.split[hand_records.of_split(DEV)] == DEV).all()


def test_a_phase_that_dev_cannot_decide_on_has_no_threshold(hand_records, oracle):
    with pytest.raises(DataError, match="dev decides on no threshold: P: no peak is near"):
        choose_thresholds(oracle(hand_records, late=400, height=0.5), hand_records)


def steady(judge, records, thresholds):
    tables, _ = make_targets(records)
    traces = tables["23"]["trace_idx"].to_numpy()
    table = predict(judge, records, tables["23"], traces)
    rows = stability(judge, records, table, traces, thresholds, FEW)
    return {(row.phase, row.metric): row for row in rows}


def test_stability_of_picks_that_stay_move_and_vanish(hand_records, oracle):
    picker = oracle(hand_records, samples=1400)
    found = steady(PickerJudge(picker), hand_records, {"P": 0.3})
    assert (found["P", "stable"].value, found["P", "moved"].value, found["P", "lost"].value) == (1, 0, 0)
    assert found["S", "stable"].note.startswith("undefined")

    class Fixed:
        """Picks a fixed place of what it sees: it moves with the shift."""

        samples = 1400

        def __call__(self, batch, inside):
            chance = torch.zeros(*inside.shape, 3)
            chance[:, 700, 0] = 0.9
            chance[..., 2] = 1 - chance[..., 0]
            return read_inside(chance, inside)

    found = steady(Fixed(), hand_records, {"P": 0.3})
    assert found["P", "stable"].value == pytest.approx(5 / 9)  # shifts of 1, 2, 3, 5, 7
    assert found["P", "lost"].value == 0


def test_the_classical_line_has_picks_but_no_scores(simulated_set):
    from evaluation.records import open_records

    records = open_records([str(simulated_set)])
    tables, _ = make_targets(records)
    table = tables["23"].head(6)
    found = predict(ClassicalJudge(4096, 100.0), records, table, table["trace_idx"].to_numpy())
    assert found["score_p_or_s"].isna().all()
    picked = found["p_sample_pred"].dropna()
    assert len(picked)
    assert (picked >= found.loc[picked.index, "start_sample"]).all()
    assert (picked < found.loc[picked.index, "end_sample"]).all()


def test_a_window_without_valid_samples_is_neither_p_nor_s():
    batch = raw_batch(torch.zeros(1, 10, 3), valid=torch.zeros(1, 10, dtype=torch.bool))
    answer = read_inside(torch.tensor([0.0, 0.0, 1.0]).expand(1, 10, 3), batch.valid)
    assert answer.detection.tolist() == [-1.0]
    assert scoring.classed(np.ones(3, bool), "P", "S") == "undefined: one class, no S rows"
