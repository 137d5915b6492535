"""Metrics against scikit-learn and SciPy, and the laws of resampling events."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from evaluation import metrics
from evaluation.bootstrap import aligned, intervals, paired_difference, weights
from evaluation.calibration import expected_error, reliability
from utils.errors import DataError

ONE = np.ones((1, 60))


def rows(seed, count=60, levels=12):
    """Scores with ties and truths, both classes."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    truth[:2] = True, False
    return rng.integers(0, levels, count) / levels + 0.3 * truth.astype(float), truth


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_two_class_metrics_are_scikit_learns_also_under_weights(seed):
    score, truth = rows(seed)
    weight = np.random.default_rng(seed + 1).integers(0, 4, (3, 60)).astype(float)
    weight[:, :2] = 1
    cut = float(np.median(score))
    found = {"auc": metrics.auc(score, truth), "mcc": metrics.mcc(score, truth, cut), **metrics.at_threshold(score, truth, cut)}
    values = {name: estimator(weight) for name, estimator in found.items()}
    for row, w in enumerate(weight):
        said = score >= cut
        assert values["auc"][row] == pytest.approx(reference.roc_auc_score(truth, score, sample_weight=w))
        assert values["mcc"][row] == pytest.approx(reference.matthews_corrcoef(truth, said, sample_weight=w))
        expected = reference.precision_recall_fscore_support(truth, said, average="binary", sample_weight=w)
        for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert values[name][row] == pytest.approx(value)


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_thresholds_are_the_best_there_are(seed):
    score, truth = rows(seed)
    best = reference.f1_score(truth, score >= metrics.best_f1(score, truth))
    assert best == pytest.approx(max(reference.f1_score(truth, score >= cut) for cut in np.unique(score)))
    tried = [reference.matthews_corrcoef(truth, score >= cut) for cut in np.quantile(score, np.linspace(0, 1, 50))]
    assert reference.matthews_corrcoef(truth, score >= metrics.best_mcc(score, truth)) == pytest.approx(max(tried))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_residuals_are_numpys_and_weights_are_repetitions(seed):
    rng = np.random.default_rng(seed)
    seconds = stats.t(2).rvs(60, random_state=rng) * 0.3
    estimators = metrics.residuals(seconds)
    weight = rng.integers(0, 4, 60)
    weight[0] = 1
    for times in (np.ones(60, int), weight):
        some = np.repeat(seconds, times)
        expected = {
            "mean": some.mean(),
            "rmse": np.sqrt(reference.mean_squared_error(np.zeros_like(some), some)),
            "mae": np.abs(some).mean(),
            "median_absolute": stats.median_abs_deviation(some, center=lambda value, axis: 0.0),
            "beyond_0.1": (np.abs(some) > 0.1).mean(),
            "beyond_0.45": (np.abs(some) > 0.45).mean(),
            "beyond_1.5": (np.abs(some) > 1.5).mean(),
            "within_0.1": (np.abs(some) <= 0.1).mean(),
            "within_0.5": (np.abs(some) <= 0.5).mean(),
        }
        assert {name: float(estimate(times[None].astype(float))[0]) for name, estimate in estimators.items()} == pytest.approx(
            expected
        )


def test_ten_samples_are_a_tenth_of_a_second():
    seconds = (np.array([3010.0, 2990.0, 3011.0]) - 3000.0) / 100.0 + 1e-17
    one = np.ones((1, 3))
    found = metrics.residuals(seconds)
    assert found["within_0.1"](one)[0] == pytest.approx(2 / 3)
    assert found["beyond_0.1"](one)[0] == pytest.approx(1 / 3)


def test_a_missing_pick_is_beyond_every_limit_and_in_no_moment():
    found = metrics.residuals(np.array([0.05, np.nan]))
    one = np.ones((1, 2))
    assert found["beyond_1.5"](one)[0] == found["within_0.1"](one)[0] == 0.5
    assert found["mae"](one)[0] == pytest.approx(0.05)


@pytest.mark.parametrize("truth", [np.ones(5, bool), np.zeros(5, bool), np.ones(0, bool)])
def test_one_class_or_no_rows_are_undefined_not_a_number_by_chance(truth):
    score, one = np.linspace(0, 1, len(truth)), np.ones((2, len(truth)))
    assert np.isnan(metrics.auc(score, truth)(one)).all()
    assert np.isnan(metrics.best_f1(score, truth))
    assert np.isnan(metrics.best_mcc(score, truth))
    for estimate in metrics.residuals(np.empty(0)).values():
        assert np.isnan(estimate(np.ones((2, 0)))).all()


def test_events_are_drawn_whole_and_as_often_as_there_are_events():
    events = np.repeat(np.arange(7), [1, 5, 2, 9, 1, 3, 4])
    drawn = np.concatenate(list(weights(events, 500, seed=1)))
    assert drawn.shape == (500, len(events))
    first = np.searchsorted(events, np.arange(7))
    assert (drawn == drawn[:, first][:, events]).all()  # one number an event
    assert (drawn[:, first].sum(1) == 7).all()
    assert drawn[:, first].mean(0) == pytest.approx(np.ones(7), abs=0.15)


def test_rounds_do_not_depend_on_how_many_are_held_at_a_time(monkeypatch):
    events = np.arange(50) // 3
    whole = np.concatenate(list(weights(events, 40, seed=5)))
    monkeypatch.setattr("evaluation.bootstrap._ELEMENTS", 350)
    assert (np.concatenate(list(weights(events, 40, seed=5))) == whole).all()


def test_the_interval_of_a_mean_is_the_bootstraps_of_scipy():
    values = np.random.default_rng(0).exponential(size=80)
    found = intervals({"mean": lambda w: w @ values / w.sum(1)}, np.arange(80), rounds=4000)["mean"]
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert (found.n, found.events) == (80, 80)


def test_rows_of_one_event_are_not_independent():
    rng = np.random.default_rng(0)
    common = np.repeat(rng.normal(size=20), 30)
    mean = {"mean": lambda w: w @ common / w.sum(1)}
    by_event = intervals(mean, np.repeat(np.arange(20), 30))["mean"]
    by_row = intervals(mean, np.arange(600))["mean"]
    assert by_event.high - by_event.low > 4 * (by_row.high - by_row.low)


def test_one_event_gives_no_interval():
    found = intervals({"mean": lambda w: w @ np.arange(3.0) / w.sum(1)}, np.zeros(3))["mean"]
    assert found.value == 1.0
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_pairing_matters():
    """A small constant gain on data that vary much: seen when paired, lost when the two are resampled apart."""
    rng = np.random.default_rng(3)
    events = np.arange(200) // 2
    hard = rng.exponential(1.0, 200)
    better, worse = metrics.residuals(hard)["mae"], metrics.residuals(hard + 0.05 + rng.normal(0, 0.01, 200))["mae"]
    paired = paired_difference(better, worse, events)
    assert paired.low < paired.high < 0
    apart = intervals({"one": better}, events)["one"], intervals({"other": worse}, events)["other"]
    assert apart[0].high > apart[1].low  # these overlap


def table(order):
    frame = pd.DataFrame({"trace_name": ["a", "b", "c"], "start_sample": [1, 2, 3], "end_sample": 9, "phase_onset": [4, 5, 6]})
    return frame.iloc[order].reset_index(drop=True)


def test_predictions_are_paired_by_question_not_by_row():
    one, other = aligned(table([0, 1, 2]), table([2, 0, 1]))
    pd.testing.assert_frame_equal(one, other)
    with pytest.raises(DataError, match="1 of 3 rows are other windows"):
        aligned(table([0, 1, 2]), table([0, 1, 2]).assign(start_sample=[1, 2, 4]))
    with pytest.raises(DataError, match="3 and 2 rows"):
        aligned(table([0, 1, 2]), table([0, 1]))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_calibration_is_scikit_learns_curve(seed):
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(seed)
    confidence = rng.random(60)
    right = rng.random(60) < confidence
    found = reliability(confidence, right)
    frequency, mean = calibration_curve(right, confidence, n_bins=10)
    assert found["frequency"].to_numpy() == pytest.approx(frequency)
    assert found["confidence"].to_numpy() == pytest.approx(mean)
    error = (found["n"] * (found["confidence"] - found["frequency"]).abs()).sum() / 60
    assert expected_error(confidence, right)(ONE)[0] == pytest.approx(error)
