"""A picker whose answer is known: P where the vertical, S where the north component has a spike, to the sample."""

import torch
from composing import composed

from dataloaders.batch import PICK_CLASSES, DataSpec, Target
from tasks import build
from utils import checkpoint

SAMPLES = 512


def impulse_module(samples=SAMPLES):
    """Logits 2z − 20, 2n − 20 and 0 of the normalised components: Gaussian noise is far below, a spike of 30 σ far above."""
    config = composed("experiment=quickstart_finetune", f"dataset.samples={samples}", "experiment_name=impulses")
    config["encoder"], config["decoder"] = {"_name_": "identity"}, {"_name_": "linear"}
    config["model"] = {"_name_": "identity", "d_model": 3, "checkpoint_path": None}
    module = build.build_module(config, DataSpec(samples=samples, target=Target.picks, classes=PICK_CLASSES)).eval()
    weights = {
        name: torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 0]]) if value.ndim == 2 else torch.tensor([-20.0, -20.0, 0])
        for name, value in module.network.state_dict().items()
    }
    module.network.load_state_dict(weights)
    return module


def save_checkpoint(module, path):
    """Write a module as train.py's checkpoints are."""
    torch.save({"state_dict": module.state_dict(), checkpoint.KEY: checkpoint.record(module.config, module.spec)}, path)
    return path
