"""The whole job, as a person starts it: runs, refusals, resuming, two ranks, starting from a checkpoint."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from composing import composed

from tasks import build
from train import train
from utils import checkpoint
from utils.errors import CheckpointError, ConfigError, DataError

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "dataset.samples=256",
    "dataset.traces=24",
    "dataset.traces_dev=6",
    "encoder.width=16",
    "model.d_model=16",
    "model.pool=[2]",
    "model.dropout=0",
    "loader.batch_size=4",
    "loader.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "pictures.enabled=false",
    "logger.tensorboard=false",
]
CONTRASTIVE = ["experiment=contrastive/small", "quantizer.codes=16", "loss.count=5", *TINY]
RECONSTRUCTION = ["experiment=reconstruction/small", *TINY]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs are written into the test's own folder."""
    monkeypatch.chdir(tmp_path)


def run(*overrides, run_id="run"):
    """A run in this process; returns its folder."""
    config = composed(*overrides, f"run_id={run_id}")
    train(config, list(overrides))
    return Path("runs") / config["experiment_name"] / run_id


def shell(*overrides, run_id="run", wait=True):
    """``python train.py …`` as a process of its own, in the test's folder."""
    environment = {**os.environ, "WAVEXLSTM_RUN_ID": run_id, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if not wait:
        return process
    said, _ = process.communicate(timeout=240)
    return process.returncode, said


def metrics(folder):
    return pd.read_csv(folder / "metrics.csv")


def train_losses(folder):
    table = metrics(folder)
    return table.dropna(subset=["train/loss"]).set_index("step")["train/loss"]


def weights(folder):
    return checkpoint.read(folder / "checkpoints" / "last.ckpt").state_dict


def test_a_run_leaves_what_it_promises_and_its_checkpoint_needs_nothing_else():
    folder = run(*CONTRASTIVE, "pictures.enabled=true", "logger.tensorboard=true")
    table = metrics(folder)
    for column in (
        "train/loss",
        "train/hidden_ratio",
        "train/perplexity",
        "train/gradient_norm",
        "train/temperature",
        "val/accuracy",
    ):
        assert table[column].notna().any(), column
    assert (folder / "config.yaml").is_file()
    assert {path.name for path in (folder / "pictures").iterdir()} >= {"contrastive.png", "code_usage.png", "curves.png"}
    assert list(folder.rglob("events.out.tfevents*"))
    saved = checkpoint.read(folder)
    assert saved.config["experiment_name"] == "contrastive/small"
    module = build.load_trained(str(folder))
    for name, value in module.state_dict().items():
        assert torch.equal(value, saved.state_dict[name])


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (["loader.batch_size=100"], DataError, "train split: 24 traces"),
        (["task.mask.span=500"], ConfigError, "span = 500 is longer"),
        (["task.mask.ratio=0.001"], ConfigError, "hides"),
        (["model.checkpoint_path=nowhere.ckpt"], CheckpointError, "no such file"),
        (["train.ckpt_path=nowhere.ckpt"], CheckpointError, "no such file"),
        (["encoder=identity"], ConfigError, "identity"),
        (["dataset=seisbench_auto_reg", "dataset.dataset_name=[nowhere/at/all]"], DataError, "nowhere/at/all"),
    ],
)
def test_bad_input_is_told_before_training(overrides, error, said):
    own = [item for item in CONTRASTIVE if not ("dataset=seisbench_auto_reg" in overrides and item.startswith("dataset.traces"))]
    with pytest.raises(error) as caught:
        run(*own, *overrides)
    assert said in str(caught.value)
    assert not list(Path("runs").rglob("*.ckpt"))


def test_a_mistake_on_the_command_line_is_one_screen_and_a_failure():
    code, said = shell("model.d_modle=3", "sed=1", "trainer.max_epoch=3")
    assert code == 1
    assert all(
        text in said for text in ("3 mistakes", "Did you mean 'd_model'", "Did you mean 'seed'", "Did you mean 'max_epochs'")
    )
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) < 12


def test_killed_and_resumed_a_run_ends_where_the_undisturbed_one_does():
    own = [*CONTRASTIVE, "dataset.traces=240", "trainer.max_epochs=2", "checkpoint.every_n_train_steps=7", "model.dropout=0.1"]
    process = shell(*own, run_id="killed", wait=False)
    last = Path("runs/contrastive/small/killed/checkpoints/last.ckpt")
    for _ in range(1200):
        if last.is_file() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    assert last.is_file(), said
    stopped = checkpoint.read(last).step
    assert 0 < stopped < 120
    assert stopped % 7 == 0 or stopped % 60 == 0
    code, said = shell(*own, f"train.ckpt_path={last}", run_id="resumed")
    assert code == 0, said
    code, said = shell(*own, run_id="whole")
    assert code == 0, said
    whole, resumed = (Path("runs/contrastive/small") / name for name in ("whole", "resumed"))
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    after = train_losses(resumed)
    assert after.index.min() >= stopped
    assert (after == train_losses(whole).loc[after.index]).all()


def test_another_run_cannot_be_resumed():
    folder = run(*RECONSTRUCTION)
    with pytest.raises(CheckpointError, match=r"this is another run .*seed: now 7, checkpoint 42"):
        run(*RECONSTRUCTION, "seed=7", f"train.ckpt_path={folder}", run_id="other")


@pytest.mark.ddp
@pytest.mark.parametrize("objective", ["reconstruction", "contrastive"])
def test_two_ranks_train_as_one(objective):
    noiseless = ["quantizer=nearest", "quantizer.codes=16", "quantizer.revive_below=0"]  # nothing drawn from a rank's generator
    own = RECONSTRUCTION if objective == "reconstruction" else [*CONTRASTIVE, *noiseless]
    own = [*own, "dataset.traces=40", "dataset.traces_dev=7"]
    code, said = shell(*own, "trainer.devices=2", run_id="two")
    assert code == 0, said
    code, said = shell(*own, "loader.batch_size=8", run_id="one")
    assert code == 0, said
    one, two = (Path("runs") / objective / "small" / name for name in ("one", "two"))
    losses = train_losses(one)
    assert len(losses) == 5
    assert losses.to_numpy() == pytest.approx(train_losses(two).to_numpy(), rel=2e-4)
    val = [metrics(folder)["val/loss"].dropna().iloc[-1] for folder in (one, two)]
    assert val[0] == pytest.approx(val[1], rel=1e-3)


def test_a_checkpoint_of_one_objective_starts_the_other():
    first = run(*CONTRASTIVE)
    run(*RECONSTRUCTION, f"model.checkpoint_path={first}", "trainer.max_steps=1", "optimizer.lr=1e-12", run_id="second")
    before, after = weights(first), weights(Path("runs/reconstruction/small/second"))
    moved = [name for name in before if name.startswith(("network.encoder", "network.backbone")) and name in after]
    assert moved
    for name in moved:
        assert torch.allclose(before[name], after[name], atol=1e-6), name
    run(*RECONSTRUCTION, "model.checkpoint_path=runs/reconstruction/small/second", "trainer.max_steps=1", run_id="third")
    again = [*RECONSTRUCTION, "trainer.max_steps=2", "model.checkpoint_path=runs/reconstruction/small/second"]
    resumed = run(*again, "train.ckpt_path=runs/reconstruction/small/third/checkpoints/last.ckpt", run_id="third")
    lineage = checkpoint.read(resumed / "checkpoints" / "last.ckpt").lineage
    assert lineage == ("contrastive/small/run", "reconstruction/small/second")


def test_a_stated_setting_that_contradicts_the_checkpoint_is_refused():
    first = run(*CONTRASTIVE)
    with pytest.raises(CheckpointError, match=r"model\.d_model = 24 \(checkpoint: 16\)"):
        run(*[item for item in RECONSTRUCTION if "d_model" not in item], "model.d_model=24", f"model.checkpoint_path={first}")


def test_next_sample_prediction_takes_only_causal_parts():
    causal = [
        *(item for item in RECONSTRUCTION if not item.startswith("encoder.")),
        "task=autoregressive",
        "loss=mse",
        "encoder=linear",
        "decoder=linear",
        "model.bidirectional=false",
    ]
    with pytest.raises(ConfigError, match="model 'xlstm-unet' does"):
        run(*causal)
    folder = run(*causal, "model.use_unet=false")
    assert train_losses(folder).notna().all()


PUBLISHED = ["loader.batch_size=1", "loader.num_workers=0", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1"]


@pytest.mark.ddp
def test_the_published_pretraining_command_runs_on_two_processes(published_sets):
    code, said = shell(
        "experiment=contrastive/xlstm_unet_seisbench",
        "trainer.devices=2",
        "trainer.max_epochs=1",
        *PUBLISHED,
        "trainer.num_sanity_val_steps=0",
        "pictures.enabled=false",
        "trainer.accelerator=cpu",
    )
    assert code == 0, said
    assert checkpoint.read("runs/contrastive/xlstm_unet_seisbench").step == 1


@pytest.mark.parametrize("experiment", ["xlstm_large/mlstm_11m_unet", "xlstm_large/pure_mlstm_sequential_12m_foundation"])
def test_the_published_reconstruction_commands_run(published_sets, experiment):
    run(
        f"experiment={experiment}", "trainer.fast_dev_run=true", "trainer.accelerator=cpu", "dataset.samples=1024", *PUBLISHED[:2]
    )


@pytest.mark.data
@pytest.mark.parametrize("experiment", ["contrastive/small", "reconstruction/small"])
def test_real_records_go_through_the_whole_job(real_set, experiment):
    own = [item for item in (CONTRASTIVE if "contrastive" in experiment else RECONSTRUCTION) if not item.startswith("dataset.")]
    folder = run(
        *own, "dataset=seisbench_auto_reg", f"dataset.dataset_name=[{real_set}]", "dataset.samples=1024", "loader.batch_size=16"
    )
    assert train_losses(folder).notna().all()
    assert metrics(folder)["val/loss"].notna().any()
