"""The choice of kernels: what is refused and when, what ``auto`` comes to, and the line that says so."""

import re

import pytest
import torch
from composing import composed

from models.backbones import xlstm_unet
from models.xlstm import kernels, peers, slstm_kernels
from models.xlstm.block import MLSTMBlock
from models.xlstm.kernels import kernel, mistakes, settle
from models.xlstm.mlstm import mlstm
from models.xlstm.probe import Case
from models.xlstm.settings import BlockSettings, BlockType
from tasks import build
from utils.errors import ConfigError

GPU = Case((64,), device="cuda", dtype="bfloat16")
SEQUENTIAL = ["experiment=xlstm_large/pure_mlstm_sequential_12m_foundation", "model.n_layers=1"]


@pytest.fixture(autouse=True)
def _unsettled(monkeypatch):
    monkeypatch.setattr(kernels, "_settled", {})


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A machine with a GPU and Triton, as far as the choice can see."""
    monkeypatch.setattr(kernels, "why_not", lambda: None)
    monkeypatch.setattr(peers, "why_not", lambda peer: None)
    monkeypatch.setitem(
        kernels.KERNELS, "triton", lambda chunk, cap, eps: kernels.Kernel("triton", lambda *x: x, "", native=False)
    )


def works(name, case):
    return None


def aborts(name, case):
    return "its probe was killed by SIGABRT"


def never(name, case):
    raise AssertionError(f"{name} was probed")


class TestAuto:
    def test_is_native_on_a_cpu(self):
        assert settle("auto", Case((64,)), never).line == "native: no CUDA device"
        assert kernel("auto", chunk=64, soft_cap=15.0, eps=1e-6).chosen == "native: no CUDA device"

    def test_is_native_for_a_cpu_run_beside_a_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert settle("auto", Case((64,)), never).line == "native: the run is on device 'cpu'"

    def test_is_triton_on_a_gpu_where_the_probe_passes(self, on_a_gpu):
        assert settle("auto", GPU, works).line == "triton: the probe passed"
        made = kernel("auto", chunk=16, soft_cap=15.0, eps=1e-6)
        assert made.chosen == "triton: the probe passed"
        x = [torch.randn(1, 2, 30, 8) for _ in range(3)] + [torch.randn(1, 2, 30) for _ in range(2)]
        torch.testing.assert_close(made.cell(*x), mlstm(*x, chunk=16))  # tensors on a CPU stay native
        assert not made.whole(x[0])

    def test_is_native_on_a_gpu_with_the_reason_where_it_does_not(self, on_a_gpu, monkeypatch):
        line = settle("auto", GPU, aborts).line
        assert line == "native: triton cannot be used: its probe was killed by SIGABRT; kernels=native runs everywhere"
        assert kernel("auto", chunk=64, soft_cap=15.0, eps=1e-6).native
        monkeypatch.setattr(kernels, "why_not", lambda: "Triton is not installed here")
        assert settle("auto", GPU, never).line == "native: triton cannot be used: Triton is not installed here"


class TestNames:
    @pytest.mark.parametrize("name", ["native", "parallel", "chunkwise", "recurrent", "chunkwise--native_custbw"])
    def test_code_that_is_not_compiled_is_not_probed(self, name):
        assert settle(name, Case((64,)), never).line == f"{name}: as asked"

    @pytest.mark.parametrize("name", ["triton", "chunkwise--triton_xl_chunk", "mlstm_kernels:parallel--triton_limit_headdim"])
    def test_a_backend_that_aborts_is_refused(self, on_a_gpu, name):
        assert settle(name, GPU, works).line == f"{name}: as asked"
        with pytest.raises(ConfigError, match=f"kernels = '{name}': its probe was killed by SIGABRT; .*kernels=native"):
            settle(name, GPU, aborts)

    def test_the_known_remedy_is_said_where_the_compiler_aborts(self, on_a_gpu):
        with pytest.raises(
            ConfigError, match=r"SIGABRT; where Triton 3.6 aborts while it compiles, DISABLE_LLVM_OPT=1 .*=native"
        ):
            settle("chunkwise--triton_xl_chunk", GPU, aborts)
        with pytest.raises(
            ConfigError, match=r"has no attribute 'make_block_ptr'; these kernels are written for a Triton before"
        ):
            settle("chunkwise--triton_xl_chunk", GPU, lambda name, case: "it raises X: has no attribute 'make_block_ptr'")
        assert peers.remedy("its probe did not end within 600 s") == "kernels=native runs everywhere"

    @pytest.mark.parametrize(
        ("block_type", "name", "widths"),
        [
            ("slstm", "triton", ((), (32, 64, 128))),
            ("mixed", "triton", ((64, 128, 256), (32, 64, 128))),
            ("mixed", "chunkwise--triton_xl_chunk", ((64, 128, 256), ())),
        ],
    )
    def test_a_backbone_has_every_head_width_of_both_cells_probed(self, on_a_gpu, monkeypatch, block_type, name, widths):
        asked = []
        monkeypatch.setattr(slstm_kernels, "why_not", lambda: None)
        monkeypatch.setattr(xlstm_unet, "settle", lambda name, case: asked.append((name, case)))
        xlstm_unet.XLSTMUNetConfig(block_type=BlockType(block_type), kernels=name).settle("cuda", "bfloat16")
        assert asked == [(name, Case(widths[0], device="cuda", dtype="bfloat16", slstm=widths[1]))]

    def test_compiled_kernels_are_refused_for_a_cpu_run(self, on_a_gpu, monkeypatch):
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        with pytest.raises(ConfigError, match=r"the run is on device 'cpu' and these kernels need CUDA"):
            settle("triton", Case((64,)), never)

    def test_what_is_not_installed_is_refused_with_the_remedy(self, monkeypatch):
        monkeypatch.setattr(peers, "find_spec", lambda name: None)
        for refuse in (lambda: settle("parallel--native_autograd", GPU, never), lambda: kernel(
            "parallel--native_autograd", chunk=64, soft_cap=None, eps=1e-6)):  # fmt: skip
            with pytest.raises(ConfigError, match="mlstm_kernels is not installed: pip install 'mlstm_kernels"):
                refuse()

    @pytest.mark.parametrize(
        ("name", "widths", "chunk", "said"),
        [
            ("chunkwise--triton_xl_chunk", (64, 96), 64, "heads are 96 wide: .* they write past their buffers"),
            ("parallel--triton_limit_headdim", (512,), 64, "heads are 512 wide: this kernel takes 256 at most"),
            ("chunkwise--triton_limit_chunk", (64,), 48, "chunk_size = 48: chunks of these kernels are powers of two"),
            ("parallel--native_siging_autograd", (64,), 64, "its input gate is a sigmoid: another cell"),
            ("chunkwise--triton_xl_chunks", (64,), 64, r"no such backend. Did you mean 'chunkwise--triton_xl_chunk'\?"),
            ("mlstm_kernels:native", (64,), 64, "no such backend"),
        ],
    )
    def test_what_no_machine_could_do_is_told(self, name, widths, chunk, said):
        (text,) = mistakes(name, widths, chunk)
        assert text.startswith(f"kernels = '{name}': ")
        assert re.search(said, text)
        assert mistakes("chunkwise--native_autograd", widths, chunk) == []

    def test_the_sequential_model_is_refused_in_a_config_with_all_else(self):
        with pytest.raises(ConfigError, match=r"heads are 96 wide") as caught:
            build.check(composed(*SEQUENTIAL, "model.kernels=chunkwise--triton_xl_chunk", "optimizer.lr=fast"))
        assert "lr = 'fast'" in str(caught.value)


class TestPeers:
    """NX-AI's own kernels that run on a CPU, as cells of ours."""

    @pytest.mark.parametrize("name", [name for name, peer in peers.PEERS.items() if not peer.compiles])
    def test_any_length_gives_our_numbers(self, name):
        x = [torch.randn(1, 2, 70, 16).double() for _ in range(3)] + [torch.randn(1, 2, 70).double() * 9 for _ in range(2)]
        made = kernel(f"mlstm_kernels:{name}", chunk=32, soft_cap=15.0, eps=1e-6)
        torch.testing.assert_close(made.cell(*x), mlstm(*x), rtol=1e-6, atol=1e-7)
        assert ("holds the normaliser constant" in made.chosen) == ("custbw" in name)

    @pytest.mark.parametrize("name", ["chunkwise--native_custbw", "parallel--native_autograd"])
    def test_the_gradients_of_a_block_are_ours(self, name):
        """Behind the head norm the constant normaliser does not show."""
        torch.manual_seed(0)
        ours, theirs = (
            MLSTMBlock(BlockSettings(width=32, mlstm_num_heads=2, chunk_size=16, kernels=k)).double() for k in ("native", name)
        )
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(1, 2, 37, 32, dtype=torch.float64)
        pull = torch.randn_like(x)
        grads = [torch.autograd.grad(block(x), list(block.parameters()), pull) for block in (ours, theirs)]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)

    def test_bfloat16_autocast_keeps_float32_gates(self):
        block = MLSTMBlock(BlockSettings(width=32, mlstm_num_heads=2, kernels="parallel--native_stablef_autograd"))
        plain = MLSTMBlock(BlockSettings(width=32, mlstm_num_heads=2))
        plain.load_state_dict(block.state_dict())
        x = torch.randn(1, 2, 70, 32)
        with torch.autocast("cpu", torch.bfloat16):
            got, expected = block(x), plain(x)
        assert (got - expected).norm() / expected.norm() < 0.02


def test_a_run_refuses_before_data_is_touched(monkeypatch):
    def touched(*args):
        raise AssertionError("data was opened")

    monkeypatch.setattr(build, "build_source", touched)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"kernels = 'triton': (no CUDA device is found|Triton is not installed)"):
        build.build(composed("experiment=contrastive/small", "model.kernels=triton"))
    with pytest.raises(AssertionError, match="data was opened"):
        build.build(composed("experiment=contrastive/small"))
    assert kernels._settled["auto"].line == "native: no CUDA device"
