"""Schedules against their formulas and against torch's own."""

import math

import pytest
import torch

from utils.errors import ConfigError
from utils.optim import OPTIMIZERS
from utils.schedules import SCHEDULERS

TOTAL = 50


def curve(node, total=TOTAL, steps=TOTAL + 5):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = SCHEDULERS.build(node, optimizer=optimizer, total=total, mode="min")
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_cosine_equals_torchs_after_the_warm_up():
    rates = curve({"_name_": "cosine_warmup", "warmup_steps": 10, "final_factor": 0.1})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TOTAL - 10, eta_min=0.2)
    for rate in rates[10:TOTAL]:
        assert math.isclose(rate, optimizer.param_groups[0]["lr"], rel_tol=1e-9)
        optimizer.step()
        reference.step()
    assert rates[TOTAL:] == pytest.approx([0.2] * 5)
    assert rates[:10] == pytest.approx([2.0 * (step + 1) / 10 for step in range(10)])


@pytest.mark.parametrize("name", ["cosine_warmup", "linear_warmup"])
def test_fraction_and_steps_are_the_same_warm_up(name):
    assert curve({"_name_": name, "warmup_steps": 10}) == curve({"_name_": name, "warmup_fraction": 0.2})


def test_linear_step_and_constant():
    linear = curve({"_name_": "linear_warmup", "warmup_steps": 0})
    assert linear[:3] == pytest.approx([2.0, 2.0 * 49 / 50, 2.0 * 48 / 50])
    assert linear[TOTAL] == 0
    steps = curve({"_name_": "step", "milestones": [0.5, 0.8], "gamma": 0.1})
    assert [steps[24], steps[25], steps[40]] == pytest.approx([2.0, 0.2, 0.02])
    assert curve({"_name_": "constant", "warmup_steps": 2})[:4] == pytest.approx([1.0, 2.0, 2.0, 2.0])


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"_name_": "cosine_warmup", "warmup_steps": 3, "warmup_fraction": 0.1}, "give one, not both"),
        ({"_name_": "cosine_warmup", "warmup_fraction": 1.5}, "must be in 0 ≤ fraction < 1"),
        ({"_name_": "cosine_warmup", "warmup_steps": 10, "total_steps": 10}, "must be below total_steps"),
        ({"_name_": "step", "milestones": [0.8, 0.5]}, "must ascend"),
        ({"_name_": "step"}, "'milestones' must be given"),
        ({"_name_": "plateau", "factor": 1.0}, "0 < factor < 1"),
    ],
)
def test_bad_settings_are_told(node, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        curve(node)


def test_biases_norms_and_marked_parameters_do_not_decay():
    from utils.optim_params import no_decay

    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    module.gate = torch.nn.Parameter(torch.zeros(2, 2))
    no_decay(module.gate)
    optimizer = OPTIMIZERS.build({"_name_": "adamw", "lr": 1e-3, "weight_decay": 0.3}, modules=[module])
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay.pop(id(module[0].weight)) == 0.3
    assert set(decay.values()) == {0.0}
    assert len(decay) == 4
