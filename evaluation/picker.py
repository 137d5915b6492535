"""A trained phase picker as a function: raw windows to probabilities of P, S and noise."""

from typing import final

import torch
from torch import Tensor

from dataloaders.batch import PICK_CLASSES, Batch, Target
from dataloaders.normalise import prepare
from tasks.build import load_trained
from tasks.module import WaveModule
from utils.errors import CheckpointError


@final
class Picker:
    """What evaluation, export and the picking of files have in common.

    Args:
        module: a trained picker; moved to the device and set to evaluation mode.
        device: where to compute.

    Attributes:
        samples: L, length of the windows it was trained on; any length is taken.
        rate: sampling rate in Hz.
        channels: C, 3 for ZNE, 1 for Z.

    Raises:
        CheckpointError: the module is no picker, or its classes are in another order than P, S, N.
    """

    def __init__(self, module: WaveModule, device: str = "cpu") -> None:
        task = str(module.config["task"]["_name_"])
        if module.spec["target"] != Target.picks.value or task != "phase_pick":
            raise CheckpointError(
                f"this checkpoint was trained for task '{task}', it picks no phases. Fine-tune it first: "
                "python train.py experiment=quickstart_finetune model.checkpoint_path=…"
            )
        if tuple(module.spec["classes"]) != PICK_CLASSES:
            raise CheckpointError(
                f"the checkpoint's classes are {', '.join(module.spec['classes'])}; a picker's are {', '.join(PICK_CLASSES)}, "
                "in this order"
            )
        self.module = module.eval().to(device)
        self.device = torch.device(device)
        self.samples = int(module.spec["samples"])
        self.rate = float(module.spec["rate"])
        self.channels = int(module.spec["channels"])

    @classmethod
    def load(cls, path: str, device: str = "cpu") -> "Picker":
        """The picker of a checkpoint (a file, or a run folder: its newest). Raises CheckpointError where it is none."""
        return cls(load_trained(path), device)

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        """Raw windows to probabilities ``B L 3`` float32 in the order P, S, N, on the picker's device.

        Samples that are not valid get P 0, S 0, noise 1.
        """
        ready, _ = prepare(batch.on(self.device), self.module.prepare_cfg)
        scores = self.module.network(ready.wave, ready.valid).float().softmax(-1)
        noise = scores.new_tensor([0.0, 0.0, 1.0])
        return torch.where(ready.valid[..., None], scores, noise)
