"""Probes and streams on a GPU: ``pytest -m gpu tests/models/test_kernel_probe_gpu.py``."""

import pytest
import torch

from models.xlstm import peers, probe
from models.xlstm.block import MLSTMBlock
from models.xlstm.kernels import settle
from models.xlstm.probe import Case, verdict
from models.xlstm.settings import BlockSettings
from models.xlstm.stack import in_pieces
from utils.errors import ConfigError

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setenv(probe.ENVIRONMENT, "{}")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_our_kernels_pass_their_probe_at_the_widths_of_the_experiments(dtype):
    case = Case((16, 64, 96, 128, 256), device="cuda", dtype=dtype, slstm=(4, 16, 64))
    assert verdict("triton", case) is None


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name, peer in peers.PEERS.items() if peer.compiles])
def test_a_peer_works_or_is_refused_and_this_process_lives(name):
    try:
        assert settle(name, Case((64,), device="cuda", dtype="bfloat16")).line == f"{name}: as asked"
    except ConfigError as error:
        assert name in str(error)
        assert "kernels=native runs everywhere" in str(error)
    assert torch.ones(3, device="cuda").sum().item() == 3


def test_the_guard_zones_hold_on_a_gpu():
    case = Case((16,), chunk=16, device="cuda")
    assert verdict("behind", case, source="kernel_standins:make").startswith("it writes outside of its tensors: behind")
    assert verdict("sound", case, source="kernel_standins:make") is None


@torch.no_grad()
def test_pieces_on_a_gpu_are_the_whole():
    torch.manual_seed(0)
    block = MLSTMBlock(BlockSettings(width=64)).cuda()
    x = torch.randn(1, 2, 300, 64, device="cuda")
    state, out = block.start(x), []
    for piece in x.split([1, 99, 200], 2):
        y, state = in_pieces(block, piece, state)
        out.append(y)
    torch.testing.assert_close(torch.cat(out, 2), block(x), rtol=1e-3, atol=1e-3)
