"""What to type next: the commands a run ends with, each ready to be copied."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from utils.console import console
from utils.loggers import TENSORBOARD, sync_command


def suggest(config: Mapping[str, Any], folder: Path, last: Path | None, top: Path | None, *, done: bool) -> None:
    """Say them: one command a line, never wrapped, so that it can be copied.

    Args:
        config: the run's config, plain builtins.
        folder: the run folder.
        last, top: the last and the best checkpoint; None where there is none.
        done: the run came to its end.
    """
    found: list[tuple[str, str]] = []
    if config["logger"]["tensorboard"]:
        found.append(("Watch the curves", f"tensorboard --logdir {shlex.quote(str(folder / TENSORBOARD))}"))
    sync = sync_command(folder)
    if sync:
        found.append(("Upload to Weights & Biases", sync))
    if last:
        found.append(("Train longer" if done else "Go on where it stopped", _go_on(config, last, longer=done)))
    if top or last:
        found += _starts(config, f"model.checkpoint_path={top or last}")
    out = console()
    for title, command in found:
        out.print(Text(f"{title}:", style="bold"), Text(command), sep="\n    ", soft_wrap=True)


SMALL = {
    "quickstart": "contrastive/small",
    "contrastive/small": "contrastive/small",
    "reconstruction/small": "reconstruction/small",
}
"""Experiments that share one architecture, so that each may start from another's checkpoint."""


def _starts(config: Mapping[str, Any], start: str) -> list[tuple[str, str]]:
    """Commands that start new runs from this one's weights.

    Args:
        config: of this run.
        start: the setting that names the checkpoint.
    """
    if config["task"]["_name_"] == "phase_pick":
        checkpoint = start.removeprefix("model.checkpoint_path=")
        return [
            ("Evaluate it", shlex.join(["python", "-m", "evaluation.run", f"checkpoint={checkpoint}"])),
            (
                "Pick records with it",
                shlex.join(["python", "-m", "evaluation.pick", f"checkpoint={checkpoint}", "input=*.mseed", "output=picks.csv"]),
            ),
        ]
    own = SMALL.get(config["experiment_name"])
    if own is None:
        return [("Start another run from it, by adding to its command", shlex.join([start]))]
    shape = [
        word
        for word in _overrides()
        if word.startswith(("model.", "encoder.", "model=", "encoder=")) and ".checkpoint_path=" not in word
    ]
    other = next(name for name in SMALL.values() if name != own)
    pick = shlex.join(["python", "train.py", "experiment=quickstart_finetune", *shape, start])
    found = [("Teach it to pick P and S, in minutes", pick)]
    found += [("Start another objective from it", shlex.join(["python", "train.py", f"experiment={other}", *shape, start]))]
    if config["dataset"]["_name_"] == "synthetic":
        real = ["dataset=seisbench_auto_reg", "dataset.dataset_name=[ETHZ]"]
        command = shlex.join(["python", "train.py", f"experiment={own}", *real, *shape, start])
        found.append(("Go on with real seismograms (SeisBench names, or folders in its format)", command))
    return found


def _overrides() -> list[str]:
    """The command line's settings as they were typed."""
    return [word.lstrip("+") for word in sys.argv[1:] if "=" in word and not word.startswith("-")]


def _go_on(config: Mapping[str, Any], last: Path, *, longer: bool) -> str:
    """The command that started this run, from its last checkpoint; a finished one with twice its length."""
    words = [word for word in _overrides() if not word.startswith("train.ckpt_path=")]
    if not any(word.startswith("experiment=") for word in words):
        words.insert(0, f"experiment={config['experiment_name']}")
    if longer:
        for name in ("max_epochs", "max_steps"):
            if config["trainer"][name] != -1:
                words = [word for word in words if not word.startswith(f"trainer.{name}=")]
                words.append(f"trainer.{name}={2 * config['trainer'][name]}")
    return shlex.join(["python", "train.py", *words, f"train.ckpt_path={last}"])
