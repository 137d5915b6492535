"""Fine-tuning as a person does it: what is loaded, what stays frozen, what thaws when, and the mean of the best checkpoints."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from composing import composed
from torch import nn

from dataloaders.batch import Batch, DataSpec
from dataloaders.normalise import prepare
from tasks import build
from tasks.start import freeze, init_settings, start
from train import train
from utils import checkpoint
from utils.errors import CheckpointError, ConfigError

ROOT = Path(__file__).resolve().parent.parent
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


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs are written into the test's own folder."""
    monkeypatch.chdir(tmp_path)


def run(*overrides, run_id="run"):
    """A run in this process; returns its folder."""
    config = composed(*overrides, f"run_id={run_id}")
    train(config, list(overrides))
    return (Path("runs") / config["experiment_name"] / run_id).absolute()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Folders of a reconstruction and a contrastive run of one epoch, by objective."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("pretrained"))
        return {"reconstruction": run(*RECONSTRUCTION), "contrastive": run(*CONTRASTIVE)}


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


def test_by_default_the_decoder_comes_along_where_it_means_the_same(pretrained):
    module, starts, _ = module_of(*RECONSTRUCTION, f"model.checkpoint_path={pretrained['reconstruction']}")
    saved = weights(pretrained["reconstruction"])
    assert all(torch.equal(value, saved[name]) for name, value in module.state_dict().items())
    assert {row.part: row.origin for row in starts} == dict.fromkeys(("encoder", "backbone", "decoder"), "checkpoint")
    assert all("last.ckpt, step 6" in row.source for row in starts)

    module, starts, _ = module_of(*RECONSTRUCTION, f"model.checkpoint_path={pretrained['contrastive']}")
    saved = weights(pretrained["contrastive"])
    assert same(module.state_dict(), saved, "encoder")
    assert same(module.state_dict(), saved, "backbone")
    assert starts[2].origin == "new; the checkpoint has task 'contrastive'"
    assert starts[2].source == ""


def test_of_the_same_objective_the_quantizer_comes_along_unless_left_out(pretrained):
    path = f"model.checkpoint_path={pretrained['contrastive']}"
    saved = weights(pretrained["contrastive"])
    module, starts, _ = module_of(*CONTRASTIVE, path)
    assert same(module.state_dict(), saved, "task")
    assert starts[-1].origin == "checkpoint"
    module, starts, _ = module_of(*CONTRASTIVE, path, "init.load=[encoder,backbone]")
    assert not same(module.state_dict(), saved, "task")
    assert starts[-1].origin == "new; not in init.load"
    module, starts, _ = module_of(*CONTRASTIVE, path, "quantizer.codes=8")
    assert same(module.state_dict(), saved, "backbone")
    assert starts[-1].origin == "new; the checkpoint's has other shapes"


def test_scratch_takes_the_architecture_alone(pretrained):
    own = [item for item in RECONSTRUCTION if "d_model" not in item]
    module, starts, _ = module_of(*own, "init=scratch", f"model.checkpoint_path={pretrained['reconstruction']}")
    saved = weights(pretrained["reconstruction"])
    assert {name: value.shape for name, value in module.state_dict().items()} == {name: v.shape for name, v in saved.items()}
    assert not same(module.state_dict(), saved, "backbone")
    assert {row.origin for row in starts} == {"new; the checkpoint's architecture"}


def test_a_run_takes_its_own_dropout_not_the_checkpoints(pretrained):
    own = [item for item in RECONSTRUCTION if "dropout" not in item]
    path = f"model.checkpoint_path={pretrained['reconstruction']}"
    assert checkpoint.read(pretrained["reconstruction"]).config["model"]["dropout"] == 0.1
    for rate in (0.0, 0.35):
        module, _, _ = module_of(*own, path, f"model.dropout={rate}")
        rates = {layer.p for layer in module.network.modules() if isinstance(layer, nn.Dropout)}
        assert rates == {rate}
        backbone, tokens = module.network.backbone.train(), torch.randn(1, 16, 8)
        assert torch.equal(backbone(tokens), backbone(tokens)) == (rate == 0)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["init=pretrained"], ["init.weights = pretrained: needs model.checkpoint_path"]),
        (["init=frozen"], ["init.weights = pretrained: needs model.checkpoint_path"]),
        (["init.freeze=[encoder]"], ["init.freeze = ['encoder']", "no model.checkpoint_path is given"]),
        (
            ["init=scratch", "init.freeze=[encoder]", "init.load=[encoder]", "model.checkpoint_path=any"],
            ["2 mistakes", "init.freeze", "init.load", "init.weights is scratch"],
        ),
        (["init=thaw", "model.checkpoint_path=any"], ["init.thaw_epoch = 1: never comes", "trainer.max_epochs = 1"]),
        (
            ["init=pretrained", "init.freeze=[encoder]", "init.thaw_epoch=4"],
            ["2 mistakes", "needs model.checkpoint_path", "never comes"],
        ),
        (["init.freeze=[encodr]"], ["init: freeze = ['encodr']", "encoder, backbone, decoder, task"]),
        (["init.load=[]", "init.layer_decay=1.5"], ["load = []", "layer_decay = 1.5"]),
        (["init.thaw_epoch=0", "init.freeze=[encoder]"], ["thaw_epoch = 0: must be at least 1"]),
        (["init.thaw_epoch=2"], ["freeze names no part to thaw"]),
        (["init.freeze=[encoder,decoder]", "init.load=[encoder]"], ["load leaves out decoder"]),
        (["init.freeze=[encoder,backbone,decoder,task]"], ["nothing is left to train"]),
        (
            ["init.lr_factors.encoder=0", "init.lr_factors.task=-1"],
            ["init: lr_factors: encoder = 0", "task = -1", "must be above 0"],
        ),
        (["init.lr_factors.encodr=1"], ["init: lr_factors has no setting 'encodr'. Did you mean 'encoder'?"]),
        (["init.lr_factor.encoder=1"], ["init has no setting 'lr_factor'. Did you mean 'lr_factors'?"]),
        (["init.weights=fresh"], ["init: weights = 'fresh'", "auto, scratch, pretrained"]),
        (["checkpoint.average=true", "checkpoint.save_top_k=1"], ["average = true: needs save_top_k of 2"]),
    ],
)
def test_mistakes_are_told_before_anything_is_read(overrides, said):
    with pytest.raises(ConfigError) as caught:
        build.check(composed(*RECONSTRUCTION, *overrides))
    for text in said:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["init.load=[encoder,decoder]"], r"decoder from .* \(the checkpoint has task 'contrastive'\): the weights do not fit"),
        (["init.freeze=[decoder]"], "decoder would stay at fresh weights .*task 'contrastive'"),
    ],
)
def test_a_checkpoint_that_has_not_what_was_asked_is_refused(pretrained, overrides, said):
    with pytest.raises(CheckpointError, match=said):
        module_of(*RECONSTRUCTION, f"model.checkpoint_path={pretrained['contrastive']}", *overrides)


def test_a_run_with_nothing_left_to_train_is_refused(pretrained):
    path = f"model.checkpoint_path={pretrained['reconstruction']}"
    with pytest.raises(ConfigError, match="no other part has weights"):
        module_of(*RECONSTRUCTION, path, "init.freeze=[encoder,backbone,decoder]")


@pytest.mark.parametrize("objective", ["reconstruction", "contrastive"])
@pytest.mark.parametrize("frozen", ["encoder", "backbone", "encoder,backbone"])
def test_freezing_a_part_changes_no_other_parts_gradient(objective, frozen):
    own = RECONSTRUCTION if objective == "reconstruction" else [*CONTRASTIVE, "quantizer=nearest", "quantizer.codes=16"]
    gradients = []
    for still in ("", frozen):
        torch.manual_seed(0)
        config = composed(*own, "model.dropout=0", f"init.freeze=[{still}]", "model.checkpoint_path=any")
        module = build.build_module(config, DataSpec(samples=256)).train()
        holds = freeze(module, init_settings(config))
        for part in holds.parts:
            part.eval()
        wave = torch.randn(2, 256, 3, generator=torch.Generator().manual_seed(1)).cumsum(1)
        keys = torch.arange(2), torch.zeros(2, dtype=torch.int64)
        raw = Batch(wave, torch.ones(2, 256, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool), *keys)
        prepared, _ = prepare(raw, module.prepare_cfg)
        output = module.task.step(module.network, prepared, module.draw(raw, evaluating=False))
        (output.loss + output.penalty).backward()
        gradients.append({name: p.grad for name, p in module.named_parameters() if p.requires_grad})
    whole, part = gradients
    prefixes = tuple(PARTS[name] for name in frozen.split(","))
    assert set(part) == {name for name in whole if not name.startswith(prefixes)}
    for name, gradient in part.items():
        assert gradient is not None, name
        assert gradient.any(), name
        assert torch.allclose(gradient, whole[name], rtol=1e-4, atol=1e-7), name


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
    raw = [checkpoint.read_raw(next((thaw / "checkpoints").glob(f"step_{step:06d}*"))) for step in (6, 12)]
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
        from_here = next(folder.glob(f"step_{step:06d}*"))
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


def test_learning_rates_fall_with_depth_and_follow_the_schedule(pretrained):
    path = f"model.checkpoint_path={pretrained['reconstruction']}"
    own = ["init.layer_decay=0.5", "init.lr_factors.encoder=0.4", "optimizer.lr=1.0"]
    module, starts, _ = module_of(*RECONSTRUCTION, path, *own)
    from tasks.parts import lr_factors

    factors = lr_factors(module.network, module.task, init_settings(module.config))
    down, centre, up = module.network.backbone.by_depth()
    assert {factors[p] for p in up} == {0.5}
    assert {factors[p] for p in centre} == {0.25}
    assert {factors[p] for p in down} == {0.125}
    assert {factors[p] for p in module.network.encoder.parameters()} == {0.4 * 0.0625}
    assert {factors[p] for p in module.network.decoder.parameters()} == {1.0}
    assert [row.rate for row in starts] == ["0.025", "0.125 … 0.5", "1"]


def test_the_average_is_the_mean_of_the_best_and_describes_itself(capsys):
    folder = run(*RECONSTRUCTION, "trainer.max_epochs=4", "checkpoint.average=true") / "checkpoints"
    said = capsys.readouterr().out
    kept = sorted(folder.glob("step_*"))
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
