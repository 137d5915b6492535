"""These modules run in Triton's interpreter, which must be chosen before Triton is imported: ../test_xlstm_triton.py does."""

import os

import numpy as np
import pytest

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def _as_on_a_gpu():
    """The interpreter computes with NumPy, which warns of what a GPU leaves silent: exp(−1e30), 1/inf."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture(autouse=True)
def _tiles_of_half_precision(monkeypatch):
    """The interpreter multiplies bfloat16 wrongly, so float32 goes through the tiles that training uses."""
    from models.xlstm.triton import launch

    monkeypatch.setattr(launch, "WIDE", launch.HALF)
