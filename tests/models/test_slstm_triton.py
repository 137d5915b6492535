"""The Triton sLSTM on a machine without a GPU: compiled but not run, refused by name. Interpreted it is in xlstm_triton/."""

from importlib.util import find_spec

import pytest
import torch

from models.xlstm.settings import BlockSettings, BlockType
from models.xlstm.slstm_block import SLSTMBlock
from models.xlstm.slstm_kernels import native, settle_slstm, slstm_cell
from models.xlstm.triton import available
from utils.errors import ConfigError

COMPILED = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="no Triton on this platform"),
    pytest.mark.skipif(available.interpreted(), reason="nothing is compiled in the interpreter"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset"),
]


class TestCompiled:
    pytestmark = COMPILED

    @pytest.mark.parametrize("width", [4, 8, 16, 6, 12, 20, 32, 40, 44, 64, 80, 128])
    def test_no_kernel_spills_on_a_hopper_gpu(self, width):
        """Head widths of xlstm/small_slstm, its mixed form, and of the large experiments with block_type=slstm."""
        from models.xlstm.triton.resources import slstm_calls, usage

        for call in slstm_calls(width, 1024):
            used = usage(call)
            assert (used.stack, used.spills) == (0, 0), used
            assert used.programs >= 1, used
            assert used.older or used.wgmma, used
            assert not used.unset, used
            assert not (used.wgmma and "slstm" in used.kernel), "scans must not take the matrix instructions that are waited for"

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize(
        ("width", "dtype"),
        [(3, torch.float32), (16, torch.float32), (64, torch.float32), (12, torch.float16), (128, torch.float16)],
    )
    def test_other_dtypes_and_inference_compile_and_fit(self, width, dtype, training):
        from models.xlstm.triton.resources import slstm_calls, usage

        assert all(usage(call).programs >= 1 for call in slstm_calls(width, 100, dtype, batch=3, training=training))

    @pytest.mark.parametrize(("tokens", "batch"), [(1, 1), (7, 9)])
    def test_arguments_that_are_one_compile_as_well(self, tokens, batch):
        """Triton compiles an argument of 1 as a constant, which is another program."""
        from models.xlstm.triton.resources import slstm_calls, usage

        for call in slstm_calls(12, tokens, batch=batch):
            assert usage(call).spills == 0


def test_other_backends_keep_the_native_cell():
    assert all(slstm_cell(name, 500) is native for name in ("auto", "native", "recurrent"))


def test_without_a_gpu_it_is_refused_with_the_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(available, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=r"kernels = 'triton': no CUDA device is found .* kernels=native runs everywhere"):
        SLSTMBlock(BlockSettings(width=16, kernels="triton"))


def test_heads_that_do_not_fit_the_chip_are_refused_before_anything_is_built():
    cfg = BlockSettings(width=1024, slstm_num_heads=4, kernels="triton")
    text = "kernels = 'triton': sLSTM heads of 256 features in bfloat16: at most 128"
    assert [wrong.startswith(text) for wrong in cfg.mistakes(BlockType.slstm)] == [True]
    assert cfg.mistakes(BlockType.mlstm) == []
    assert BlockSettings(width=1024, slstm_num_heads=8, kernels="triton").mistakes(BlockType.mixed) == []


@pytest.mark.parametrize(
    ("device", "dtype", "text"),
    [
        ("cpu", "bfloat16", "the run is on device 'cpu' and these kernels need CUDA"),
        ("cuda", "float32", "sLSTM heads of 128 features in float32: at most 64"),
    ],
)
def test_a_run_that_cannot_have_it_is_refused_before_data_is_touched(monkeypatch, device, dtype, text):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("models.xlstm.slstm_kernels.why_not", lambda: None)
    with pytest.raises(ConfigError, match=text):
        settle_slstm("triton", (32, 128), device, dtype)
    settle_slstm("native", (32, 500), device, dtype)
    settle_slstm("triton", (32, 128), "cuda", "bfloat16")
