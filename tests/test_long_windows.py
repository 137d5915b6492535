"""The benchmark of long windows at sizes of a test: it measures what it says, and its table and figure hold every arm."""

import pytest
import torch

from benchmarks import long_windows
from benchmarks.long_windows import Arguments, draw, measured, network, streamed, table
from utils.errors import ConfigError

SMALL = {"d_model": 8, "n_layers": 1, "rounds": 1, "device": "cpu"}


def test_every_arm_is_measured_drawn_and_tabled(tmp_path):
    arms = ["sequential", "unet", "one-way", "stream"]
    args = Arguments(**SMALL, arms=arms, lengths=[600, 700], plot=str(tmp_path / "x.png"))
    found = [measured(arm, length, args) for length in args.lengths for arm in arms]
    assert all(one["seconds"][0] > 0 and one["added"] >= 0 for one in found)
    draw(found, args)
    assert (tmp_path / "x.png").stat().st_size > 10_000
    text = "\n".join(table(found, args))
    assert all(text.count(f"  {arm} ") == 2 for arm in arms)


def test_the_stream_is_the_one_way_network():
    nets = [network(arm, Arguments(**SMALL)) for arm in ("one-way", "stream")]
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(a, b)
    with torch.inference_mode():
        assert streamed(nets[0], torch.randn(1, 333, 3)) == (1, 333, 3)


def test_unknown_arms_are_refused():
    with pytest.raises(ConfigError, match="arms are sequential, sequential-once"):
        long_windows.main(Arguments(arms=["sequentiel"]))
