"""Sets on disk: what we read equals what SeisBench reads; and sets that are wrong are refused before training."""

import pickle

import h5py
import numpy as np
import pandas as pd
import pytest
from seisbench_sets import PUBLISHED, TRACES, Quirk, damage, seisbench_quiet, write_set

from dataloaders.contracts import SOURCES, Split
from dataloaders.normalise import prepare
from dataloaders.sets.catalogue import open_sets
from dataloaders.sets.layout import place, split_name, zne
from dataloaders.sets.names import SIZES, folder_of
from dataloaders.sets.reader import Reader, narrowed
from dataloaders.sources.seisbench import SeisBench, SeisBenchConfig
from utils.errors import DataError


def opened(*names, seed=0, **settings):
    return SeisBench(SeisBenchConfig(dataset_name=[str(name) for name in names], **settings), seed=seed)


def oracle(folder, components):
    """The traces as SeisBench reads them, ``3 L`` each, missing components zero; and their component orders."""
    with seisbench_quiet():
        from seisbench.data import WaveformDataset

        theirs = WaveformDataset(folder, component_order=components, dimension_order="NCW", missing_components="pad")
        orders = theirs.metadata["trace_component_order"].tolist()
        return [theirs.get_sample(trace)[0] for trace in range(len(theirs))], orders


QUIRKS = {
    **PUBLISHED,
    "doubles": Quirk(dtype="float64"),
    "shorts": Quirk(dtype="int16", dimensions="WC", order=("EZN", "ZNE")),
    "mixed": Quirk(order=("ZNE", "ENZ", "Z", "NZ"), lengths=(5000, 600), bucket=3),
    "alone": Quirk(bucket=0, dimensions="WC", lengths=(5000, 600)),
}


@pytest.mark.parametrize("name", QUIRKS)
def test_reads_what_seisbench_reads(name, tmp_path):
    quirk = QUIRKS[name]
    folder = write_set(tmp_path / name, quirk, seed=5)
    catalogue = open_sets([str(folder)], 0) if quirk.split or quirk.events or quirk.extra else None
    assert catalogue is not None and len(catalogue) == TRACES
    traces = np.arange(TRACES)
    start = np.minimum(catalogue.length - 200, 37 * traces)
    count = np.minimum(catalogue.length - start, 4096)
    wave, sound = Reader(catalogue, 0).read(traces, start, count, 4096)
    assert sound.all() and wave.dtype == np.float32
    live = catalogue.live(traces)
    flexible = "12" in "".join(quirk.order)
    for components in ("ZNE", "Z12") if flexible else ("ZNE",):
        theirs, orders = oracle(folder, components)
        for trace in traces:
            if flexible and ("1" in orders[trace]) != (components == "Z12"):
                continue
            expect = np.zeros((3, 4096), np.float32)
            expect[:, : count[trace]] = theirs[trace][:, start[trace] : start[trace] + count[trace]]
            np.testing.assert_array_equal(wave[trace].T, expect)
            assert live[trace].tolist() == [letter in orders[trace] for letter in components]


def test_trace_number_does_not_depend_on_order_of_reading_or_on_the_batch(published_sets):
    source = opened("ETHZ", "Iquique", seed=4, samples=1024)
    part = source.part(Split.train)
    keys = [(epoch, position) for epoch in (0, 3) for position in range(len(part))]
    whole = part.__getitems__(keys)
    for number in (0, 5, len(keys) - 1):
        alone = part[keys[number]]
        for theirs, ours in zip(whole[:5], alone[:5], strict=True):
            assert (theirs[number] == ours[0]).all()
    half = opened("ETHZ", "Iquique", seed=4, samples=1024, training_fraction=0.5).part(Split.train)
    few = half.__getitems__([(3, position) for position in range(len(half))])
    for number, index in enumerate(few.index.tolist()):
        at = whole.index[len(part) :].tolist().index(index) + len(part)
        assert (few.wave[number] == whole.wave[at]).all(), "the same trace has the same window whatever the fraction"


def test_validation_windows_are_fixed(published_sets):
    first, second = (opened("ETHZ", seed=seed).part(Split.dev) for seed in (1, 2))
    assert (first[(0, 1)].wave == second[(7, 1)].wave).all()


def test_short_traces_are_padded(published_sets):
    source = opened("ETHZ")
    batch = source.part(Split.train).__getitems__([(0, position) for position in range(12)])
    length = source.catalogue.length[batch.index.numpy()]
    assert set(length.tolist()) == {3000, 5000, 6000}
    assert batch.valid.sum(1).tolist() == np.minimum(length, 4096).tolist()
    assert (batch.wave[~batch.valid] == 0).all()


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_published_name_opens(name, published_sets):
    node = {"_name_": "seisbench_auto_reg", "dataset_name": [name], "samples": 512}
    source = SOURCES.build(node, seed=0)
    assert all(len(source.part(split)) > 0 for split in Split)
    batch, counts = prepare(source.part(Split.train).__getitems__([(0, 0), (0, 1)]), source.cfg)
    assert batch.wave.shape == (2, 512, 3) and batch.valid.all() and counts["flat_traces"] == 0
    assert name in source.describe()


def test_in_memory_is_the_same(published_sets):
    keys = [(1, position) for position in range(8)]
    disk, memory = (opened("GEOFON", preload=preload).part(Split.train) for preload in (False, True))
    assert (disk.__getitems__(keys).wave == memory.__getitems__(keys).wave).all()


def test_part_travels_to_workers(published_sets):
    part = opened("InstanceCounts").part(Split.train)
    before = part[(0, 3)]
    copy = pickle.loads(pickle.dumps(part))
    assert (copy[(0, 3)].wave == before.wave).all()


def test_nested_fractions_and_unmoved_dev_and_test(published_sets):
    sources = [opened("ETHZ", "GEOFON", training_fraction=share) for share in (0.2, 0.5, 1.0)]
    train = [set(source.traces(Split.train).tolist()) for source in sources]
    assert train[0] < train[1] < train[2]
    for split in (Split.dev, Split.test):
        assert len({tuple(source.traces(split)) for source in sources}) == 1
    catalogue = sources[1].catalogue
    of_train = catalogue.split == 0
    for number in (0, 1):
        mine = of_train & (catalogue.which == number)
        kept = np.isin(np.arange(len(catalogue)), list(train[1]))
        assert set(catalogue.event[mine & kept]).isdisjoint(catalogue.event[mine & ~kept]), "whole events only"


def test_split_by_event(published_sets):
    catalogue = open_sets(["GEOFON"], 0)
    parts = [set(catalogue.event[catalogue.split == number]) for number in range(3)]
    assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert (open_sets(["GEOFON"], 0).split == catalogue.split).all()
    assert (open_sets(["GEOFON"], 1).split != catalogue.split).any()


def test_split_by_trace_warns(tmp_path):
    folder = write_set(tmp_path / "bare", Quirk(split=False, events=False))
    with pytest.warns(UserWarning, match="neither split nor event"):
        catalogue = open_sets([str(folder)], 0)
    assert np.bincount(catalogue.split).tolist() == [12, 2, 6]


@pytest.mark.parametrize(
    ("location", "expect"),
    [
        ("12,:3,:6000", (0, 12, (0, 3), (0, 6000))),
        (":3, 4, 10:-5", (1, 4, (0, 3), (10, -5))),
        ("1:2,:", (-1, 0, (1, 2), (0, 2**31 - 1))),
    ],
)
def test_locations(location, expect):
    assert tuple(place(location)) == expect


@pytest.mark.parametrize("location", ["1,2,:", ":,:,:", "x,:3,:5", "1,::2,:5"])
def test_locations_of_no_single_trace(location):
    assert place(location) is None


def test_component_names():
    assert zne("ZNE", 3) == (0, 1, 2) and zne("ENZ", 3) == (2, 1, 0) and zne("Z1 2", 3) == (0, 1, 2)
    assert zne("HZ12", 4) == (1, 2, 3) and zne("H", 1) == (-1, -1, -1) and zne("ZNE", 1) == (0, -1, -1)
    assert split_name("STA.NET.2001$x") == ("STA.NET.2001", "x") and split_name("single") == ("single", ":,:")


@pytest.mark.parametrize(
    ("dimension_order", "shape", "location"), [("CNW", (3, 4, 900), ":3,{},:900"), ("NWC", (4, 900, 3), "{},:900,:3")]
)
def test_dimension_orders_with_the_batch_axis(dimension_order, shape, location, tmp_path):
    block = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with h5py.File(tmp_path / "waveforms.hdf5", "w") as file:
        file["data/block"] = block
        file["data_format/dimension_order"] = dimension_order
        file["data_format/component_order"] = "ZNE"
    names = [f"block${location.format(row)}" for row in (-1, 0, 1, 2)]
    pd.DataFrame({"trace_name": names, "source_id": range(4)}).to_csv(tmp_path / "metadata.csv")
    catalogue = open_sets([str(tmp_path)], 0)
    wave, _ = Reader(catalogue, 0).read(np.arange(4), np.full(4, 5), np.full(4, 800), 800)
    canonical = block.transpose([dimension_order.index(letter) for letter in "NWC"])
    np.testing.assert_array_equal(wave, canonical[[3, 0, 1, 2], 5:805])


def test_offsets_beyond_float32_are_taken_away_first():
    signal = np.arange(50) % 7
    counts = np.stack([signal + 2**30, signal - 2**29])
    np.testing.assert_array_equal(narrowed(counts.astype(np.int32)), (counts - counts[:, :1]).astype(np.float32))
    np.testing.assert_array_equal(narrowed(signal[None].astype(np.float64)), signal[None])


def rewrite(folder, change):
    table = pd.read_csv(folder / "metadata.csv", dtype=str)
    table = change(table)
    table.to_csv(folder / "metadata.csv", index=False)


FAULTS = {
    "no trace_name": (lambda t: t.drop(columns="trace_name"), r"metadata.csv: column 'trace_name' is missing"),
    "an empty trace_name": (lambda t: t.assign(trace_name=[None, *t.trace_name[1:]]), "1 of 20 rows have an empty 'trace_name'"),
    "no rows": (lambda t: t.iloc[:0], "metadata.csv: there is no trace in it"),
    "a row too many": (
        lambda t: pd.concat([t, t.tail(1).assign(trace_name="bucket0$99,:3,:10")]),
        r"do not belong together. 1 of 21 traces lie outside their block, the first is 'bucket0\$99",
    ),
    "an unknown block": (
        lambda t: t.assign(trace_name=t.trace_name.str.replace("bucket0", "bucket7")),
        "1 of 3 blocks of the metadata are not in waveforms.hdf5, first is 'bucket7'",
    ),
    "a step": (lambda t: t.assign(trace_name="bucket0$0,::2,:100"), r"'bucket0\$0,::2,:100' is no location"),
    "no such split": (lambda t: t.assign(split="later"), "column 'split': no row says train, dev or test"),
    "no dev": (lambda t: t[t.split != "dev"], "split 'dev' has no usable trace"),
    "only a hydrophone": (lambda t: t.assign(trace_component_order="H"), "no usable trace: 20 without a component Z, N or E"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_metadata_stop_before_training(fault, small_set):
    change, text = FAULTS[fault]
    rewrite(small_set, change)
    with pytest.raises(DataError, match=text):
        opened(small_set).part(Split.dev)


def test_vertical_alone_needs_a_vertical(published_sets):
    source = opened("PNW", d_data=1)
    assert "10 without a component Z" in source.describe() and source.spec.channels == 1


def test_truncated_file(small_set):
    path = small_set / "waveforms.hdf5"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"waveforms.hdf5: damaged or truncated"):
        opened(small_set)


def test_file_that_is_no_hdf5(small_set):
    (small_set / "waveforms.hdf5").write_bytes(b"no such thing")
    with pytest.raises(DataError, match="damaged or truncated"):
        opened(small_set)
    (small_set / "metadata.csv").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read as a table"):
        opened(small_set)


def test_damaged_traces_are_left_out_counted_and_limited(small_set):
    damage(small_set, [1])
    part = opened(small_set, max_damaged_fraction=0.1).part(Split.train)
    with pytest.warns(UserWarning, match=r"damaged trace left out, .*waveforms.hdf5: bucket0, row 1"):
        batch = part.__getitems__([(0, position) for position in range(len(part))])
    bad = batch.index == 1
    assert not batch.valid[bad].any() and not batch.live[bad].any() and (batch.wave[bad] == 0).all()
    assert batch.valid[~bad].all() and part.reader.damaged == {1}
    prepared, counts = prepare(batch, SeisBenchConfig())
    assert prepared.wave.isfinite().all() and counts["sparse_traces"] == 1
    strict = opened(small_set, max_damaged_fraction=0.0).part(Split.train)
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(DataError, match=r"1 damaged traces.*max_damaged_fraction"):
        strict[(0, 1)]


def test_names(published_sets, tmp_path, monkeypatch):
    assert folder_of("ethz") == folder_of("ETHZ") == published_sets / "datasets" / "ethz"
    with pytest.raises(DataError, match="Did you mean 'InstanceCounts'"):
        folder_of("InstanceCount")
    with pytest.raises(DataError, match="is two sets in SeisBench"):
        folder_of("InstanceCountsCombined")
    with pytest.raises(DataError, match="no such folder"):
        folder_of(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"needs metadata.csv and waveforms.hdf5"):
        folder_of(str(tmp_path))
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(tmp_path))
    with pytest.raises(DataError, match=rf"about 85 GB\) with: python -m dataloaders.download STEAD\nIt goes to {tmp_path}"):
        folder_of("stead")


def test_a_chunk_without_its_waveforms(published_sets, tmp_path):
    folder = write_set(tmp_path / "set", Quirk(chunks=("_a", "_b")))
    (folder / "waveforms_b.hdf5").unlink()
    with pytest.raises(DataError, match=r"waveforms_b.hdf5 missing"):
        open_sets([str(folder)], 0)


def test_known_names_are_seisbench_names():
    with seisbench_quiet():
        import seisbench.data as theirs
    assert set(SIZES) <= set(dir(theirs))


def test_settings():
    for settings, text in [
        ({"dataset_name": []}, "at least one"),
        ({"training_fraction": 0.0}, "training_fraction = 0.0"),
        ({"samples": 3}, "samples = 3: must be at least 16"),
        ({"max_damaged_fraction": 2.0}, "max_damaged_fraction = 2.0"),
    ]:
        mistakes = SOURCES.mistakes({"_name_": "seisbench_auto_reg", **settings})
        assert len(mistakes) == 1 and text in mistakes[0]


@pytest.mark.data
def test_real_records(real_set):
    source = opened(real_set, samples=4096)
    assert [len(source.part(split)) for split in Split] == [185, 40, 88]
    part = source.part(Split.train)
    batch, counts = prepare(part.__getitems__([(0, position) for position in range(len(part))]), source.cfg)
    assert batch.wave.isfinite().all() and batch.valid.all() and counts["flat_traces"] == 0
    assert ((batch.wave.square().mean(1) - 1).abs() < 1e-3).all()
    theirs, _ = oracle(real_set, "ZNE")
    wave, _ = source.part(Split.test).reader.read(
        np.arange(313), np.zeros(313, int), np.minimum(source.catalogue.length, 9001), 9001
    )
    for trace, full in enumerate(theirs):
        np.testing.assert_array_equal(wave[trace, : full.shape[1]].T, full)
