"""Lengths, causality and widths of the decoders."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contracts import DECODERS
from utils.errors import ConfigError
from utils.registry import import_parts

import_parts("models.decoders")


@settings(deadline=None, max_examples=30)
@given(name=st.sampled_from(["linear", "upsampling-decoder"]), stride=st.sampled_from([1, 2, 4, 8]), length=st.integers(1, 50))
def test_predictions_are_as_long_as_the_wave(name, stride, length):
    decoder = DECODERS.build({"_name_": name}, d_in=6, d_out=3, stride=stride, d_wave=3)
    guess = decoder(torch.randn(2, -(-length // stride), 6), torch.randn(2, length, 3))
    assert guess.shape == (2, length, 3)
    assert decoder.d_out == 3


@pytest.mark.parametrize("name", ["linear", "upsampling-decoder"])
def test_a_prediction_depends_on_its_own_token_and_on_later_ones_only_if_it_says_so(name):
    torch.manual_seed(0)
    decoder = DECODERS.build({"_name_": name}, d_in=6, d_out=3, stride=4, d_wave=3)
    wave, context = torch.randn(1, 40, 3), torch.randn(1, 10, 6)
    other = context.clone()
    other[:, 5] += 5.0
    changed = (decoder(context, wave) - decoder(other, wave)).abs().amax(-1)[0] > 1e-6
    assert changed[20:24].all()
    assert changed[:20].any() != decoder.causal
    assert not changed[:12].any()


def test_each_token_predicts_its_samples_by_one_linear_map():
    decoder = DECODERS.build({"_name_": "linear"}, d_in=6, d_out=2, stride=3, d_wave=3)
    context = torch.randn(1, 4, 6)
    expected = (context @ decoder.head.weight.T + decoder.head.bias).view(1, 4, 3, 2).view(1, 12, 2)
    torch.testing.assert_close(decoder(context, torch.randn(1, 11, 2)), expected[:, :11])


@pytest.mark.parametrize("name", ["none", "dummy"])
def test_no_decoder_has_no_parameters_and_predicts_no_channel(name):
    decoder = DECODERS.build({"_name_": name}, d_in=6, d_out=3, stride=4, d_wave=3)
    assert list(decoder.parameters()) == []
    assert decoder(torch.randn(2, 4, 6), torch.randn(2, 16, 3)).shape == (2, 16, 0)


def test_upsampling_needs_a_power_of_two():
    with pytest.raises(ConfigError, match=r"stride 6 .* decoder=linear"):
        DECODERS.build({"_name_": "upsampling-decoder"}, d_in=6, d_out=3, stride=6, d_wave=3)


@pytest.mark.parametrize(("setting", "value"), [("width", 0), ("kernel", 2)])
def test_settings_out_of_range(setting, value):
    with pytest.raises(ConfigError, match=f"{setting} = {value}"):
        DECODERS.build({"_name_": "upsampling-decoder", setting: value}, d_in=6, d_out=3, stride=4, d_wave=3)
