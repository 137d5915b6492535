"""The profile of a training step: kernels find their kind, times add up to the step."""

import pytest

from benchmarks.profile import Kernel, by_kind, profiled, table
from benchmarks.step_arms import ARMS, Objective, Request, built

SMALL = ("encoder.width=8", "model.d_model=16", "model.n_layers=1", "loss.count=5")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("chunk_gradients", "mLSTM cell"),
        ("slstm_backward", "sLSTM cell"),
        ("nvjet_tst_128x64_64x10_2x1_v_bz_TNT", "matrix products"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16>", "matrix products"),
        ("triton_red_fused_native_layer_norm_12", "compiled elementwise"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimizer, clipping"),
        ("Memcpy DtoD (Device -> Device)", "copies, fills"),
        ("void at::native::vectorized_elementwise_kernel<4, gelu>", "elementwise"),
        ("cudnn::bn_fw_tr_1C11", "convolution"),
    ],
)
def test_a_kernel_finds_its_kind(name, kind):
    assert Kernel(name, 1, 1.0).kind == kind


def test_kinds_add_up_and_what_no_kernel_took_is_idle():
    kernels = [Kernel("state_scan", 4, 3.0), Kernel("forward_scan", 4, 2.0), Kernel("nvjet_a", 10, 1.0)]
    assert [(k.name, k.calls, k.ms) for k in by_kind(kernels)] == [("mLSTM cell", 8, 5.0), ("matrix products", 10, 1.0)]
    rows = [row.split() for row in table(kernels, 10.0, 2, "cuda").splitlines()]
    assert ["idle", "0", "4.000", "40.0%"] in rows
    assert ["a", "step", "18", "10.000", "100.0%"] in rows
    assert rows[-1][-1] == "forward_scan"


def test_a_step_on_a_cpu_is_profiled_whole():
    step, _ = built(Request("contrastive/xlstm_unet_seisbench", Objective.own, SMALL, 512, "cpu"), ARMS["native"], 2)
    kernels = profiled(step, 2, "cpu")
    assert {"mLSTM cell", "matrix products", "convolution", "optimizer, clipping"} <= {kernel.kind for kernel in kernels}
    assert kernels == sorted(kernels, key=lambda kernel: -kernel.ms)
