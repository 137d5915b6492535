"""``python -m evaluation.pick``: from files to picks, stopped and taken up again, and what it says when it cannot."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from impulse_picker import impulse_module, save_checkpoint
from matplotlib.image import imread
from obspy import Stream, Trace, UTCDateTime
from obspy.core.event import read_events
from seisbench_sets import seisbench_quiet

from evaluation import picks as picks_of
from evaluation.archives import find_files
from evaluation.pick_plot import picture
from evaluation.streams import Segment
from utils import cli
from utils.errors import ConfigError, DataError

with seisbench_quiet():
    from evaluation import pick
    from evaluation.seisbench_model import WaveXLSTMPicker

ROOT = Path(__file__).resolve().parents[2]
START = UTCDateTime("2019-07-04T16:59:30Z")
P_AT, S_AT = 40.0, 42.5


def record(station, seed, *, samples=9000, rate=100.0, spikes=((P_AT, 0), (S_AT, 1))):
    """Noise with a spike on Z (P) and on N (S)."""
    wave = np.random.default_rng(seed).normal(size=(3, samples)) * 500
    for at, row in spikes:
        wave[row, round(at * rate)] += 2e4
    header = {"network": "XX", "station": station, "sampling_rate": rate, "starttime": START}
    return Stream([Trace(row.astype(np.int32), {**header, "channel": f"HH{c}"}) for row, c in zip(wave, "ZNE", strict=True)])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(impulse_module(), tmp_path_factory.mktemp("run") / "last.ckpt")


@pytest.fixture
def archive(tmp_path):
    """Two stations in one file, a third in another, and a file that is none."""
    folder = tmp_path / "records"
    folder.mkdir()
    (record("AAA", 1) + record("BBB", 2)).write(str(folder / "two.mseed"), format="MSEED")
    record("CCC", 3).write(str(folder / "one.sac.mseed"), format="MSEED")
    (folder / "notes.txt").write_text("rained")
    return folder


def run(checkpoint, *words, **given):
    """The command in this process."""
    keys = [
        f"{name}={value}" for name, value in {"checkpoint": checkpoint, "p_threshold": 0.5, "s_threshold": 0.5, **given}.items()
    ]
    pick.main(cli.parse(pick.Arguments, [*keys, *map(str, words)], where="evaluation.pick", words="input"))


def test_picks_come_out_at_their_times_as_csv_quakeml_and_picture(checkpoint, archive, tmp_path, capsys):
    output = tmp_path / "picks.csv"
    run(checkpoint, archive, output=output, plot="2019-07-04T17:00", plot_minutes=1)
    found = picks_of.read(output)
    assert [(p.station, p.phase) for p in found] == [(f"XX.{s}", p) for p in "PS" for s in ("AAA", "BBB", "CCC")]
    assert all(p.time == START + (P_AT if p.phase == "P" else S_AT) for p in found)
    said = capsys.readouterr().out
    assert "as given" in said
    assert "notes.txt: cannot be read" in said
    assert not (tmp_path / "picks.csv.parts").exists()
    pictures = sorted(tmp_path.glob("*.png"))
    assert [file.name for file in pictures] == [f"picks.XX.{s}..HH.png" for s in ("AAA", "BBB", "CCC")]
    assert imread(pictures[0]).shape[1] > 1000
    run(checkpoint, archive / "*.mseed", output=tmp_path / "picks.xml")
    (event,) = read_events(str(tmp_path / "picks.xml"))
    assert [p.time for p in event.picks] == [p.time for p in found]
    with pytest.raises(DataError, match=r"exists\. Give another one, or say restart=true"):
        run(checkpoint, archive, output=output)


def test_any_stretch_can_be_drawn_after_the_picks_are_written(checkpoint, archive, tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(pick, "picture", lambda *given, **also: drawn.append((given[1], also)) or picture(*given, **also))
    output, shown = tmp_path / "picks.csv", tmp_path / "shown.svg"
    run(checkpoint, archive / "one*", output=output)
    before = output.read_bytes(), output.stat().st_mtime_ns
    run(checkpoint, archive / "one*", output=output, plot=START + 30, plot_minutes=0.5, plot_output=shown, s_threshold=0.6)
    assert (output.read_bytes(), output.stat().st_mtime_ns) == before
    assert "exists and stays as it is" in " ".join(capsys.readouterr().out.split())
    assert shown.stat().st_size > 1000
    ((picks, given),) = drawn
    assert [(each.phase, each.time) for each in picks] == [(each.phase, each.time) for each in picks_of.read(output)]
    assert given["thresholds"] == {"P": 0.5, "S": 0.6}
    with pytest.raises(DataError, match=r"no record there\.$"):
        run(checkpoint, archive / "one*", output=output, plot="2021-01-01")
    with pytest.raises(ConfigError, match=r"plot_output = 'a\.doc': must end in \.png"):
        run(checkpoint, archive, output=output, plot=START, plot_output="a.doc")


def test_a_picture_shows_the_thresholds_that_were_used():
    segment = Segment("XX.AAA.", "HH", START, np.zeros((3, 2000), np.float32))
    curve = np.zeros((2000, 3), np.float32)
    made = picture([(segment, curve)], [], START, START + 20, components="ZNE", title="", thresholds={"P": 0.31, "S": 0.42})
    levels = [line.get_ydata()[0] for line in made.axes[-1].lines if line.get_linestyle() == ":"]
    assert levels == [0.31, 0.42]


def test_a_stopped_run_goes_on_and_picks_no_station_twice(checkpoint, archive, tmp_path, monkeypatch, capsys):
    output, seen, whole = tmp_path / "picks.csv", [], tmp_path / "whole.csv"
    run(checkpoint, archive, output=whole)
    picks = WaveXLSTMPicker.picks

    def stops_at(station):
        def watched(self, stream, **given):
            seen.append(stream[0].stats.station)
            if seen[-1] == station:
                raise KeyboardInterrupt
            return picks(self, stream, **given)

        monkeypatch.setattr(WaveXLSTMPicker, "picks", watched)

    stops_at("CCC")
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, archive, output=output)
    assert not output.exists()
    with pytest.raises(DataError, match=r"picked with another thresholds\. Say restart=true"):
        run(checkpoint, archive, output=output, p_threshold=0.6)
    seen.clear()
    stops_at("nowhere")
    run(checkpoint, archive, output=output)
    assert seen == ["CCC"]
    assert output.read_text() == whole.read_text()
    assert "2 stations were finished before, 0 picked again" in capsys.readouterr().out


def test_a_station_whose_files_changed_is_picked_again(checkpoint, archive, tmp_path, monkeypatch, capsys):
    output = tmp_path / "picks.csv"
    with monkeypatch.context() as patch:
        patch.setattr(pick.picks_of, "write", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint, archive, output=output)
    record("CCC", 4, spikes=()).write(str(archive / "one.sac.mseed"), format="MSEED")
    run(checkpoint, archive, output=output)
    assert "2 stations were finished before, 1 picked again since their files changed" in capsys.readouterr().out
    assert {p.station for p in picks_of.read(output)} == {"XX.AAA", "XX.BBB"}
    run(checkpoint, archive, output=output, restart=True, p_threshold=0.6)


def test_other_rates_gaps_and_missing_components_are_picked_and_told(checkpoint, tmp_path, capsys):
    folder = tmp_path / "odd"
    folder.mkdir()
    fast = record("FST", 5, samples=18_000, rate=200.0, spikes=())
    for trace, at in zip(fast, (P_AT, S_AT), strict=False):
        trace.data[int(at * 200) - 3 : int(at * 200) + 4] += 20_000
    vertical = record("VER", 6, spikes=((P_AT, 0),)).select(channel="HHZ")
    holed = record("GAP", 7)
    holed = holed.slice(START, START + 30) + holed.slice(START + 33, START + 90)
    short = record("ONE", 8, samples=1, spikes=())
    for name, stream in (("fast", fast), ("vertical", vertical), ("holed", holed), ("short", short)):
        stream.write(str(folder / f"{name}.mseed"), format="MSEED")
    run(checkpoint, folder, output=tmp_path / "picks.csv")
    found = {(p.station, p.phase): p.time - START for p in picks_of.read(tmp_path / "picks.csv")}
    assert found[("XX.GAP", "P")] == P_AT and found[("XX.GAP", "S")] == S_AT
    assert abs(found[("XX.FST", "P")] - P_AT) <= 0.03 and abs(found[("XX.FST", "S")] - S_AT) <= 0.03
    said = capsys.readouterr().out
    assert "3 traces resampled to 100 Hz" in said
    assert "XX.ONE..HH" in said and "at least 400 are needed" in said
    assert "XX.VER" in said


def test_nothing_usable_is_an_error_that_lists_why(checkpoint, tmp_path):
    (tmp_path / "a.txt").write_text("no record")
    with pytest.raises(DataError, match=r"no file could be read(.|\n)*a\.txt"):
        run(checkpoint, tmp_path / "a.txt", output=tmp_path / "p.csv")
    record("ONE", 8, samples=1, spikes=()).write(str(tmp_path / "one.mseed"), format="MSEED")
    with pytest.raises(DataError, match=r"no record could be used(.|\n)*at least 400 are needed"):
        run(checkpoint, tmp_path / "one.mseed", output=tmp_path / "p.csv")
    with pytest.raises(DataError, match="no such file"):
        find_files([str(tmp_path / "*.sac")])
    with pytest.raises(DataError, match="picks are written as"):
        run(checkpoint, tmp_path / "one.mseed", output=tmp_path / "p.txt")
    with pytest.raises(ConfigError, match=r"plot = 'noon'(.|\n)*"):
        run(checkpoint, tmp_path / "one.mseed", output=tmp_path / "p.csv", plot="noon")


def test_a_damaged_file_is_told_and_the_others_are_picked(checkpoint, archive, tmp_path, capsys):
    whole = (archive / "one.sac.mseed").read_bytes()
    (archive / "one.sac.mseed").write_bytes(whole[:512] + b"\x00" * 3000)
    run(checkpoint, archive, output=tmp_path / "picks.csv")
    assert len(picks_of.read(tmp_path / "picks.csv")) == 4
    assert "not used" in capsys.readouterr().out


def test_parts_that_a_crash_left_empty_are_picked_again_and_no_folder_is_told(checkpoint, archive, tmp_path):
    parts = tmp_path / "picks.csv.parts"
    parts.mkdir()
    (parts / "settings.json").write_text("")
    (parts / "station.XX.CCC.json").write_text('{"fingerprint": "of other settings"}')
    run(checkpoint, archive / "one*", output=tmp_path / "picks.csv")
    assert {pick.station for pick in picks_of.read(tmp_path / "picks.csv")} == {"XX.CCC"}
    with pytest.raises(DataError, match=r"picks\.csv/p\.csv\.parts: cannot be written"):
        run(checkpoint, archive, output=tmp_path / "picks.csv" / "p.csv")


def test_what_a_damaged_file_still_holds_is_picked_and_its_end_is_missed_aloud(checkpoint, archive, tmp_path, capsys, recwarn):
    damaged = archive / "two [copy].mseed"
    whole = record("DMG", 9, samples=60_000)
    whole.write(str(damaged), format="MSEED")
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2 + 100])
    (archive / "picks.csv.parts").mkdir()
    (archive / "picks.csv.parts" / "station.OLD.json").write_text("{}")
    run(checkpoint, archive, output=archive / "picks.csv")
    assert "XX.DMG" in {pick.station for pick in picks_of.read(archive / "picks.csv")}
    said = capsys.readouterr().out
    assert said.count("two [copy].mseed: read in part: ") == 1
    assert "picks.csv" not in said.partition("not used")[2].partition("picks as CSV")[0]
    assert not [warning for warning in recwarn if "mseed" in str(warning.filename)]


@pytest.mark.slow
def test_the_command_exits_with_the_truth(checkpoint, archive, tmp_path):
    command = [sys.executable, "-m", "evaluation.pick", f"checkpoint={checkpoint}", f"output={tmp_path / 'p.csv'}"]
    good = subprocess.run([*command, f"input={archive}/*.mseed"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    bad = subprocess.run([*command, f"input={archive}/*.sac"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert "Traceback" not in bad.stderr
