"""The SeisBench model against the picker it was made of, and against SeisBench itself."""

import asyncio
import json
import warnings

import numpy as np
import obspy
import pytest
import torch
from composing import composed
from impulse_picker import SAMPLES, impulse_module, save_checkpoint
from obspy import Stream, Trace, UTCDateTime
from seisbench_sets import seisbench_quiet

import wavexlstm
from dataloaders.batch import PICK_CLASSES, DataSpec, Target, raw_batch
from evaluation.picker import Picker
from tasks import build
from utils.errors import CheckpointError, ConfigError, DataError

with seisbench_quiet():
    import seisbench
    from seisbench.models import WaveformModel

    from evaluation import export
    from evaluation.seisbench_model import WaveXLSTMPicker

START = UTCDateTime("2020-02-03T04:05:06.123456Z")


def stream_of(wave, station="ABC", start=START, rate=100.0, channels=("HHZ", "HHN", "HHE")):
    header = {"network": "XX", "station": station, "sampling_rate": rate, "starttime": start}
    return Stream([Trace(np.array(row), {**header, "channel": channel}) for row, channel in zip(wave, channels, strict=False)])


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(size=(3, samples)) * 500 + 1e4


@pytest.fixture(scope="module")
def xlstm():
    """A small xLSTM picker with random weights."""
    torch.manual_seed(0)
    config = composed("experiment=quickstart_finetune", f"dataset.samples={SAMPLES}")
    return build.build_module(config, DataSpec(samples=SAMPLES, target=Target.picks, classes=PICK_CLASSES)).eval()


@pytest.fixture(scope="module")
def impulses():
    return export.bridge(impulse_module(), {"P": 0.5, "S": 0.5})


def test_annotate_gives_the_pickers_own_probabilities(xlstm):
    wave = noise(SAMPLES)
    annotated = export.bridge(xlstm).annotate(stream_of(wave))
    own = Picker(xlstm)(raw_batch(torch.as_tensor(wave.T[None])))[0].numpy()
    assert [trace.id for trace in annotated] == [f"XX.ABC..WaveXLSTMPicker_{label}" for label in PICK_CLASSES]
    assert all(trace.stats.starttime == START and trace.stats.sampling_rate == 100 for trace in annotated)
    np.testing.assert_allclose(np.stack([trace.data for trace in annotated], 1), own, atol=1e-5)


def test_the_hooks_give_the_same_in_seisbenchs_own_pipeline(xlstm):
    hop = SAMPLES - SAMPLES // 4
    start = UTCDateTime(ns=hop * 400_000_000 * 10_000_000)  # where SeisBench's windows, which begin with the record, are ours
    model, stream = export.bridge(xlstm), stream_of(noise(3 * SAMPLES + 77).round(), start=start)
    arguments = {"overlap": SAMPLES // 4, "stacking": "avg", "blinding": (20, 30), "batch_size": 2, "strict": False}
    theirs = asyncio.run(WaveformModel.annotate_async(model, stream, zerophase_resample=True, **arguments))
    ours = model.annotate(stream, **arguments)
    for one, other in zip(theirs.sort(), ours.sort(), strict=True):
        assert one.id == other.id
        assert abs(one.stats.starttime - other.stats.starttime) < 1e-6
        np.testing.assert_allclose(one.data, other.data, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_annotate(xlstm, dtype):
    model, stream = export.bridge(xlstm), stream_of(noise(700))
    whole = model.annotate(stream)
    half = model.to(dtype).annotate(stream)
    assert half[0].data.dtype == np.float32
    assert np.abs(half[0].data - whole[0].data).max() < (2e-3 if dtype is torch.float16 else 2e-2)


def test_an_export_is_rebuilt_from_its_two_files_alone(xlstm, tmp_path, monkeypatch):
    file = save_checkpoint(xlstm, tmp_path / "run.ckpt")
    monkeypatch.setattr(seisbench, "cache_model_root", tmp_path / "cache")
    export.export(
        export.Arguments(
            checkpoint=str(file), output=str(tmp_path / "out"), name="mine", p_threshold=0.41, s_threshold=0.23, cache=True
        )
    )
    file.unlink()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine.json.v1", "mine.pt.v1"]
    about = json.loads((tmp_path / "out" / "mine.json.v1").read_text())
    assert about["default_args"] == {"P_threshold": 0.41, "S_threshold": 0.23}
    assert "as given" in about["docstring"]
    stream = stream_of(noise(2 * SAMPLES))
    wanted = export.bridge(xlstm).annotate(stream)
    for path in ("out", "out/mine", "out/mine.json.v1", "out/mine.pt.v1"):
        model = wavexlstm.seisbench_model(str(tmp_path / path))
        assert all(np.array_equal(a.data, b.data) for a, b in zip(model.annotate(stream), wanted, strict=True))
    cached = WaveXLSTMPicker.from_pretrained("mine")
    assert np.array_equal(cached.annotate(stream)[0].data, wanted[0].data)
    assert cached.default_args == about["default_args"]
    assert WaveXLSTMPicker.list_pretrained() == ["mine"]
    assert WaveXLSTMPicker.list_pretrained(details=True) == {"mine": about["docstring"]}
    with pytest.raises(CheckpointError, match=r"no model 'mime'\. Did you mean 'mine'\?"):
        WaveXLSTMPicker.from_pretrained("mime")
    with pytest.raises(CheckpointError, match="no model 'mine' of version 7"):
        WaveXLSTMPicker.from_pretrained("mine", "7")
    cached.half().save(tmp_path / "again")
    assert next(cached.parameters()).dtype == torch.float16
    weights = torch.load(tmp_path / "again.pt", weights_only=True)
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}
    WaveXLSTMPicker.load(tmp_path / "again")
    with pytest.raises(CheckpointError, match="no such model"):
        WaveXLSTMPicker.load(tmp_path / "other")


def test_thresholds_are_chosen_on_dev_where_a_set_is_named(xlstm, tmp_path, monkeypatch, capsys):
    file = save_checkpoint(xlstm, tmp_path / "run.ckpt")
    asked = []
    monkeypatch.setattr("evaluation.records.open_records", lambda names, channels: asked.extend(names))
    monkeypatch.setattr("evaluation.thresholds.choose_thresholds", lambda picker, records: {"P": 0.61})
    export.export(export.Arguments(checkpoint=str(file), output=str(tmp_path / "out"), dataset_name=["/far/away/ETHZ"]))
    assert asked == ["/far/away/ETHZ"]
    about = json.loads((tmp_path / "out" / "quickstart_finetune.json.v1").read_text())
    assert about["default_args"] == {"P_threshold": 0.61, "S_threshold": 0.3}
    assert "P 0.61 (chosen on dev of ETHZ); S 0.3 (a default, chosen on no data)" in capsys.readouterr().out
    assert "/far" not in json.dumps(about)


def test_spikes_are_picked_at_their_time_in_any_window(impulses):
    for place in (3, 200, 511, 512, 700, 1100, 1795):
        wave = noise(1800)
        wave[0, place] += 2e4
        wave[1, place - 3 if place > 1000 else place + 4] += 2e4
        picks = impulses.classify(stream_of(wave)).picks
        found = {pick.phase: pick for pick in picks}
        assert len(picks) == 2
        assert found["P"].trace_id == "XX.ABC."
        assert abs(found["P"].peak_time - (START + place / 100)) < 1e-6
        assert abs(found["S"].peak_time - (START + (place - 3 if place > 1000 else place + 4) / 100)) < 1e-6
        assert found["P"].start_time <= found["P"].peak_time <= found["P"].end_time


def test_picks_equal_classify(impulses):
    wave = noise(1800)
    wave[0, [300, 900]] += 2e4
    wave[1, [350, 950]] += 2e4
    stream = stream_of(wave) + stream_of(wave, station="DEF", start=START + 5)
    ours, findings = impulses.picks(stream)
    theirs = impulses.classify(stream).picks
    assert not findings.skipped
    assert sorted((p.peak_time, p.trace_id, p.phase, p.peak_value) for p in theirs) == [
        (p.time, p.trace_id, p.phase, p.probability) for p in ours
    ]
    assert {p.instrument for p in ours} == {"HH"}
    assert len(ours) == 8


def test_thresholds_are_defaults_that_a_call_may_change(impulses):
    wave = noise(600)
    wave[0, 300] += 6.1e3  # about 12 σ: a probability near one half
    stream = stream_of(wave)
    height = impulses.annotate(stream).select(channel="*_P")[0].data.max()
    assert 0.05 < height < 0.999
    assert len(impulses.classify(stream, P_threshold=height * 0.99).picks) == 1
    assert not impulses.classify(stream, P_threshold=min(1.0, height * 1.01)).picks


def test_blinding_leaves_only_what_another_window_sees(impulses):
    curves = impulses.annotate(stream_of(noise(1400)), blinding=(50, 80))
    assert curves[0].stats.starttime == START + 0.5
    assert len(curves[0]) == 1400 - 130


def test_a_model_that_raises_fails_at_once(impulses, monkeypatch):
    def broken(wave, valid=None):
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(impulses.network, "forward", broken)
    for call in (impulses.annotate, impulses.classify):
        with pytest.raises(RuntimeError, match="out of memory, say"):
            call(stream_of(noise(2000)))
    with pytest.raises(RuntimeError, match="out of memory, say"):
        asyncio.run(impulses.classify_async(stream_of(noise(2000))))


def test_annotate_works_inside_a_running_event_loop(impulses):
    async def cell():
        return impulses.annotate(stream_of(noise(600))), await impulses.annotate_async(stream_of(noise(600)))

    one, other = asyncio.run(cell())
    assert np.array_equal(one[0].data, other[0].data)


def test_arguments_are_checked(impulses):
    stream = stream_of(noise(600))
    with pytest.raises(ConfigError, match=r"no argument 'P_treshold'\. Did you mean 'P_threshold'"):
        impulses.classify(stream, P_treshold=0.3)
    with pytest.raises(ConfigError, match=r"stacking = 'median'(.|\n)*S_threshold = 0"):
        impulses.classify(stream, stacking="median", S_threshold=0)
    with pytest.raises(ConfigError, match="overlap = 600"):
        impulses.annotate(stream, overlap=600)


def test_only_pickers_with_our_classes_are_exported(xlstm):
    classes = xlstm.spec["classes"]
    with pytest.raises(CheckpointError, match="P, S, N"):
        WaveXLSTMPicker({}, {}, {**xlstm.spec, "classes": ["N", "P", "S"]})
    assert tuple(classes) == PICK_CLASSES
    other = build.build_module(composed("experiment=contrastive/small"), DataSpec())
    with pytest.raises(CheckpointError, match="picks no phases"):
        export.bridge(other)


def test_thresholds_come_from_an_evaluation_or_are_said_to_be_defaults(tmp_path):
    (tmp_path / "thresholds.json").write_text('{"P": 0.37}')
    chosen = {phase: (value, "file") for phase, value in export.from_file(str(tmp_path)).items()}
    both = export.merged(chosen, {"P": None, "S": None})
    assert both.values == {"P": 0.37, "S": 0.3}
    assert both.told == "P 0.37 (file); S 0.3 (a default, chosen on no data)"
    assert export.merged(chosen, {"P": 0.5, "S": 0.6}).values == {"P": 0.5, "S": 0.6}
    for text in ('{"P": 3.0}', "{}", "[1]", "nonsense"):
        (tmp_path / "thresholds.json").write_text(text)
        with pytest.raises(DataError, match="thresholds"):
            export.from_file(str(tmp_path))


def evaluation_of(file, on, step=0, **thresholds):
    """The folder of an evaluation as far as thresholds need it."""
    folder = file.parent.parent / "evaluation" / on
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"checkpoint": f"elsewhere/{file.name}", "step": step}))
    (folder / "thresholds.json").write_text(json.dumps({"detection": 0.9, **thresholds}))
    return folder


def test_thresholds_of_the_runs_only_evaluation_are_taken_and_it_is_said(xlstm, tmp_path, capsys):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    file = save_checkpoint(xlstm, tmp_path / "run" / "checkpoints" / "last.ckpt")
    evaluation_of(file, "of_another_step", step=7, P=0.9)
    evaluation_of(file, "of_no_picks")
    assert export.evaluated(file, None) == ({}, export.NO_DATA)
    one = evaluation_of(file, "regional", P=0.41, S=0.62)
    args = export.Arguments(checkpoint=str(tmp_path / "run"), output=str(tmp_path / "out"), s_threshold=0.5)
    export.export(args)
    assert wavexlstm.seisbench_model(args.output).default_args == {"P_threshold": 0.41, "S_threshold": 0.5}
    assert "P 0.41 (from the run's evaluation on regional); S 0.5 (as given)" in " ".join(capsys.readouterr().out.split())
    evaluation_of(file, "stead", P=0.2, S=0.2)
    found, otherwise = export.evaluated(file, None)
    assert not found and "evaluated on regional, stead; choose with thresholds=" in otherwise
    assert export.evaluated(file, str(one))[0]["S"] == (0.62, "from regional")


def test_an_output_that_cannot_be_written_is_an_error_to_read(xlstm, tmp_path):
    file = save_checkpoint(xlstm, tmp_path / "run.ckpt")
    with pytest.raises(DataError, match=r"output .*run\.ckpt/out: cannot be written"):
        export.export(export.Arguments(checkpoint=str(file), output=str(file / "out")))


def test_a_low_threshold_does_not_round_to_none(xlstm):
    assert export.bridge(xlstm, {"P": 0.00003, "S": 0.5}).default_args == {"P_threshold": 3e-05, "S_threshold": 0.5}


def kept_and_still(model, stream, cuts, arguments):
    """Picks of a record cut at several samples, against those of the whole: (share found again, share within 10 samples)."""
    start, rate = stream[0].stats.starttime, stream[0].stats.sampling_rate
    whole = model.picks(stream, **arguments)[0]
    moved, lost = [], 0
    for cut in cuts:
        again = model.picks(stream.slice(start + cut / rate), **arguments)[0]
        for pick in whole:
            if pick.time > start + cut / rate + 0.5:
                near = [abs(other.time - pick.time) for other in again if other.phase == pick.phase]
                moved += [min(near)] if near and min(near) < 0.5 else []
                lost += not near or min(near) >= 0.5
    assert len(moved) >= 20
    return len(moved) / (len(moved) + lost), float(np.mean(np.array(moved) <= 0.1))


def test_a_record_cut_at_any_sample_keeps_its_picks(impulses):
    wave = noise(9000)
    wave[0, 500::900] += 1.5e4
    wave[1, 700::900] += 1.5e4
    kept, still = kept_and_still(impulses, stream_of(wave), (1, 77, 128, 255, 256, 300, 511, 700), {})
    assert kept == 1.0
    assert still == 1.0


def test_probabilities_do_not_depend_on_where_the_record_begins(xlstm):
    model, stream = export.bridge(xlstm), stream_of(noise(3000))
    whole = model.annotate(stream)[0]
    for cut in (1, 100, 255, 300):
        again = model.annotate(stream.slice(START + cut / 100))[0]
        inside = slice(2 * SAMPLES, 3000 - SAMPLES)
        np.testing.assert_allclose(again.data[inside.start - cut : inside.stop - cut], whole.data[inside], atol=1e-5)


@pytest.mark.data
def test_a_real_record_cut_at_any_sample_keeps_its_picks(real_set):
    model = export.bridge(impulse_module(2048), {"P": 0.5, "S": 0.5})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = obspy.read(str(real_set.parent / "continuous" / "CI.CLC.20190704T17.mseed"))
    start = stream[0].stats.starttime + 2600
    kept, still = kept_and_still(
        model, stream.slice(start, start + 1800), (1, 333, 1024, 1777), {"P_threshold": 0.01, "S_threshold": 0.01}
    )
    assert kept >= 0.95
    assert still >= 0.99
