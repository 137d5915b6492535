"""Small runs to fine-tune from, and what tests ask of them."""

from pathlib import Path

import pandas as pd
import torch
from composing import composed

from dataloaders.batch import DataSpec
from tasks import build
from tasks.start import start
from train import train
from utils import checkpoint

TINY = [
    "dataset.samples=256",
    "dataset.traces=24",
    "dataset.traces_dev=6",
    "encoder.width=16",
    "model.d_model=8",
    "model.pool=[2]",
    "model.dropout=0.1",
    "model.mlstm_num_heads=2",
    "loader.batch_size=4",
    "loader.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.num_sanity_val_steps=0",
    "trainer.log_every_n_steps=1",
    "pictures.enabled=false",
    "logger.tensorboard=false",
    "scheduler=constant",
]
RECONSTRUCTION = ["experiment=reconstruction/small", *TINY, "trainer.max_epochs=1"]
CONTRASTIVE = ["experiment=contrastive/small", "quantizer.codes=16", "loss.count=5", *TINY, "trainer.max_epochs=1"]
PARTS = {"encoder": "network.encoder.", "backbone": "network.backbone.", "decoder": "network.decoder.", "task": "task."}


def run(*overrides, run_id="run"):
    """A run in this process; returns its folder."""
    config = composed(*overrides, f"run_id={run_id}")
    train(config, list(overrides))
    return (Path("runs") / config["experiment_name"] / run_id).absolute()


def weights(path):
    return checkpoint.read(path).state_dict


def same(one, other, part):
    names = [name for name in one if name.startswith(PARTS[part])]
    assert names
    return [name for name in names if torch.equal(one[name], other[name])] == names


def module_of(*overrides):
    """Module and settings of a command line, with weights loaded and parts frozen as ``init`` says."""
    config = composed(*overrides)
    build.check(config)
    config = build.adopt_architecture(config, set())
    module = build.build_module(config, DataSpec(samples=256))
    return module, *start(module, config, resumes=False)


def metrics(folder):
    return pd.read_csv(folder / "metrics.csv").dropna(subset=["train/loss"]).set_index("step")
