"""The published pickles: nothing in them runs, whatever they say; every row is used or accounted for."""

import os
import pickle
import pickletools
from datetime import datetime

import foreshock_tables as tables
import numpy as np
import pandas as pd
import pytest

from dataloaders.convert_foreshock import Arguments, convert, main
from dataloaders.foreshock import frames
from dataloaders.foreshock.inert import ALLOWED, Record, read_inert
from dataloaders.foreshock.write import SKIPPED
from dataloaders.sets.catalogue import open_sets
from dataloaders.sets.reader import Reader
from utils import cli
from utils.errors import DataError

CANARY = "canary"
LONG = 2**53 + 1
"""An identifier that float64 has no number for."""


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *args):
        self.made = (function, args)

    def __reduce__(self):
        return self.made


def by_hand(module, name, *args, build=None):
    """A pickle that calls ``module.name(*args)``, and then sets a state, without that module being imported here."""
    out = b"\x80\x04" + f"c{module}\n{name}\n".encode()
    out += b"(" + b"".join(pickle.dumps(arg, 2)[2:-1] for arg in args) + b"tR"
    return out + (b"" if build is None else pickle.dumps(build, 2)[2:-1] + b"b") + b"."


SHELL = f"touch {CANARY}"
PYTHON = f"__import__('pathlib').Path('{CANARY}').touch()"
HOSTILE = {
    "os.system": pickle.dumps(Calls(os.system, SHELL)),
    "posix.system by hand": by_hand("posix", "system", SHELL),
    "builtins.eval": pickle.dumps(Calls(eval, PYTHON)),
    "builtins.exec, protocol 0": pickle.dumps(Calls(exec, PYTHON), protocol=0),
    "python 2 eval": by_hand("__builtin__", "eval", PYTHON),
    "getattr chain": pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system")),
    "importlib": by_hand("importlib", "import_module", "antigravity"),
    "pandas.eval": by_hand("pandas", "eval", PYTHON),
    "pandas.read_pickle": by_hand("pandas", "read_pickle", "other.pkl"),
    "numpy.load": by_hand("numpy", "load", "other.npy"),
    "numpy.f2py": by_hand("numpy.f2py", "compile", "x"),
    "numpy.testing runstring": by_hand("numpy.testing._private.utils", "runstring", PYTHON, {}),
    "dotted name": b"\x80\x04\x8c\x06pandas\x8c\x0eDataFrame.eval\x93.",
    "frame query": b"\x80\x04\x8c\x11pandas.core.frame\x8c\x0fDataFrame.query\x93.",
    "subprocess in a cell": pickle.dumps(pd.DataFrame({"E_channel": [Calls(os.system, SHELL)]})),
    "operator": by_hand("operator", "attrgetter", "system"),
    "functools": by_hand("functools", "partial", "x"),
    "codecs lookup": by_hand("_codecs", "lookup", "x"),
    "types": by_hand("types", "CodeType"),
    "copyreg": by_hand("copyreg", "__newobj__", "x"),
    "extension registry": b"\x80\x02\x82\x01.",
    "persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
}


@pytest.fixture
def nest(tmp_path, monkeypatch):
    """An empty folder as working folder; a canary would be born in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_pickle_is_refused_and_runs_nothing(nest, attack):
    file = nest / "dataframe_pre_NRCA.csv"
    file.write_bytes(HOSTILE[attack])
    with pytest.raises(DataError, match=r"Nothing was executed|no pickle of a table"):
        read_inert(file)
    assert not (nest / CANARY).exists()


def test_the_canary_is_alive(nest):
    pickle.loads(HOSTILE["os.system"])
    assert (nest / CANARY).exists()


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_every_allowed_global_is_a_record_that_cannot_be_changed(nest, name):
    """Calls, states and attributes set on any of them leave no trace: neither on the type nor in the process."""
    module, _, attribute = name.rpartition(".")
    file = nest / "one.pkl"
    named = f"c{module}\n{attribute}\n".encode()
    before = dict(vars(Record))
    harmless = by_hand(module, attribute, PYTHON, SHELL, build={"__reduce__": PYTHON, "_mgr": SHELL})
    file.write_bytes(harmless)
    assert isinstance(read_inert(file), Record)
    for state in ({"kind": "x"}, (None, {"kind": "x", "__setstate__": "x", "__new__": "x"})):
        file.write_bytes(b"\x80\x04" + named + pickle.dumps(state, 2)[2:-1] + b"b.")  # a state set on the global itself
        with pytest.raises(DataError, match="no pickle of a table"):
            read_inert(file)
    assert dict(vars(Record)) == before
    assert not (nest / CANARY).exists()


HOLLOW = {
    "no frame": {"a": 1},
    "empty frame": by_hand("pandas", "DataFrame", build={"_mgr": 1}),
    "array of another size": by_hand("pandas", "DataFrame", build={"_data": None}),
    "text": b"trace_name,E_channel\n1,2\n",
    "nothing": b"",
    "cut": pickle.dumps(tables.frame("pre", 3))[:-400],
}


@pytest.mark.parametrize("content", HOLLOW)
def test_what_is_no_table_is_told(nest, content):
    value = HOLLOW[content]
    folder = tables.write(nest / "in", {"pre": tables.frame("pre", 3), "post": tables.frame("post", 3)})
    (folder / "dataframe_pre_NRCA.csv").write_bytes(value if isinstance(value, bytes) else pickle.dumps(value))
    with pytest.raises(DataError, match=r"dataframe_pre_NRCA\.csv: .*(no pickle of a table|no data frame)"):
        convert(Arguments(input=str(folder), path="out"))


def lying_array(shape, data):
    """A frame whose array claims a shape that its bytes do not have."""
    whole = pickle.dumps(pd.DataFrame({"E_channel": np.zeros(7)}), protocol=2)
    return next(
        whole[:at] + pickle.dumps(shape, 2)[2:-1] + whole[at + size :]
        for at, size in [(whole.index(b"K\x01K\x07\x86"), 5)]
    )  # fmt: skip


def test_an_array_that_lies_about_its_size_is_refused(nest):
    file = nest / "lie.pkl"
    file.write_bytes(lying_array((1, 2**40), None))
    with pytest.raises(DataError, match=r"no data frame that can be read \(an array of shape"):
        frames.columns(read_inert(file))


MALFORMED = [
    by_hand("pandas._libs.tslibs.timestamps", "_unpickle_timestamp", 2**70),
    by_hand("datetime", "datetime", b"12"),
    by_hand("datetime", "datetime"),
    by_hand("numpy._core.multiarray", "scalar", "x", "y"),
    by_hand("numpy._core.multiarray", "_reconstruct", build=(1, ("x",), None, False, b"")),
    by_hand("numpy._core.numeric", "_frombuffer", b"1234", "x", (1,), "C"),
    by_hand("pandas", "DataFrame", build={"a": 1}),
    pickle.dumps({"a": []}),
    pickle.dumps(2**2000),
]


@pytest.mark.parametrize("put", [b"r" + (2**30).to_bytes(4, "little"), b"p1073741824\n", b"q\xff"])
def test_a_few_bytes_do_not_take_all_memory(nest, put):
    file = nest / "memo.pkl"
    file.write_bytes(b"\x80\x02N" + put + b".")
    with pytest.raises(DataError, match=r"place .* of a memo"):
        read_inert(file)


@pytest.mark.parametrize("number", range(len(MALFORMED)))
def test_cells_of_an_unknown_form_are_no_value_and_no_crash(nest, number):
    file = nest / "cell.pkl"
    file.write_bytes(MALFORMED[number])
    cell = read_inert(file)
    assert np.isnat(frames.time(cell))
    assert np.isnan(frames.number(cell))
    assert frames.text(cell) == ""
    assert frames.samples(cell) is None


def content(frame):
    rng = np.random.default_rng(0)
    return frame.assign(
        naive=pd.to_datetime(["2016-01-01T00:00:00.25", "2017-02-03"], format="ISO8601"),
        aware=pd.to_datetime(["2016-01-01", "2017-02-03"], utc=True),
        cells=pd.Series([pd.Timestamp("2016-01-01"), pd.Timestamp("2016-01-01T02:00", tz="Europe/Rome")], dtype=object),
        scalars=pd.Series([np.float32(1.5), np.int64(4)], dtype=object),
        moments=pd.Series([datetime(2016, 10, 30, 7, 40, 17, 250), datetime(2017, 1, 2)], dtype=object),
        empty=[np.zeros(0), np.zeros(0)],
        whole=[3, -4],
        long=[LONG, LONG + 1],
        long_cells=pd.Series([LONG, np.int64(LONG + 1)], dtype=object),
        endless=[np.inf, -np.inf],
        flag=[True, False],
        odd=[rng.normal(size=4).astype(">f4"), [1, 2.5]],
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tables_are_read_as_pandas_reads_them(nest, protocol):
    frame = content(tables.frame("pre", 2))
    frame["cells"] = [frame["cells"][0], frame["cells"][0].tz_localize("UTC")]
    file = nest / "frame.pkl"
    file.write_bytes(pickle.dumps(frame, protocol=protocol))
    found = frames.columns(read_inert(file))
    assert set(found) == set(frame.columns)
    for row in range(2):
        np.testing.assert_array_equal(frames.samples(found["E_channel"][row]), frame["E_channel"][row].astype(np.float32))
        np.testing.assert_array_equal(frames.samples(found["odd"][row]), np.asarray(frame["odd"][row], np.float32))
        assert frames.samples(found["empty"][row]) is None
        for name in ("magnitude", "whole", "flag", "scalars"):
            assert frames.number(found[name][row]) == float(frame[name][row])
        for name in ("naive", "aware", "cells", "moments", "source_origin_time"):
            expected = pd.to_datetime(frame[name][row], utc=True).tz_localize(None).to_datetime64()
            assert frames.time(found[name][row]) == expected.astype("datetime64[us]")
        assert frames.text(found["source_id"][row]) == frame["source_id"][row]
        assert frames.text(found["long"][row]) == frames.text(found["long_cells"][row]) == str(LONG + row)
        assert frames.text(found["endless"][row]) == ""


def test_only_known_names_are_in_pandas_own_pickles():
    """What this pandas writes is covered; a new version that writes other names fails here first."""
    for protocol in (2, 4, 5):
        data = pickle.dumps(tables.frame("pre", 2), protocol=protocol)
        named = [arg.replace(" ", ".") for op, arg, _ in pickletools.genops(data) if op.name == "GLOBAL"]
        assert set(named) <= set(ALLOWED)


def written_by_an_old_pandas(frame, *, blocks_as_args):
    """A pickle as pandas 1.0 (or 1.3) with NumPy 1 writes it: made of names alone, as no such version is installed."""
    objects = np.array(list(frame.itertuples(index=False, name=None)), dtype=object).T.copy()

    def array(values):
        return b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tX\x01\x00\x00\x00btR" + state(values)

    def state(values):
        listed = b"](" + b"".join(item(value) for value in values.ravel().tolist()) + b"e"
        shape = pickle.dumps(values.shape, 2)[2:-1]
        dtype = (
            b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
        )
        return b"(K\x01" + shape + dtype + b"\x89" + listed + b"tb"

    def item(value):
        if isinstance(value, np.ndarray):
            return b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tX\x01\x00\x00\x00btR" + numbers(value)
        return pickle.dumps(value, 2)[2:-1]

    def numbers(values):
        dtype = (
            b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        )
        raw = pickle.dumps(values.astype("<f8").tobytes(), 3)[2:-1]
        return b"(K\x01" + pickle.dumps(values.shape, 2)[2:-1] + dtype + b"\x89" + raw + b"tb"

    names = b"cpandas.core.indexes.base\n_new_Index\n(cpandas.core.indexes.base\nIndex\n}X\x04\x00\x00\x00data"
    names += array(np.array(list(frame.columns), dtype=object)) + b"stR"
    rows = b"cpandas.core.indexes.base\n_new_Index\n(cpandas.core.indexes.range\nRangeIndex\n}X\x04\x00\x00\x00stopK\x02stR"
    place = b"cbuiltins\nslice\n(K\x00" + pickle.dumps(len(frame.columns), 2)[2:-1] + b"K\x01tR"
    axes, manager = b"](" + names + rows + b"e", b"cpandas.core.internals.managers\nBlockManager\n"
    if blocks_as_args:
        block = b"cpandas._libs.internals\n_unpickle_block\n(" + array(objects) + place + b"K\x02tR"
        inside, key = manager + b"(" + block + b"\x85" + axes + b"tR", b"X\x04\x00\x00\x00_mgr"
    else:
        block = b"}(X\x06\x00\x00\x00values" + array(objects) + b"X\x08\x00\x00\x00mgr_locs" + place + b"u"
        inner = b"}X\x06\x00\x00\x000.14.1}(X\x04\x00\x00\x00axes" + axes + b"X\x06\x00\x00\x00blocks](" + block + b"eus"
        inside, key = manager + b")\x81(NNN" + inner + b"tb", b"X\x05\x00\x00\x00_data"
    return b"\x80\x03cpandas.core.frame\nDataFrame\n)\x81}" + key + inside + b"sb."


@pytest.mark.parametrize("blocks_as_args", [False, True])
def test_tables_of_old_versions_are_read_too(nest, blocks_as_args):
    frame = tables.frame("pre", 2)
    file = nest / "old.pkl"
    file.write_bytes(written_by_an_old_pandas(frame, blocks_as_args=blocks_as_args))
    found = frames.columns(read_inert(file))
    assert list(found) == list(frame.columns)
    np.testing.assert_array_equal(frames.samples(found["N_channel"][1]), frame["N_channel"][1].astype(np.float32))
    assert found["source_id"].tolist() == frame["source_id"].tolist()


def test_a_converted_set_holds_the_waveforms_times_and_arrivals(nest, capsys):
    parts = {name: tables.frame(name, count) for name, count in (("pre", 6), ("visso", 3), ("post", 5))}
    tables.write(nest / "in", parts)
    main(cli.parse(Arguments, ["input=in", "path=out"], where="convert"))
    table = pd.read_csv(nest / "out" / "metadata.csv", dtype={"source_id": str}).set_index("source_id")
    catalogue = open_sets(["out"], 0).at_100_hz()
    reader = Reader(catalogue, 0)
    for frame in parts.values():
        for row in frame.itertuples():
            number = table.index.get_loc(row.source_id)
            wave, _ = reader.read(np.array([number]), np.zeros(1, int), np.array([512]), 512)
            stored = np.stack([row.Z_channel, row.N_channel, row.E_channel], 1).astype(np.float32)
            np.testing.assert_array_equal(wave[0], stored)
            there = table.loc[row.source_id]
            expected = (pd.Timestamp(row.source_origin_time) - tables.MAINSHOCK.tz_localize("UTC")).total_seconds()
            assert there["source_time_to_mainshock_s"] == pytest.approx(expected)
            assert there["trace_p_arrival_sample"] == pytest.approx(225)
    assert "dataset.path=out" in capsys.readouterr().out


def damaged():
    """A table before the mainshock with one row of each fault, and what is said of it."""
    frame = tables.frame("pre", 13)
    ends = frame["E_channel"].tolist()
    ends[1], ends[2] = ends[1][:-1], None
    for component in "ENZ":
        frame.loc[3:3, f"{component}_channel"] = pd.Series([np.zeros(200)], index=[3])
        frame.loc[4:4, f"{component}_channel"] = pd.Series([np.full(512, np.nan)], index=[4])
        frame.loc[5:5, f"{component}_channel"] = pd.Series([frame[f"{component}_channel"][0]], index=[5])
    ends[3], ends[4], ends[5] = frame["E_channel"][3], frame["E_channel"][4], frame["E_channel"][0]
    ends[6] = np.where(np.arange(512) == 7, np.nan, ends[6])
    frame["E_channel"] = pd.Series(ends, dtype=object)
    frame["sampling_rate"] = [100.0] * 7 + [125.0] + [100.0] * 5
    frame.loc[8, "source_id"] = ""
    frame.loc[9, "source_origin_time"] = "some time"
    frame.loc[10, "source_origin_time"] = "2016-11-05T00:00:00Z"
    frame.loc[11, "source_id"] = "pre_0"
    frame.loc[12, "source_id"] = "visso_0"
    said = {
        1: "different lengths", 2: "no array of numbers", 3: "shorter than 400", 4: "no signal", 5: "same waveform",
        7: "125 Hz", 8: "no event identifier", 9: "no readable origin", 10: "but after the mainshock",
        11: "another origin time", 12: "in the table 'visso' already",
    }  # fmt: skip
    return frame, said


def test_every_row_left_out_is_listed_with_its_reason_and_gaps_are_kept(nest, capsys):
    frame, said = damaged()
    tables.write(nest / "in", {"pre": frame, "visso": tables.frame("visso", 2), "post": tables.frame("post", 2)})
    main(Arguments(input="in", path="out"))
    listed = pd.read_csv(nest / "out" / SKIPPED)
    assert dict(zip(listed["row"], listed["reason"], strict=True)).keys() == said.keys()
    for row, reason in zip(listed["row"], listed["reason"], strict=True):
        assert said[row] in reason
    assert set(listed["file"]) == {"dataframe_pre_NRCA.csv"}
    assert len(pd.read_csv(nest / "out" / "metadata.csv")) == 2 + 2 + 2
    told = capsys.readouterr().out
    assert "left out: 1 shorter than 400 samples" in told
    assert "kept: 1 with some samples that are not finite" in told


def test_what_is_missing_is_named(nest):
    with pytest.raises(DataError, match=r"dataframe_pre_NRCA.csv is not there \(found: no such folder\)"):
        convert(Arguments(input="nowhere", path="out"))
    frame = tables.frame("pre", 3).drop(columns="source_id")
    tables.write(nest / "in", {"pre": frame, "post": tables.frame("post", 3)})
    with pytest.raises(DataError, match=r"columns source_id are missing\. It has: .*trace_start_time"):
        convert(Arguments(input="in", path="out"))
    assert not (nest / "out" / "metadata.csv").exists()


def test_a_set_is_not_overwritten_unasked(nest):
    tables.write(nest / "in", {"pre": tables.frame("pre", 3), "post": tables.frame("post", 3)})
    convert(Arguments(input="in", path="out"))
    with pytest.raises(DataError, match="overwrite=true"):
        convert(Arguments(input="in", path="out"))
    convert(Arguments(input="in", path="out", overwrite=True))


def test_a_mainshock_without_a_time_is_a_mistake():
    with pytest.raises(ValueError, match="mainshock = 'yesterday'"):
        Arguments(input="in", path="out", mainshock="yesterday")
