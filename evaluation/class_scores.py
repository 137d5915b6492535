"""What a classifier answers, and how good that is: shares of right answers with intervals over events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from dataloaders.foreshock.sequence import EventPart
from dataloaders.normalise import prepare
from evaluation.bootstrap import Estimator
from evaluation.pretraining import batches
from evaluation.scoring import Bootstrap, Row, Scored
from tasks.module import WaveModule
from utils.errors import DataError

PROTOCOL = "classification"
_BATCH = 64
Answered = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(right ``N`` bool, or the share of models that are; true class ``N``, event ``N``)."""


@dataclass(frozen=True)
class Named:
    """Where rows belong: split and source, and how their intervals are made."""

    split: str
    source: str
    how: Bootstrap


@dataclass(frozen=True)
class Answers:
    """What a classifier says about a split.

    Attributes:
        trace: ``N`` int64, number of each trace in its source.
        event: ``N`` int64.
        label: ``N`` int64, true classes.
        chance: ``N K`` float32, probabilities.
        damaged: traces left out because they could not be read.
    """

    trace: np.ndarray
    event: np.ndarray
    label: np.ndarray
    chance: np.ndarray
    damaged: int

    @property
    def right(self) -> np.ndarray:
        """``N`` bool."""
        return self.chance.argmax(1) == self.label

    def confusion(self) -> np.ndarray:
        """``K K`` int64: true classes in rows, answers in columns."""
        count = self.chance.shape[1]
        return np.bincount(self.label * count + self.chance.argmax(1), minlength=count**2).reshape(count, count)

    def table(self, classes: Sequence[str], split: str) -> pd.DataFrame:
        """A row a trace: split, trace, event, class, answer, and a probability for each class."""
        names = np.array(classes, dtype=object)
        known: dict[str, Any] = {"split": split, "trace": self.trace, "event": self.event, "class": names[self.label]}
        answer = {"answer": names[self.chance.argmax(1)]}
        return pd.DataFrame(known | answer | {f"score_{name}": self.chance[:, k] for k, name in enumerate(classes)})


@torch.inference_mode()
def answer(module: WaveModule, part: EventPart, device: str) -> Answers:
    """The probabilities of a split, in its order.

    Args:
        module: a trained classifier, in evaluation mode on the device.
        part: the split.
        device: cpu or cuda.
    """
    found: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    numbers: list[torch.Tensor] = []
    for raw in batches(part, _BATCH, None, torch.device(device)):
        ready, _ = prepare(raw, module.prepare_cfg)
        found.append(module.network(ready.wave, ready.valid).float().softmax(-1).cpu())
        labels.append(cast(torch.Tensor, raw.label).cpu())
        numbers.append(raw.index.cpu())
    chance, label, trace = (torch.cat(each)[: len(part)].numpy() for each in (found, labels, numbers))
    kept = label >= 0
    return Answers(trace[kept], part.event[kept], label[kept], chance[kept], int((~kept).sum()))


def share(right: np.ndarray) -> Estimator:
    """The share of right answers as a function of weights ``R N``.

    Args:
        right: ``N`` bool, or the share of models that are right.
    """
    hits = right.astype(np.float64)

    def estimate(weight: np.ndarray) -> np.ndarray:
        total = weight.sum(1)
        return np.divide(weight @ hits, total, out=np.full(len(weight), np.nan), where=total > 0)

    return estimate


def balanced(right: np.ndarray, label: np.ndarray) -> Estimator:
    """The mean over classes of the share of right answers, as a function of weights ``R N``.

    Args:
        right: ``N`` bool.
        label: ``N`` true classes.
    """
    each = [(label == number, share(right[label == number])) for number in np.unique(label).tolist()]

    def estimate(weight: np.ndarray) -> np.ndarray:
        return np.stack([of_class(weight[:, mine]) for mine, of_class in each]).mean(0)

    return estimate


def rows_of(answered: Answered, classes: Sequence[str], named: Named, note: str) -> list[Row]:
    """Accuracy, its mean over classes, and the accuracy of each class with the numbers of its own traces and events."""
    right, label, event = answered
    how, place = named.how, (PROTOCOL, named.split, named.source, "")
    every = {"accuracy": share(right), "balanced_accuracy": balanced(right, label)}
    rows = Scored(*place, event, note).rows(every, "undefined: no traces", how)
    for number, name in enumerate(classes):
        mine = label == number
        own = {f"accuracy_{name}": share(right[mine])}
        rows += Scored(*place, event[mine], note).rows(own, "undefined: no trace of this class", how)
    return rows


def score(answers: Answers, classes: Sequence[str], named: Named) -> list[Row]:
    """Rows of ``metrics.csv`` of one model on one split."""
    note = f"{answers.damaged} damaged traces not scored" if answers.damaged else ""
    return rows_of((answers.right, answers.label, answers.event), classes, named, note)


def score_seeds(several: Sequence[Answers], classes: Sequence[str], named: Named) -> list[Row]:
    """Mean over models with intervals over events (the same events for all models), and the spread between models.

    Raises:
        DataError: the models did not answer the same traces.
    """
    first, count = several[0], len(several)
    if any(not np.array_equal(first.trace, other.trace) or not np.array_equal(first.label, other.label) for other in several):
        raise DataError("the checkpoints were evaluated on different traces or classes: train all seeds with the same dataset")
    right = np.mean([each.right for each in several], axis=0)
    damaged = f"; {first.damaged} damaged traces not scored" if first.damaged else ""
    rows = rows_of((right, first.label, first.event), classes, named, f"mean over {count} checkpoints{damaged}")
    spread = Scored(PROTOCOL, named.split, named.source, "", first.event, f"standard deviation over {count} checkpoints")
    each_alone = Scored(PROTOCOL, named.split, named.source, "", first.event, "")
    one = np.ones((1, len(first.label)))
    for name, values in {
        "accuracy": [float(share(each.right)(one)[0]) for each in several],
        "balanced_accuracy": [float(balanced(each.right, each.label)(one)[0]) for each in several],
    }.items():
        deviation = float(np.std(values, ddof=1)) if count > 1 else np.nan
        rows.append(spread.stated(f"{name}_spread", deviation, "undefined: one checkpoint"))
        rows += [each_alone.stated(f"{name}_checkpoint_{number}", value, "") for number, value in enumerate(values, 1)]
    return rows
