"""The one LightningModule. It has no branches on kinds: what is learnt is the task's business, this is the round around it."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, final

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from dataloaders.batch import Batch
from dataloaders.normalise import PrepareConfig, prepare
from models.network import Network
from tasks.contracts import StepOutput, Task
from tasks.parts import lr_factors
from utils import checkpoint
from utils.distributed import all_reduce_plain, world_size
from utils.errors import ConfigError
from utils.initial import InitConfig
from utils.optim import OPTIMIZERS
from utils.registry import typed
from utils.rng import Draw
from utils.schedules import SCHEDULERS

Local = Callable[..., tuple[StepOutput, dict[str, Tensor]]]


@final
class CompiledStep:
    """A compiled step; where the compiler fails, it says so and how to train without it.

    Args:
        compiled: the step.
        otherwise: the step as it is, for where nobody insisted: then training goes on with it, after a warning.
    """

    def __init__(self, compiled: Local, otherwise: Local | None) -> None:
        self._run, self._otherwise = compiled, otherwise

    def __call__(self, batch: Batch, *, evaluating: bool) -> tuple[StepOutput, dict[str, Tensor]]:
        """The step.

        Raises:
            ConfigError: the compiler fails, and compiling was asked for; has the compiler's first lines.
        """
        from torch._dynamo.exc import TorchDynamoException  # a second of imports, for those that compile

        try:
            return self._run(batch, evaluating=evaluating)
        except TorchDynamoException as error:
            why = " ".join(str(error).strip().partition("\n\n")[0].split())
            text = f"torch.compile fails on this run's training step: {why[:300]}\n  trainer.compile=false trains without it"
            if self._otherwise is None:
                raise ConfigError([text]) from error
            warnings.warn(f"{text}, and so does this run from here on, more slowly", stacklevel=2)
        self._run = self._otherwise
        return self._run(batch, evaluating=evaluating)


@final
class WaveModule(pl.LightningModule):
    """Prepare, step, log, optimise.

    Args:
        network: encoder → backbone → decoder.
        task: the objective.
        config: the run's whole config, plain builtins; travels in every checkpoint.
        spec: what its data look like; travels too.
        prepare_cfg: how a batch is normalised.

    Attributes:
        lineage: the runs its weights came from, oldest first (:attr:`utils.checkpoint.Checkpoint.descent`).
    """

    def __init__(
        self, network: Network, task: Task, *, config: Mapping[str, Any], spec: Mapping[str, Any], prepare_cfg: PrepareConfig
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.config = dict(config)
        self.spec = dict(spec)
        self.prepare_cfg = prepare_cfg
        self.means = nn.ModuleDict()
        self.lineage: tuple[str, ...] = ()
        self._compiled: Local | None = None

    def compile_step(self, backend: str | Callable[..., Any] = "inductor", *, graphs: bool = False, must: bool = True) -> None:
        """Have torch.compile make one graph of what a training step computes from the raw batch to the loss.

        Validation stays as it is: its last batch is shorter, which would compile it twice. Parameters keep their names.
        Random numbers that the objective draws from torch (Gumbel noise, dropout) are others of the same distribution.

        Args:
            backend: of ``torch.compile``.
            graphs: replay the kernels of a step as CUDA graphs: their launches then cost nothing.
            must: an error where the compiler fails; else a warning, and the step as it is.
        """
        compiled = torch.compile(self._local, backend=backend, mode="reduce-overhead" if graphs else None)
        self._compiled = CompiledStep(compiled, None if must else self._local)

    @property
    def compiled(self) -> bool:
        """Whether training steps are compiled."""
        return self._compiled is not None

    def draw(self, batch: Batch, *, evaluating: bool) -> Draw:
        """The random numbers of a batch: of (seed, epoch, index) in training, of (eval_mask_seed, 0, index) otherwise."""
        if evaluating:
            return Draw(self.config["eval_mask_seed"], torch.zeros_like(batch.epoch), batch.index)
        return Draw(self.config["seed"], batch.epoch, batch.index)

    def _local(self, batch: Batch, *, evaluating: bool) -> tuple[StepOutput, dict[str, Tensor]]:
        """What needs no other rank: (the objective on the prepared batch, what was repaired)."""
        batch, repaired = prepare(batch, self.prepare_cfg)
        return self.task.step(self.network, batch, self.draw(batch, evaluating=evaluating)), repaired

    def _step(self, batch: Batch, *, evaluating: bool) -> tuple[StepOutput, dict[str, Tensor], dict[str, Tensor]]:
        """One step over all ranks: ``(output, values by name, weights of the means by name)``.

        Means are over scored positions, tallies over their own number; gauges are averaged over ranks and repairs summed, and
        carry the weight 1. ``"count"`` among the weights is the number of scored positions.
        """
        run = self._local if evaluating or self._compiled is None else self._compiled
        output, repaired = run(batch, evaluating=evaluating)
        count = output.count.detach().float()
        weighted = {"loss": output.loss, **output.logs}
        numbers = [value.detach().float() for value in (*weighted.values(), *output.gauges.values(), *repaired.values())]
        scale = (
            [count] * len(weighted)
            + [count.new_full((), 1.0 / world_size())] * len(output.gauges)
            + [count.new_ones(())] * len(repaired)
        )
        tallied = [part.detach().float() for pair in output.tallies.values() for part in pair]
        stacked = [count, *(number * by for number, by in zip(numbers, scale, strict=True)), *tallied]
        sums = all_reduce_plain(torch.stack(stacked))
        plain = (*weighted, *output.gauges, *repaired)
        values = dict(zip(plain, sums[1:], strict=False))
        weights = {"count": sums[0]} | {name: sums[0] if name in weighted else torch.ones_like(count) for name in plain}
        values |= {name: values[name] / sums[0].clamp_min(1.0) for name in weighted}
        for number, name in enumerate(output.tallies):
            total, weights[name] = sums[1 + len(plain) + 2 * number :][:2]
            values[name] = total / weights[name].clamp_min(1.0)
        return output, values, weights

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss whose gradient, averaged over ranks by DDP, is that of the mean over all scored positions of all ranks."""
        output, values, weights = self._step(batch, evaluating=False)
        if self._tells():
            for name, value in values.items():
                self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=len(batch.wave))
        return output.loss * (output.count * world_size() / weights["count"].clamp_min(1.0)) + output.penalty

    def _tells(self) -> bool:
        """Whether Lightning writes what this step logs, or it is the first: logging a dozen values costs it milliseconds."""
        step = self.trainer.global_step
        every = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue] - set by a part of the Trainer
        return step == 0 or (step + 1) % every == 0

    def _evaluate(self, batch: Batch, stage: str) -> None:
        _, values, weights = self._step(batch, evaluating=True)
        for name, value in values.items():
            full = f"{stage}/{name}"
            metric = self._mean(full)
            metric.update(value, weights[name])
            # named, since Lightning looks for a module's metrics only once
            self.log(full, metric, metric_attribute=f"means.{full}", batch_size=len(batch.wave))

    def _mean(self, name: str) -> MeanMetric:
        """The running mean under a name; values are already reduced over ranks, so it does not synchronise."""
        if name not in self.means:
            self.means[name] = MeanMetric(sync_on_compute=False, nan_strategy="disable").to(self.device)
        metric = self.means[name]
        assert isinstance(metric, MeanMetric)
        return metric

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Means over all validation batches, with the fixed masks and negatives of ``eval_mask_seed``."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on the test split."""
        self._evaluate(batch, "test")

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Tell the task how much of the run is done (temperature)."""
        self.task.anneal(min(1.0, self.trainer.global_step / max(1, self._total)))

    def on_train_start(self) -> None:
        """Count the optimizer steps of the run, once."""
        self._total = self.trainer.estimated_stepping_batches

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimizer and schedule of the config; the schedule steps with the optimizer, ``plateau`` with the epoch."""
        scaled = self.config["trainer"]["precision"] == "16-mixed"
        factors = lr_factors(self.network, self.task, typed(InitConfig, self.config.get("init", {})))
        modules = [self.network, self.task]
        optimizer = OPTIMIZERS.build(self.config["optimizer"], modules=modules, scaled=scaled, factors=factors)
        metric, mode = self.task.monitor
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = SCHEDULERS.build(self.config["scheduler"], optimizer=optimizer, total=total, mode=mode)
        interval = "epoch" if self.config["scheduler"]["_name_"] == "plateau" else "step"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval, "monitor": metric}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the total norm, and log it (ours: Lightning refuses to clip for fused optimizers under mixed precision)."""
        largest = float("inf") if gradient_clip_val is None else float(gradient_clip_val)
        norm = nn.utils.clip_grad_norm_(self.parameters(), largest)
        self.log("train/gradient_norm", norm)

    def on_save_checkpoint(self, checkpoint_content: dict[str, Any]) -> None:
        """Put the run's own description into the checkpoint: it needs no sibling file."""
        checkpoint_content[checkpoint.KEY] = checkpoint.record(self.config, self.spec, self.lineage)

    def on_load_checkpoint(self, checkpoint_content: dict[str, Any]) -> None:
        """A resumed run descends from what its own checkpoint descends from."""
        self.lineage = tuple(checkpoint_content.get(checkpoint.KEY, {}).get("lineage", ()))
