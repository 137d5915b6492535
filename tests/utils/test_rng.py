"""Counter-based random numbers: equal in NumPy and torch, independent of the batch, uniform."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from utils.rng import Draw, uniform

KEYS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(-1, 2**40)), min_size=1, max_size=5)


def drawn(seed, keys):
    epoch, index = (torch.tensor([key[i] for key in keys]) for i in (0, 1))
    return Draw(seed, epoch, index)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), KEYS, st.integers(1, 40))
def test_numpy_and_torch_agree_to_the_bit(seed, keys, count):
    ours = drawn(seed, keys).uniform("mask", count).numpy()
    theirs = uniform(seed, np.array([k[0] for k in keys]), np.array([k[1] for k in keys]), "mask", count)
    assert (ours == theirs).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), KEYS)
def test_a_sample_does_not_depend_on_its_batch(seed, keys):
    together = drawn(seed, keys)
    for row, key in enumerate(keys):
        alone = drawn(seed, [key])
        assert torch.equal(together.uniform("a", 3, 2)[row], alone.uniform("a", 3, 2)[0])
        assert torch.equal(together.integers("b", 7, 5)[row], alone.integers("b", 7, 5)[0])


def test_uniform_across_every_part_of_the_key():
    n = 4000
    ramp, zero = torch.arange(n), torch.zeros(n, dtype=torch.int64)
    samples = {
        "counter": Draw(1, zero[:1], zero[:1]).uniform("s", n)[0],
        "index": Draw(1, zero, ramp).uniform("s")[:],
        "epoch": Draw(1, ramp, zero).uniform("s")[:],
        "seed": torch.cat([Draw(seed, zero[:1], zero[:1]).uniform("s") for seed in range(500)]),
        "stream": torch.cat([Draw(1, zero[:1], zero[:1]).uniform(f"s{i}") for i in range(500)]),
    }
    for name, values in samples.items():
        assert stats.kstest(values.numpy(), "uniform").pvalue > 1e-3, name
        lagged = np.corrcoef(values[:-1], values[1:])[0, 1]
        assert abs(lagged) < 4 / np.sqrt(len(values)), name


def test_integers_cover_their_range_evenly_and_normals_are_normal():
    draw = Draw(3, torch.zeros(1, dtype=torch.int64), torch.tensor([5]))
    counts = torch.bincount(draw.integers("i", 10, 20000)[0], minlength=10).numpy()
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.kstest(draw.normal("n", 5000)[0].numpy(), "norm").pvalue > 1e-3
    high = torch.tensor([[0], [1], [2]])
    three = Draw(3, torch.zeros(3, dtype=torch.int64), torch.arange(3)).integers("h", high, 50)
    assert (three[:2] == 0).all()
    assert set(three[2].tolist()) == {0, 1}
