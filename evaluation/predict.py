"""A picker's answers to target windows, as pick-benchmark writes them: ``pred/<experiment>/<version>/<split>_task<n>.csv``.

The model sees context around a window, as it does in use; its answer is read inside the window only.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dataloaders.batch import Batch
from dataloaders.windows import covered
from evaluation import frames
from evaluation.picker import Picker
from evaluation.records import Records

SCORES = ("score_detection", "score_p_or_s", "p_sample_pred", "s_sample_pred")
"""Columns that pick-benchmark reads."""
OWN = ("source", "event", "p_known", "s_known", "p_score", "s_score")
"""Columns of ours: where the trace is from, its event, whether its P and S are labelled, the highest p_P and p_S inside."""
_LEAST = 1e-12
"""Smallest probability in the ratio of P to S: a window without any valid sample gets 1."""


class Answer(NamedTuple):
    """What is read from a batch of windows; NaN where there is no answer.

    Attributes:
        detection: ``B``, highest 1 − p_noise.
        p, s: ``B``, highest p_P and p_S.
        p_at, s_at: ``B``, where, in samples from the beginning of what the model sees.
    """

    detection: np.ndarray
    p: np.ndarray
    s: np.ndarray
    p_at: np.ndarray
    s_at: np.ndarray


class Judge(Protocol):
    """Anything that answers target windows.

    Attributes:
        samples: how many it sees at a time; more where a target window is longer.
    """

    samples: int

    def __call__(self, batch: Batch, inside: Tensor) -> Answer:
        """Raw windows, and which of their samples belong to the target window (``B L`` bool), to answers."""
        ...


@final
class PickerJudge:
    """A trained picker, read inside the window.

    Args:
        picker: probabilities of P, S and noise.

    Attributes:
        samples: length of the windows of its training.
    """

    def __init__(self, picker: Picker) -> None:
        self.picker = picker
        self.samples = picker.samples

    def __call__(self, batch: Batch, inside: Tensor) -> Answer:
        """See :class:`Judge`."""
        chance = self.picker(batch)
        return read_inside(chance, inside.to(chance.device))


def read_inside(chance: Tensor, inside: Tensor) -> Answer:
    """The highest probabilities inside windows, and where they are.

    Args:
        chance: ``B L 3``, probabilities of P, S, N.
        inside: ``B L`` bool.
    """
    outside = ~inside
    event = (1 - chance[..., 2]).masked_fill(outside, -1.0).amax(1)
    high, at = chance[..., :2].masked_fill(outside[..., None], -1.0).max(1)
    return Answer(*(value.double().cpu().numpy() for value in (event, *high.unbind(1), *at.unbind(1))))


@final
class ClassicalJudge:
    """Picks of obspy's ``ar_pick``, which has no scores: it always answers with one P and one S.

    It sees the same context as a picker would; a pick outside the target window is none.

    Args:
        samples: length of what it sees.
        rate: in Hz.
    """

    def __init__(self, samples: int, rate: float) -> None:
        self.samples, self.rate = samples, rate

    def __call__(self, batch: Batch, inside: Tensor) -> Answer:
        """See :class:`Judge`."""
        from evaluation.classical import ar_picks

        none = np.full(len(inside), np.nan)
        within = inside.numpy()
        found = []
        for at in ar_picks(batch.wave, self.rate):
            sample = np.clip(np.nan_to_num(np.rint(at)), 0, within.shape[1] - 1).astype(np.int64)
            found.append(np.where(np.isfinite(at) & within[np.arange(len(at)), sample], at, np.nan))
        return Answer(none, none, none, *found)


def context_starts(start: np.ndarray, end: np.ndarray, length: np.ndarray, samples: int) -> np.ndarray:
    """First samples of what a model sees: the target window in its middle, moved to lie inside the trace where it can.

    Args:
        start, end: ``B``, of the target windows.
        length: ``B``, samples of the traces.
        samples: of what the model sees; at least those of the target windows.
    """
    middle = start - (samples - (end - start)) // 2
    return np.clip(middle, 0, np.maximum(length - samples, 0))


def seen(judge: Judge, table: pd.DataFrame) -> int:
    """How many samples a model sees of each trace: as in training, or the longest target window where that is longer."""
    return max(judge.samples, int((frames.numbers(table, "end_sample") - frames.numbers(table, "start_sample")).max(initial=0)))


def may_shift(first: np.ndarray, start: np.ndarray, length: np.ndarray, samples: int, shift: int) -> np.ndarray:
    """``B`` bool: whether what a model sees can begin ``shift`` samples later, inside the trace, with the target window in it."""
    return (first + shift <= np.maximum(length - samples, 0)) & (first + shift <= start)


def window_batch(records: Records, traces: np.ndarray, start: np.ndarray, samples: int) -> Batch:
    """Raw windows of traces; what lies beyond their end is padded and invalid, a damaged trace wholly so."""
    count = np.clip(records.catalogue.length[traces] - start, 0, samples)
    wave, sound = records.reader.read(traces, start, count, samples)
    return Batch(
        wave=torch.from_numpy(wave),
        valid=torch.from_numpy(covered(count, samples) & sound[:, None]),
        live=torch.from_numpy(records.catalogue.live(traces) & sound[:, None]),
        index=torch.from_numpy(traces.astype(np.int64)),
        epoch=torch.zeros(len(traces), dtype=torch.int64),
    )


def predict(
    judge: Judge,
    records: Records,
    table: pd.DataFrame,
    traces: np.ndarray,
    *,
    batch_size: int = 64,
    shift: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> pd.DataFrame:
    """Target windows with answers.

    Args:
        judge: what answers.
        records: the traces.
        table: targets, ``n`` rows.
        traces: ``n``, number of each row's trace among the records.
        batch_size: windows at a time.
        shift: samples by which what the model sees begins later, where :func:`may_shift`.
        advance: called with the number of windows answered since the last call.

    Returns:
        the targets with :data:`SCORES` and :data:`OWN`; scores of a damaged trace are NaN.
    """
    start, end = (table[name].to_numpy(np.int64) for name in ("start_sample", "end_sample"))
    length = records.catalogue.length[traces].astype(np.int64)
    samples = seen(judge, table)
    first = context_starts(start, end, length, samples)
    first = first + np.where(may_shift(first, start, length, samples, shift), shift, 0)
    answers = []
    for low in range(0, len(table), batch_size):
        some = slice(low, low + batch_size)
        batch = window_batch(records, traces[some], first[some], samples)
        at = first[some, None] + np.arange(samples)
        inside = torch.from_numpy((at >= start[some, None]) & (at < end[some, None])) & batch.valid
        answer = judge(batch, inside)
        damaged = ~batch.valid.any(1).numpy()
        answers.append(np.where(damaged, np.nan, np.stack(answer)))
        advance(len(damaged))
    detection, p, s, p_at, s_at = np.concatenate([np.empty((5, 0)), *answers], 1)
    return table.assign(
        score_detection=detection,
        score_p_or_s=np.maximum(p, _LEAST) / np.maximum(s, _LEAST),
        p_sample_pred=p_at + first,
        s_sample_pred=s_at + first,
        source=records.source[traces],
        event=records.catalogue.event[traces],
        p_known=records.known[traces, 0],
        s_known=records.known[traces, 1],
        p_score=p,
        s_score=s,
    )


def write_predictions(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write ``<split>_task<n>.csv`` for dev and test into a folder.

    Args:
        tables: predictions by the number of their task.
        folder: made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for task, table in tables.items():
        for split in ("dev", "test"):
            frames.rows(table, frames.is_(table, "trace_split", split)).to_csv(folder / f"{split}_task{task}.csv", index=False)
