"""Parameter groups: every trainable parameter once, at its own rate, which every schedule keeps in proportion."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from utils.optim import OPTIMIZERS, parameter_groups
from utils.optim_params import no_decay
from utils.schedules import SCHEDULERS


@st.composite
def modules(draw):
    """A module of a few parameters, each with a factor (or none), some frozen, some marked."""
    module, factors = nn.ParameterList(), {}
    for _ in range(draw(st.integers(1, 8))):
        parameter = nn.Parameter(torch.zeros([2] * draw(st.integers(1, 3))), requires_grad=draw(st.booleans()))
        module.append(no_decay(parameter) if draw(st.booleans()) else parameter)
        factor = draw(st.sampled_from([None, 0.1, 0.5, 1.0]))
        if factor is not None:
            factors[parameter] = factor
    return module, factors


@settings(deadline=None, max_examples=40)
@given(modules())
def test_every_trainable_parameter_is_in_one_group_with_its_own_rate_and_decay(made):
    module, factors = made
    groups = parameter_groups([module], 2.0, 0.3, factors)
    found = {}
    for group in groups:
        assert group["params"]
        for parameter in group["params"]:
            assert parameter not in found
            found[parameter] = (group["lr"], group["weight_decay"])
    assert set(found) == {parameter for parameter in module if parameter.requires_grad}
    for parameter, (rate, decay) in found.items():
        marked = getattr(parameter, "no_weight_decay", False)
        assert rate == pytest.approx(2.0 * factors.get(parameter, 1.0))
        assert decay == (0.3 if parameter.ndim >= 2 and not marked else 0.0)
    assert len({(group["lr"], group["weight_decay"]) for group in groups}) == len(groups)
    order = {parameter: place for place, parameter in enumerate(module)}
    for group in groups:  # by which a resumed run finds the moments of each
        assert [order[parameter] for parameter in group["params"]] == sorted(order[parameter] for parameter in group["params"])


def test_without_factors_there_are_the_two_groups_of_earlier_checkpoints():
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    decaying, plain = parameter_groups([module], 1.0, 0.1)
    assert decaying["params"] == [module[0].weight, module[2].weight]
    assert plain["params"] == [module[0].bias, module[1].weight, module[1].bias, module[2].bias]


NODES = {
    "cosine_warmup": {"warmup_steps": 3},
    "linear_warmup": {"warmup_fraction": 0.2, "final_factor": 0.1},
    "constant": {"warmup_steps": 2},
    "step": {"milestones": [0.3, 0.6]},
    "plateau": {"patience": 0, "factor": 0.1},
}


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS.names)
@pytest.mark.parametrize("name", SCHEDULERS.names)
def test_every_schedule_keeps_the_factors(name, optimizer_name):
    module = nn.Linear(2, 2)
    factors = {module.weight: 1.0, module.bias: 0.02}
    node = {"_name_": optimizer_name, "lr": 1e-4}
    optimizer = OPTIMIZERS.build(node, modules=[module], factors=factors)
    schedule = SCHEDULERS.build({"_name_": name, **NODES[name]}, optimizer=optimizer, total=20, mode="min")
    rates = []
    for _ in range(19):
        by = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
        assert by[module.bias] == pytest.approx(0.02 * by[module.weight], rel=1e-9)
        rates.append(by[module.weight])
        optimizer.step()
        if name == "plateau":
            schedule.step(1)  # never better: the rates fall far below what torch would still lower by itself
        else:
            schedule.step()
    assert name == "constant" or rates[-1] < 0.9 * max(rates)
