"""Where a run starts: what is loaded, what is frozen, at which rate each part learns; and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from composing import composed
from finetuning import CONTRASTIVE, PARTS, RECONSTRUCTION, module_of, same, weights
from torch import nn

from dataloaders.batch import Batch, DataSpec
from dataloaders.normalise import prepare
from tasks import build
from tasks.parts import lr_factors
from tasks.start import freeze, init_settings
from utils import checkpoint
from utils.errors import CheckpointError, ConfigError


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


def test_learning_rates_fall_with_depth_and_follow_the_schedule(pretrained):
    path = f"model.checkpoint_path={pretrained['reconstruction']}"
    own = ["init.layer_decay=0.5", "init.lr_factors.encoder=0.4", "optimizer.lr=1.0"]
    module, starts, _ = module_of(*RECONSTRUCTION, path, *own)
    factors = lr_factors(module.network, module.task, init_settings(module.config))
    down, centre, up = module.network.backbone.by_depth()
    assert {factors[p] for p in up} == {0.5}
    assert {factors[p] for p in centre} == {0.25}
    assert {factors[p] for p in down} == {0.125}
    assert {factors[p] for p in module.network.encoder.parameters()} == {0.4 * 0.0625}
    assert {factors[p] for p in module.network.decoder.parameters()} == {1.0}
    assert [row.rate for row in starts] == ["0.025", "0.125 … 0.5", "1"]


def test_a_frozen_objective_keeps_its_weights_but_computes_the_loss_of_training(pretrained):
    path = f"model.checkpoint_path={pretrained['contrastive']}"
    module, _, freezing = module_of(*CONTRASTIVE, path, "init=pretrained", "init.freeze=[task]")
    module.train()
    freezing.on_train_batch_start(SimpleNamespace(current_epoch=0), module, None, 0)
    assert module.task.training
    assert not module.task.quantizer.training
    assert not any(p.requires_grad for p in module.task.parameters())
