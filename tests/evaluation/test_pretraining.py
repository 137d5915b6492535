"""References of pretraining: what the ridge regression may know, and how well it does where the answer is known."""

import numpy as np
import pytest

from evaluation.baselines import Ridge
from evaluation.pretraining import _hidden_neighbours

RNG = np.random.default_rng(5)


def rows(wave, hidden):
    return _hidden_neighbours(wave, hidden, np.ones(len(wave), bool), len(wave))


def spans(length, channels):
    hidden = np.zeros((length, channels), bool)
    for c in range(channels):
        for start in RNG.integers(0, length - 20, length // 60):
            hidden[start : start + 20, c] = True
    return hidden


def test_each_component_has_its_own_neighbours_and_truth():
    wave, hidden = RNG.standard_normal((600, 3)), np.repeat(spans(600, 1), 3, axis=1)
    values, distance, truth = rows(wave, hidden)
    assert values.shape == (3 * hidden[:, 0].sum(), 64)
    np.testing.assert_array_equal(truth, wave.T[hidden.T])
    at = np.flatnonzero(hidden[:, 0])
    seen = np.flatnonzero(~hidden[:, 0])
    nearest = np.abs(at[:, None] - seen).min(1)
    np.testing.assert_array_equal(distance, np.tile(nearest, 3))


@pytest.mark.parametrize("apart", [True, False])
def test_a_component_that_another_repeats_is_known_only_where_that_one_is_seen(apart):
    noise = RNG.standard_normal((6000, 1))
    wave = np.concatenate([noise, -2 * noise, 0.5 * noise], 1)
    hidden = spans(6000, 3) if apart else np.repeat(spans(6000, 1), 3, axis=1)
    values, distance, truth = rows(wave, hidden)
    error = (Ridge.fit(values, distance, truth).predict(values, distance) - truth) ** 2
    assert values.shape[1] == 64 + (18 if apart else 0)
    alone = (hidden.sum(1) == 3)[np.concatenate([np.flatnonzero(column) for column in hidden.T])]
    assert error[alone].mean() > 0.5 * truth[alone].var()
    if apart:
        assert error[~alone].mean() < 0.5 * truth[~alone].var()
