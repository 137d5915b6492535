"""Where windows start."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloaders.windows import centre_starts, covered, random_starts


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 20_000), min_size=1, max_size=20), samples=st.integers(1, 5000), seed=st.integers(0, 2**40)
)
def test_windows_stay_inside(lengths, samples, seed):
    length = np.array(lengths)
    index = np.arange(len(lengths))
    for start in (
        random_starts(length, samples, seed=seed, epoch=np.zeros_like(index), index=index),
        centre_starts(length, samples),
    ):
        assert (start >= 0).all() and (start + samples <= np.maximum(length, samples)).all()
    assert (covered(length, samples).sum(1) == np.minimum(length, samples)).all()


def test_random_starts_are_uniform_and_depend_on_nothing_but_the_trace():
    index = np.arange(20_000)
    length = np.full(len(index), 109)
    start = random_starts(length, 100, seed=3, epoch=np.full(len(index), 2), index=index)
    counts = np.bincount(start, minlength=10)
    assert len(counts) == 10 and np.abs(counts - 2000).max() < 5 * np.sqrt(2000), "ten places, equally likely"
    some = np.array([7, 19_999, 3])
    again = random_starts(length[some], 100, seed=3, epoch=np.full(3, 2), index=some)
    assert (again == start[some]).all()
    other = random_starts(length, 100, seed=3, epoch=np.full(len(index), 3), index=index)
    assert abs((other == start).mean() - 0.1) < 0.02, "another epoch, another window"
