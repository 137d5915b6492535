"""Train pickers side by side and compare them on real records: python -m benchmarks.picking_study regional=path/to/regional

Every arm sees the same data: simulated seismograms, then the train split of a set of real records, with the same windows, labels,
augmentation, steps and seeds. Arms: our small U-Net from scratch and from either pretraining, PhaseNet, EQTransformer; ObsPy's
ar_pick needs no training. Each is evaluated on the test split, by source (``evaluation.run``), and all are compared
(``evaluation.report``). Runs that are finished already are not run again, so the study can be stopped and continued.
With ``fractions=true`` the question is another one: pretrained against scratch with 5 to 100 % of simulated labels.
"""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from utils import checkpoint, cli
from utils.console import console
from utils.errors import CheckpointError, demand

OURS = "quickstart_finetune"
ARMS = {
    "scratch": OURS,
    "contrastive": OURS,
    "reconstruction": OURS,
    "phasenet": "baseline/phasenet",
    "eqtransformer": "baseline/eqtransformer",
}
"""Experiment of each arm; the first three differ in the checkpoint they start from."""
QUIET = ["pictures.enabled=false", "logger.tensorboard=false", "loader.num_workers=0", "checkpoint.save_top_k=1"]
AUGMENT = ["task.augment.rotate=true", "task.augment.flip=true", "task.augment.vertical=0.15", "task.augment.noise=0.3"]
FRACTIONS = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the study."""

    regional: str = ""
    """Folder of the real records, in SeisBench's format with a column split; "" leaves them out."""
    arms: list[str] = field(default_factory=lambda: list(ARMS))
    """Which arms."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    """A run of each arm a seed."""
    pretraining_steps: int = 600
    """Of contrastive learning and of masked reconstruction, on simulated seismograms; once for all seeds."""
    steps: int = 1000
    """On simulated picks."""
    real_steps: int = 400
    """On the real records' train split."""
    samples: int = 2048
    """Length of windows."""
    fractions: bool = False
    """Compare pretrained with scratch by share of labels instead."""
    traces: int = 4000
    """Simulated traces of that comparison: 60 % train, 10 % dev, 30 % test."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (bool(self.regional) or self.fractions, "regional = '': must name a folder, or fractions must be true"),
            (set(self.arms) <= set(ARMS), f"arms = {self.arms}: must be among {', '.join(ARMS)}"),
            (bool(self.seeds), "seeds = []: must name at least one"),
        )


def train(experiment: str, run_id: str, *overrides: str) -> Path:
    """A run of ``train.py``, unless its last checkpoint says that it came to its end; returns its folder."""
    folder = Path("runs") / experiment / run_id
    steps = next(int(word.partition("=")[2]) for word in overrides if word.startswith("trainer.max_steps="))
    try:
        done = checkpoint.read(folder / "checkpoints" / "last.ckpt").step >= steps
    except CheckpointError:
        done = False
    if not done:
        call("train.py", f"experiment={experiment}", f"run_id={run_id}", *overrides, *QUIET)
    return folder


def call(*words: str) -> None:
    """Run a command of this project with this Python; ends the study where it fails."""
    console().print(f"→ python {shlex.join(words)}", soft_wrap=True, markup=False)
    subprocess.run([sys.executable, *words], check=True)


def evaluate(folder: Path, dataset: str) -> None:
    """Evaluate a run on a set, unless its report is there."""
    name = Path(dataset).name
    if not (folder / "evaluation" / name / "report.html").is_file():
        call("-m", "evaluation.run", f"checkpoint={folder}", f"dataset={dataset}")


def pretrained(args: Arguments, arm: str) -> list[str]:
    """The setting that starts an arm from its pretraining; nothing for arms without one."""
    if arm not in ("contrastive", "reconstruction"):
        return []
    steps = args.pretraining_steps
    lengths = [f"dataset.samples={args.samples}", f"trainer.max_steps={steps}", "trainer.max_epochs=-1"]
    folder = train(f"{arm}/small", f"study-{steps}", *lengths, f"trainer.val_check_interval={steps // 4}", VALIDATION)
    return [f"model.checkpoint_path={folder}"]


VALIDATION = "trainer.limit_val_batches=8"


def schedule(steps: int, args: Arguments, seed: int) -> list[str]:
    """Settings all arms share."""
    return [
        f"trainer.max_steps={steps}",
        "trainer.max_epochs=-1",
        f"dataset.samples={args.samples}",
        f"seed={seed}",
        "loader.batch_size=16",
    ]


def real(args: Arguments) -> Iterator[Path]:
    """Train and evaluate every arm and seed; yields run folders."""
    for seed in args.seeds:
        for arm in args.arms:
            simulated = [*schedule(args.steps, args, seed), f"trainer.val_check_interval={args.steps // 4}", VALIDATION]
            first = train(ARMS[arm], f"simulated-{arm}-{seed}", "dataset=synthetic", *simulated, *pretrained(args, arm), *AUGMENT)
            records = ["dataset=seisbench_phase_pick", f"dataset.dataset_name=[{args.regional}]", "dataset.preload=true"]
            validate = ["trainer.val_check_interval=1.0", "optimizer.lr=1e-3", f"model.checkpoint_path={first}"]
            last = train(ARMS[arm], f"real-{arm}-{seed}", *records, *schedule(args.real_steps, args, seed), *validate, *AUGMENT)
            evaluate(last, args.regional)
            yield last


def by_fraction(args: Arguments) -> Iterator[Path]:
    """Train and evaluate pretrained and scratch at every share of labels; yields run folders."""
    labels = Path("runs") / "study-data" / f"{args.traces}"
    if not (labels / "metadata.csv").is_file():
        call("-m", "dataloaders.synthesise", f"path={labels}", f"traces={args.traces}", "seed=7")
    data = ["dataset=seisbench_phase_pick", f"dataset.dataset_name=[{labels}]", "dataset.preload=true"]
    validate = [f"trainer.val_check_interval={args.steps // 4}", VALIDATION]
    for seed in args.seeds:
        for fraction in FRACTIONS:
            for arm in (arm for arm in args.arms if ARMS[arm] == OURS):
                own = [*data, f"dataset.training_fraction={fraction}", *schedule(args.steps, args, seed), *validate]
                folder = train(OURS, f"labels-{fraction:g}-{arm}-{seed}", *own, *pretrained(args, arm), *AUGMENT)
                evaluate(folder, str(labels))
                yield folder


def main(args: Arguments) -> None:
    """Run the study, then compare."""
    folders = list(by_fraction(args) if args.fractions else real(args))
    if not args.fractions:
        call("-m", "evaluation.run", "baseline=ar_pick", f"dataset={args.regional}", "output=runs/ar_pick/evaluation/regional")
        folders.append(Path("runs/ar_pick"))
    call("-m", "evaluation.report", *map(str, folders))


if __name__ == "__main__":
    cli.run(main, Arguments, where="benchmarks.picking_study")
