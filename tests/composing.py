"""Composing a config as train.py does."""

from hydra import compose, initialize_config_dir

from utils.config import CONFIGS, plain
from utils.overrides import lenient


def composed(*overrides):
    """The config of a command line, plain builtins."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return plain(compose("config", lenient(list(overrides))))
