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
@given(stride=st.sampled_from([16, 32, 64]), length=st.integers(1, 200), pool=st.sampled_from([[4, 4], [2, 8], [16]]))
def test_predictions_are_as_long_as_the_wave(stride, length, pool):
    decoder = head(stride, pool=pool, kernel=17)
    guess = decoder(torch.randn(2, -(-length // stride), 6), torch.randn(2, length, 3))
    assert guess.shape == (2, length, 3)


def test_a_wave_and_its_context_moved_by_a_token_move_the_prediction_by_a_token():
    decoder = head()
    wave, context = torch.randn(1, 32 * 20, 3), torch.randn(1, 20, 6)
    later = decoder(context.roll(1, 1), wave.roll(32, 1))
    inside = slice(32 * 6, 32 * 14)
    torch.testing.assert_close(later.roll(-32, 1)[:, inside], decoder(context, wave)[:, inside], atol=1e-5, rtol=1e-5)


def test_one_sample_of_the_wave_changes_the_prediction_there_and_nowhere_far():
    decoder = head()
    wave, context = torch.randn(1, 32 * 20, 3), torch.randn(1, 20, 6)
    other = wave.clone()
    other[:, 320] += 5.0
    changed = (decoder(context, wave) - decoder(context, other)).abs().amax(-1)[0]
    assert changed[320] > 1e-4
    assert changed[:100].max() == 0
    assert changed[540:].max() == 0


def test_the_context_reaches_the_samples_its_token_covers():
    decoder = head()
    wave, context = torch.randn(1, 32 * 20, 3), torch.randn(1, 20, 6)
    other = context.clone()
    other[:, 10] += 5.0
    changed = (decoder(context, wave) - decoder(other, wave)).abs().amax(-1)[0] > 1e-6
    assert changed[320:352].all()
    assert not changed[:100].any()


def test_samples_beyond_the_last_whole_token_are_predicted_as_if_silence_followed():
    decoder = head()
    wave, context = torch.randn(1, 70, 3), torch.randn(1, 3, 6)
    padded = torch.cat([wave, torch.zeros(1, 26, 3)], 1)
    torch.testing.assert_close(decoder(context, wave), decoder(context, padded)[:, :70])


def test_pools_that_do_not_divide_the_stride_are_refused():
    with pytest.raises(ConfigError, match=r"folds \[4, 4\], in all 16 samples, but a token covers 4: set decoder.pool"):
        head(4)


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
