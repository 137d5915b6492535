"""A step waits for no device: nothing in it reads a number back, or copies one there (seen on the CPU, by what is called)."""

from typing import Any

import pytest
import torch
from composing import composed
from torch.utils._python_dispatch import TorchDispatchMode

from dataloaders.batch import Batch, DataSpec, Target
from tasks import build

SAMPLES, TRACES = 512, 4
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh")
"""Numbers that the host reads, results whose size depends on numbers, tensors made out of numbers of the host."""
AUGMENTED = "task.augment={rotate:true,flip:true,vertical:0.2,noise:0.3}"
PICKS = DataSpec(samples=SAMPLES, target=Target.picks, classes=("P", "S", "N"))
CLASSES = DataSpec(samples=SAMPLES, target=Target.event_class, classes=("FEQ", "AEQ"))


class Calls(TorchDispatchMode):
    """Notes what would wait on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        by_mask = "index" in name and any(getattr(at, "dtype", None) is torch.bool for arg in args[1:2] for at in _list(arg))
        if by_mask or any(word in name for word in WAITS):
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


@pytest.mark.parametrize(
    ("experiment", "spec", "extra"),
    [
        ("quickstart_finetune", PICKS, [AUGMENTED]),
        ("baseline/phasenet", PICKS, [AUGMENTED]),
        ("baseline/eqtransformer", PICKS, [AUGMENTED]),
        ("fore_aftershock/finetune_xlstm_unet", CLASSES, ["init=scratch", "model.d_model=16", "model.n_layers=1"]),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_step_waits_for_no_device(experiment, spec, extra, training):
    module = build.build_module(composed(f"experiment={experiment}", *extra), spec).train(training)
    batch = Batch(
        wave=torch.randn(TRACES, SAMPLES, 3),
        valid=torch.ones(TRACES, SAMPLES, dtype=torch.bool),
        live=torch.tensor([[True, True, True]] * 3 + [[True, False, True]]),
        index=torch.arange(TRACES),
        epoch=torch.ones(TRACES, dtype=torch.int64),
        onsets=torch.tensor([[100, 200]] * TRACES),
        phases=torch.tensor([[0, 1]] * TRACES),
        known=torch.ones(TRACES, 2, dtype=torch.bool),
        label=torch.tensor([0, 1] * 2),
    )
    module._step(batch, evaluating=not training)  # the first may build what later ones use
    with Calls() as calls:
        output, _, _ = module._step(batch, evaluating=not training)
        if training:
            output.loss.backward()
    assert calls.waits == []
