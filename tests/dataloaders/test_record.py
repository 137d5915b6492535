"""The simulated continuous record: onsets where energy begins, noise without seams, the same again from the same seed."""

import numpy as np
import obspy
import pandas as pd
import pytest
from obspy import UTCDateTime

from dataloaders import record
from utils.errors import DataError


def components(stream):
    return np.stack([trace.data for trace in stream]).astype(float)


def test_onsets_are_where_the_earthquakes_begin():
    quiet, _ = record.simulate(3, 0, seed=4)
    stream, onsets = record.simulate(3, 5, seed=4)
    difference = np.abs(components(stream) - components(quiet)).max(0)  # what the earthquakes added
    assert len(onsets) >= 8 and set(onsets["phase"]) == {"P", "S"}
    first = onsets.groupby(["magnitude", "distance_km"])["time"].min().min()
    begin = round((UTCDateTime(first) - stream[0].stats.starttime) * 100)
    assert difference[: begin - 20].max() <= 1  # rounding
    assert difference[begin : begin + 300].max() > 5


def test_noise_has_no_seams_and_one_level():
    stream, _ = record.simulate(25, 0, station=3, seed=2)
    z = components(stream)[0]
    assert len(z) == 25 * 6000
    power = pd.Series((np.diff(z) ** 2)[: 74 * 2000].reshape(74, 2000).mean(1))  # above the microseism
    assert power.max() < 3 * power.median() and power.min() > power.median() / 3
    assert np.abs(np.diff(z)).max() < 8 * np.diff(z).std()


def test_the_same_seed_gives_the_same_record_and_another_another():
    one, other = (record.simulate(2, 2, seed=seed) for seed in (1, 2))
    again = record.simulate(2, 2, seed=1)
    assert (components(one[0]) == components(again[0])).all() and one[1].equals(again[1])
    assert (components(one[0]) != components(other[0])).any()


def test_the_command_writes_what_obspy_and_pandas_read_and_replaces_nothing(tmp_path):
    args = record.Arguments(path=str(tmp_path / "new" / "record.mseed"), minutes=2, events=1)
    record.main(args)
    stream = obspy.read(args.path)
    assert sorted(trace.stats.channel for trace in stream) == ["HHE", "HHN", "HHZ"]
    assert {trace.stats.npts for trace in stream} == {12_000}
    table = pd.read_csv(tmp_path / "new" / "record.csv")
    assert list(table.columns) == ["trace_id", "station", "phase", "magnitude", "distance_km", "time"]
    with pytest.raises(DataError, match="overwrite=true"):
        record.main(args)


@pytest.mark.parametrize("setting", [{"minutes": 1}, {"events": 1000}, {"station": 200}, {"seed": -1}, {"path": ""}])
def test_settings_out_of_range(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        record.Arguments(**{"path": "x.mseed", **setting})
