"""Packing sets from a test, and comparing batches of both."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dataloaders import pack
from dataloaders.contracts import Part
from dataloaders.packed.encode import bound
from dataloaders.packed.files import TRACES
from utils import cli


def ends(*words: object) -> str | int:
    """Run the command; 0 where it did what was asked, else the text or the code with which it ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["pack", *map(str, words)])
        try:
            cli.run(pack.main, pack.Arguments, where="dataloaders.pack", words="set")
        except SystemExit as end:
            return end.code or 0
    return 0


def packed(source: object, folder: Path, *more: str) -> Path:
    """Pack one set in this process."""
    assert ends(f"set={source}", f"output={folder}", "workers=1", *more) == 0
    return folder


def assert_equal(original: Part, ours: Part, tables: list[np.ndarray], keys: list[tuple[int, int]]) -> None:
    """Batches for these keys are the same but for float16.

    Args:
        original: of the sets as they were.
        ours: of the packed ones.
        tables: ``traces.npy`` of each packed set, in order.
        keys: epochs and positions.
    """
    expect, found = original.__getitems__(keys), ours.__getitems__(keys)
    for name, theirs, mine in zip(expect._fields, expect, found, strict=True):
        if name != "wave":
            assert (theirs is None) == (mine is None), name
            assert theirs is None or mine is None or torch.equal(theirs, mine), name
    assert not found.wave[~found.valid].any() and not found.wave.transpose(1, 2)[~found.live].any()
    rows = np.concatenate(tables)[expect.index.numpy()]
    for wave, read, row in zip(expect.wave.numpy(), found.wave.numpy(), rows, strict=True):
        allowed = bound(wave.T, row["scale"], row["offset"])
        assert (np.abs(read.T.astype(np.float64) - wave.T) <= allowed).all()


def tables_of(*folders: Path) -> list[np.ndarray]:
    """``traces.npy`` of packed sets."""
    return [np.load(folder / TRACES) for folder in folders]
