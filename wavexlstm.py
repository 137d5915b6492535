"""The public face of WaveXLSTM for notebooks and scripts: ``import wavexlstm``.

``wavexlstm.load("runs/quickstart/…")`` gives a trained module: ``module.network.encoder``, ``module.network.backbone``,
``module.task``. ``wavexlstm.embed(module, wave)`` gives a trace's tokens in context. ``wavexlstm.Simulator`` makes seismograms.
"""

import torch
from torch import Tensor

from dataloaders.batch import Batch
from dataloaders.normalise import prepare
from dataloaders.simulator.engine import Simulator
from dataloaders.simulator.settings import SimulatorConfig
from tasks.build import load_trained as load
from tasks.module import WaveModule

__all__ = ["Simulator", "SimulatorConfig", "WaveModule", "embed", "load"]


@torch.no_grad()
def embed(module: WaveModule, wave: Tensor) -> Tensor:
    """Tokens in context of raw waveforms, prepared as the model was trained on them.

    Args:
        module: from :func:`load`.
        wave: ``B L C`` at 100 Hz in the order ZNE, counts or any unit; gaps as NaN.

    Returns:
        ``B T D``, a token every ``module.network.encoder.stride`` samples.
    """
    size, samples, channels = wave.shape
    number = torch.arange(size, device=wave.device)
    valid = torch.ones(size, samples, dtype=torch.bool, device=wave.device)
    live = torch.ones(size, channels, dtype=torch.bool, device=wave.device)
    batch, _ = prepare(Batch(wave, valid, live, number, torch.zeros_like(number)), module.prepare_cfg)
    return module.network.backbone(module.network.encoder(batch.wave))
