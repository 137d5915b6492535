"""The benchmark of a training step, at sizes of a test and on a CPU: every kind of arm trains, and the table tells what died."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks import step_arms
from benchmarks.step_arms import Objective
from benchmarks.step_gpu import Arguments, in_a_child, line, measure

SMALL = ["encoder.width=8", "model.d_model=16", "model.n_layers=1", "loss.count=5"]


def small(name, **changes):
    settings = {"batches": [2], "samples": 512, "repeats": 2, "warm": 1, "device": "cpu", "overrides": SMALL} | changes
    return Arguments(child=name, **settings)


@pytest.mark.parametrize("name", ["native", "transformer-unet", "lstm"])
def test_an_arm_is_measured(name, monkeypatch):
    if name == "lstm":
        monkeypatch.setattr(step_arms, "swapped", lambda config, peer: {**config, "model": {"_name_": peer, "d_model": 8}})
    args = small(name, objective=Objective.own if name == "native" else Objective.reconstruction, overrides=SMALL[:1])
    if name == "native":
        args.overrides = SMALL
    found = measure(args)
    assert len(found["times"]) == 2
    assert found["parameters"] > 0
    assert f"  {name} " in line(found, args, 4e12, 8e14)


def test_gated_linear_attention_takes_the_place_of_every_cell(monkeypatch):
    """Its kernels need a GPU; the recurrence that defines it stands for them."""
    calls = []

    def recurrence(q, k, v, g):
        calls.append(q.shape)
        memory, out = 0.0, []
        for t in range(q.shape[1]):
            memory = memory * g[:, t].exp()[..., None, None] + k[:, t, :, :, None] * v[:, t, :, None, :]
            out.append((q[:, t, :, :, None] * memory).sum(-2) * q.shape[-1] ** -0.5)
        return torch.stack(out, 1), None

    monkeypatch.setitem(sys.modules, "fla.ops.simple_gla", SimpleNamespace(chunk_simple_gla=recurrence))
    found = measure(small("gla", overrides=[*SMALL, "model.block_type=mlstm"], samples=64, repeats=1))
    assert len(found["times"]) == 1
    assert len(calls) == 4 * 5  # steps, two of them to warm up; blocks of the U-Net
    assert {shape[2] for shape in calls} == {2 * 4}  # directions, heads


def test_an_arm_that_dies_says_why_and_takes_nothing_else_with_it():
    args = small("native", overrides=["model.mlstm_num_heads=7"])
    found = in_a_child(args, "native", 2)
    assert "died (1):" in line(found, args, 4e12, 8e14)
    assert "mlstm_num_heads" in found["why"]


TURN = """
import sys, time
from pathlib import Path
from benchmarks.on_gpu import turn
folder, name, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def wait(pattern, count):
    end = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < count and time.monotonic() < end:
        time.sleep(0.01)
(folder / f"ready.{name}").touch()
wait("ready.*", 3)
with turn(str(folder / "turns"), alone=kind == "alone"):
    (folder / f"inside.{name}").touch()
    if kind == "alone":
        time.sleep(0.5)
    else:
        (folder / f"shared.{name}").touch()
        wait("shared.*", int(sys.argv[4]))
    print(len(list(folder.glob("inside.*"))))
    if kind == "alone":
        (folder / f"inside.{name}").unlink()
"""


@pytest.mark.parametrize("kinds", [("alone",) * 3, ("shared",) * 3])
def test_arms_are_compiled_side_by_side_and_timed_alone(kinds, tmp_path):
    """All begin at the same moment; who shares waits for the others inside, who is alone stays half a second."""
    words = [[sys.executable, "-c", TURN, str(tmp_path), str(n), kind, "3"] for n, kind in enumerate(kinds)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in words]
    inside = [process.communicate()[0].strip() for process in started]
    assert inside == ["1" if kind == "alone" else "3" for kind in kinds]


def test_the_rate_is_windows_over_the_median_step():
    args = small("native")
    row = line({"arm": "native", "batch": 64, "parameters": 20e6, "times": [10.0, 20.0, 40.0]}, args, 4e12, 8e14)
    assert row.split()[3] == "3,200"
    floor = 64 / 0.02 * max(0.635e9 * 512 / 4096 / 4e12, 37e9 * 512 / 4096 / 8e14)
    assert row.split()[7] == f"{floor:.0%}"


def test_arms_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="must be among native, native-compiled"):
        Arguments(arms=["nativ"])
