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
        assert used.stack <= (96 if width <= 64 else 300), used  # none with Triton 3.6, which was timed; 80 with 3.9
        assert used.programs >= 1, used
        newest = used.wgmma or (used.older and used.kernel == "state_scan" and width < 64)  # they have 64 rows, a state D
        assert newest or "gates" in used.kernel, used
        assert not used.unset, used


def norm_calls(width, batch=64):
    """Norms, dropout and residual of two directions, forwards and backwards, 16 tokens a sequence or the only one."""
    from models.xlstm.triton import norm_op

    tokens = 16 if batch > 1 else 1
    x, z = (torch.zeros(batch, tokens, n * width, dtype=torch.bfloat16) for n in (1, 2))
    out = torch.zeros(2, batch, tokens, width, dtype=torch.bfloat16)
    scales, seed = torch.zeros(2, batch, tokens), torch.tensor([1])
    return [
        *norm_op.token_norm_calls(x, x, scales[0], 1e-6),
        *norm_op.token_norm_backward_calls(out, x, scales[0], x),
        *norm_op.joined_norm_calls(x, out, seed, 0.1, z, scales, 1e-6),
        *norm_op.joined_norm_backward_calls(z, z, scales, seed, 0.1, x, out),
    ]


def head_calls(count=4000):
    """The contrastive head of the published model, with so many codes to choose."""
    from models.quantizers import gumbel_op
    from tasks.losses import info_nce_op

    logits, weight = torch.zeros(count, 2, 320, dtype=torch.bfloat16), torch.zeros(count)
    told = (logits, weight, torch.tensor(1.0), torch.tensor([1]), 0.1)
    log_sums = torch.zeros(2, count, 2)
    choice, _ = gumbel_op.forward_calls(*told, (torch.zeros(count, 2, dtype=torch.long), log_sums))
    choice += gumbel_op.backward_calls(*told, log_sums, (logits, torch.zeros(2, 320), logits))
    vectors, each = torch.zeros(4, 670, 256, dtype=torch.bfloat16), torch.zeros(4, 670)
    given = (vectors, vectors, each, each, each.long(), torch.zeros(4, 670, 672, dtype=torch.uint8))
    forward = info_nce_op.forward_call(given, 0.1, (each, each, each.to(torch.uint8)))
    return [*choice, forward, info_nce_op.backward_call(given, 0.1, each, each, given[5].bfloat16())]


@pytest.mark.slow
@TRITON
@pytest.mark.skipif(available.interpreted(), reason="nothing is compiled in the interpreter")
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset")
@pytest.mark.parametrize(
    ("calls", "sizes"), [(norm_calls, (128,)), (norm_calls, (192,)), (norm_calls, (128, 1)), (head_calls, ()), (head_calls, (1,))]
)
def test_norms_and_the_contrastive_head_spill_nothing_on_a_hopper_gpu(calls, sizes):
    """A single token too: Triton takes an argument of 1 for a constant, which has not all that a number has."""
    from models.xlstm.triton.resources import usage

    for call in calls(*sizes):
        used = usage(call)
        assert used.stack == 0 and used.programs >= 2, used
        assert bool(used.wgmma) == ("info_nce" in used.kernel), used
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
