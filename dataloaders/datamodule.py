"""The one LightningDataModule: a source's splits as loaders."""

from typing import Any, cast, final

import pytorch_lightning as pl
import torch

from dataloaders.batch import Batch, DataSpec
from dataloaders.contracts import Part, Source, Split
from dataloaders.sampler import EvalOrder, TrainLoader, mark_padding
from utils.config import LoaderConfig
from utils.errors import DataError
from utils.workers import WatchedLoader


@final
class WaveData(pl.LightningDataModule):
    """Loaders over a source.

    Args:
        source: the opened source.
        cfg: how batches are formed.
        seed: of the run; decides the order of training samples.

    Raises:
        DataError: a split is empty or smaller than a batch; before any training.
    """

    def __init__(self, source: Source, cfg: LoaderConfig, *, seed: int) -> None:
        super().__init__()
        self.source = source
        self.cfg = cfg
        self.seed = seed
        self._train: TrainLoader | None = None
        self._resume: dict[str, Any] = {}
        self.parts: dict[Split, Part] = {split: source.part(split) for split in (Split.train, Split.dev)}
        for split, part in self.parts.items():
            if len(part) == 0:
                raise DataError(f"dataset: the {split.value} split is empty. Choose other data or another split.")

    @property
    def spec(self) -> DataSpec:
        """What the batches look like."""
        return self.source.spec

    @property
    def windows(self) -> int:
        """Training windows of an epoch, before the incomplete last batch is left out."""
        part = self.parts[Split.train]
        return len(part) if part.mixture is None else len(part.mixture)

    def _options(self) -> dict[str, Any]:
        workers = self.cfg.num_workers
        return {
            "num_workers": workers,
            "pin_memory": self.cfg.pin_memory and torch.cuda.is_available(),
            "prefetch_factor": self.cfg.prefetch_factor if workers else None,
            "persistent_workers": workers > 0,
            "patience_s": self.cfg.stalled_s,
            # its own: opening a loader would otherwise move the global generator, and a resumed run opens other ones
            "generator": torch.Generator(),
        }

    def train_dataloader(self) -> TrainLoader:
        """Training windows in seeded order; the last incomplete batch of an epoch is left out."""
        self._train = TrainLoader(self.parts[Split.train], self.cfg.batch_size, self.seed, **self._options())
        if self._resume:
            self._train.load_state_dict(self._resume)
            self._resume = {}
        return self._train

    def state_dict(self) -> dict[str, Any]:
        """Where in which epoch training is; travels in every checkpoint."""
        if self._train is None:
            return {}
        if self.trainer is not None and self.trainer.num_training_batches:
            self._train.limit = int(min(self.trainer.num_training_batches, len(self._train)))
        return dict(self._train.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it for the loader to come.

        Lightning's own way, through the loader, comes to nothing here: counting the steps of a run opens the loaders before
        the checkpoint's loops are restored, and it hands states to loaders only when it opens them.
        """
        self._resume = dict(state_dict)

    def name(self, trace: int) -> str:
        """What to call a training trace in messages; its number as ``Batch.index`` has it."""
        return self.parts[Split.train].name(trace)

    def _eval_loader(self, split: Split) -> WatchedLoader[Batch]:
        if split not in self.parts:
            self.parts[split] = self.source.part(split)
        part = self.parts[split]
        order = EvalOrder(len(part), self.cfg.batch_size)
        return WatchedLoader(part, name=part.name, batch_sampler=order, collate_fn=cast(Any, mark_padding), **self._options())

    def val_dataloader(self) -> WatchedLoader[Batch]:
        """The dev split, every trace once."""
        return self._eval_loader(Split.dev)

    def test_dataloader(self) -> WatchedLoader[Batch]:
        """The test split, every trace once."""
        return self._eval_loader(Split.test)
