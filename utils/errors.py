"""Errors a person can act on: the rule that was broken, the value that broke it, what to do instead."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class WaveError(Exception):
    """A mistake of the person or of their data, told in one screen and without a traceback."""


class ConfigError(WaveError):
    """Every mistake found in a configuration, told at once.

    Attributes:
        mistakes: one text a mistake, in the order of the config.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        head = "The configuration has a mistake" if len(mistakes) == 1 else f"The configuration has {len(mistakes)} mistakes"
        super().__init__("\n".join([f"{head}:", *(f"  - {text}" for text in mistakes)]))


class DataError(WaveError):
    """A dataset that cannot be used as asked; names the file, the column or the split."""


class CheckpointError(WaveError):
    """A checkpoint that is missing, foreign, damaged, or contradicts what was asked."""


class TrainingError(WaveError):
    """Training that cannot go on: loss or weights that are no longer numbers."""


def demand(*rules: tuple[bool, str]) -> None:
    """State the ranges of a config dataclass in its ``__post_init__``; reports every broken rule, not only the first.

    Args:
        rules: pairs of (holds, text), where text says setting, value and rule: ``"width = -3: must be at least 1"``.

    Raises:
        ValueError: with one line for each rule that does not hold.
    """
    broken = [text for holds, text in rules if not holds]
    if broken:
        raise ValueError("\n".join(broken))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` where a known word is close, else the empty string."""
    close = get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
