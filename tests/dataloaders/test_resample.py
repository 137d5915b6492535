"""Traces at other rates: resampled as a whole trace would be, with their onsets; or refused, or skipped; never silent."""

from fractions import Fraction

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.signal import resample_poly
from seisbench_sets import TRACES, Quirk, seisbench_quiet, write_set

from dataloaders.contracts import Split
from dataloaders.sets.catalogue import open_sets
from dataloaders.sets.reader import Reader
from dataloaders.sets.resample import ratio_of, reach, resample, taps
from dataloaders.sources.seisbench import OtherRates, SeisBench, SeisBenchConfig
from utils.errors import DataError

RATES = (20.0, 31.25, 40.0, 50.0, 62.5, 120.0, 125.0, 200.0, 250.0, 99.7)


def opened(*names, **settings):
    return SeisBench(SeisBenchConfig(dataset_name=[str(name) for name in names], **settings), seed=0)


@pytest.mark.parametrize(
    ("rate", "ratio"),
    [
        (20, "5"), (31.25, "16/5"), (40, "5/2"), (50, "2"), (62.5, "8/5"), (120, "5/6"), (125, "4/5"), (200, "1/2"),
        (500, "1/5"), (1, "100"), (33.3333, "3"), (100, "1"), (100.005, "1"), (np.float32(1 / 0.024), "12/5"),
    ],
)  # fmt: skip
def test_ratios(rate, ratio):
    assert ratio_of(float(rate)) == Fraction(ratio)


@pytest.mark.parametrize("rate", [np.nan, 0.0, -100.0, np.inf, 99.95, 0.09, 100_100.0, 1e-30])
def test_rates_without_a_ratio(rate):
    assert ratio_of(rate) is None


@pytest.mark.parametrize("quirk", [Quirk(), Quirk(dimensions="WC", dtype="int32", order=("Z", "NE")), Quirk(dtype="float16")])
@pytest.mark.parametrize("preload", [False, True])
def test_a_window_is_that_of_the_whole_resampled_trace(quirk, preload, tmp_path):
    quirk.rates, quirk.lengths = RATES, (1500, 90)
    folder = write_set(tmp_path / "set", quirk)
    stored = open_sets([str(folder)], 0)
    catalogue = stored.at_100_hz()
    every = np.arange(TRACES)
    native, _ = Reader(stored, 0).read(every, np.zeros(TRACES, int), stored.length, 1500)
    reader = Reader(catalogue, 0)
    if preload:
        reader.preload(every)
    for trace in every.tolist():
        ratio = ratio_of(RATES[trace % len(RATES)])
        up, down = ratio.as_integer_ratio()
        part = native[trace, : stored.length[trace]].T.astype(float)
        whole = resample_poly(part, up, down, axis=1, window=taps(up, down), padtype="edge")
        length = int(catalogue.length[trace])
        assert whole.shape[1] == length and catalogue.stored[trace] == stored.length[trace]
        for start, count in [(0, length), (0, 17), (1, 30), (length // 3, length // 2), (length - 25, 25), (length - 1, 1)]:
            window, sound = reader.read(np.array([trace]), np.array([start]), np.array([count]), length)
            assert sound.all() and (window[0, count:] == 0).all()
            np.testing.assert_allclose(window[0, :count].T, whole[:, start : start + count], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_stays_the_same_tone(rate):
    """The law: samples at 100 Hz of the continuous signal, to 0.3 % where it lies below 60 % of the lower Nyquist frequency."""
    ratio = ratio_of(rate)
    for frequency in np.array([0.01, 0.3, 0.6]) * min(rate, 100.0) / 2:
        seconds = np.arange(4000) / rate
        made = resample(np.sin(2 * np.pi * frequency * seconds)[None], ratio)[0]
        expect = np.sin(2 * np.pi * frequency * np.arange(len(made)) / (rate * float(ratio)))
        inner = slice(len(made) // 10, -len(made) // 10)
        assert np.abs(made - expect)[inner].max() < 3e-3


@pytest.mark.parametrize(("rate", "frequency"), [(200.0, 70.0), (125.0, 61.0), (250.0, 95.0), (500.0, 130.0)])
def test_what_100_hz_cannot_hold_is_filtered_out(rate, frequency):
    tone = np.sin(2 * np.pi * frequency * np.arange(5000) / rate)[None]
    made = resample(tone, ratio_of(rate))[0]
    assert np.abs(made[100:-100]).max() < 6e-3
    assert np.abs(tone[0, :: round(rate / 100)]).max() > 0.5, "taking every second sample would have folded it back"


@pytest.mark.parametrize("rate", RATES)
def test_offsets_and_gaps_stay_what_they_are(rate):
    ratio = ratio_of(rate)
    up, down = ratio.as_integer_ratio()
    np.testing.assert_allclose(taps(up, down), taps(up, down)[::-1], atol=1e-15)
    level = resample(np.full((1, 3000), 12345.0), ratio)[0, 400:-400]
    np.testing.assert_allclose(level, 12345.0, rtol=1e-12)
    gap = np.random.default_rng(0).normal(size=(1, 3000))
    gap[0, 1000:2000] = 0
    edge = 12 * max(up, down) / down
    low, high = int(1000 * up / down + edge), int(2000 * up / down - edge)
    assert (resample(gap, ratio)[0, low:high] == 0).all(), "zeros of a gap remain zeros"


def test_agrees_with_scipys_own_filter_and_with_seisbench(tmp_path):
    """SciPy's default taps differ by their ripple (0.1 %); SeisBench resamples by FFT, which wraps around at the ends."""
    folder = write_set(tmp_path / "set", Quirk(rates=(40.0, 62.5, 50.0), lengths=(4000,)))
    smooth(folder)
    catalogue = open_sets([str(folder)], 0).at_100_hz()
    with seisbench_quiet():
        from seisbench.data import WaveformDataset

        theirs = WaveformDataset(folder, component_order="ZNE", dimension_order="NCW")
        for trace in range(6):
            length = int(catalogue.length[trace])
            wave, _ = Reader(catalogue, 0).read(np.array([trace]), np.zeros(1, int), np.array([length]), length)
            native = theirs.get_waveforms(trace)
            up, down = catalogue.ratios[catalogue.ratio[trace]].as_integer_ratio()
            peak = np.abs(native).max()
            scipys = resample_poly(native, up, down, axis=1, padtype="edge")
            np.testing.assert_allclose(wave[0].T, scipys, atol=1e-3 * peak)
            other = theirs.get_sample(trace, sampling_rate=100)[0]
            inner = slice(length // 10, -length // 10)
            np.testing.assert_allclose(wave[0].T[:, inner], other[:, inner], atol=5e-3 * peak)


def test_a_sample_that_is_not_finite_spoils_only_what_it_touches(tmp_path):
    folder = write_set(tmp_path / "set", Quirk(rates=(40.0,)))
    with h5py.File(folder / "waveforms.hdf5", "r+") as file:
        file["data/bucket0"][:, 1, 1000] = np.nan
    catalogue = open_sets([str(folder)], 0).at_100_hz()
    wave, _ = Reader(catalogue, 0).read(np.arange(2), np.full(2, 2000), np.full(2, 1000), 1000)
    spoilt = ~np.isfinite(wave)
    assert not spoilt[..., [0, 2]].any() and spoilt[:, 500, 1].all(), "sample 1000 at 40 Hz is sample 2500 at 100 Hz"
    touched = np.flatnonzero(spoilt[0, :, 1])
    assert abs(touched[0] - 475) <= 1 and abs(touched[-1] - 525) <= 1, "the filter reaches ten samples at 40 Hz"


def smooth(folder):
    """Leave only the lower half of the spectrum, and let the ends meet: what any good resampling agrees on."""
    with h5py.File(folder / "waveforms.hdf5", "r+") as file:
        for block in file["data"].values():
            wave = block[()]
            spectrum = np.fft.rfft(wave * np.hanning(wave.shape[-1]))
            spectrum[..., spectrum.shape[-1] // 2 :] = 0
            block[...] = np.fft.irfft(spectrum, wave.shape[-1])


def test_onsets_move_with_the_samples(tmp_path):
    folder = write_set(tmp_path / "set", Quirk(rates=RATES, lengths=(1500,)))
    onset = 701
    with h5py.File(folder / "waveforms.hdf5", "r+") as file:
        for block in file["data"].values():
            block[...] = 0
            block[..., onset] = 1
    catalogue = open_sets([str(folder)], 0).at_100_hz()
    for trace in range(TRACES):
        moved = catalogue.onsets(np.array([trace]), np.array([onset]))
        assert moved[0] / 100 == pytest.approx(onset / RATES[trace % len(RATES)], rel=1e-5)
        length = int(catalogue.length[trace])
        wave, _ = Reader(catalogue, 0).read(np.array([trace]), np.zeros(1, int), np.array([length]), length)
        assert abs(int(wave[0, :, 0].argmax()) - moved[0]) <= 0.5
    several = catalogue.onsets(np.array([2, 7]), np.array([[10, np.nan], [np.nan, 11]]))
    np.testing.assert_array_equal(several, [[25, np.nan], [np.nan, 5.5]])


def test_needed_samples_begin_at_a_sample_of_both_rates():
    for ratio in map(ratio_of, RATES):
        first, end = reach(1234, 100, ratio)
        assert first % ratio.denominator == 0 and first <= 1234 / ratio - 10 and end >= 1333 / ratio + 10


def test_sets_at_100_hz_are_left_alone(small_set):
    catalogue = open_sets([str(small_set)], 0)
    assert catalogue.at_100_hz() is catalogue and (catalogue.ratio == 0).all()


def rerate(folder, rates):
    table = pd.read_csv(folder / "metadata.csv", dtype=str)
    table["trace_sampling_rate_hz"] = [*rates, *["100.0"] * (len(table) - len(rates))]
    table.to_csv(folder / "metadata.csv", index=False)


def test_the_table_says_what_is_resampled(published_sets):
    source = opened("ETHZ", "MLAAPDE", "GEOFON")
    lines = {line.split()[0]: line for line in source.describe().splitlines()}
    assert "resampled" not in lines["ETHZ"]
    assert lines["MLAAPDE"].endswith("none; resampled to 100 Hz: 20 × 40 Hz")
    assert lines["GEOFON"].endswith("resampled to 100 Hz: 5 × 20 Hz, 5 × 50 Hz, 5 × 200 Hz")
    batch = source.part(Split.train).__getitems__([(0, position) for position in range(30)])
    assert batch.wave.isfinite().all()
    assert (batch.valid.sum(1).numpy() == np.minimum(source.catalogue.length[batch.index.numpy()], 4096)).all()


def test_the_shortest_usable_trace_is_counted_at_100_hz(small_set):
    rerate(small_set, ["2000.0", "20.0"])
    assert "1 shorter than 400 samples" in opened(small_set).describe()


def test_other_rates_can_be_refused_and_skipped(small_set):
    rerate(small_set, ["50.0", "200.0", "", "200.0"])
    text = r"4 of 20 traces are not at 100 Hz: 2 × 200 Hz, 1 × 50 Hz, 1 × unknown\n.*other_rates=resample.*other_rates=skip"
    with pytest.raises(DataError, match=text):
        opened(small_set, other_rates=OtherRates.refuse)
    source = opened(small_set, other_rates=OtherRates.skip)
    assert "4 not at 100 Hz" in source.describe() and len(source.part(Split.train)) == 9


@pytest.mark.parametrize(("rate", "said"), [("", "unknown"), ("0.0", "0 Hz"), ("-40", "-40 Hz"), ("fast", "unknown")])
def test_unknown_rates_are_errors(rate, said, small_set):
    rerate(small_set, ["50.0", rate])
    with pytest.raises(DataError, match=rf"waveforms.hdf5\): 1 of 20 traces are at no known rate: 1 × {said}\nCorrect column"):
        opened(small_set)


def test_rates_without_a_small_ratio_are_left_out_with_a_warning(small_set):
    rerate(small_set, ["50.0", "99.95", "0.05"])
    with pytest.warns(UserWarning, match=r"waveforms.hdf5\): 2 of 20 traces are at a rate without a small ratio .* 99.95 Hz"):
        source = opened(small_set)
    assert "2 at a rate without a small ratio to 100 Hz; resampled to 100 Hz: 1 × 50 Hz" in source.describe()
    assert not set(source.traces(Split.train).tolist()) & {1, 2}


def test_rate_of_the_file_and_of_the_step(tmp_path):
    folder = write_set(tmp_path / "set", Quirk(rate_in_metadata=False, rates=(50.0,)))
    assert opened(folder).catalogue.length.tolist() == [12000] * TRACES
    table = pd.read_csv(folder / "metadata.csv", dtype=str).assign(trace_dt_s="0.01")
    table.to_csv(folder / "metadata.csv", index=False)
    assert opened(folder).catalogue.length.tolist() == [6000] * TRACES, "the trace's own step goes before the file's rate"
