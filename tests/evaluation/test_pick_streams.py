"""Streams to segments, windows to curves, curves to picks: laws and references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obspy import Stream, Trace, UTCDateTime
from obspy.core.event import read_events
from seisbench_sets import seisbench_quiet

from evaluation import picks as picks_of
from evaluation.picks import PickedPhase, peaks
from evaluation.sliding import Stack, Stacking, noise_in_gaps, offsets
from evaluation.streams import runs, segments, to_100_hz, without_sparse_components
from utils.errors import DataError

START = UTCDateTime("2020-02-03T04:05:06.123456Z")


def trace(data, channel="HHZ", start=0.0, rate=100.0, station="ABC", location=""):
    header = {"network": "XX", "station": station, "location": location, "channel": channel}
    return Trace(np.asanyarray(data), {**header, "sampling_rate": rate, "starttime": START + start})


def three(samples, seed=0):
    return np.random.default_rng(seed).integers(-9999, 9999, (3, samples)).astype(np.int32)


def cut(*traces, window=1000, **how):
    return segments(Stream(list(traces)), window=window, **how)


def test_a_plain_record_comes_through_unchanged():
    wave = three(900)
    stream = Stream([trace(row, channel) for row, channel in zip(wave, ("HHE", "HHN", "HHZ"), strict=True)])
    before = stream.copy()
    (only,), findings = segments(stream, window=1000)
    assert np.array_equal(only.wave, wave[::-1])
    assert (only.trace_id, only.instrument, only.start) == ("XX.ABC.", "HH", START)
    assert not findings.skipped
    assert findings.seconds == 9.0
    assert all(np.array_equal(a.data, b.data) and a.stats == b.stats for a, b in zip(stream, before, strict=True))


def test_a_record_in_pieces_is_the_record_and_pieces_may_overlap_and_come_in_any_order():
    wave = three(2000)[0]
    for rate in (100.0, 40.0):
        (whole,), _ = cut(trace(wave, rate=rate))
        pieces = [trace(wave[a:b], start=a / rate, rate=rate) for a, b in ((700, 2000), (0, 400), (350, 701))]
        (joined,), findings = cut(*pieces)
        assert np.array_equal(joined.wave, whole.wave, equal_nan=True), rate
        assert findings.counts["samples of overlapping records that disagree"] == 0


def test_short_gaps_are_holes_and_long_ones_separate_segments():
    wave = three(3000)[0].astype(float)
    (hole,), _ = cut(trace(wave[:1000]), trace(wave[1400:2400], start=14.0))
    assert hole.wave.shape == (3, 2400)
    assert runs(np.isfinite(hole.wave[0])) == [(0, 1000), (1400, 2400)]
    first, second = cut(trace(wave[:1000]), trace(wave[1600:2600], start=16.0))[0]
    assert second.start - first.start == 16.0
    assert np.array_equal(second.wave[0], wave[1600:2600].astype(np.float32))


def test_masked_and_non_finite_samples_are_holes():
    wave = three(1000)[0].astype(float)
    wave[100:110] = np.nan
    masked = np.ma.array(wave, mask=np.zeros(1000, bool))
    masked[500:520] = np.ma.masked
    (only,), findings = cut(trace(masked))
    assert findings.counts["masked or non-finite samples"] == 30
    assert runs(np.isfinite(only.wave[0])) == [(0, 100), (110, 500), (520, 1000)]


def test_overlaps_that_disagree_become_holes_and_are_counted():
    wave = three(1000)[0]
    other = wave.copy()
    other[500:] += 1
    (only,), findings = cut(trace(wave), trace(other[400:600], start=4.0))
    assert findings.counts["samples of overlapping records that disagree"] == 100
    assert runs(~np.isfinite(only.wave[0])) == [(500, 600)]


@pytest.mark.parametrize("rate", [20.0, 40.0, 50.0, 62.5, 125.0, 200.0, 250.0, 500.0])
def test_other_rates_keep_the_shape_the_level_and_the_time(rate):
    seconds = np.arange(0, 60, 1 / rate)
    found = to_100_hz(5000 + 300 * np.sin(2 * np.pi * 1.5 * seconds), rate)
    time = np.arange(len(found)) / 100
    inside = (time > 1) & (time < 59)
    assert np.abs(found - (5000 + 300 * np.sin(2 * np.pi * 1.5 * time)))[inside].max() < 1.0
    assert np.abs(found - 5000).max() < 400  # no step at the ends
    assert abs(len(found) / 100 - 60) <= 1 / rate + 0.01


def test_a_clock_that_is_a_little_off_does_not_drift():
    rate = 99.995
    found = to_100_hz(np.arange(400_000, dtype=float), rate)
    expected = np.arange(len(found)) / 100 * rate
    assert np.abs(found - expected).max() <= 0.5 + 1e-6


def test_what_cannot_be_used_is_listed_with_its_reason():
    wave = three(1000)[0]
    traces = [
        trace(wave, "HHF"), trace([], "HHZ", station="EMP"), trace(wave, "LHZ", rate=1.0, station="LOW"), trace(wave, ""),
        trace(np.full(900, np.nan), station="NAN"), trace([1.0], station="ONE"), trace(wave, "HHN"), trace(wave, "HH1"),
        trace(np.array(["a"] * 900), station="TXT"),
    ]  # fmt: skip
    found, findings = cut(*traces)
    assert [segment.trace_id for segment in found] == ["XX.ABC."]
    told = dict(findings.skipped)
    assert len(told) == 8
    assert "no component of ZNE" in told["XX.ABC..HHF"] and "no component" in told["XX.ABC.."]
    assert told["XX.EMP..HHZ"] == "no samples"
    assert told["XX.LOW..LHZ"].startswith("1 Hz cannot be used")
    assert told["XX.NAN..HHZ"] == told["XX.TXT..HHZ"] == "no finite sample"
    assert told[f"XX.ONE..HH at {START}"] == "1 samples at 100 Hz: at least 400 are needed"
    assert "XX.ABC..HHN is there too" in told["XX.ABC..HH1"]


def test_instruments_are_apart_horizontals_may_be_1_and_2_and_strict_wants_all():
    wave = three(1000)
    stream = [
        trace(wave[0], "HHZ"),
        trace(wave[1], "HH1"),
        trace(wave[2], "HH2"),
        trace(wave[0], "HNZ"),
        trace(wave[0], location="10"),
    ]
    found, _ = cut(*stream)
    assert [(segment.trace_id, segment.instrument) for segment in found] == [
        ("XX.ABC.", "HH"),
        ("XX.ABC.", "HN"),
        ("XX.ABC.10", "HH"),
    ]
    assert np.array_equal(found[0].wave, wave)
    assert np.isnan(found[1].wave[1:]).all()
    assert np.isnan(cut(*stream, flexible=False)[0][0].wave[1:]).all()
    strict, findings = cut(*stream, strict=True)
    assert len(strict) == 1
    assert len(findings.skipped) == 2


def test_a_component_that_ends_early_does_not_take_the_others_along():
    windows = np.ones((2, 3, 100), np.float32)
    windows[0, 2, 40:] = np.nan
    windows[1, 2, 60:] = np.nan
    kept = without_sparse_components(windows)
    assert np.isnan(kept[0, 2]).all()
    assert np.array_equal(kept[1], windows[1], equal_nan=True)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**12), st.integers(1, 5000), st.integers(2, 700), st.data())
def test_windows_cover_every_record_on_a_grid_that_does_not_move(first, samples, window, data):
    hop = data.draw(st.integers(1, window))
    places = offsets(first, samples, window, hop)
    assert places[0] == 0
    assert places[-1] == max(0, samples - window)
    assert (np.diff(places) > 0).all() and (np.diff(places) <= hop).all()
    assert all((first + place) % hop == 0 for place in places[1:-1].tolist())


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(list(Stacking)), st.integers(40, 300), st.integers(0, 1000), st.integers(1, 64))
def test_stacking_windows_of_one_curve_gives_the_curve(how, samples, first, hop):
    curve = np.random.default_rng(samples).random((samples, 3), np.float32)
    stack = Stack(samples, 64, 3, how)
    for place in offsets(first, samples, 64, hop).tolist():
        stack.add(place, np.pad(curve, ((0, 64), (0, 0)))[place : place + 64])
    np.testing.assert_allclose(stack.result(), curve, rtol=1e-5)


def test_stacking_leaves_out_what_is_not_known():
    stack = Stack(6, 4, 1, Stacking.avg)
    stack.add(0, np.array([[np.nan], [0.2], [np.nan], [0.4]], np.float32))
    stack.add(2, np.array([[np.nan], [0.8], [0.6], [np.nan]], np.float32))
    np.testing.assert_allclose(stack.result()[:, 0], [np.nan, 0.2, np.nan, 0.6, 0.6, np.nan])
    filled = noise_in_gaps(np.array([[np.nan] * 3, [0.1, 0.2, 0.7], [np.nan] * 3, [0.1, 0.2, 0.7]], np.float32))
    assert np.isnan(filled[0]).all()
    assert filled[2].tolist() == [0, 0, 1]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.05, 0.9))
def test_picks_are_those_of_seisbench(seed, threshold):
    with seisbench_quiet():
        from seisbench.models import WaveformModel
    rng = np.random.default_rng(seed)
    curve = np.abs(np.convolve(rng.normal(size=400), np.hanning(9), "same")).astype(np.float32)
    curve /= curve.max()
    theirs = WaveformModel.picks_from_annotations(Stream([trace(curve)]), threshold, "P")
    ours = peaks(curve, threshold)
    assert [(round((p.peak_time - START) * 100), np.float32(p.peak_value)) for p in theirs] == [
        (p.peak, np.float32(p.probability)) for p in ours
    ]
    assert [round((p.start_time - START) * 100) for p in theirs] == [p.start for p in ours]


def pick(time, phase="P", station="ABC", probability=0.5):
    return PickedPhase(START + time, f"XX.{station}.00", phase, probability, START + time - 0.1, START + time + 0.2, "HH")


def test_files_of_picks_read_back(tmp_path):
    some = [pick(3.25, "S", probability=0.75), pick(1.0), pick(2.0, station="DEF")]
    picks_of.write(some, tmp_path / "sub" / "picks.csv", model="a test")
    text = (tmp_path / "sub" / "picks.csv").read_text().splitlines()
    assert text[0] == "trace_id,station,phase,time,probability,start,end,instrument"
    assert text[1].startswith("XX.ABC.00,XX.ABC,P,2020-02-03T04:05:07.123456Z,0.5,")
    assert picks_of.read(tmp_path / "sub" / "picks.csv") == sorted(some)
    picks_of.write(some, tmp_path / "picks.xml", model="a test")
    (event,) = read_events(str(tmp_path / "picks.xml"))
    assert [(p.time, p.phase_hint, p.waveform_id.get_seed_string()) for p in event.picks] == [
        (p.time, p.phase, f"{p.trace_id}.HH") for p in sorted(some)
    ]
    assert event.picks[-1].comments[0].text == "probability 0.7500"
    picks_of.write([], tmp_path / "none.csv", model="a test")
    picks_of.write([], tmp_path / "none.xml", model="a test")
    assert picks_of.read(tmp_path / "none.csv") == []
    assert len(read_events(str(tmp_path / "none.xml"))) == 0
    assert not list(tmp_path.rglob("*unfinished*"))
    with pytest.raises(DataError, match=r"picks are written as \.csv"):
        picks_of.format_of(tmp_path / "picks.txt")
    (tmp_path / "bad.csv").write_text("station,phase\nA,P\n")
    with pytest.raises(DataError, match="no column trace_id"):
        picks_of.read(tmp_path / "bad.csv")
