"""The house rules that tests can hold: doors, registries, configs, recipes."""

import ast
import dataclasses
import inspect
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from composing import composed, spec_for
from omegaconf import OmegaConf

from dataloaders.batch import Batch, DataSpec
from dataloaders.normalise import prepare
from tasks import build
from tasks.build import REGISTRIES
from utils.config import CONFIGS, SECTIONS, RunConfig
from utils.errors import ConfigError
from utils.overrides import unknown_choices

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("utils", "models", "dataloaders", "tasks", "evaluation", "sizing")
MAY_IMPORT = {
    "utils": set(),
    "models": {"utils"},
    "dataloaders": {"utils"},
    "tasks": {"utils", "models", "dataloaders"},
    "evaluation": {"utils", "models", "dataloaders", "tasks"},
    "sizing": {"utils", "models", "dataloaders", "tasks"},
}
EXPERIMENTS = sorted(
    str(path.relative_to(CONFIGS / "experiment").with_suffix("")) for path in (CONFIGS / "experiment").rglob("*.yaml")
)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_doors(room):
    for path in (ROOT / room).rglob("*.py"):
        through = {name for name in imported(path) if name in ROOMS and name != room}
        assert through <= MAY_IMPORT[room], f"{path.relative_to(ROOT)} imports {through - MAY_IMPORT[room]}"


PARTS = [(section, name) for section, registry in REGISTRIES.items() for name in registry.names]


@pytest.mark.parametrize(("section", "name"), PARTS)
def test_every_part_has_a_yaml_that_says_what_its_settings_are(section, name):
    path = CONFIGS / section / f"{name}.yaml"
    assert path.is_file(), f"no {path.relative_to(ROOT)}"
    assert REGISTRIES[section].mistakes(OmegaConf.to_container(OmegaConf.load(path))) == []
    for line in path.read_text().splitlines()[1:]:
        assert "#" in line or not line.strip() or line.startswith("_name_"), f"{path.relative_to(ROOT)}: '{line}' has no comment"


def documented(config):
    """Names of a dataclass's fields followed by a docstring, over its bases."""
    names = set()
    for base in config.__mro__:
        if dataclasses.is_dataclass(base):
            body = ast.parse(inspect.cleandoc(inspect.getsource(base))).body[0].body
            for field, after in pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    names.add(field.target.id)
    return names


@pytest.mark.parametrize(
    "config", [*{REGISTRIES[s].config(n) for s, n in PARTS}, *SECTIONS.values(), RunConfig], ids=lambda c: c.__name__
)
def test_every_setting_is_documented(config):
    missing = {field.name for field in dataclasses.fields(config)} - documented(config)
    assert not missing, f"{config.__name__}: no docstring under {missing}"


def test_every_yaml_of_a_part_names_a_registered_part():
    for section, registry in REGISTRIES.items():
        for path in (CONFIGS / section).glob("*.yaml"):
            node = OmegaConf.to_container(OmegaConf.load(path))
            assert (section, path.stem) == ("quantizer", "none") or registry.mistakes(node) == [], path


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_compose_and_check_and_are_thin(experiment):
    config = composed(f"experiment={experiment}")
    if config["init"]["weights"] == "pretrained":
        with pytest.raises(ConfigError, match=r"needs model\.checkpoint_path"):
            build.check(config)
        config["model"]["checkpoint_path"] = "any.ckpt"
    build.check(config)
    assert config["experiment_name"] == experiment
    path = CONFIGS / "experiment" / f"{experiment}.yaml"
    text = path.read_text()
    assert text.startswith("# @package _global_\n# "), "an experiment starts with what it is, its command, its hardware"
    assert f"experiment={experiment}" in text or experiment == "quickstart"
    own = build.flat(
        {k: v for k, v in OmegaConf.to_container(OmegaConf.load(path)).items() if k not in ("defaults", "experiment_name")}
    )
    assert len(own) <= 25
    assert not set(own) & {
        "trainer.devices",
        "trainer.strategy",
        "trainer.accelerator",
        "trainer.precision",
        "loader.num_workers",
    }


def test_experiments_do_not_repeat_each_other():
    stated = {}
    for experiment in EXPERIMENTS:
        recipe = OmegaConf.to_container(OmegaConf.load(CONFIGS / "experiment" / f"{experiment}.yaml"))
        lines = [f"{k}={v}" for d in recipe.pop("defaults", []) if isinstance(d, dict) for k, v in d.items()]
        stated[experiment] = {f"{k}={v}" for k, v in build.flat(recipe).items()} | set(lines)
    for one, its in stated.items():
        for other, others in stated.items():
            assert one == other or len(its & others) <= 0.7 * min(len(its), len(others)) or min(len(its), len(others)) < 4, (
                one,
                other,
            )


def test_the_default_experiment_is_quickstart():
    assert composed()["experiment_name"] == "quickstart"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.d_modle=3"], ["model 'xlstm-unet' has no setting 'd_modle'. Did you mean 'd_model'?"]),
        (["model._name_=xlstm-unett"], ["model: no 'xlstm-unett'. Did you mean 'xlstm-unet'?"]),
        (["sed=3", "trainer.max_epoch=3"], ["'sed'. Did you mean 'seed'?", "'max_epoch'. Did you mean 'max_epochs'?"]),
        (["optimizer.lr=fast", "model.dropout=1.5"], ["lr = 'fast'", "dropout = 1.5"]),
        (["trainer.devices=0", "loader.batch_size=0"], ["devices = 0", "batch_size = 0"]),
        (["loss=masked_mse"], ["task 'contrastive' takes no loss 'masked_mse'. It takes: info_nce"]),
        (["quantizer=none"], ["task 'contrastive' uses a quantizer. Set quantizer=gumbel|nearest"]),
        (["decoder=linear"], ["task 'contrastive' uses no decoder. Set decoder=none"]),
        (["experiment=reconstruction/small", "decoder=none"], ["uses a decoder"]),
        (["experiment=reconstruction/small", "task.metrics=[maee]"], ["maee"]),
        (["task.mask.ratio=0"], ["ratio = 0"]),
        (["dataset.traces=-4"], ["traces"]),
    ],
)
def test_mistakes_are_told_at_once(overrides, said):
    with pytest.raises(ConfigError) as caught:
        build.check(composed(*overrides))
    for text in said:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("model:\n  d_modle: 3", "model 'xlstm-unet' has no setting 'd_modle'. Did you mean 'd_model'?"),
        ("sed: 3", "'sed'. Did you mean 'seed'?"),
        ("trainer:\n  max_epoch: 3", "'max_epoch'. Did you mean 'max_epochs'?"),
        ("optimizer:\n  lr: fast", "lr = 'fast'"),
        ("model:\n  dropout: 1.5", "dropout = 1.5"),
        ("loader: 4", "loader"),
    ],
)
def test_mistakes_in_a_yaml_are_told_as_those_of_the_command_line(lines, said, tmp_path, monkeypatch):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    recipe = f"# @package _global_\ndefaults:\n  - contrastive/small\n  - _self_\nexperiment_name: mine\n{lines}\n"
    (tmp_path / "configs" / "experiment" / "mine.yaml").write_text(recipe)
    monkeypatch.setattr("composing.CONFIGS", tmp_path / "configs")
    with pytest.raises(ConfigError) as caught:
        build.check(composed("experiment=mine"))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("experiment", "backbone", "low", "high"),
    [
        ("contrastive/xlstm_unet_seisbench", 19_884_528, 20.3e6, 20.5e6),
        ("contrastive/xlstm_unet_seisbench_large", 102_481_216, 102.4e6, 103.5e6),
        ("xlstm_large/mlstm_11m_unet", None, 10.65e6, 10.75e6),
        ("xlstm_large/pure_mlstm_sequential_12m_foundation", 12_254_560, 12.25e6, 12.6e6),
    ],
)
def test_the_published_models_have_the_published_sizes(experiment, backbone, low, high):
    with torch.device("meta"):
        module = build.build_module(composed(f"experiment={experiment}"), DataSpec())
    count = sum(p.numel() for p in module.network.backbone.parameters())
    assert backbone in (None, count)
    assert low <= sum(p.numel() for p in module.parameters()) <= high


@pytest.mark.parametrize(
    ("overrides", "backbone"),
    [
        (["experiment=xlstm/small"], 287_280),
        (["experiment=xlstm/small", "model.block_type=mixed"], 267_224),
        (["experiment=xlstm/small_slstm"], 281_344),
    ],
)
def test_the_small_pickers_have_the_published_sizes(overrides, backbone):
    config = composed(*overrides)
    with torch.device("meta"):
        module = build.build_module(config, spec_for(config))
    assert sum(p.numel() for p in module.network.backbone.parameters()) == backbone
    assert 265e3 <= sum(p.numel() for p in module.parameters()) <= 290e3


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_gradient_reaches_every_trainable_parameter(experiment):
    samples = 512
    config = composed(f"experiment={experiment}")
    module = build.build_module(config, spec_for(config, samples)).train()
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(2, samples, 3, generator=generator).cumsum(1)
    keys = torch.arange(2), torch.zeros(2, dtype=torch.int64)
    labels = {
        "onsets": torch.tensor([[100, 300], [200, 400]]),
        "phases": torch.tensor([[0, 1], [0, 1]]),
        "known": torch.ones(2, 2, dtype=torch.bool),
        "label": torch.tensor([0, 1]),
    }
    raw = Batch(wave, torch.ones(2, samples, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool), *keys, **labels)
    prepared, _ = prepare(raw, module.prepare_cfg)
    output = module.task.step(module.network, prepared, module.draw(raw, evaluating=False))
    (output.loss + output.penalty).backward()
    untouched = [name for name, p in module.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not untouched


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seed=-1"], "seed = -1: must be 0"),
        (["optimizer.lr=inf"], "lr = inf: must be finite"),
        (["trainer.strategy=foo"], "strategy = 'foo': must be one of auto, ddp"),
        (["trainer.max_epochs=-1", "trainer.max_steps=-1"], "max_epochs = -1: must be at least 1"),
        (["trainer.accumulate_grad_batches=4", "trainer.val_check_interval=6"], "could not be resumed exactly"),
        (["scheduler=plateau"], "val_check_interval = 150: must be 1.0"),
    ],
)
def test_settings_that_would_end_badly_are_refused(overrides, said):
    with pytest.raises(ConfigError) as caught:
        build.check(composed(*overrides))
    assert said in str(caught.value)


def test_mistyped_choices_are_told_with_the_nearest_one():
    told = unknown_choices(["encoder=conv-dwon", "experiment=contrastive/smal", "model=xlstm-unet", "trainer.devices=2"])
    assert len(told) == 2
    assert "no 'conv-dwon'. Did you mean 'conv-down-fast'?" in told[0]
    assert "Did you mean 'contrastive/small'?" in told[1]
