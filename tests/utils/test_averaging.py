"""The mean of checkpoints: what is averaged, what is the best one's."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.contracts import QUANTIZERS
from models.quantizers import nearest  # noqa: F401 - which registers itself
from utils.averaging import mean_weights


def states(module, count, seed):
    """States of one module with every number drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        state = {name: torch.randn(value.shape, generator=generator) for name, value in module.state_dict().items()}
        found.append(state | {name: torch.tensor(number) for name in state if name.endswith("num_batches_tracked")})
    return found


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 5), st.integers(0, 1000))
def test_parameters_and_running_statistics_are_averaged_counters_are_the_bests(count, seed):
    module = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Linear(4, 1))
    drawn = states(module, count, seed)
    mean = mean_weights(drawn, [name for name, _ in module.named_parameters()])
    assert list(mean) == list(drawn[0])
    for name, value in mean.items():
        if name == "1.num_batches_tracked":
            assert value == 0
            assert value.dtype == torch.int64
        else:
            reference = np.mean([state[name].numpy().astype(np.float64) for state in drawn], axis=0)
            np.testing.assert_allclose(value.numpy(), reference, rtol=1e-6, atol=1e-8)


def test_half_precision_is_summed_in_double_and_kept():
    drawn = [{"w": torch.full((3,), value, dtype=torch.bfloat16)} for value in (1.0, 1.0078125, 1.0)]
    assert mean_weights(drawn, ["w"])["w"].dtype == torch.bfloat16
    assert mean_weights(drawn, ["w"])["w"][0] == torch.tensor(np.mean([1.0, 1.0078125, 1.0])).bfloat16()


def test_a_codebook_is_the_bests_whole_since_codes_may_have_been_placed_anew():
    quantizer = QUANTIZERS.build({"_name_": "nearest", "codes": 4, "width": 8, "groups": 1}, d_in=6)
    drawn = states(quantizer, 3, 0)
    mean = mean_weights(drawn, [name for name, _ in quantizer.named_parameters()])
    for name in ("codes_mean", "usage"):
        assert torch.equal(mean[name], drawn[0][name])
    assert not torch.equal(mean["to_code.weight"], drawn[0]["to_code.weight"])
