"""A training step on any device, for the tests that run on a GPU."""

import torch

from dataloaders.batch import Batch
from dataloaders.normalise import prepare
from tasks.contracts import StepOutput
from tasks.module import WaveModule
from utils.optim import OPTIMIZERS


def batch(size: int, samples: int, device: str, *, classes: int = 0) -> Batch:
    """Random waves with a gap, a missing component, an offset, two arrivals each and a class."""
    generator = torch.Generator().manual_seed(size)
    wave = torch.randn(size, samples, 3, generator=generator).cumsum(1) * 100 + 1e4
    valid = torch.ones(size, samples, dtype=torch.bool)
    valid[0, samples // 2 :] = False
    live = torch.ones(size, 3, dtype=torch.bool)
    live[-1, 1] = False
    onsets = torch.randint(0, samples // 2, (size, 2), generator=generator)
    onsets[1, 1] = -1
    known = torch.ones(size, 2, dtype=torch.bool)
    known[-1, 1] = False
    labels = [onsets, torch.tensor([[0, 1]]).repeat(size, 1), known, torch.arange(size) % max(classes, 1)]
    made = Batch(wave, valid, live, torch.arange(size), torch.ones(size, dtype=torch.int64), *labels)
    return made.on(torch.device(device))


def step(module: WaveModule, raw: Batch) -> StepOutput:
    """What a training step computes before the backward pass."""
    prepared, _ = prepare(raw, module.prepare_cfg)
    return module.task.step(module.network, prepared, module.draw(raw, evaluating=False))


def steps_without_synchronisation(
    module: WaveModule, dtype: torch.dtype, *, size: int = 8, samples: int = 2048, classes: int = 0
) -> None:
    """Train two steps on the GPU; the second fails where the host waits for the device."""
    optimizer = OPTIMIZERS.build(module.config["optimizer"], modules=[module.network, module.task])
    for repeat in range(2):  # the first may compile and allocate
        raw = batch(size, samples, "cuda", classes=classes)
        torch.cuda.set_sync_debug_mode("error" if repeat else "default")
        try:
            with torch.autocast("cuda", torch.bfloat16, enabled=dtype is torch.bfloat16):
                output = step(module, raw)
            (output.loss + output.penalty).backward()
            norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.isfinite(output.loss)
        assert torch.isfinite(norm)
