"""The data commands: what they say and how they end."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest

from dataloaders import download, inspect
from utils import cli
from utils.errors import ConfigError

ROOT = Path(__file__).parents[2]


def ends(tool, *words, monkeypatch):
    """The exit code, or the text it ends with (which Python prints and turns into 1), of a command line; 0 where it returns."""
    monkeypatch.setattr("sys.argv", ["tool", *map(str, words)])
    try:
        cli.run(tool.main, tool.Arguments, where=tool.__name__, words="names")
    except SystemExit as end:
        return end.code
    return 0


def test_inspect_shows_a_sound_set(published_sets, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "traces.png"
    assert ends(inspect, "PNW", f"plot={picture}", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    for text in ("20 traces", "train 12", "100 20", "Z 10, NE 10", "trace_p_arrival_sample 20", "0 of 20 tried"):
        assert text in said
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_inspect_shows_several_and_their_own_rates(published_sets, monkeypatch, capsys):
    assert ends(inspect, "names=[MLAAPDE, geofon]", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "40 20" in said and all(f"{rate} 5" in said for rate in (20, 50, 100, 200))


def test_inspect_finds_what_is_wrong_and_shows_the_others(published_sets, small_set, monkeypatch, capsys):
    with h5py.File(small_set / "waveforms.hdf5", "r+") as file:
        block = file["data/bucket0"]
        block[0] = 5.0
        block[1, 0, 7] = np.nan
    text = ends(inspect, small_set, "nowhere/at/all", "PNW", monkeypatch=monkeypatch)
    assert "1 of 20 traces tried are flat" in text and "1 of 20 traces tried hold samples that are not finite" in text
    assert "no such folder" in text and "PNW: 20 traces" in capsys.readouterr().out


def test_inspect_says_what_training_would_refuse_or_leave_out(small_set, monkeypatch, capsys):
    table = pd.read_csv(small_set / "metadata.csv", dtype=str)
    table.loc[0, "trace_sampling_rate_hz"] = "99.95"
    table.to_csv(small_set / "metadata.csv", index=False)
    assert ends(inspect, small_set, monkeypatch=monkeypatch) == 0
    assert "1 of 20 traces are at a rate without a small ratio to 100 Hz: 1 × 99.95 Hz" in capsys.readouterr().out
    table.loc[1, "trace_sampling_rate_hz"] = None
    table.to_csv(small_set / "metadata.csv", index=False)
    assert "1 of 20 traces are at no known rate" in ends(inspect, small_set, monkeypatch=monkeypatch)
    assert "unknown 1" in capsys.readouterr().out


def test_inspect_of_nothing(tmp_path, monkeypatch):
    assert "needs metadata.csv and waveforms.hdf5" in ends(inspect, tmp_path, monkeypatch=monkeypatch)
    assert "'names' must be given" in ends(inspect, monkeypatch=monkeypatch)
    assert "takes one set, not 2" in ends(inspect, "PNW", "ETHZ", "plot=x.png", monkeypatch=monkeypatch)


def test_a_picture_that_cannot_be_drawn(published_sets, tmp_path, monkeypatch):
    assert "cannot be written" in ends(inspect, "PNW", f"plot={tmp_path / 'none' / 'x.png'}", monkeypatch=monkeypatch)


def stub(monkeypatch, tmp_path, work):
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(tmp_path))
    monkeypatch.setitem(sys.modules, "seisbench.data", SimpleNamespace(Iquique=work))


@pytest.mark.parametrize("words", [["iquique"], ["names=[Iquique]"], ["names=iquique"]])
def test_download_that_works(words, small_set, monkeypatch, tmp_path, capsys):
    (tmp_path / "datasets").mkdir()
    stub(monkeypatch, tmp_path, lambda: small_set.rename(tmp_path / "datasets/iquique"))
    assert ends(download, *words, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "about 5 GB" in said and "complete. Use it with dataset.dataset_name=[Iquique]" in said


def broken_network():
    raise ConnectionError("Name or service not known")


@pytest.mark.parametrize("work", [broken_network, lambda: None])
def test_download_that_fails_says_so(work, monkeypatch, tmp_path):
    stub(monkeypatch, tmp_path, work)
    said = ends(download, "Iquique", monkeypatch=monkeypatch)
    assert "Iquique could not be downloaded" in said and "GB are free for" in said


def interrupted():
    raise KeyboardInterrupt


def test_ctrl_c_ends_a_download_with_130(monkeypatch, tmp_path, capsys):
    stub(monkeypatch, tmp_path, interrupted)
    assert ends(download, "Iquique", monkeypatch=monkeypatch) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_download_of_an_unknown_name_begins_nothing(monkeypatch, tmp_path):
    stub(monkeypatch, tmp_path, interrupted)
    assert "Did you mean 'STEAD'" in ends(download, "Iquique", "STEDA", monkeypatch=monkeypatch)


def test_help_is_no_failure(monkeypatch, capsys):
    assert ends(inspect, "--help", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "plot=traces.png" in said and "It takes: names, plot" in said


def test_words_and_keys():
    parsed = cli.parse(inspect.Arguments, ["ETHZ", "sets/a=b", "7"], where="inspect", words="names")
    assert parsed.names == ["ETHZ", "sets/a=b", "7"] and parsed.plot == ""
    with pytest.raises(ConfigError) as caught:
        cli.parse(inspect.Arguments, ["ETHZ", "names=[STEAD]", "--plot", "plto=x"], where="inspect", words="names")
    for text in ("3 mistakes", "'ETHZ' stands beside names=", "'--plot' is not of the form", "Did you mean 'plot'"):
        assert text in str(caught.value)
    with pytest.raises(ConfigError, match="'ETHZ' is not of the form key=value"):
        cli.parse(inspect.Arguments, ["ETHZ", "names=[STEAD]"], where="inspect")


@pytest.mark.parametrize(("tool", "word", "said"), [("inspect", ".", "needs metadata.csv"), ("download", "STEDA", "'STEAD'")])
def test_as_a_process(tool, word, said, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"dataloaders.{tool}", word]
    process = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 1 and said in process.stderr and "Traceback" not in process.stderr
    assert len(process.stderr.splitlines()) < 24, "one screen"
