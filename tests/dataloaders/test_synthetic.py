"""The simulated dataset and the set written from it."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dataloaders.contracts import SOURCES, Split
from dataloaders.simulator import SimulatorConfig
from dataloaders.sources import seisbench  # noqa: F401  registers the source
from dataloaders.synthesise import Arguments, main, write_set
from utils import cli
from utils.errors import DataError

ROOT = Path(__file__).parents[2]
SMALL = {
    "_name_": "synthetic",
    "traces": 40,
    "traces_dev": 12,
    "traces_test": 8,
    "samples": 1024,
    "trace_samples": 3000,
    "stations": 20,
}


def _part(split=Split.train, seed=0, **settings):
    return SOURCES.build({**SMALL, "simulation_seed": seed, **settings}, seed=seed).part(split)


def test_yaml_states_the_defaults():
    node = yaml.safe_load((ROOT / "configs/dataset/synthetic.yaml").read_text())
    assert SOURCES.settings(node) == SOURCES.config("synthetic")()
    assert set(node) - {"_name_"} == set(SOURCES.config("synthetic").__dataclass_fields__)


@pytest.mark.parametrize("d_data", [3, 1])
def test_a_batch_has_the_promised_shape(d_data):
    part = _part(d_data=d_data)
    batch = part.__getitems__([(0, 3), (2, 39)])
    assert (batch.wave.shape, batch.wave.dtype) == ((2, 1024, d_data), torch.float32)
    assert (batch.valid.shape, batch.live.shape) == ((2, 1024), (2, d_data))
    assert batch.onsets.shape == batch.phases.shape == (2, 4)
    assert batch.epoch.tolist() == [0, 2]
    assert batch.wave.isfinite().all()
    assert (part.spec.channels, part.spec.samples, len(part)) == (d_data, 1024, 40)


def test_the_event_is_the_same_in_every_epoch_and_the_window_moves():
    part = _part(second_event_fraction=0.0)
    windows = part.__getitems__([(epoch, 5) for epoch in range(8)])
    whole = part.__getitems__([(0, 5)])._replace()
    trace = part._traces(np.array([5]))
    seen = set()
    for window in windows.wave[..., 0].numpy():
        views = np.lib.stride_tricks.sliding_window_view(trace[0][0, 0], 1024)
        (start,) = np.flatnonzero((views == window).all(1))
        seen.add(int(start))
    assert len(seen) > 4
    assert torch.equal(whole.wave[0], windows.wave[0])


def test_onsets_move_with_the_window():
    part = _part(noise_fraction=0.0, gap_fraction=0.0, second_event_fraction=0.0)
    trace = part._traces(np.arange(20))
    batch = part.__getitems__([(1, position) for position in range(20)])
    found = 0
    for row in range(20):
        views = np.lib.stride_tricks.sliding_window_view(trace[0][row], 1024, axis=1)
        (start,) = np.flatnonzero((views == batch.wave[row].T.numpy()[:, None]).all((0, 2)))[:1]
        for onset, expected in zip(batch.onsets[row].tolist(), trace[3][row] - start, strict=True):
            assert onset == (expected if 0 <= expected < 1024 else -1) or trace[3][row].max() < 0
            found += onset >= 0
    assert found > 10


@pytest.mark.parametrize("split", [Split.dev, Split.test])
def test_evaluation_windows_do_not_move(split):
    part = _part(split)
    first, later = part.__getitems__([(0, 2), (0, 7)]), part.__getitems__([(9, 7), (9, 2)])
    assert torch.equal(first.wave.flip(0), later.wave)


def test_a_sample_does_not_depend_on_its_batch_its_process_or_the_cache():
    part, cached = _part(), _part(cache=True)
    keys = [(3, position) for position in (7, 0, 39, 21)]
    batch = part.__getitems__(keys)
    for other in (pickle.loads(pickle.dumps(part)), cached, cached):
        again = other.__getitems__(keys[::-1])
        assert torch.equal(again.wave.flip(0), batch.wave)
        assert torch.equal(again.onsets.flip(0), batch.onsets)
    assert torch.equal(part[(3, 39)].wave[0], batch.wave[2])


def test_splits_share_no_trace_and_no_size_matters():
    source = SOURCES.build(SMALL, seed=0)
    index = [source.part(split).__getitems__([(0, position) for position in range(8)]).index.tolist() for split in Split]
    assert len({number for numbers in index for number in numbers}) == 24
    small, large = _part(Split.dev), _part(Split.dev, traces=4000, traces_dev=600)
    assert torch.equal(small[(0, 5)].wave, large[(0, 5)].wave)


def test_an_empty_split_says_what_to_do():
    with pytest.raises(DataError, match=r"Set dataset\.traces_dev"):
        _part(Split.dev, traces_dev=0)


def test_mistakes_are_told_at_once():
    wrong = SOURCES.mistakes({**SMALL, "gap_fracton": 0.1, "samples": 5000, "stations": "many"})
    assert any("Did you mean 'gap_fraction'" in text for text in wrong)
    assert any("samples = 5000: must be 64 … trace_samples = 3000" in text for text in wrong)
    assert any("stations" in text for text in wrong)


SETTINGS = SimulatorConfig(trace_samples=1500, stations=20, gap_fraction=0.3, dead_component_fraction=0.3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_written_set_reads_back_through_seisbench(tmp_path):
    from seisbench import data

    told = []
    folder = write_set(tmp_path / "set", 30, seed=9, settings=SETTINGS, advance=told.append)
    assert sum(told) == 30
    assert {file.name for file in folder.iterdir()} == {"metadata.csv", "waveforms.hdf5"}
    written = data.WaveformDataset(folder)
    assert written.metadata["split"].value_counts().to_dict() == {"train": 18, "test": 9, "dev": 3}
    node = {
        **SMALL,
        "simulation_seed": 9,
        "trace_samples": 1500,
        "samples": 1500,
        "gap_fraction": 0.3,
        "dead_component_fraction": 0.3,
    }
    source = SOURCES.build(node, seed=9)
    columns = [f"trace_{name}_arrival_sample" for name in ("p", "s", "P1", "S1")]
    for split in Split:
        subset = getattr(written, split.value)()
        batch = source.part(split).__getitems__([(0, position) for position in range(len(subset))])
        for row in range(len(subset)):
            np.testing.assert_array_equal(subset.get_waveforms(row), batch.wave[row].T.numpy())
        np.testing.assert_array_equal(subset.metadata[columns].fillna(-1).to_numpy(int), batch.onsets.numpy())
    table = written.metadata
    assert (table["trace_category"] == "noise").equals(table["source_magnitude"].isna())
    assert table["source_id"].dropna().is_unique


def test_a_written_set_trains_like_any_other(tmp_path):
    """The source for SeisBench sets reads the very windows that the simulated source gives."""
    folder = write_set(tmp_path / "set", 30, seed=9, settings=SETTINGS)
    read = SOURCES.build({"_name_": "seisbench_auto_reg", "dataset_name": [str(folder)], "samples": 1500}, seed=9)
    made = SOURCES.build(
        {
            **SMALL,
            "simulation_seed": 9,
            "trace_samples": 1500,
            "samples": 1500,
            "gap_fraction": 0.3,
            "dead_component_fraction": 0.3,
        },
        seed=9,
    )
    for split, count in ((Split.train, 18), (Split.dev, 3), (Split.test, 9)):
        keys = [(0, position) for position in range(count)]
        assert len(read.part(split)) == count
        assert torch.equal(read.part(split).__getitems__(keys).wave, made.part(split).__getitems__(keys).wave)


def test_a_set_is_not_overwritten_unasked(tmp_path):
    write_set(tmp_path, 3, settings=SETTINGS)
    note = tmp_path / "notes.txt"
    note.write_text("mine")
    before = (tmp_path / "waveforms.hdf5").read_bytes()
    with pytest.raises(DataError, match="overwrite=true"):
        write_set(tmp_path, 3, seed=1, settings=SETTINGS)
    assert (tmp_path / "waveforms.hdf5").read_bytes() == before
    write_set(tmp_path, 3, seed=1, overwrite=True, settings=SETTINGS)
    assert (tmp_path / "waveforms.hdf5").read_bytes() != before
    assert note.read_text() == "mine"


def test_a_failure_while_writing_leaves_nothing_half_done(tmp_path):
    def fail(count):
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left on device"):
        write_set(tmp_path / "set", 5, settings=SETTINGS, advance=fail)
    assert list((tmp_path / "set").iterdir()) == []


def _command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["synthesise", *arguments])
    cli.run(main, Arguments, where="dataloaders.synthesise")


def test_the_command_writes_and_says_what_to_type_next(tmp_path, monkeypatch, capsys):
    _command(monkeypatch, f"path={tmp_path / 'set'}", "traces=4", "trace_samples=1000", "stations=5")
    assert f"python train.py dataset=seisbench_auto_reg 'dataset.dataset_name=[{tmp_path / 'set'}]'" in capsys.readouterr().out
    assert (tmp_path / "set" / "waveforms.hdf5").stat().st_size > 4 * 3 * 1000 * 4


def test_the_command_refuses_mistakes(tmp_path, monkeypatch):
    with pytest.raises(SystemExit) as exit_:
        _command(monkeypatch, f"path={tmp_path / 'set'}", "trace=4", "b_value=9")
    assert "Did you mean 'traces'" in str(exit_.value)
    assert "b_value = 9.0: must be 0.1 … 3" in str(exit_.value)
    assert not (tmp_path / "set").exists()
