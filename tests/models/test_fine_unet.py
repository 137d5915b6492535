"""The head of the fast picker: what it sees of the wave and of the context, and where."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contracts import DECODERS
from utils.errors import ConfigError
from utils.registry import import_parts

import_parts("models.decoders")


def head(stride: int = 32, **setting: object):
    torch.manual_seed(0)
    return DECODERS.build({"_name_": "fine-unet-phase-pick", **setting}, d_in=6, d_out=3, stride=stride, d_wave=3).eval()


@settings(deadline=None, max_examples=30)
@given(stride=st.sampled_from([1, 4, 6, 32]), length=st.integers(1, 300), pool=st.sampled_from([[4, 4, 4, 4], [2, 8], [16], [3]]))
def test_predictions_are_as_long_as_the_wave(stride, length, pool):
    decoder = head(stride, pool=pool, kernel=17)
    guess = decoder(torch.randn(2, -(-length // stride), 6), torch.randn(2, length, 3))
    assert guess.shape == (2, length, 3)


def test_a_wave_and_its_context_moved_by_whole_folds_move_the_prediction_as_far():
    decoder = head()
    wave, context = torch.randn(1, 256 * 24, 3), torch.randn(1, 8 * 24, 6)
    later = decoder(context.roll(8, 1), wave.roll(256, 1))
    inside = slice(256 * 10, 256 * 14)
    torch.testing.assert_close(later.roll(-256, 1)[:, inside], decoder(context, wave)[:, inside], atol=1e-5, rtol=1e-5)


def test_one_sample_of_the_wave_changes_the_prediction_there_and_nowhere_far():
    decoder = head(pool=[4, 4])
    wave, context = torch.randn(1, 32 * 20, 3), torch.randn(1, 20, 6)
    other = wave.clone()
    other[:, 320] += 5.0
    changed = (decoder(context, wave) - decoder(context, other)).abs().amax(-1)[0]
    assert changed[320] > 1e-4
    assert changed[:100].max() == 0
    assert changed[540:].max() == 0


@pytest.mark.parametrize("pool", [[4, 4], [4, 4, 4, 4], [2, 4, 4]])
def test_the_context_reaches_the_samples_its_token_covers(pool):
    decoder = head(pool=pool)
    wave, context = torch.randn(1, 32 * 20, 3), torch.randn(1, 20, 6)
    other = context.clone()
    other[:, 10] += 5.0
    changed = (decoder(context, wave) - decoder(other, wave)).abs().amax(-1)[0]
    assert changed[320:352].min() > 1e-5
    assert changed[:100].max() < changed[320:352].min()


@pytest.mark.parametrize(
    ("stride", "pool", "fold"), [(32, [4, 4, 4, 4], 16), (4, [4, 4], 4), (6, [4, 4], 1), (32, [2, 4, 4, 4], 32)]
)
def test_the_context_enters_at_the_last_stage_whose_samples_divide_a_token(stride, pool, fold):
    assert head(stride, pool=pool).fold == fold


def test_samples_beyond_the_last_whole_fold_are_predicted_as_if_silence_followed():
    decoder = head()
    wave, context = torch.randn(1, 230, 3), torch.randn(1, 8, 6)
    padded = torch.cat([wave, torch.zeros(1, 26, 3)], 1)
    torch.testing.assert_close(decoder(context, wave), decoder(context, padded)[:, :230])


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("width", 0, "width = 0: must be at least 1"),
        ("pool", [], r"pool = \[\]: must name at least one"),
        ("pool", [4, 1], r"pool = \[4, 1\]: must name"),
        ("kernel", 4, "kernel = 4: must be odd"),
        ("kernel", 3, "kernel = 3: must be at least the largest pool"),
        ("dropout", 1.0, "dropout = 1.0: must be 0"),
    ],
)
def test_settings_out_of_range(setting, value, text):
    with pytest.raises(ConfigError, match=text):
        head(**{setting: value})
