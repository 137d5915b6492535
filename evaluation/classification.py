"""Evaluate classifiers of whole traces: ``python -m evaluation.classification checkpoints=[runs/a,runs/b,runs/c]``.

Accuracy, accuracy of each class and confusion on the test split, with 95 % intervals over events. One checkpoint goes through
``python -m evaluation.run`` too; several (seeds of one experiment) give their mean and spread, since single runs of this task
swing by more than the differences that are claimed between models.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from rich.table import Table

from dataloaders.contracts import SOURCES, Split
from dataloaders.foreshock.sequence import ClassesConfig, EventPart
from evaluation.class_scores import Answers, Named, answer, score, score_seeds
from evaluation.provenance import describe, label_of, run_folder, training_sets, write_run
from evaluation.scoring import Bootstrap, Row, as_table
from tasks.build import load_trained
from tasks.module import WaveModule
from utils import checkpoint as checkpoints
from utils import cli
from utils.console import console
from utils.curves import save
from utils.errors import CheckpointError, ConfigError, DataError, demand
from utils.plots_classes import confusion as picture

TASK = "classification"
SPLITS = (Split.dev, Split.test)


def dataset_node(own: Mapping[str, Any], asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """The dataset to evaluate on.

    Args:
        own: that of the checkpoint's run.
        asked: None for the run's own, a complete node, or the run's node with ``dataset_name``: one folder of a converted set, or
            ``foreshock_synthetic``.

    Raises:
        ConfigError: several sets; events of different sequences have no common classes.
    """
    if asked is None or "dataset_name" not in asked:
        return dict(asked or own)
    names = list(asked["dataset_name"])
    if len(names) != 1:
        raise ConfigError([f"dataset_name = {names}: classes belong to one sequence, give one set"])
    simulated = names[0] == "foreshock_synthetic"
    wanted = "foreshock_synthetic" if simulated else "foreshock_aftershock"
    common = {item.name: own[item.name] for item in fields(ClassesConfig) if item.name in own}
    node = dict(own) if own["_name_"] == wanted else {"_name_": wanted, **common}
    return node if simulated else {**node, "path": names[0]}


def _opened(path: str, asked: Mapping[str, Any] | None, device: str) -> tuple[WaveModule, dict[Split, EventPart], str]:
    """The classifier, its splits, and the name of its data.

    Raises:
        CheckpointError: no classifier.
        DataError: the data have other classes than the checkpoint.
    """
    module = load_trained(path)
    task = str(module.config["task"]["_name_"])
    if task != TASK:
        raise CheckpointError(f"{path}: trained for task '{task}', it classifies nothing. Use python -m evaluation.run")
    node = dataset_node(module.config["dataset"], asked)
    source = SOURCES.build(node, seed=module.config["seed"])
    if list(source.spec.classes) != list(module.spec["classes"]):
        raise DataError(
            f"{path} tells {', '.join(module.spec['classes'])} apart, the data have "
            f"{', '.join(source.spec.classes) or 'no classes'}. Evaluate on data with the same classes"
        )
    parts = {split: cast(EventPart, source.part(split)) for split in SPLITS}
    return module.to(device), parts, label_of(training_sets(node)) if "path" not in node else label_of([node["path"]])


def evaluate(
    checkpoint: str | Sequence[str],
    config_dataset: Mapping[str, Any] | None,
    out: Path,
    device: str,
    how: Bootstrap | None = None,
) -> list[Row]:
    """Evaluate and write ``metrics.csv`` and ``.json``, ``confusion.csv`` and ``.png``, ``predictions.csv``, ``run.json``.

    With several checkpoints, figures are means over them, and the confusion is their sum.

    Args:
        checkpoint: a file or a run folder, or several: seeds of one experiment.
        config_dataset: see :func:`dataset_node`.
        out: folder; made if it is not there.
        device: cpu or cuda.
        how: intervals are made; None: 1000 resamples.

    Returns:
        the rows of ``metrics.csv``.

    Raises:
        WaveError: checkpoint or data cannot be used.
    """
    paths = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint)
    found: dict[Split, list[Answers]] = {split: [] for split in SPLITS}
    module, source = None, ""
    for path in paths:
        module, parts, source = _opened(path, config_dataset, device)
        for split in SPLITS:
            found[split].append(answer(module, parts[split], device))
    assert module is not None
    classes, ways = list(module.spec["classes"]), how or Bootstrap()
    rows: list[Row] = []
    for split, several in found.items():
        named = Named(split.value, source, ways)
        rows += score(several[0], classes, named) if len(paths) == 1 else score_seeds(several, classes, named)
    out.mkdir(parents=True, exist_ok=True)
    _write(out, rows, found, classes, source)
    _write_run(out, paths, module, config_dataset)
    return rows


def _write(out: Path, rows: list[Row], found: dict[Split, list[Answers]], classes: list[str], source: str) -> None:
    table = as_table(rows)
    table.to_csv(out / "metrics.csv", index=False)
    written = [{name: None if value != value else value for name, value in asdict(row).items()} for row in rows]
    (out / "metrics.json").write_text(json.dumps({"metrics": written}, indent=1) + "\n")
    counts = np.sum([each.confusion() for each in found[Split.test]], axis=0)
    pd.DataFrame(counts, index=pd.Index(classes, name="class"), columns=classes).to_csv(out / "confusion.csv")
    save(picture(counts, classes, f"{source}, test"), out / "confusion.png")
    tables = [
        each.table(classes, split.value).assign(checkpoint=number)
        for split, several in found.items()
        for number, each in enumerate(several, 1)
    ]
    pd.concat(tables, ignore_index=True).to_csv(out / "predictions.csv", index=False)


def _write_run(out: Path, paths: list[str], module: WaveModule, asked: Mapping[str, Any] | None) -> None:
    saved = checkpoints.read(paths[-1])
    parameters = sum(weight.numel() for weight in module.parameters())
    about = describe(saved, parameters)
    dataset = dataset_node(module.config["dataset"], asked)
    write_run(out / "run.json", {**about, "dataset": dataset, "checkpoints": paths})


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    checkpoints: list[str] = field(default_factory=list)
    """Checkpoint files or run folders: seeds of one experiment."""
    dataset: str = ""
    """A converted set, or foreshock_synthetic; empty is the data of the runs."""
    rounds: int = 1000
    """Bootstrap resamples."""
    device: str = "auto"
    """cpu, cuda or auto."""
    output: str | None = None
    """Folder of the evaluation; null is seeds beside the first run folder."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (len(self.checkpoints) > 0, "checkpoints = []: must name at least one checkpoint or run folder"),
            (self.rounds >= 0, f"rounds = {self.rounds}: must be 0 or more"),
            (self.device in ("auto", "cpu", "cuda"), f"device = '{self.device}': must be auto, cpu or cuda"),
            (self.device != "cuda" or torch.cuda.is_available(), "device = 'cuda': this machine has none; use cpu or auto"),
        )


def main(args: Arguments) -> None:
    """Evaluate, print the figures of test, say where they are."""
    device = "cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu"
    first = checkpoints.find(args.checkpoints[0])
    out = Path(args.output).expanduser() if args.output else run_folder(first).parent / "seeds"
    asked = {"dataset_name": [args.dataset]} if args.dataset else None
    rows = evaluate(args.checkpoints, asked, out, device, Bootstrap(args.rounds))
    table = Table(title="test split, 95 % intervals over events")
    for name in ("figure", "value", "interval", "traces", "events", "note"):
        table.add_column(name)
    for row in rows:
        if row.split == Split.test.value:
            interval = f"{row.low:.3f} … {row.high:.3f}" if np.isfinite(row.low) else ""
            value = f"{row.value:.3f}" if np.isfinite(row.value) else ""
            table.add_row(row.metric, value, interval, str(row.n), str(row.events), row.note)
    console().print(table)
    console().print(f"evaluation: {out}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    cli.run(main, Arguments, where="evaluation.classification")
