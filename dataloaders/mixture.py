"""How much of each set an epoch holds, where sets are weighted; a function of (seed, epoch), the same for any number of ranks."""

from collections.abc import Sequence
from typing import final

import numpy as np
import torch


@final
class Mixture:
    """The windows of weighted sets, epoch after epoch.

    A set of n traces with the weight w gives round(w·n) windows an epoch, at least one. It is an endless row of passes, each a
    seeded permutation of all its traces, and every epoch takes up where the one before left off: no trace comes again before all
    others of its set have come, also with weights below 1. Windows of all sets are then shuffled together.

    Args:
        which: ``N``, number of the set of each trace of the split.
        weights: of the sets, above 0.
        names: of the sets.

    Attributes:
        counts: windows an epoch by set; 0 for sets that have no trace in the split.
    """

    def __init__(self, which: np.ndarray, weights: Sequence[float], names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.members = [np.flatnonzero(which == number) for number in range(len(weights))]
        sizes = [len(traces) for traces in self.members]
        self.counts = tuple(max(1, round(weight * n)) if n else 0 for weight, n in zip(weights, sizes, strict=True))

    def __len__(self) -> int:
        """Windows of an epoch."""
        return sum(self.counts)

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """The windows of an epoch in their order: ``len(self) 2``, number of the pass over its set and position in the split.

        A trace is in each pass once, so the pass tells its windows apart as the epoch does where nothing is weighted.
        """
        drawn = [self._drawn(seed, epoch, number) for number in range(len(self.counts))]
        keys = np.concatenate([part for part in drawn if len(part)])
        return keys[_permutation(len(keys), seed, len(self.counts), epoch)]

    def _drawn(self, seed: int, epoch: int, number: int) -> np.ndarray:
        """What an epoch takes of a set, ``count 2``."""
        count, traces = self.counts[number], self.members[number]
        if not count:
            return np.empty((0, 2), np.int64)
        turn, place = np.divmod(np.arange(epoch * count, (epoch + 1) * count), len(traces))
        orders = {each: _permutation(len(traces), seed, number, each) for each in range(int(turn[0]), int(turn[-1]) + 1)}
        row = np.concatenate([orders[each] for each in orders])[place[0] : place[0] + count]
        return np.stack([turn, traces[row]], 1)

    def describe(self) -> str:
        """Windows an epoch by set, what share of it they are and how often each trace comes."""
        told = [
            f"{name} {count:,} ({count / len(self):.1%}, each trace {count / len(traces):.3g} ×)"
            for name, count, traces in zip(self.names, self.counts, self.members, strict=True)
            if count
        ]
        return f"windows an epoch: {len(self):,} = {' + '.join(told)}"


def _permutation(length: int, seed: int, number: int, turn: int) -> np.ndarray:
    state = np.random.SeedSequence([seed, number, turn]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]) % 2**63)
    return torch.randperm(length, generator=generator).numpy()
