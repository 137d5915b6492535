"""The Triton kernels on a machine without a GPU: interpreted in a child process, compiled but not run, refused by name."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from models.xlstm.kernels import kernel
from models.xlstm.triton import available
from utils.errors import ConfigError

TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton on this platform")
INTERPRETED = Path(__file__).parent / "xlstm_triton"


@TRITON
@pytest.mark.skipif(available.interpreted(), reason="these tests are then collected themselves")
def test_the_interpreter_finds_the_kernels_right():
    """A process of its own: the interpreter is chosen when Triton is imported, for good."""
    command = [sys.executable, "-m", "pytest", str(INTERPRETED), "-p", "no:cacheprovider", "--show-capture=no"]
    done = subprocess.run(
        command,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=INTERPRETED.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.slow
@TRITON
@pytest.mark.skipif(available.interpreted(), reason="nothing is compiled in the interpreter")
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset")
@pytest.mark.parametrize(("width", "tokens"), [(64, 1024), (96, 1024), (128, 256), (256, 64), (32, 1024), (16, 1024)])
def test_kernels_spill_no_more_on_a_hopper_gpu_than_was_timed(width, tokens):
    """None at narrow heads; some at wider ones, whose tiles were timed faster than those that spill nothing."""
    from models.xlstm.triton.resources import calls, usage

    for call in calls(width, tokens):
        used = usage(call)
        assert used.stack <= (48 if width <= 64 else 300), used  # 48: Triton 3.9 overlaps more products; 0 with 3.6
        assert used.programs >= 1, used
        newest = used.wgmma or (used.older and used.kernel == "state_scan" and width < 64)  # they have 64 rows, a state D
        assert newest or "gates" in used.kernel, used
        assert not used.unset, used


@pytest.mark.slow
@TRITON
@pytest.mark.skipif(available.interpreted(), reason="nothing is compiled in the interpreter")
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset")
@pytest.mark.parametrize(("inner", "tokens"), [(256, 1024), (1024, 64), (384, 1024)])
def test_what_is_around_the_cell_fits_a_hopper_gpu(inner, tokens):
    from models.xlstm.triton.resources import inner_calls, usage

    for call in inner_calls(inner, tokens):
        used = usage(call)
        assert used.stack <= 160, used  # addresses and a tile's edge; 48 with Triton 3.6, as was timed
        assert used.programs >= 1, used
        assert used.wgmma or "exit" in used.kernel, used
        assert not used.unset, used


@pytest.mark.slow
@TRITON
@pytest.mark.skipif(available.interpreted(), reason="nothing is compiled in the interpreter")
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset")
@pytest.mark.parametrize(("width", "tokens"), [(44, 100), (256, 300)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_width_and_dtype_compiles_and_fits(width, tokens, dtype):
    from models.xlstm.triton.resources import calls, usage

    for call in calls(width, tokens, dtype, soft_cap=None):
        used = usage(call)
        assert used.programs >= 1, used
        assert not used.unset, used


def test_without_a_gpu_the_backend_is_refused_with_the_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(available, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=r"kernels = 'triton': no CUDA device is found .* kernels=native runs everywhere"):
        kernel("triton", chunk=64, soft_cap=15.0, eps=1e-6)
    monkeypatch.setattr(available, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="Triton is not installed here"):
        kernel("triton", chunk=64, soft_cap=15.0, eps=1e-6)


def test_an_old_triton_is_refused_with_what_is_there_and_what_is_needed(monkeypatch):
    monkeypatch.setattr(available, "find_spec", lambda name: object())
    monkeypatch.setattr(available, "version", lambda package: "3.2.0+git")
    assert available.why_not().startswith("Triton 3.2 is installed, 3.6 or later is needed")


def test_an_old_gpu_is_refused_with_what_it_has_and_what_is_needed(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(available, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert "has compute capability 7.5, 8.0 is needed" in available.why_not()
