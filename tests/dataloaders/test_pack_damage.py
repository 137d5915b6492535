"""Damage in a packed set is found and named, and a set that cannot be packed is refused; nothing is lost in silence."""

import csv
import json
import os
import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from packing import assert_equal, ends, packed, tables_of
from seisbench_sets import Quirk, damage, write_set

from dataloaders.contracts import Split
from dataloaders.packed import write
from dataloaders.packed.files import MANIFEST, SKIPPED, UNFINISHED, read_manifest, write_manifest
from dataloaders.sets.arrivals import read_arrivals
from dataloaders.sources.seisbench import SeisBench, SeisBenchConfig
from utils.errors import DataError

LONG = Quirk(lengths=(60_000,))


@pytest.fixture(scope="module")
def _whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("damage")
    return packed(write_set(root / "source", LONG), root / "packed", "shard_mib=1")


@pytest.fixture
def whole(_whole, tmp_path):
    """A packed set of seven shards, to be damaged at will."""
    return shutil.copytree(_whole, tmp_path / "whole")


def opened(folder, **settings):
    return SeisBench(SeisBenchConfig(dataset_name=[str(folder)], **settings), seed=0)


def flip(path, place=-1):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_and_named(whole, capsys):
    assert ends(f"verify={whole}") == 0
    assert f"0 of {len(read_manifest(whole).files)} files damaged" in capsys.readouterr().out
    rng = np.random.default_rng(0)
    for name in read_manifest(whole).files:
        size = (whole / name).stat().st_size
        place = int(rng.integers(size))
        flip(whole / name, place)
        said = ends(f"verify={whole}")
        assert f"{whole / name}: damaged, its SHA-256" in said and said.count("damaged") == 1
        flip(whole / name, place)
    flip(whole / "shards/00002.f16", 77)
    assert "shards/00002.f16: damaged, its SHA-256 is not the manifest's (rows 6 to 8 of the metadata)" in ends(f"verify={whole}")
    assert ends(f"verify={whole.parent}") != 0, "a folder of packed sets"


def truncate(folder):
    os.truncate(folder / "shards/00001.f16", 100)


def edit(folder, **values):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | values))


REFUSED = {
    "truncated shard": (truncate, r"shards/00001.f16: has 100 bytes where the manifest says 1,080,000. Copy it again, or pack"),
    "missing shard": (lambda f: (f / "shards/00001.f16").unlink(), r"shards/00001.f16: is missing. Copy it again"),
    "truncated table": (lambda f: os.truncate(f / "traces.npy", 500), "traces.npy: has 500 bytes"),
    "another version": (lambda f: edit(f, version=9), r"version = 9: this code reads version 1. .*pack the set again"),
    "no packed set": (lambda f: edit(f, format="x"), "'format' must be 'wavexlstm packed set'"),
    "an edited manifest": (lambda f: edit(f, has_split=False), "does not agree with its own checksum"),
    "a damaged manifest": (lambda f: os.truncate(f / MANIFEST, 99), r"manifest.json: cannot be read"),
    "a foreign table": (lambda f: (f / "traces.npy").write_bytes(b"x" * (f / "traces.npy").stat().st_size), "cannot be read"),
    "a row outside": (lambda f: change(f, "shard", 99), "row 3 lies in no shard. Find what is damaged with"),
    "a strange component": (lambda f: change(f, "live", 9), "row 3 lies in no shard"),
}


def change(folder, column, value):
    table = np.load(folder / "traces.npy")
    table[column][3] = value
    np.save(folder / "traces.npy", table)


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_wrong_is_refused_before_training(fault, whole):
    spoil, said = REFUSED[fault]
    spoil(whole)
    with pytest.raises(DataError, match=said):
        opened(whole)


def test_verify_tells_of_a_truncated_and_a_missing_shard_and_of_nothing(whole, tmp_path):
    truncate(whole)
    (whole / "shards/00003.f16").unlink()
    said = ends(f"verify={whole}")
    assert "00001.f16: has 100 bytes where" in said and "00003.f16: cannot be read" in said and "Copy these files again" in said
    edit(whole, version=2)
    assert "version = 2" in ends(f"verify={whole}")
    assert "must be a packed set or a folder of such" in ends(f"verify={tmp_path / 'none'}")


def test_no_pickle_is_loaded(whole):
    np.save(whole / "traces.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    manifest = read_manifest(whole)
    manifest.files["traces.npy"]["bytes"] = (whole / "traces.npy").stat().st_size
    (whole / MANIFEST).unlink()
    write_manifest(whole, manifest)
    with pytest.raises(DataError, match=r"traces.npy: cannot be read"):
        opened(whole)


def test_a_shard_that_shrinks_while_it_is_read_is_damage(whole):
    part = opened(whole, max_damaged_fraction=0.5).part(Split.train)
    expect = part.__getitems__([(0, position) for position in range(len(part))])
    os.truncate(whole / "shards/00001.f16", 100)
    with pytest.warns(UserWarning, match=r"damaged trace left out, .*00001.f16, row \d+: .* ends \d+ bytes too early"):
        batch = part.__getitems__([(0, position) for position in range(len(part))])
    bad = np.isin(batch.index, [3, 4, 5])
    assert not batch.valid[bad].any() and not batch.wave[bad].any() and not batch.live[bad].any()
    assert (batch.wave[~bad] == expect.wave[~bad]).all() and batch.valid[~bad].all()


def test_damaged_traces_are_left_out_counted_and_listed(tmp_path, capsys):
    source = write_set(tmp_path / "source", Quirk())
    damage(source, [2, 3])  # of the training block: rows 2 and 5 of the metadata
    folder = packed(source, tmp_path / "packed", "max_damaged_fraction=0.1")
    assert f"left out: 2 damaged; each is listed in {folder / SKIPPED}" in capsys.readouterr().out
    with (folder / SKIPPED).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["2", "5"] and all("bucket0, row" in row["trace"] for row in rows)
    ours = opened(folder)
    assert "2 without samples (skipped.csv of a packed set says why)" in ours.describe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = opened(source, max_damaged_fraction=1.0)
        kept = [np.flatnonzero(~np.isin(s.part(Split.train).traces, [2, 5])).tolist() for s in (original, ours)]
        for theirs, mine in zip(*kept, strict=True):
            pair = original.part(Split.train)[(1, theirs)], ours.part(Split.train)[(1, mine)]
            assert (pair[0].index == pair[1].index).all() and (pair[0].wave - pair[1].wave).abs().max() < 1
    assert len(kept[1]) == len(ours.part(Split.train))


def test_too_many_damaged_traces_stop_it(tmp_path):
    source = write_set(tmp_path / "source", Quirk())
    damage(source, [2, 3])  # of the training block: rows 2 and 5 of the metadata
    said = ends(f"set={source}", f"output={tmp_path / 'packed'}", "workers=1")
    assert "2 of 20 traces are damaged, more than 0.2" in said and "bucket0, row 3: damaged" in said
    assert "2 of 20 traces" in ends(f"set={source}", f"output={tmp_path / 'packed'}", "workers=1"), "it does not forget"
    assert ends(f"set={source}", f"output={tmp_path / 'packed'}", "max_damaged_fraction=0.5") == 0


def test_rates_that_lead_nowhere(tmp_path, capsys):
    source = write_set(tmp_path / "source", Quirk(rates=(100.0, 99.95)))
    folder = packed(source, tmp_path / "packed")
    assert "10 of 20 traces are at a rate without a small ratio to 100 Hz" in capsys.readouterr().out
    assert read_manifest(folder).left_out == {"at a rate without a small ratio to 100 Hz": 10}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = opened(source).part(Split.train)
    keys = [(0, position) for position in range(len(original))]
    assert_equal(original, opened(folder).part(Split.train), tables_of(folder), keys)
    frame = pd.read_csv(source / "metadata.csv", dtype=str)
    frame.assign(trace_sampling_rate_hz="").to_csv(source / "metadata.csv", index=False)
    assert "20 of 20 traces are at no known rate" in ends(f"set={source}", f"output={tmp_path / 'other'}")


def test_a_set_without_arrivals(tmp_path, capsys):
    source = write_set(tmp_path / "source", Quirk())
    frame = pd.read_csv(source / "metadata.csv", dtype=str)
    frame.drop(columns=[name for name in frame if "arrival" in name]).to_csv(source / "metadata.csv", index=False)
    folder = packed(source, tmp_path / "packed")
    assert "packed without arrivals, so that no picker can be trained on it" in capsys.readouterr().out
    with pytest.raises(DataError, match="there is no column of P or S arrivals"):
        read_arrivals([str(folder)])


def test_what_is_there_is_not_touched(whole, tmp_path, small_set, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert "holds a pack made with other settings, or its source has changed" in ends(f"set={small_set}", f"output={whole}")
    assert "is packed already" in ends(f"set={whole}", f"output={tmp_path / 'twice'}")
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("x")
    assert "must be empty or not there" in ends(f"set={small_set}", f"output={tmp_path / 'taken'}")
    folder = packed(small_set, tmp_path / "packed")
    stamp = (folder / MANIFEST).stat().st_mtime_ns
    assert ends(f"set={small_set}", f"output={folder}") == 0, "complete: nothing to do"
    assert (folder / MANIFEST).stat().st_mtime_ns == stamp and "20 traces" in capsys.readouterr().out
    os.utime(small_set / "waveforms.hdf5", (0, 0))
    assert "its source has changed" in ends(f"set={small_set}", f"output={folder}")


def test_a_full_disk(small_set, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("dataloaders.pack.shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
        assert "GB are needed and 0.0 GB are free" in ends(f"set={small_set}", f"output={tmp_path / 'packed'}", "workers=1")

    def no_room(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(write.np, "savez", no_room)
        said = ends(f"set={small_set}", f"output={tmp_path / 'packed'}", "workers=1")
    assert "No space left on device). Free space, then run the same command" in said
    assert not list((tmp_path / "packed").rglob("*.partial")) and (tmp_path / "packed" / UNFINISHED).is_dir()
    packed(small_set, tmp_path / "packed")


def test_packed_otherwise_than_the_source_is_refused(small_set, tmp_path, monkeypatch):
    encode = write.encode
    monkeypatch.setattr(write, "encode", lambda wave: (encode(wave)[0] * np.float16(1.01), *encode(wave)[1:]))
    said = ends(f"set={small_set}", f"output={tmp_path / 'packed'}", "workers=1")
    assert "differ from the source by more than float16 explains" in said and not (tmp_path / "packed" / MANIFEST).exists()


def dies(job, shard):
    os._exit(9)


def test_a_process_that_dies(tmp_path, monkeypatch):
    source = write_set(tmp_path / "source", LONG)
    monkeypatch.setattr(write, "write_shard", dies)
    said = ends(f"set={source}", f"output={tmp_path / 'packed'}", "workers=2", "shard_mib=1")
    assert "a process that packed was killed or crashed" in said and "it goes on" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["set=[ETHZ]"], "set, output: belong together"),
        ([], "one of them must be given"),
        (["set=[a,a]", "output=x"], "names a set twice"),
        (["set=a", "output=x", "shard_mib=0"], "shard_mib = 0: must be 1"),
        (["set=a", "output=x", "worker=3"], "Did you mean 'workers'"),
    ],
)
def test_mistakes_on_the_command_line(words, said):
    assert said in ends(*words)
