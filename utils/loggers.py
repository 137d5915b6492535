"""Where curves go: ``metrics.csv`` always, TensorBoard by default, Weights & Biases where asked for."""

import netrc
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger

from utils.errors import ConfigError
from utils.metrics_file import MetricsFile

METRICS = "metrics.csv"
TENSORBOARD = "tensorboard"


def loggers(config: Mapping[str, Any], folder: Path) -> list[Logger]:
    """The loggers of a run.

    Args:
        config: the run's config, plain builtins.
        folder: the run folder.

    Raises:
        ConfigError: a logger's package is not installed.
    """
    found: list[Logger] = [MetricsFile(folder / METRICS)]
    if config["logger"]["tensorboard"]:
        found.append(_tensorboard(folder))
    if config["logger"]["wandb"]:
        found.append(_wandb(config, folder))
    return found


def _tensorboard(folder: Path) -> Logger:
    from pytorch_lightning.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(folder, name="", version=TENSORBOARD, default_hp_metric=False)
    except ModuleNotFoundError as error:
        raise ConfigError(["logger.tensorboard = true: tensorboard is not installed. Install it, or set it to false"]) from error


def _wandb(config: Mapping[str, Any], folder: Path) -> Logger:
    from pytorch_lightning.loggers import WandbLogger

    folder.mkdir(parents=True, exist_ok=True)
    try:
        return WandbLogger(
            name=f"{config['experiment_name']} {config['run_id']}",
            project=config["logger"]["project"],
            save_dir=folder,
            # the same id after a restart, so that one run stays one curve
            id=re.sub(r"[^\w-]+", "-", f"{config['experiment_name']}-{config['run_id']}"),
            offline=wandb_offline(),
            config=dict(config),
        )
    except ModuleNotFoundError as error:
        raise ConfigError(["logger.wandb = true: wandb is not installed. Install it, or set it to false"]) from error


def wandb_offline() -> bool:
    """Whether W&B writes into the run folder only: asked for by ``WANDB_MODE``, or there is no key to log in with."""
    mode = os.environ.get("WANDB_MODE", "")
    return mode in ("offline", "dryrun") or not (mode == "disabled" or os.environ.get("WANDB_API_KEY") or _key_in_netrc())


def _key_in_netrc() -> bool:
    place = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    try:
        return netrc.netrc(str(place)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def sync_command(folder: Path) -> str | None:
    """The command that uploads what W&B wrote offline into a run folder; None where there is nothing to upload."""
    runs = sorted(folder.glob("wandb/offline-run-*"))
    return f"wandb sync {runs[-1]}" if runs else None
