"""What is said before a run (what will happen) and after it (what was learnt, where things are, what to type next)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from utils.averaging import Average
from utils.console import console, duration
from utils.curves import PICTURES
from utils.keep import LastCheckpoint
from utils.loggers import METRICS
from utils.metrics_file import read
from utils.next_steps import suggest
from utils.pace import Throughput
from utils.planning import run_length
from utils.start_table import PartStart, table


def greet(config: Mapping[str, Any], module: Any, data: Any, trainer: pl.Trainer, starts: Sequence[PartStart]) -> None:
    """Say what will run, where and on what; rank 0 only.

    Args:
        config: the run's config, plain builtins.
        module: with ``network`` (encoder, backbone, decoder), ``task`` and ``compiled``.
        data: with ``source``, ``parts`` (the splits as sized collections) and ``windows`` of an epoch.
        trainer: of the run.
        starts: where the parts' weights come from.
    """
    if not trainer.is_global_zero:
        return
    sizes = {split: len(data.parts[split]) for split in ("train", "dev")}
    trial = config["trainer"]["fast_dev_run"]
    rows: list[tuple[str, RenderableType]] = [
        ("run folder", "none: a trial run writes nothing" if trial else str(trainer.default_root_dir)),
        ("device", _device(trainer)),
        ("data", f"{data.source.describe()}\n{sizes['train']:,} traces to train on, {sizes['dev']:,} to validate on"),
        ("model", table(starts)),
        ("kernels", module.network.backbone.describe()),
        ("run", _plan(config, data.windows, trainer) + (", compiled before the first" if module.compiled else "")),
    ]
    _panel(f"WaveXLSTM  {config['experiment_name']}", rows, "cyan")


def farewell(config: Mapping[str, Any], module: Any, trainer: pl.Trainer, average: Average | None = None) -> None:
    """Say what was learnt, where things are and what to type next; rank 0 only. Also after Ctrl-C.

    Args:
        config: the run's config, plain builtins.
        module: with ``task.monitor``.
        trainer: of the run, after ``fit``.
        average: what became of the mean of the best checkpoints; None where none was asked for.
    """
    if not trainer.is_global_zero:
        return
    if config["trainer"]["fast_dev_run"]:
        console().print("The trial run went through: one training step, one validation batch. Nothing was written.")
        return
    folder = Path(trainer.default_root_dir)
    done = trainer.state.finished
    last, top = _checkpoints(trainer)
    rows: list[tuple[str, RenderableType]] = [
        ("learnt", _learnt(config, module.task.monitor, folder)),
        ("took", _took(trainer)),
        ("best", str(top) if top else ""),
        ("average", _averaged(average) if average else ""),
        ("last", str(last) if last else "no checkpoint: not one step was finished"),
        ("curves", str(folder / METRICS)),
        ("pictures", f"{folder / PICTURES}/" if any(folder.glob(f"{PICTURES}/*.png")) else ""),
    ]
    _panel("Finished" if done else "Stopped early", rows, "green" if done else "yellow")
    better = average.path if average and average.better else None
    suggest(config, folder, last, _short(better) or top, done=done)


def _panel(title: str, rows: list[tuple[str, RenderableType]], color: str) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, what in rows:
        if what:
            grid.add_row(name, Text(what) if isinstance(what, str) else what)
    console().print(Panel(grid, title=Text(title, style="bold"), title_align="left", border_style=color, expand=False))


def _device(trainer: pl.Trainer) -> str:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    several = f"{trainer.world_size} × " if trainer.world_size > 1 else ""
    return f"{several}{name}, precision {trainer.precision}"


def _plan(config: Mapping[str, Any], windows: int, trainer: pl.Trainer) -> str:
    settings = config["trainer"]
    window = config["loader"]["batch_size"] * trainer.world_size
    steps, epoch = run_length(settings, windows, window)
    samples = f"{window * settings['accumulate_grad_batches']} windows a step"
    if config["trainer"]["fast_dev_run"]:
        return f"one step, {samples}"
    return f"{steps:,} steps ({steps / max(1, epoch):.3g} epochs of {epoch:,}), {samples}"


def _learnt(config: Mapping[str, Any], monitor: tuple[str, str], folder: Path) -> str:
    """First and best value of the monitored metric, and the best in words."""
    name, mode = monitor
    columns = read(folder / METRICS)
    steps, values = columns.get(name, ([], []))
    if not values:
        return f"unknown: {name} was never validated"
    at = (min if mode == "min" else max)(range(len(values)), key=lambda n: values[n])
    words = WORDS.get((str(config["task"]["_name_"]), name), _plain)(values[at], config)
    words += _shares(columns, str(config["task"]["_name_"]), steps[at])
    if len(values) == 1:
        return f"{name} {values[0]:.3f} at step {steps[0]}{words}"
    latest = "" if at == len(values) - 1 else f", {values[-1]:.3f} at the end"
    return f"{name} {values[0]:.3f} at step {steps[0]}, {values[at]:.3f} at step {steps[at]} (best){latest}{words}"


def _accuracy(value: float, config: Mapping[str, Any]) -> str:
    wrong = int(config["loss"].get("count", 100))
    chance = 1 / (wrong + 1)
    return f"\nfinds a hidden token's code among {wrong} wrong ones {value:.1%} of the time (guessing: {chance:.1%})"


def _error(value: float, config: Mapping[str, Any]) -> str:
    """Windows have unit variance only where each component is divided by its standard deviation."""
    squared = config["loss"]["_name_"] in ("mse", "masked_mse")
    if not squared or config["dataset"].get("normalise") != "std":
        return ""
    return f"\nmean squared error {value:.0%} of the waveform's variance (predicting zero: about 100%)"


def _plain(value: float, config: Mapping[str, Any]) -> str:
    return ""


WORDS: dict[tuple[str, str], Callable[[float, Mapping[str, Any]], str]] = {
    ("contrastive", "val/accuracy"): _accuracy,
    ("regression", "val/loss"): _error,
    ("autoregressive", "val/loss"): _error,
}
"""What a monitored metric means to a person, by (task, metric)."""


SHARES: dict[str, dict[str, str]] = {
    "phase_pick": {
        "val/p_within_100ms": "P within 0.1 s",
        "val/p_within_500ms": "0.5 s",
        "val/s_within_100ms": "S within 0.1 s",
        "val/s_within_500ms": "0.5 s",
    },
}
"""Further validation metrics worth a word at the end, by task: shares, in the order they are said."""


def _shares(columns: Mapping[str, tuple[list[int], list[float]]], task: str, step: int) -> str:
    """Shares at the best step, in a line of their own."""
    said = []
    for name, words in SHARES.get(task, {}).items():
        at = dict(zip(*columns.get(name, ([], [])), strict=True))
        if step in at:
            said.append(f"{words} {at[step]:.0%}")
    return f"\n{', '.join(said)}" if said else ""


def _took(trainer: pl.Trainer) -> str:
    watches = [callback.pace for callback in trainer.callbacks if isinstance(callback, Throughput)]  # type: ignore[attr-defined]
    words = [f"{trainer.global_step:,} steps"]
    if watches and watches[0].started:
        words += [duration(watches[0].elapsed), f"{watches[0].rate:.0f} samples/s in training"]
    return ", ".join(words)


def _averaged(average: Average) -> str:
    """Where the mean of the best checkpoints is, and whether it is better than the best of them."""
    if average.path is None:
        return f"none: it takes two validated checkpoints, and the run kept {average.count}"
    verdict = "better than" if average.better else "no better than"
    compared = f"{average.metric} {average.value:.4f}, {verdict} the best one's {average.best:.4f}"
    return f"{_short(average.path)}\nmean of {average.count} checkpoints: {compared}"


def _checkpoints(trainer: pl.Trainer) -> tuple[Path | None, Path | None]:
    """(last, best), each None where there is none."""
    last = top = None
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, LastCheckpoint) and callback.path.is_file():
            last = callback.path
        elif isinstance(callback, ModelCheckpoint) and callback.best_model_path:
            top = Path(callback.best_model_path)
    return last, _short(top)


def _short(path: Path | None) -> Path | None:
    """Relative to the working folder where it lies below it."""
    if path is not None and path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd())
    return path
