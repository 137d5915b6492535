"""Rows and columns of pandas tables as what they are: a table stays a table, a column is an array."""

from typing import cast

import numpy as np
import pandas as pd


def rows(table: pd.DataFrame, where: np.ndarray) -> pd.DataFrame:
    """The rows where ``where`` (``n`` bool) holds."""
    return cast(pd.DataFrame, table.loc[np.asarray(where, dtype=bool)])


def numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as float64; what is no number is NaN."""
    return np.asarray(pd.to_numeric(cast(pd.Series, table[column]), errors="coerce"), dtype=np.float64)


def texts(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as an array of Python objects."""
    return np.asarray(table[column], dtype=object)


def flags(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as bool."""
    return np.asarray(table[column], dtype=bool)


def is_(table: pd.DataFrame, column: str, word: str) -> np.ndarray:
    """``n`` bool: where a column of texts is a word."""
    return np.asarray(texts(table, column) == word, dtype=bool)
