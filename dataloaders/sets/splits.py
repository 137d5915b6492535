"""Which traces train, validate and test: the set's own split, else a seeded one by event; nested training fractions."""

import numpy as np

from utils.rng import uniform

SPLITS = ("train", "dev", "test")
UNUSED = -1
"""Split of a trace whose metadata name none of the three."""
_OTHER_NAMES = {"val": "dev", "valid": "dev", "validation": "dev", "training": "train", "testing": "test"}
_TRAIN, _DEV = 0.6, 0.1


def own_split(column: np.ndarray) -> np.ndarray:
    """A metadata column ``split`` (text) as int8: 0 train, 1 dev, 2 test, ``UNUSED`` for anything else."""
    words, which = np.unique(column.astype(str), return_inverse=True)
    known = [_OTHER_NAMES.get(word.strip().lower(), word.strip().lower()) for word in words.tolist()]
    return np.array([SPLITS.index(word) if word in SPLITS else UNUSED for word in known], np.int8)[which.reshape(-1)]


def event_order(events: np.ndarray, seed: int, stream: str) -> tuple[np.ndarray, int]:
    """Each row's event as its place in a seeded random order of all events, and how many events there are.

    The place of one event relative to another depends on nothing but their identifiers and the seed.

    Args:
        events: 64-bit identifiers, one a row.
        seed: of the split.
        stream: name of the purpose; orders of different purposes are independent.
    """
    unique, codes = np.unique(events, return_inverse=True)
    chance = uniform(seed, np.zeros(len(unique), np.int64), unique, stream, 1)[:, 0]
    place = np.empty(len(unique), np.int64)
    place[np.lexsort((unique, chance))] = np.arange(len(unique))
    return place[codes.reshape(-1)], len(unique)


def split_by_event(events: np.ndarray, seed: int) -> np.ndarray:
    """60 % of the events to train, 10 % to dev, 30 % to test, at random but for ever the same; int8, one a row.

    As soon as there are three events, no part is empty.
    """
    place, count = event_order(events, seed, "split")
    dev = max(round(_DEV * count), int(count > 1))
    test = max(round((1 - _TRAIN - _DEV) * count), int(count > 2))
    train = count - dev - test
    return np.where(place < train, 0, np.where(place < train + dev, 1, 2)).astype(np.int8)


def in_fraction(events: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Bool, one a row: the traces of a seeded subset of the events. A smaller fraction is a subset of any larger one.

    Args:
        events: 64-bit identifiers of the training rows.
        fraction: of the events, at least one is kept.
        seed: of the split.
    """
    place, count = event_order(events, seed, "training fraction")
    return place < max(1, round(fraction * count))
