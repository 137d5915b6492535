"""The public door to live streams: raw pieces in, predictions out."""

import numpy as np
import obspy
import pytest
import torch
from composing import composed, spec_for

import wavexlstm
from dataloaders.running import RunningPreparation
from tasks import build
from utils import checkpoint
from utils.errors import CheckpointError, DataError

ONE_WAY = [
    "model.use_unet=false",
    "model.bidirectional=false",
    "model.n_layers=2",
    "dataset=synthetic",
    "dataset.normalise=running",
]


def module(*overrides):
    torch.manual_seed(0)
    config = composed(*overrides)
    made = build.build_module(config, spec_for(config, 512)).eval()
    for p in made.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return made


@pytest.fixture(scope="module")
def picker():
    return module("experiment=xlstm/small", "model.block_type=mixed", *ONE_WAY)


def record(samples):
    rng = np.random.default_rng(0)
    wave = rng.normal(size=(samples, 3)) * 100 + 5e5
    wave[samples // 2 : samples // 2 + 20, 1] = np.nan
    return wave


def test_a_live_picker_gives_what_one_window_gives(picker):
    wave = record(700)
    live = wavexlstm.stream(picker)
    out, sizes = [], []
    for piece in np.array_split(wave, [1, 2, 100, 101, 350, 690]):
        before = live.given
        out.append(live.feed(piece))
        sizes.append(live.memory_bytes)
        assert live.given == before + len(out[-1])
    out.append(live.finish())
    assert live.given == 700
    got = np.concatenate(out)
    prepared = torch.from_numpy(RunningPreparation(picker.prepare_cfg, 512)(wave))[None]
    with torch.inference_mode():
        expected = picker.network(prepared)[0].softmax(-1).numpy()
    np.testing.assert_allclose(got, expected, atol=2e-5)
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)
    assert max(sizes[2:]) == sizes[2]
    assert live.delay == pytest.approx(0.06)


def test_a_checkpoint_of_a_next_sample_model_streams(tmp_path):
    made = module("experiment=xlstm/small", *ONE_WAY, "task=autoregressive", "loss=mse", "decoder=linear")
    content = {"state_dict": made.state_dict(), checkpoint.KEY: checkpoint.record(made.config, made.spec)}
    torch.save(content, tmp_path / "model.ckpt")
    live = wavexlstm.stream(str(tmp_path), memory=1.0)
    assert live.delay == 0
    assert live.feed(record(40)).shape == (40, 3)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["experiment=xlstm/small"], r"backbone: a U-Net folds tokens with later ones: train it with model\.use_unet=false"),
        (["experiment=contrastive/small"], "it has no decoder"),
    ],
)
def test_a_model_that_cannot_is_refused_with_the_reason(overrides, reason):
    with pytest.raises(CheckpointError, match=rf"this model cannot run on a live stream\. {reason}"):
        wavexlstm.stream(module(*overrides))


def test_a_model_of_windows_normalised_by_their_whole_is_warned_of():
    with pytest.warns(UserWarning, match=r"trained with dataset\.normalise=peak, .* Train it with dataset\.normalise=running"):
        wavexlstm.stream(module("experiment=xlstm/small", *ONE_WAY, "dataset.normalise=peak"))


def test_samples_of_another_shape_are_refused(picker):
    with pytest.raises(DataError, match=r"samples have the shape \(3, 50\): must be N × 3"):
        wavexlstm.stream(picker).feed(np.zeros((3, 50)))


@pytest.mark.data
def test_ten_minutes_of_a_real_record_second_by_second(picker, real_set):
    record = sorted(real_set.parent.glob("continuous/*.mseed"))[0]
    traces = obspy.read(record)
    wave = np.stack([traces.select(component=letter)[0].data[:60_000] for letter in "ZNE"], 1)
    live = wavexlstm.stream(picker)
    out = [live.feed(piece) for piece in np.array_split(wave, 600)]
    got = np.concatenate([*out, live.finish()])
    prepared = torch.from_numpy(RunningPreparation(picker.prepare_cfg, 512)(wave))[None]
    with torch.inference_mode():
        expected = picker.network(prepared)[0].softmax(-1).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert live.memory_bytes < 100_000
