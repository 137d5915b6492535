"""Train pickers side by side and compare them on real records: python -m benchmarks.picking_study regional=path/to/regional

Every arm sees the same data: simulated seismograms, then the train split of a set of real records, with the same windows, labels,
augmentation, steps and seeds. Arms: our fast picker from scratch and from either pretraining, PhaseNet, EQTransformer; ObsPy's
ar_pick needs no training. Where several learning rates are given, the first seed of scratch, PhaseNet and EQTransformer tries
all of them and the one with the least validation loss is taken (those from a pretraining take that of scratch). Each arm is
evaluated on the test split, by source (``evaluation.run``), and on continuous records with an analyst's picks; all are compared
(``evaluation.report``). With ``fractions=true`` the question is another one: pretrained against scratch with 5 to 100 % of
simulated labels. What is finished is not done again, so the study can be stopped and continued. ``jobs=15`` keeps a GPU busy.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import obspy
import pandas as pd

from utils import checkpoint, cli
from utils.console import console
from utils.errors import CheckpointError, demand

ARMS = ("scratch", "phasenet", "eqtransformer", "contrastive", "reconstruction")
BASELINES = {"phasenet": "baseline/phasenet", "eqtransformer": "baseline/eqtransformer"}
PRETRAINED = ("contrastive", "reconstruction")
"""These two and ``scratch`` are one experiment and differ in the checkpoint they start from."""
QUIET = [
    *("pictures.enabled=false", "logger.tensorboard=false", "loader.num_workers=0", "checkpoint.save_top_k=1"),
    "trainer.precision=32-true",  # these networks are too small to gain from half precision
]
AUGMENT = ["task.augment.rotate=true", "task.augment.flip=true", "task.augment.vertical=0.15", "task.augment.noise=0.3"]
FRACTIONS = (0.05, 0.1, 0.2, 0.5, 1.0)
VALIDATIONS = 10
"""During a training."""
DATA = Path("runs") / "study-data"


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the study."""

    regional: str = ""
    """Folder of the real records, in SeisBench's format with a column split; "" leaves them out."""
    continuous: str = ""
    """Folder of continuous records NAME.mseed, each with an analyst's NAME.manual_picks.csv beside it; "" for none."""
    exclude: list[str] = field(default_factory=list)
    """Values of source_dataset left out of train and dev: those whose events are in the continuous records."""
    arms: list[str] = field(default_factory=lambda: list(ARMS))
    """Which arms."""
    ours: str = "xlstm/fast"
    """Experiment of our arms."""
    pretraining: str = "fast"
    """Experiments their checkpoints come from: contrastive/… and reconstruction/…; these must have the same encoder and model."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    """A run of each arm a seed."""
    rates: list[float] = field(default_factory=lambda: [1e-3, 3e-3, 1e-2])
    """Learning rates on simulated picks, of which each arm gets its best; real records are learnt at a third of it."""
    rate: dict[str, float] = field(default_factory=dict)
    """Learning rates by arm that are known already, in place of trying."""
    pretraining_steps: int = 6000
    """Of contrastive learning and of masked reconstruction, on simulated seismograms; once for all seeds."""
    steps: int = 4000
    """On simulated picks."""
    real_steps: int = 1000
    """On the real records' train split."""
    batch: int = 32
    """Windows a step."""
    samples: int = 4096
    """Length of windows."""
    jobs: int = 1
    """Trainings at a time. Each keeps 20,000 simulated seismograms in memory, 1.8 GB."""
    evaluate: bool = True
    """False only trains."""
    fractions: bool = False
    """Compare pretrained with scratch by share of labels instead."""
    traces: int = 4000
    """Simulated traces of that comparison: 60 % train, 10 % dev, 30 % test."""
    labelled: int = 480
    """Training traces that count as 100 % of labels; the others are left out."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (bool(self.regional) or self.fractions, "regional = '': must name a folder, or fractions must be true"),
            (set(self.arms) <= set(ARMS), f"arms = {self.arms}: must be among {', '.join(ARMS)}"),
            (bool(self.seeds), "seeds = []: must name at least one"),
            (bool(self.rates), "rates = []: must name at least one"),
            (self.jobs >= 1, f"jobs = {self.jobs}: must be at least 1"),
        )

    def experiment(self, arm: str) -> str:
        """What ``experiment=`` is for an arm."""
        return BASELINES.get(arm, self.ours)

    def schedule(self, steps: int, seed: int, rate: float) -> list[str]:
        """Settings that all arms share."""
        return [
            f"trainer.max_steps={steps}",
            "trainer.max_epochs=-1",
            f"trainer.val_check_interval={max(steps // VALIDATIONS, 1)}",
            f"dataset.samples={self.samples}",
            f"seed={seed}",
            f"loader.batch_size={self.batch}",
            f"optimizer.lr={rate:g}",
        ]


def call(log: Path, *words: str) -> None:
    """Run a command of this project with this Python, its output in a file.

    Raises:
        CalledProcessError: it failed; what it said last is on the screen.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    console().print(f"→ {log.stem}", markup=False)
    with log.open("w") as out:
        ended = subprocess.run([sys.executable, *words], stdout=out, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        console().print(f"{log}:\n{log.read_text()[-2000:]}", markup=False)
        ended.check_returncode()


def train(experiment: str, run_id: str, *overrides: str) -> Path:
    """A run of ``train.py``, from its last checkpoint on if there is one; nothing if that is its end. Returns its folder."""
    folder = Path("runs") / experiment / run_id
    last = folder / "checkpoints" / "last.ckpt"
    steps = next(int(word.partition("=")[2]) for word in overrides if word.startswith("trainer.max_steps="))
    try:
        done, resume = checkpoint.read(last).step >= steps, [f"train.ckpt_path={last}"]
    except CheckpointError:
        done, resume = False, []
    if not done:
        name = f"{experiment}-{run_id}".replace("/", "-")
        call(
            Path("runs") / "study-logs" / f"{name}.log",
            "train.py",
            f"experiment={experiment}",
            f"run_id={run_id}",
            *overrides,
            *QUIET,
            *resume,
        )
    return folder


def evaluate(args: Arguments, folder: Path, dataset: str) -> Path:
    """Evaluate the checkpoint with the least validation loss on a set and on continuous records, unless that is done."""
    logs, name = Path("runs") / "study-logs", f"{folder.parent.name}-{folder.name}"
    best = next((folder / "checkpoints").glob("step_*.ckpt"))
    if args.evaluate and not (folder / "evaluation" / Path(dataset).name / "report.html").is_file():
        call(logs / f"evaluation-{name}.log", "-m", "evaluation.run", f"checkpoint={best}", f"dataset={dataset}")
    for reference in sorted(Path(args.continuous).glob("*.manual_picks.csv")) if args.continuous and args.evaluate else []:
        station = reference.name.removesuffix(".manual_picks.csv")
        picks = folder / "picks" / f"{station}.csv"
        if picks.is_file():
            continue
        record = reference.with_name(f"{station}.mseed")
        spans = [(trace.stats.starttime, trace.stats.endtime) for trace in obspy.read(str(record), headonly=True)]
        picks.parent.mkdir(parents=True, exist_ok=True)
        call(logs / f"picks-{name}.log", "-m", "evaluation.pick", f"checkpoint={best}", f"input=[{record}]", f"output={picks}")
        call(
            logs / f"continuous-{name}.log", "-m", "evaluation.continuous", f"picks={picks}", f"reference={reference}",
            f"start={min(a for a, _ in spans)}", f"end={max(b for _, b in spans)}", f"evaluation={folder}",
        )  # fmt: skip
    return folder


def pretrain(args: Arguments, arm: str) -> Path:
    """The pretraining an arm starts from."""
    steps = args.pretraining_steps
    own = [
        f"dataset.samples={args.samples}",
        "dataset.cache=true",
        f"trainer.max_steps={steps}",
        "trainer.max_epochs=-1",
        f"trainer.val_check_interval={max(steps // VALIDATIONS, 1)}",
    ]
    return train(f"{arm}/{args.pretraining}", f"study-{steps}", *own)


def least_loss(folder: Path) -> float:
    """The smallest validation loss of a run."""
    return float(pd.read_csv(folder / "metrics.csv")["val/loss"].min())


class Study:
    """Who waits for whom: a pretraining, then learning rates, then seeds.

    Args:
        args: of the command.
        pool: workers; what is submitted first is done first, so nobody waits for what cannot begin.
    """

    def __init__(self, args: Arguments, pool: ThreadPoolExecutor) -> None:
        self.args, self.pool = args, pool
        wanted = [arm for arm in PRETRAINED if arm in args.arms]
        self.pretrained: dict[str, Future[Path]] = {arm: pool.submit(pretrain, args, arm) for arm in wanted}

    def start(self, arm: str) -> list[str]:
        """The setting that starts an arm from its pretraining; nothing for arms without one."""
        return [f"model.checkpoint_path={self.pretrained[arm].result()}"] if arm in PRETRAINED else []

    def simulated(self, arm: str, seed: int, rate: float) -> Path:
        """Train on simulated picks."""
        own = [*self.args.schedule(self.args.steps, seed, rate), *self.start(arm), *AUGMENT]
        return train(
            self.args.experiment(arm), f"simulated-{arm}-{seed}-lr{rate:g}", "dataset=synthetic", "dataset.cache=true", *own
        )

    def real(self, arm: str, seed: int, rate: Callable[[], float]) -> Path:
        """Train on simulated picks, then on real ones; evaluate."""
        args, lr = self.args, rate()
        data = train_and_dev(args)
        records = ["dataset=seisbench_phase_pick", f"dataset.dataset_name=[{data}]", "dataset.preload=true"]
        first = self.simulated(arm, seed, lr)
        own = [*args.schedule(args.real_steps, seed, lr / 3), f"model.checkpoint_path={first}", *AUGMENT]
        return evaluate(args, train(args.experiment(arm), f"real-{arm}-{seed}", *records, *own), str(data))

    def rates(self) -> dict[str, Callable[[], float]]:
        """A way to wait for the best learning rate of each arm; with one rate there is nothing to try."""
        args = self.args
        owners = dict.fromkeys("scratch" if arm in PRETRAINED else arm for arm in args.arms)
        candidates = {arm: [args.rate[arm]] if arm in args.rate else args.rates for arm in owners}
        tried = {
            arm: {rate: self.pool.submit(self.simulated, arm, args.seeds[0], rate) for rate in rates}
            for arm, rates in candidates.items()
            if len(rates) > 1
        }

        def best(arm: str) -> float:
            if arm not in tried:
                return candidates[arm][0]
            loss = {rate: least_loss(run.result()) for rate, run in tried[arm].items()}
            return min(loss, key=loss.__getitem__)

        return {arm: partial(best, "scratch" if arm in PRETRAINED else arm) for arm in args.arms}

    def on_real_records(self) -> Iterator[Future[Path]]:
        """Every arm and seed."""
        rates = self.rates()
        for seed in self.args.seeds:
            for arm in self.args.arms:
                yield self.pool.submit(self.real, arm, seed, rates[arm])

    def by_fraction(self) -> Iterator[Future[Path]]:
        """Our arms at every share of labels."""
        labels = few_labels(self.args)
        for seed in self.args.seeds:
            for fraction in FRACTIONS:
                for arm in (arm for arm in self.args.arms if arm not in BASELINES):
                    yield self.pool.submit(self.fraction, labels, arm, seed, fraction)

    def fraction(self, labels: Path, arm: str, seed: int, fraction: float) -> Path:
        """Train on a share of the labels; evaluate."""
        args = self.args
        data = ["dataset=seisbench_phase_pick", f"dataset.dataset_name=[{labels}]", "dataset.preload=true"]
        own = [*data, f"dataset.training_fraction={fraction}", *args.schedule(args.steps, seed, args.rates[0])]
        return evaluate(
            args, train(args.experiment(arm), f"labels-{fraction:g}-{arm}-{seed}", *own, *self.start(arm), *AUGMENT), str(labels)
        )


def train_and_dev(args: Arguments) -> Path:
    """The real records, those of excluded sources only where they are in the test split."""
    if not args.exclude:
        return Path(args.regional)
    return DATA / Path(args.regional).name


def write_excluded(args: Arguments) -> None:
    """Write the set of :func:`train_and_dev`: its own metadata, the same waveforms."""
    table = pd.read_csv(Path(args.regional) / "metadata.csv", dtype=str, keep_default_na=False)
    out = table["source_dataset"].isin(args.exclude) & (table["split"] != "test")
    _write_subset(Path(args.regional), table[~out], DATA / Path(args.regional).name)
    console().print(f"{int(out.sum())} records of {', '.join(args.exclude)} are left out of train and dev", markup=False)


def few_labels(args: Arguments) -> Path:
    """Simulated records of which few are for training and many for testing; written if they are not there."""
    whole, few = DATA / f"{args.traces}", DATA / f"{args.traces}-{args.labelled}"
    if not (whole / "metadata.csv").is_file():
        words = ["-m", "dataloaders.synthesise", f"path={whole}", f"traces={args.traces}", "seed=7"]
        call(Path("runs") / "study-logs" / "synthesise.log", *words)
    table = pd.read_csv(whole / "metadata.csv", dtype=str, keep_default_na=False)
    spare = table.index[table["split"] == "train"][args.labelled :]
    _write_subset(whole, table.drop(spare), few)
    return few


def _write_subset(whole: Path, table: pd.DataFrame, folder: Path) -> None:
    """Write a set that has some of another's traces: its own metadata, links to the waveforms."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in whole.resolve().glob("waveforms*.hdf5"):
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    table.to_csv(folder / "metadata.csv", index=False)


def main(args: Arguments) -> None:
    """Run the study, then compare."""
    os.environ.setdefault("OMP_NUM_THREADS", "1" if args.jobs > 1 else str(os.cpu_count() or 1))
    if args.exclude:
        write_excluded(args)
    with ThreadPoolExecutor(args.jobs) as pool:
        study = Study(args, pool)
        folders = [run.result() for run in list(study.by_fraction() if args.fractions else study.on_real_records())]
    if not args.evaluate:
        return
    log = Path("runs") / "study-logs"
    if not args.fractions:
        data = train_and_dev(args)
        output = Path("runs") / "ar_pick" / "evaluation" / data.name
        call(log / "ar_pick.log", "-m", "evaluation.run", "baseline=ar_pick", f"dataset={data}", f"output={output}")
        folders.append(Path("runs") / "ar_pick")
    call(log / "report.log", "-m", "evaluation.report", *map(str, folders))


if __name__ == "__main__":
    cli.run(main, Arguments, where="benchmarks.picking_study")
