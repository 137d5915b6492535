"""Composing a config as train.py does, and what its data look like."""

from hydra import compose, initialize_config_dir

from dataloaders.batch import PICK_CLASSES, DataSpec, Target
from tasks.build import TASKS
from utils.config import CONFIGS, plain
from utils.overrides import lenient


def composed(*overrides):
    """The config of a command line, plain builtins."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return plain(compose("config", lenient(list(overrides))))


def spec_for(config, samples=4096):
    """What the data of an experiment look like."""
    target = TASKS.part(config["task"]["_name_"]).needs
    classes = {Target.none: (), Target.picks: PICK_CLASSES, Target.event_class: tuple("abcdefghi")}[target]
    return DataSpec(samples=samples, target=target, classes=classes)
