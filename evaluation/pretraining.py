"""What pretraining has learnt, against what costs nothing: ``python -m evaluation.pretraining checkpoint=…``.

Contrastive: top-1 accuracy against 100 negatives on hard codes, of the trained network, of the same network untrained, and
of copying from the nearest visible token (see :func:`copied`), on the same masks and negatives. Masked reconstruction: mean
squared error on hidden samples, of the network, of zero, of straight lines, and of a ridge regression on the 64 nearest
visible samples.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dataloaders.batch import Batch
from dataloaders.contracts import SOURCES, Part, Split
from dataloaders.normalise import PrepareConfig, prepare
from dataloaders.sampler import EvalOrder, mark_padding
from evaluation.baselines import Ridge, interpolate, nearest_visible, neighbours
from tasks.build import build_module, load_trained, spec_from_record
from tasks.contracts import Choice, CodeLoss
from tasks.contrastive import Contrastive
from tasks.masked_reconstruction import MaskedReconstruction
from tasks.masking import pick
from tasks.module import WaveModule
from utils import cli
from utils.errors import ConfigError, demand


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    checkpoint: str
    """A checkpoint file, or a run folder: its newest."""
    dataset_name: list[str] = field(default_factory=list)
    """SeisBench names or folders to evaluate on; empty is the data of the run."""
    split: Split = Split.dev
    """Which split to evaluate."""
    batch_size: int = 32
    """Traces at a time."""
    traces: int | None = None
    """Evaluate only the first so many traces; null is all."""
    fit_traces: int = 256
    """Training traces the ridge regression is fitted on."""
    device: str = "auto"
    """cpu, cuda or auto."""
    output: str | None = None
    """Write the figures to this JSON file too."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.batch_size >= 1, f"batch_size = {self.batch_size}: must be at least 1"),
            (self.traces is None or self.traces >= 1, f"traces = {self.traces}: must be at least 1"),
            (self.fit_traces >= 8, f"fit_traces = {self.fit_traces}: must be at least 8"),
            (self.device in ("auto", "cpu", "cuda"), f"device = '{self.device}': must be auto, cpu or cuda"),
            (self.device != "cuda" or torch.cuda.is_available(), "device = 'cuda': this machine has none; use cpu or auto"),
            (
                self.output is None or Path(self.output).absolute().parent.is_dir(),
                f"output = '{self.output}': its folder does not exist; make it first",
            ),
        )


def batches(part: Part, size: int, most: int | None, device: torch.device) -> Iterator[Batch]:
    """A split's windows in order, marked and on the device, as validation sees them."""
    for keys in EvalOrder(min(len(part), most or len(part)), size):
        yield mark_padding(part.__getitems__(keys)).on(device)


class _Mean:
    """A mean over scored positions, batch by batch."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0.0

    def add(self, value: Tensor, count: Tensor) -> None:
        self.total += float(value) * float(count)
        self.count += float(count)

    @property
    def value(self) -> float:
        return self.total / max(self.count, 1.0)


def copied(module: WaveModule, batch: Batch, loss: CodeLoss) -> dict[str, Choice]:
    """What copying from the nearest visible token scores, on the same masks, targets and negatives.

    ``copy_nearest`` gives that token's code as the answer: right where it is the hidden token's own code and no negative
    carries that too. ``copy_nearest_similar`` ranks the candidates by their cosine similarity to that code's target
    vector, a stronger reference, since a code close to the right one may do.
    """
    task = cast(Contrastive, module.task)
    draw = module.draw(batch, evaluating=True)
    line = task.line(module.network, batch, draw)
    features = module.network.encoder.features(batch.wave)
    codes = None if task.quantizer is None else task.quantizer(features, line.valid)
    nearest = nearest_visible(line.valid & ~line.hidden)
    vectors = task.to_target(features if codes is None else codes.vectors)
    similar = loss(pick(pick(vectors, nearest), line.positions), line.target, line.numbers, line.scored, draw)
    if codes is None:
        return {"copy_nearest_similar": similar}
    own = loss(line.target, line.target, line.numbers, line.scored, draw)  # the answer itself: misses only ambiguous codes
    same = (pick(codes.indices, nearest) == codes.indices).all(-1).gather(1, line.positions)
    hits = own.hits & same
    exact = Choice(own.loss, hits.sum() / own.count.clamp_min(1.0), own.count, hits, own.scored)
    return {"copy_nearest": exact, "copy_nearest_similar": similar}


def contrastive(
    module: WaveModule, part: Part, args: Arguments, settings: PrepareConfig, device: torch.device
) -> dict[str, float]:
    """Top-1 accuracies and code use of a contrastive model."""
    pl.seed_everything(module.config["seed"], workers=True, verbose=False)
    untrained = build_module(module.config, spec_from_record(module.spec)).eval().to(device)
    means: dict[str, _Mean] = defaultdict(_Mean)
    for raw in batches(part, args.batch_size, args.traces, device):
        batch, _ = prepare(raw, settings)
        output = module.task.step(module.network, batch, module.draw(batch, evaluating=True))
        means["accuracy"].add(output.logs["accuracy"], output.count)
        means["loss"].add(output.loss, output.count)
        for name in ("perplexity", "hard_perplexity"):
            if name in output.gauges:
                means[name].add(output.gauges[name], output.count)
        other = untrained.task.step(untrained.network, batch, untrained.draw(batch, evaluating=True))
        means["untrained"].add(other.logs["accuracy"], other.count)
        for name, choice in copied(module, batch, cast(CodeLoss, module.task.loss_val)).items():
            means[name].add(choice.accuracy, choice.count)
    figures = {name: mean.value for name, mean in means.items()}
    against = [name for name in ("untrained", "copy_nearest", "copy_nearest_similar") if name in figures]
    return {**figures, **{f"times_{name}": figures["accuracy"] / max(figures[name], 1e-9) for name in against}}


_ACROSS = 4
"""Samples before and after a hidden one at which the ridge regression sees the other components, where they are visible."""


def _hidden_neighbours(wave: np.ndarray, hidden: np.ndarray, valid: np.ndarray, most: int) -> tuple[np.ndarray, ...] | None:
    """Neighbours, distances and truth at about ``most`` hidden samples of each component; None where too few are visible.

    Args:
        wave: ``L C``.
        hidden: ``L C`` bool.
        valid: ``L`` bool.
        most: samples a component.
    """
    rows, apart = [], bool((hidden != hidden[:, :1]).any())
    for c in range(wave.shape[1]):
        visible, at = valid & ~hidden[:, c], np.flatnonzero(hidden[:, c])
        if visible.sum() < 64 or not len(at):
            return None
        at = at[:: max(1, len(at) // most)]
        values, distance = neighbours(wave[:, c : c + 1], visible, at)
        seen = [values[:, 0]] + ([_across(np.delete(np.where(hidden, 0.0, wave), c, 1), at)] if apart else [])
        rows.append((np.concatenate(seen, 1), distance, wave[at, c]))
    return tuple(np.concatenate(column) for column in zip(*rows, strict=True))


def _across(others: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The other components ``L C−1`` around samples ``at``, 0 where they are hidden: ``N (2·4+1)(C−1)``."""
    around = np.pad(others, ((_ACROSS, _ACROSS), (0, 0)))
    return np.concatenate([around[at + offset] for offset in range(2 * _ACROSS + 1)], 1)


def fit_ridge(module: WaveModule, part: Part, args: Arguments, settings: PrepareConfig) -> Ridge:
    """The ridge regression, fitted on training traces under the task's own masks."""
    task, rows = cast(MaskedReconstruction, module.task), []
    for raw in batches(part, args.batch_size, args.fit_traces, torch.device("cpu")):
        batch, _ = prepare(raw, settings)
        _, hidden = task.reconstruct(module.network, batch, module.draw(batch, evaluating=False))
        for wave, mask, valid in zip(batch.wave.numpy(), hidden.numpy(), batch.valid.numpy(), strict=True):
            found = _hidden_neighbours(wave, mask, valid, 400)
            rows += [found] if found else []
    return Ridge.fit(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def reconstruction(
    module: WaveModule, parts: dict[Split, Part], args: Arguments, settings: PrepareConfig, device: torch.device
) -> dict[str, float]:
    """Mean squared errors on hidden samples."""
    ridge = fit_ridge(module.cpu(), parts[Split.train], args, settings)
    module.to(device)
    task = cast(MaskedReconstruction, module.task)
    sums = dict.fromkeys(("model", "zero", "interpolation", "ridge"), 0.0)
    count = 0
    for raw in batches(parts[args.split], args.batch_size, args.traces, device):
        batch, _ = prepare(raw, settings)
        guess, hidden = task.reconstruct(module.network, batch, module.draw(batch, evaluating=True))
        arrays = (x.float().cpu().numpy() for x in (batch.wave, guess))
        for wave, own, mask, valid in zip(*arrays, hidden.cpu().numpy(), batch.valid.cpu().numpy(), strict=True):
            found = _hidden_neighbours(wave, mask, valid, len(wave))
            if found is None:
                continue
            values, distance, truth = found
            count += len(truth)
            sums["model"] += float(np.square(own[mask] - wave[mask]).sum())
            sums["zero"] += float(np.square(wave[mask]).sum())
            for c, channel in enumerate(wave.T):
                at = mask[:, c]
                lines = interpolate(channel[:, None], valid & ~at)[at, 0]
                sums["interpolation"] += float(np.square(lines - channel[at]).sum())
            sums["ridge"] += float(np.square(ridge.predict(values, distance) - truth).sum())
    errors = {name: value / max(count, 1) for name, value in sums.items()}
    best = min(value for name, value in errors.items() if name != "model")
    return {**errors, "share_of_best_reference": errors["model"] / max(best, 1e-12)}


def _parts(module: WaveModule, args: Arguments) -> tuple[dict[Split, Part], PrepareConfig]:
    """The splits to evaluate and how they are prepared: as in the run, whatever the data."""
    node = dict(module.config["dataset"])
    if args.dataset_name:
        own = asdict(PrepareConfig())
        node = {
            "_name_": "seisbench_auto_reg",
            "dataset_name": args.dataset_name,
            "samples": module.spec["samples"],
            **{key: node[key] for key in own if key in node},
        }
    source = SOURCES.build(node, seed=module.config["seed"])
    return {split: source.part(split) for split in {Split.train, args.split}}, SOURCES.settings(node)


def evaluate(args: Arguments) -> dict[str, Any]:
    """Load, evaluate, return the figures.

    Raises:
        ConfigError: the checkpoint's objective has no such figures.
    """
    module = load_trained(args.checkpoint)
    device = torch.device("cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu")
    parts, settings = _parts(module, args)
    name = module.config["task"]["_name_"]
    with torch.no_grad():
        if name == "contrastive":
            figures = contrastive(module.to(device), parts[args.split], args, settings, device)
        elif name == "regression":
            figures = reconstruction(module, parts, args, settings, device)
        else:
            raise ConfigError([f"checkpoint: task '{name}' has no pretraining figures. Known: contrastive, regression"])
    return {
        "task": name,
        "checkpoint": args.checkpoint,
        "dataset": args.dataset_name or module.config["dataset"]["_name_"],
        "split": args.split.value,
        "seed": module.config["seed"],
        "traces": min(len(parts[args.split]), args.traces or len(parts[args.split])),
        "figures": figures,
    }


def main(args: Arguments) -> None:
    """Print the figures, and write them where asked."""
    found = evaluate(args)
    table = Table(
        title=f"{found['task']}: {found['split']} split of {found['dataset']}, {found['traces']} traces, seed {found['seed']}"
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in found["figures"].items():
        table.add_row(name.replace("_", " "), f"{value:.4f}")
    Console().print(table)
    if args.output:
        Path(args.output).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main, Arguments, where="evaluation.pretraining")
