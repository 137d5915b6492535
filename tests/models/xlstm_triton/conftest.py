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
