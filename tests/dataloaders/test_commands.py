"""The two data commands: what they say and how they end."""

import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from dataloaders import download, inspect


def test_inspect_shows_a_sound_set(published_sets, tmp_path, capsys):
    picture = tmp_path / "traces.png"
    assert inspect.main(["PNW", "--plot", str(picture)]) == 0
    said = capsys.readouterr().out
    for text in ("20 traces", "train 12", "100 20", "Z 10, NE 10", "trace_p_arrival_sample 20", "0 of 20 tried"):
        assert text in said
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_inspect_finds_what_is_wrong(small_set, capsys):
    with h5py.File(small_set / "waveforms.hdf5", "r+") as file:
        block = file["data/bucket0"]
        block[0] = 5.0
        block[1, 0, 7] = np.nan
    assert inspect.main([str(small_set)]) == 1
    said = capsys.readouterr().out
    assert "1 of 20 traces tried are flat" in said and "1 of 20 traces tried hold samples that are not finite" in said


def test_inspect_of_nothing(tmp_path, capsys):
    assert inspect.main([str(tmp_path)]) == 1
    assert "needs metadata.csv and waveforms.hdf5" in capsys.readouterr().err


def stub(monkeypatch, tmp_path, work):
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(tmp_path))
    monkeypatch.setitem(sys.modules, "seisbench.data", SimpleNamespace(Iquique=work))


def test_download_that_works(small_set, monkeypatch, tmp_path, capsys):
    (tmp_path / "datasets").mkdir()
    stub(monkeypatch, tmp_path, lambda: small_set.rename(tmp_path / "datasets/iquique"))
    assert download.main(["iquique"]) == 0
    said = capsys.readouterr().err
    assert "about 5 GB" in said and "complete. Use it with dataset.dataset_name=[Iquique]" in said


def broken_network():
    raise ConnectionError("Name or service not known")


@pytest.mark.parametrize("work", [broken_network, lambda: None])
def test_download_that_fails_says_so(work, monkeypatch, tmp_path, capsys):
    stub(monkeypatch, tmp_path, work)
    assert download.main(["Iquique"]) == 1
    said = capsys.readouterr().err
    assert "Iquique could not be downloaded" in said and "GB are free for" in said and "Traceback" not in said


def test_download_of_an_unknown_name(capsys):
    assert download.main(["STEDA"]) == 1
    assert "Did you mean 'STEAD'" in capsys.readouterr().err
