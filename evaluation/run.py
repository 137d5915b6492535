"""Evaluate a trained model by the field's protocol: ``python -m evaluation.run checkpoint=… dataset=…``.

A picker answers the windows of pick-benchmark's three tasks on the dev and test splits of SeisBench sets (names or folders);
without ``dataset=`` those of its own run. Thresholds come from dev, figures from test, intervals from resampling events. A
classifier is evaluated on the test split of its data. Everything is written to ``<run folder>/evaluation/<dataset>/``: targets/,
pred/, metrics.csv, thresholds.json, calibration.csv, run.json and report.html. ``baseline=ar_pick`` answers instead of a model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from dataloaders.simulator import SimulatorConfig
from dataloaders.sources.phase_pick import Unlabelled
from evaluation import picking
from evaluation.own_data import simulated_set
from evaluation.picker import Picker
from evaluation.provenance import describe, label_of, run_folder, training_sets, write_run
from evaluation.records import open_records
from evaluation.scoring import Bootstrap
from evaluation.screen import Bars, show
from tasks.build import load_trained
from tasks.module import WaveModule
from utils import checkpoint, cli
from utils.console import console
from utils.errors import ConfigError, demand
from utils.registry import typed

SYNTHETIC = "synthetic"


class Baseline(str, Enum):
    """What answers instead of a model."""

    none = "none"
    ar_pick = "ar_pick"
    """ObsPy's autoregressive picker (Akazawa 2004): one P and one S a window, no score."""


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    checkpoint: str = ""
    """A checkpoint file, or a run folder: its newest. Needed unless a baseline answers."""
    dataset: str = ""
    """A SeisBench name, a folder in SeisBench's format, or synthetic; empty is the data of the run."""
    dataset_name: list[str] = field(default_factory=list)
    """Several names or folders, in place of dataset."""
    targets: str | None = None
    """A folder with task1.csv and task23.csv to answer, ours or pick-benchmark's; null makes them."""
    target_seed: int = 0
    """Of the positions of windows."""
    unlabelled: Unlabelled = Unlabelled.mask
    """mask: a phase that nobody picked is not scored; absent: it is not there, as pick-benchmark takes it."""
    traces: int = 1000
    """Traces simulated for the dataset synthetic: 10 % dev, 30 % test."""
    rounds: int = 1000
    """Bootstrap resamples."""
    batch_size: int = 64
    """Windows at a time."""
    device: str = "auto"
    """cpu, cuda or auto."""
    baseline: Baseline = Baseline.none
    """ar_pick: the classical line in place of a model."""
    output: str | None = None
    """Folder of the evaluation; null is evaluation/<dataset> in the run folder."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (
                bool(self.checkpoint) or self.baseline is not Baseline.none,
                "checkpoint = '': must name a checkpoint or a run folder",
            ),
            (not (self.dataset and self.dataset_name), "dataset and dataset_name: give one of them"),
            (
                bool(self.checkpoint or self.dataset or self.dataset_name),
                "dataset = '': must name a set where there is no checkpoint",
            ),
            (self.target_seed >= 0, f"target_seed = {self.target_seed}: must be 0 or more"),
            (self.traces >= 10, f"traces = {self.traces}: must be at least 10"),
            (self.rounds >= 0, f"rounds = {self.rounds}: must be 0 or more"),
            (self.batch_size >= 1, f"batch_size = {self.batch_size}: must be at least 1"),
            (self.device in ("auto", "cpu", "cuda"), f"device = '{self.device}': must be auto, cpu or cuda"),
            (self.device != "cuda" or torch.cuda.is_available(), "device = 'cuda': this machine has none; use cpu or auto"),
        )

    @property
    def asked(self) -> list[str]:
        """Sets given on the command line."""
        return self.dataset_name or ([self.dataset] if self.dataset else [])

    @property
    def place(self) -> str:
        """Device to compute on."""
        return "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"


def evaluate_picks(args: Arguments, module: WaveModule | None) -> Path:
    """Evaluate a picker, or a baseline.

    Returns:
        the evaluation folder.
    """
    dataset: dict[str, Any] = dict(module.config["dataset"]) if module else {}
    picker = Picker(module, args.place) if module and args.baseline is Baseline.none else None
    named = args.asked or training_sets(dataset)
    sets = [str(_simulated(args, dataset)) if name == SYNTHETIC else name for name in named]
    records = open_records(
        sets,
        split_seed=int(dataset.get("split_seed", 0)),
        unlabelled=args.unlabelled,
        channels=picker.channels if picker else 3,
    )
    about = _about(args, module, picker)
    out = _output(args, label_of(named))
    questions = picking.ask(records, args.targets, args.target_seed)
    judge = picking.judge_of(picker, int(module.spec["samples"]) if module else 4096, records.rate)
    with Bars() as advance:
        result = picking.evaluate(
            judge,
            records,
            questions,
            out,
            prediction_folder=f"{str(about['experiment_name']).replace('/', '_')}/{about['run_id']}",
            how=Bootstrap(args.rounds),
            batch_size=args.batch_size,
            advance=advance,
        )
    own = {"dataset": named, "unlabelled": args.unlabelled.value, "target_seed": args.target_seed, "targets": args.targets}
    write_run(out / "run.json", {**about, **own, "skipped": dict(result.skipped)})
    show(result.rows, f"{about['experiment_name']} on {', '.join(records.sets)}")
    for what, count in result.skipped.items():
        console().print(f"left out: {count:,} {what}", soft_wrap=True, markup=False)
    return out


def _simulated(args: Arguments, dataset: dict[str, Any]) -> Path:
    """The simulated set, with the settings of the run where its data were simulated."""
    own = dataset if dataset.get("_name_") == SYNTHETIC else {}
    names = {each.name for each in fields(SimulatorConfig)}
    settings: SimulatorConfig = typed(SimulatorConfig, {name: value for name, value in own.items() if name in names})
    with Bars() as advance:
        seed = int(own.get("simulation_seed", 42))
        return simulated_set(settings, seed, args.traces, lambda count: advance("simulating", count, args.traces))


def _about(args: Arguments, module: WaveModule | None, picker: Picker | None) -> dict[str, Any]:
    if module is None or picker is None:
        return {
            "experiment_name": f"baseline/{args.baseline.value}",
            "run_id": "classical",
            "seed": 0,
            "training_sets": [],
            "training_fraction": 0.0,
            "init": "untrained",
            "checkpoint": None,
            "parameters": 0,
        }
    saved = checkpoint.read(args.checkpoint)
    parameters = sum(weight.numel() for weight in module.parameters())
    return describe(saved, parameters)


def _output(args: Arguments, label: str) -> Path:
    """The evaluation folder, made."""
    if args.output:
        out = Path(args.output).expanduser()
    elif args.baseline is Baseline.none:
        out = run_folder(checkpoint.find(args.checkpoint)) / "evaluation" / label
    else:
        out = Path("runs") / "baseline" / args.baseline.value / "classical" / "evaluation" / label
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"output = '{out}': cannot be written ({error})"]) from error
    return out


def evaluate_classes(args: Arguments, module: WaveModule) -> Path:
    """Evaluate a classifier of whole traces."""
    from evaluation.classification import evaluate

    if args.baseline is not Baseline.none or args.targets:
        raise ConfigError(["checkpoint: it classifies whole traces; baseline and targets belong to pickers, leave them out"])
    own = dict(module.config["dataset"])
    out = _output(args, label_of(args.asked or training_sets(own)))
    asked = {**own, "dataset_name": args.asked} if args.asked else None
    evaluate(args.checkpoint, asked, out, args.place, Bootstrap(args.rounds))
    return out


KINDS: dict[str, Callable[[Arguments, WaveModule], Path]] = {
    "phase_pick": evaluate_picks,
    "classification": evaluate_classes,
}
"""By the task of the checkpoint."""


def evaluate(args: Arguments) -> Path:
    """Evaluate by the kind of the checkpoint.

    Returns:
        the evaluation folder.

    Raises:
        ConfigError: a checkpoint of pretraining.
        WaveError: checkpoint, data or targets cannot be used.
    """
    if not args.checkpoint:
        return evaluate_picks(args, None)
    module = load_trained(args.checkpoint)
    task = str(module.config["task"]["_name_"])
    if task not in KINDS:
        raise ConfigError(
            [
                f"checkpoint {args.checkpoint}: task '{task}' is pretraining, it neither picks nor classifies. Its figures: "
                f"python -m evaluation.pretraining checkpoint={args.checkpoint}. Or fine-tune it first: "
                f"python train.py experiment=quickstart_finetune model.checkpoint_path={args.checkpoint}"
            ]
        )
    return KINDS[task](args, module)


def main(args: Arguments) -> None:
    """Evaluate, write the report, say where things are."""
    from evaluation.report import write  # plotting takes seconds to import

    out = evaluate(args)
    console().print(f"evaluation: {out}", soft_wrap=True, markup=False)
    console().print(f"report: {write(out)}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    cli.run(main, Arguments, where="evaluation.run")
