"""Packed sets give the batches of the sets that they were made from, within what float16 explains."""

import os
import pickle
import signal
import time
import warnings
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from packing import assert_equal, ends, packed, tables_of
from seisbench_sets import PUBLISHED, Quirk, write_set

from dataloaders.contracts import Split
from dataloaders.datamodule import WaveData
from dataloaders.packed.encode import beyond, decode, encode
from dataloaders.packed.files import UNFINISHED, read_manifest
from dataloaders.packed.plan import alone
from dataloaders.sets.arrivals import read_arrivals
from dataloaders.sets.catalogue import open_sets
from dataloaders.sets.names import chunks_of
from dataloaders.sources.phase_pick import PhasePick, PhasePickConfig
from dataloaders.sources.seisbench import SeisBench, SeisBenchConfig
from utils.config import LoaderConfig
from utils.errors import DataError

SOURCES = {"contrastive": (SeisBench, SeisBenchConfig), "picking": (PhasePick, PhasePickConfig)}


def opened(kind, names, **settings):
    source, config = SOURCES[kind]
    return source(config(dataset_name=[str(name) for name in names], samples=2048, **settings), seed=7)


@pytest.fixture(scope="session")
def packed_sets(_published_sets, tmp_path_factory):
    """The eight published sets, packed by one command."""
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEISBENCH_CACHE_ROOT", str(_published_sets))
        assert ends(f"set=[{','.join(PUBLISHED)}]", f"output={folder}", "workers=1") == 0
    return {name: folder / name.lower() for name in PUBLISHED}


@settings(deadline=None, max_examples=150)
@given(
    arrays(np.float32, (3, 40), elements=st.floats(width=32)),
    st.sampled_from([1.0, 1e-30, 1e30]),
    st.sampled_from([0.0, 1e4, -3e9]),
)
def test_what_is_packed_is_within_its_bound(wave, factor, offset):
    with np.errstate(over="ignore", invalid="ignore"):
        wave = (wave * np.float32(factor) + np.float32(offset)).astype(np.float32)
    units, scale, middle = encode(wave)
    read = decode(units[None], scale[None], middle[None])[0]
    assert beyond(wave, read, scale, middle) == 0
    assert (np.frexp(scale)[0] == 0.5).all(), "powers of two"


def test_constants_and_small_integers_lose_nothing():
    wave = np.stack([np.full(99, 1234567.0), np.arange(99) + 100_000.0, np.zeros(99)]).astype(np.float32)
    units, scale, offset = encode(wave)
    np.testing.assert_array_equal(decode(units[None], scale[None], offset[None])[0], wave)


def test_noise_before_a_strong_arrival_is_kept():
    """The reason for float16: with 16-bit integers this noise of 1/30,000 of the arrival would be one or two steps."""
    rng = np.random.default_rng(0)
    wave = rng.normal(size=(1, 6000)).astype(np.float32) + 5000
    wave[:, 3000:] += (1e5 * np.sin(np.arange(3000))).astype(np.float32)
    units, scale, offset = encode(wave)
    error = decode(units[None], scale[None], offset[None])[0] - wave
    assert np.square(error[:, :3000]).mean() < 1e-4 * wave[:, :3000].var()


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize(
    "names", [[name] for name in PUBLISHED] + [["GEOFON", "InstanceCounts", "PNW", "OBST2024"]], ids="+".join
)
def test_batches_are_those_of_the_original(kind, names, published_sets, packed_sets):
    folders = [packed_sets[name] for name in names]
    original, ours = opened(kind, names), opened(kind, folders)
    for split in Split:
        expect, found = original.part(split), ours.part(split)
        assert len(expect) == len(found)
        keys = [(epoch, position) for epoch in (0, 3) for position in range(len(expect))]
        assert_equal(expect, found, tables_of(*folders), keys)
    before, after = (source.describe().splitlines()[1:] for source in (original, ours))
    for line, packed_line in zip(before, after, strict=True):
        assert line.split(";")[0].split()[-4:] == packed_line.split(";")[0].split()[-4:]


def test_packed_and_original_sets_mix(published_sets, packed_sets):
    mixed, original = ["GEOFON", packed_sets["PNW"], "ETHZ"], ["GEOFON", "PNW", "ETHZ"]
    expect, found = (opened("picking", names, training_fraction=0.6).part(Split.train) for names in (original, mixed))
    keys = [(1, position) for position in range(len(expect))]
    plain = [np.zeros(20, tables_of(packed_sets["PNW"])[0].dtype) for _ in range(2)]
    assert_equal(expect, found, [plain[0], *tables_of(packed_sets["PNW"]), plain[1]], keys)


def test_the_order_of_training_is_the_same(published_sets, packed_sets):
    loaders = [
        WaveData(opened("picking", [name]), LoaderConfig(batch_size=4, num_workers=workers), seed=3).train_dataloader()
        for name, workers in (("ETHZ", 0), (packed_sets["ETHZ"], 2))
    ]
    orders = [[batch.index.tolist() for batch in loader] for loader in loaders]
    assert orders[0] == orders[1] and len(orders[0]) == 2


def test_a_packed_set_in_the_cache_is_found_by_its_name(packed_sets, tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "stead").symlink_to(packed_sets["STEAD"])
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(tmp_path))
    assert len(opened("contrastive", ["STEAD"]).part(Split.train)) == 12


def test_in_memory_and_in_workers_it_is_the_same(packed_sets):
    keys = [(1, position) for position in range(8)]
    disk, memory = (
        opened("contrastive", [packed_sets["GEOFON"]], preload=preload).part(Split.train) for preload in (False, True)
    )
    expect = disk.__getitems__(keys).wave
    for part in (memory, pickle.loads(pickle.dumps(disk)), pickle.loads(pickle.dumps(memory))):
        assert torch.equal(part.__getitems__(keys).wave, expect)


@pytest.mark.parametrize("name", ["GEOFON", "InstanceCounts", "ETHZ"])
def test_metadata_travel(name, published_sets, packed_sets):
    folder, ours = packed_sets[name], read_arrivals([str(packed_sets[name])])
    theirs, catalogue = read_arrivals([name]), open_sets([name], 0).at_100_hz()
    np.testing.assert_array_equal(ours.sample, catalogue.onsets(np.arange(len(catalogue)), theirs.sample))
    assert ours.names == theirs.names and (ours.name == theirs.name).all() and (ours.noise == theirs.noise).all()
    row = 0
    for (_, before, _), (_, after, _) in zip(
        chunks_of(published_sets / "datasets" / name.lower()), chunks_of(folder), strict=True
    ):
        before, after = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (before, after))
        assert list(before) == list(after)
        at_100 = catalogue.ratio[row : row + len(before)] == 0
        pd.testing.assert_frame_equal(before[at_100], after[at_100])
        assert (after["trace_sampling_rate_hz"].astype(float) == 100).all()
        sample = after["trace_p_arrival_sample"].astype(float).to_numpy()
        np.testing.assert_array_equal(sample, ours.sample[row : row + len(before), 0])
        row += len(before)


LONG = Quirk(lengths=(60_000, 90_000))


def shards(folder):
    return {path.name: path.read_bytes() for path in [*folder.glob("shards/*"), folder / "traces.npy", folder / "arrivals.npy"]}


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, capfd):
    source = write_set(tmp_path / "source", LONG)
    killed, words = tmp_path / "killed", ["workers=1", "shard_mib=1"]
    notes = killed / UNFINISHED
    for finished in (1, 3, 6):
        process = get_context("fork").Process(target=ends, args=(f"set={source}", f"output={killed}", *words))
        process.start()
        while len(list(notes.glob("*.npz"))) < finished and process.is_alive():
            time.sleep(0.001)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, "killed before it was done"
        with pytest.raises(DataError, match="packing was not finished"):
            open_sets([str(killed)], 0)
    kept = {path: path.stat().st_mtime_ns for path in killed.glob("shards/*.f16") if (notes / f"{path.stem}.npz").is_file()}
    packed(source, killed, "shard_mib=1")
    assert len(kept) >= 6 and f"goes on: {len(kept)} of" in capfd.readouterr().out
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    assert not notes.exists() and not list(killed.glob("**/*.partial"))
    whole = packed(source, tmp_path / "whole", "shard_mib=1")
    assert read_manifest(whole).shards() > 8 and shards(whole) == shards(killed)


def test_several_processes_write_the_same_bytes(tmp_path):
    source, several = write_set(tmp_path / "source", LONG, traces=6), tmp_path / "several"
    assert ends(f"set={source}", f"output={several}", "shard_mib=1", "workers=2") == 0
    assert shards(packed(source, tmp_path / "one", "shard_mib=1")) == shards(several)


@pytest.mark.data
def test_real_records(real_set, tmp_path):
    folder = packed(real_set, tmp_path / "packed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original, ours = opened("picking", [real_set]), opened("picking", [folder])
    for split in Split:
        keys = [(0, position) for position in range(len(original.part(split)))]
        assert_equal(original.part(split), ours.part(split), tables_of(folder), keys)


def test_two_packings_into_one_folder_refuse(tmp_path):
    source, folder = write_set(tmp_path / "source", Quirk()), tmp_path / "packed"
    folder.mkdir()
    with alone(folder):
        assert "another process is packing into it. Wait for it, or give another output" in str(
            ends(f"set={source}", f"output={folder}")
        )
        assert not any(folder.iterdir()), "nothing of a running packing is touched"
    packed(source, folder)
    assert read_manifest(folder).traces > 0
