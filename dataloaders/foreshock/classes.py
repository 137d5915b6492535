"""From times to classes and splits: pure functions of the events alone.

Every decision follows from when events happened and what they are called; seeds, training fractions and the order of rows have
no say in which events are tested.
"""

from hashlib import blake2b

import numpy as np

from dataloaders.sets.splits import in_fraction
from utils.errors import DataError

PRE, VISSO, POST = "pre", "visso", "post"
SEQUENCES = (PRE, VISSO, POST)
"""Parts of the sequence, in the order of time: before the mainshock, the Visso earthquakes, after it."""
CLASS_COUNTS = (2, 4, 8, 9)
TEST, DEV = 0.2, 0.1


def class_names(count: int) -> tuple[str, ...]:
    """Names of the classes in the order of time: FEQ1 … (foreshocks), Visso where the number is odd, AEQ1 … (aftershocks)."""
    groups = count // 2
    numbers = [""] if groups == 1 else [str(group + 1) for group in range(groups)]
    middle = ("Visso",) if count % 2 else ()
    return (*(f"FEQ{number}" for number in numbers), *middle, *(f"AEQ{number}" for number in numbers))


def in_time(events: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Order of events by time, by identifier where times are equal: whatever the order of rows.

    Args:
        events: ``E`` identifiers (text).
        times: ``E``, s to the mainshock.
    """
    return np.lexsort((events.astype(str), times))


def equal_size(events: np.ndarray, count: int) -> np.ndarray:
    """``E`` bool: ``count`` of the events, chosen by a hash of their identifiers.

    Choosing by hash keeps the distribution over time, and an event's place among the others depends on its name alone.
    """
    digests = [int.from_bytes(blake2b(str(event).encode(), digest_size=8).digest(), "big") for event in events.tolist()]
    rank = np.empty(len(events), np.int64)
    rank[np.lexsort((events.astype(str), np.array(digests, np.uint64)))] = np.arange(len(events))
    return rank < count


def classify(events: np.ndarray, times: np.ndarray, sequence: np.ndarray, count: int) -> np.ndarray:
    """Class of each event among :func:`class_names`, −1 for one that is left out to make foreshocks and aftershocks equal.

    Args:
        events: ``E`` identifiers, each once.
        times: ``E``, s to the mainshock.
        sequence: ``E``, of :data:`SEQUENCES`.
        count: of classes, of :data:`CLASS_COUNTS`.

    Raises:
        DataError: a part of the sequence has no events.
    """
    groups, label = count // 2, np.full(len(events), -1, np.int64)
    wanted = SEQUENCES if count % 2 else (PRE, POST)
    numbers = {name: int((sequence == name).sum()) for name in wanted}
    if not all(numbers.values()):
        found = ", ".join(f"{number} {name}" for name, number in numbers.items())
        raise DataError(f"{count} classes need events of each part of the sequence; there are {found}." + _remedy(count, numbers))
    size = min(numbers[PRE], numbers[POST])
    for name, first in ((PRE, 0), (POST, count - groups)):
        of_part = np.flatnonzero(sequence == name)
        kept = of_part[equal_size(events[of_part], size)]
        kept = kept[in_time(events[kept], times[kept])]
        label[kept] = first + np.arange(size) * groups // size
    if count % 2:
        label[sequence == VISSO] = groups
    return label


def _remedy(count: int, numbers: dict[str, int]) -> str:
    if count % 2 and numbers[PRE] and numbers[POST]:
        return " Convert the Visso events too, or choose dataset.classes=8"
    return " Convert the files of this part too: python -m dataloaders.convert_foreshock"


def split_in_time(events: np.ndarray, times: np.ndarray, label: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """0 train, 1 dev, 2 test, −1 unused: the first 70 % of each class in time train, the next 10 % validate, the last 20 % test.

    Args:
        events: ``E`` identifiers.
        times: ``E``, s to the mainshock.
        label: ``E`` classes, −1 unused.
        names: of the classes.

    Raises:
        DataError: a class has too few events to be in every split.
    """
    split = np.full(len(events), -1, np.int8)
    few = []
    for number, name in enumerate(names):
        mine = np.flatnonzero(label == number)
        if len(mine) < 3:
            few.append(f"{name} {len(mine)}")
            continue
        mine = mine[in_time(events[mine], times[mine])]
        test, dev = (max(1, round(share * len(mine))) for share in (TEST, DEV))
        split[mine] = np.repeat(np.array([0, 1, 2], np.int8), [len(mine) - dev - test, dev, test])
    if few:
        raise DataError(
            f"classes with fewer than three events cannot train, validate and test: {', '.join(few)}. "
            "Choose fewer classes with dataset.classes, or convert more events"
        )
    return split


def thinned(events: np.ndarray, label: np.ndarray, split: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """``E`` bool: the events that are used. A fraction of the training events of each class, nested; all of dev and test.

    Args:
        events: ``E`` 64-bit identifiers.
        label, split: ``E``, as above.
        fraction: of the training events; a smaller one is a subset of any larger one.
        seed: decides which.
    """
    used = split > 0
    for number in np.unique(label[split == 0]).tolist():
        mine = np.flatnonzero((split == 0) & (label == number))
        used[mine[in_fraction(events[mine], fraction, seed)]] = True
    return used
