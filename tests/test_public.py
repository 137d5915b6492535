"""The public face: load, embed, simulate."""

import torch
from composing import composed

import wavexlstm
from dataloaders.batch import DataSpec
from tasks import build
from utils import checkpoint


def test_a_checkpoint_loads_and_embeds_simulated_seismograms(tmp_path):
    torch.manual_seed(0)
    made = build.build_module(composed("experiment=contrastive/small"), DataSpec()).eval()
    content = {"state_dict": made.state_dict(), checkpoint.KEY: checkpoint.record(made.config, made.spec)}
    torch.save(content, tmp_path / "model.ckpt")
    module = wavexlstm.load(str(tmp_path))
    assert not module.training
    traces = wavexlstm.Simulator(wavexlstm.SimulatorConfig(trace_samples=1000), 1)(torch.arange(3).numpy())
    wave = torch.as_tensor(traces.wave).transpose(1, 2)
    tokens = wavexlstm.embed(module, wave)
    assert tokens.shape == (3, 250, module.network.backbone.d_out)
    again = wavexlstm.embed(module, wave * 1e6 + 5e7)  # gain and offset of the instrument
    assert torch.allclose(tokens, again, atol=0.05)
    broken = wave.clone()
    broken[0, 500:600] = float("nan")
    assert torch.isfinite(wavexlstm.embed(module, broken)).all()
