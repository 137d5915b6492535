"""Soft labels: a distribution at every sample, peaks where onsets are, nothing where there are none."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dataloaders.labels import gaussian_labels

arrivals = st.lists(st.tuples(st.integers(-1, 299), st.integers(0, 1)), min_size=1, max_size=5)


def labels(found, samples=300, sigma=7.0):
    onsets, phases = (torch.tensor([[each[k] for each in found]]) for k in (0, 1))
    return gaussian_labels(onsets, phases, samples, sigma)[0].numpy()


@settings(deadline=None, max_examples=60)
@given(arrivals)
def test_labels_are_a_distribution_and_know_no_phase_without_an_arrival(found):
    y = labels(found)
    assert y.shape == (300, 3) and (y >= 0).all()
    np.testing.assert_allclose(y.sum(1), 1, atol=1e-6)
    for phase in (0, 1):
        there = [onset for onset, kind in found if kind == phase and onset >= 0]
        if not there:
            assert (y[:, phase] == 0).all()
        elif not any(kind != phase and onset >= 0 for onset, kind in found):
            assert all(y[onset, phase] == 1 for onset in there)


@settings(deadline=None, max_examples=40)
@given(arrivals, st.randoms())
def test_the_order_of_arrivals_does_not_matter(found, random):
    mixed = random.sample(found, len(found))
    np.testing.assert_array_equal(labels(found), labels(mixed))


def test_one_onset_gives_the_normal_density_scaled_to_one():
    y = labels([(140, 1)], sigma=20.0)
    density = norm.pdf(np.arange(300), 140, 20)
    np.testing.assert_allclose(y[:, 1], density / density.max(), atol=1e-6)
    np.testing.assert_allclose(y[:, 2], 1 - density / density.max(), atol=1e-6)


def test_p_and_s_at_the_same_sample_share_it():
    y = labels([(100, 0), (100, 1)])
    np.testing.assert_allclose(y[100], [0.5, 0.5, 0.0])
