"""Fine-tuning as a person does it: what stays frozen, what thaws when, resuming, two ranks, the mean of the best checkpoints."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from composing import composed
from finetuning import RECONSTRUCTION, metrics, module_of, run, same, weights

from tasks import build
from utils import checkpoint
from utils.errors import CheckpointError, ConfigError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs are written into the test's own folder."""
    monkeypatch.chdir(tmp_path)


def test_frozen_parts_stay_and_thawed_ones_move_from_their_epoch_on(pretrained):
    path = f"model.checkpoint_path={pretrained['reconstruction']}"
    before = weights(pretrained["reconstruction"])
    own = [*RECONSTRUCTION, path, "checkpoint.save_top_k=9", "optimizer.weight_decay=0.5", "init.freeze=[encoder,backbone]"]
    frozen = run(*own, "init=frozen", "trainer.max_epochs=2", run_id="frozen")
    after = weights(frozen / "checkpoints" / "last.ckpt")
    assert same(before, after, "encoder")
    assert same(before, after, "backbone")
    assert not same(before, after, "decoder")

    thaw = run(*own, "init=thaw", "trainer.max_epochs=2", run_id="thaw")
    raw = [checkpoint.read_raw(next((thaw / "checkpoints").glob(f"step_{step:06d}*.ckpt"))) for step in (6, 12)]
    first, second = (content["state_dict"] for content in raw)
    assert same(before, first, "encoder")
    assert same(before, first, "backbone")
    assert not same(before, second, "encoder")
    assert not same(before, second, "backbone")
    module = build.load_trained(str(thaw))
    decoder = sum(1 for _ in module.network.decoder.parameters())
    moments = [content["optimizer_states"][0]["state"] for content in raw]
    assert len(moments[0]) == decoder  # neither moments nor steps of what is frozen
    assert len(moments[1]) == sum(1 for _ in module.parameters())
    assert sorted({int(state["step"]) for state in moments[1].values()}) == [6, 12]

    one, other = metrics(frozen), metrics(thaw)
    columns = ["train/loss", "train/gradient_norm"]  # the norm knows nothing of gradients that are dropped
    assert (one.loc[:6, columns] == other.loc[:6, columns]).all(axis=None)
    assert not (one.loc[8:, columns] == other.loc[8:, columns]).any(axis=None)
    table = pd.read_csv(thaw / "starts.csv").set_index("part")
    assert list(table.moves) == ["frozen until epoch 1", "frozen until epoch 1", "trains"]
    assert list(table.lr_factor) == [0.1, 0.1, 1.0]


def test_frozen_parts_have_no_dropout_and_fixed_statistics(pretrained, monkeypatch):
    modes = []
    step = build.TASKS.part("regression").step

    def watched(task, net, batch, draw):
        modes.append((net.encoder.training, net.backbone.training, net.decoder.training))
        return step(task, net, batch, draw)

    monkeypatch.setattr(build.TASKS.part("regression"), "step", watched)
    path = f"model.checkpoint_path={pretrained['reconstruction']}"
    run(*RECONSTRUCTION, path, "init=thaw", "trainer.max_epochs=2", "init.freeze=[backbone]", "trainer.val_check_interval=3")
    training = [mode for mode in modes if mode[2]]
    assert training == [(True, False, True)] * 6 + [(True, True, True)] * 6
    assert set(modes) - set(training) == {(False, False, False)}


def test_resumed_before_or_after_the_thaw_a_run_ends_where_the_undisturbed_one_does(pretrained):
    own = [*RECONSTRUCTION, f"model.checkpoint_path={pretrained['reconstruction']}", "trainer.max_epochs=2"]
    own += ["init=thaw", "init.layer_decay=0.8", "trainer.val_check_interval=3", "checkpoint.save_top_k=9"]
    folder = run(*own) / "checkpoints"
    whole = weights(folder / "last.ckpt")
    for step in (3, 9):  # in the middle of the frozen and of the thawed epoch
        from_here = next(folder.glob(f"step_{step:06d}*.ckpt"))
        (folder / "last.ckpt").unlink()
        run(*own, f"train.ckpt_path={from_here}")
        for name, value in weights(folder / "last.ckpt").items():
            assert torch.equal(value, whole[name]), name
    with pytest.raises(CheckpointError, match=r"init\.thaw_epoch: now None, checkpoint 1"):
        run(*own, "init.thaw_epoch=null", f"train.ckpt_path={folder}")


def test_a_checkpoint_from_before_there_was_an_init_can_be_resumed(pretrained):
    raw = checkpoint.read_raw(pretrained["reconstruction"])
    del raw[checkpoint.KEY]["config"]["init"]
    torch.save(raw, "earlier.ckpt")
    config = composed(*RECONSTRUCTION)
    build.check_resume(config, "earlier.ckpt")
    with pytest.raises(CheckpointError, match=r"init\.layer_decay: now 0.5, checkpoint 1.0"):
        build.check_resume(composed(*RECONSTRUCTION, "init.layer_decay=0.5"), "earlier.ckpt")


def test_a_thaw_beyond_the_runs_steps_is_refused(pretrained):
    path = f"model.checkpoint_path={pretrained['reconstruction']}"
    with pytest.raises(ConfigError, match=r"thaw_epoch = 1: never comes, since trainer\.max_steps = 6 and an epoch has 6 steps"):
        run(*RECONSTRUCTION, path, "init=thaw", "trainer.max_epochs=-1", "trainer.max_steps=6")


def test_the_average_is_the_mean_of_the_best_and_describes_itself(capsys):
    folder = run(*RECONSTRUCTION, "trainer.max_epochs=4", "checkpoint.average=true") / "checkpoints"
    said = capsys.readouterr().out
    kept = sorted(folder.glob("step_*.ckpt"))
    assert len(kept) == 3
    states = [weights(path) for path in kept]
    mean = checkpoint.read(folder / "average.ckpt")
    for name, value in mean.state_dict.items():
        reference = np.mean([state[name].numpy().astype(np.float64) for state in states], axis=0)
        np.testing.assert_allclose(value.numpy(), reference, rtol=1e-6, atol=1e-8)
    module = build.load_trained(str(folder / "average.ckpt"))
    assert all(torch.equal(value, mean.state_dict[name]) for name, value in module.state_dict().items())
    assert "mean of 3 checkpoints: val/loss" in said
    assert checkpoint.find(folder).name != "average.ckpt"
    with pytest.raises(CheckpointError, match="without an optimizer's state"):
        run(*RECONSTRUCTION, f"train.ckpt_path={folder / 'average.ckpt'}", run_id="other")
    module_of(*RECONSTRUCTION, f"model.checkpoint_path={folder / 'average.ckpt'}")
    curves = pd.read_csv(folder.parent / "metrics.csv")
    assert curves["val/loss"].notna().sum() == 4  # the average's is no point of the curve


def test_without_two_checkpoints_there_is_no_average_and_the_run_says_so(capsys):
    folder = run(*RECONSTRUCTION, "checkpoint.average=true")
    assert "it takes two validated checkpoints, and the run kept 1" in " ".join(capsys.readouterr().out.split())
    assert not list(folder.rglob("average.ckpt"))


@pytest.mark.ddp
def test_two_ranks_thaw_and_average_as_one(pretrained):
    own = [*RECONSTRUCTION, f"model.checkpoint_path={pretrained['reconstruction']}", "trainer.max_epochs=2", "init=thaw"]
    own += ["dataset.traces=40", "dataset.traces_dev=7", "model.dropout=0", "checkpoint.average=true"]
    losses, averages = [], []
    for run_id, more in (("two", ["trainer.devices=2"]), ("one", ["loader.batch_size=8"])):
        environment = {**os.environ, "WAVEXLSTM_RUN_ID": run_id, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(ROOT / "train.py"), *own, *more]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = Path("runs/reconstruction/small") / run_id
        losses.append(metrics(folder)["train/loss"].to_numpy())
        averages.append(weights(folder / "checkpoints" / "average.ckpt"))
    assert len(losses[0]) == 10
    assert losses[0] == pytest.approx(losses[1], rel=5e-4)
    for name, value in averages[0].items():
        assert torch.allclose(value, averages[1][name], atol=2e-4), name
