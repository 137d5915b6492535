"""What is in a checkpoint: ``python -m utils.checkpoint_show checkpoint=RUN_OR_FILE [export=NAME]``.

A run folder means its newest whole checkpoint. ``export=NAME`` also writes ``NAME.safetensors`` (the weights, without an
optimizer) and ``NAME.json`` (what is known of them); ``model.checkpoint_path=NAME.safetensors`` starts a run from them.
Nothing in a file is ever executed: it is read as numbers and texts or refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from torch import Tensor

from utils import checkpoint, checkpoint_files, checkpoint_weights, cli
from utils.console import console, count
from utils.errors import demand


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    checkpoint: str
    """A checkpoint file, an export's .safetensors, or a run folder: its newest whole checkpoint."""
    export: str | None = None
    """Write NAME.safetensors and NAME.json; null writes nothing."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand((self.export is None or bool(Path(self.export).name), f"export = '{self.export}': must name a file"))


def parts(state: Mapping[str, Tensor]) -> dict[str, int]:
    """How many numbers each part of a model holds, buffers with parameters: ``{"network.encoder": 1204, "task": 12}``."""
    found: dict[str, int] = {}
    for name, value in state.items():
        first, *rest = name.split(".")
        part = f"{first}.{rest[0]}" if first == "network" and rest else first
        found[part] = found.get(part, 0) + value.numel()
    return found


def described(file: Path, content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of a checkpoint, as pairs of a word and a line.

    Args:
        file: a whole one.
        content: as :func:`utils.checkpoint.read_raw` gives it.
    """
    own = content[checkpoint.KEY]
    config, sizes = own["config"], parts(content["state_dict"])
    chosen = {name: config[name]["_name_"] for name in ("encoder", "model", "decoder", "quantizer", "task") if name in config}
    checked = "ok" if checkpoint_files.sums(file) else f"no {checkpoint_files.sum_file(file).name} beside it: not checked"
    return [
        ("file", f"{file}, {file.stat().st_size / 1e6:,.1f} MB"),
        ("SHA-256", f"{checkpoint_files.digest(file)}, {checked}"),
        ("written by", f"{config.get('experiment_name', '?')}, run {config.get('run_id', '?')}"),
        ("at", f"step {content.get('global_step', 0):,}, epoch {content.get('epoch', 0)}"),
        ("descends from", " → ".join(own.get("lineage", ())) or "nothing: trained from scratch"),
        ("parts", ", ".join(f"{name} {value}" for name, value in chosen.items())),
        ("numbers", ", ".join(f"{name} {count(size)}" for name, size in sizes.items()) + f"; {sum(sizes.values()):,} in all"),
        ("data", ", ".join(f"{name} {value}" for name, value in own["data_spec"].items())),
        ("optimizer", "there: a run can resume" if content.get("optimizer_states") else "not there: weights only"),
        ("schema, commit", f"{own['schema']}, {own.get('commit', 'unknown')}"),
        ("versions", ", ".join(f"{name} {value}" for name, value in own.get("versions", {}).items())),
    ]


def show(arguments: Arguments) -> None:
    """Show it, and export it where asked.

    Raises:
        CheckpointError: there is none, it is not whole, or the export cannot be written.
    """
    file = checkpoint.find(arguments.checkpoint)
    content = checkpoint.read_raw(file)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for word, line in described(file, content):
        table.add_row(Text(word, style="bold"), Text(line))
    out = console()
    out.print(table)
    if arguments.export:
        for written in checkpoint_weights.export(content, Path(arguments.export).expanduser()):
            out.print(Text(f"wrote {written}, {written.stat().st_size / 1e6:,.1f} MB"), soft_wrap=True)


if __name__ == "__main__":
    cli.run(show, Arguments, where="checkpoint_show")
