"""Probes: backends that abort, hang, raise, compute something else or write where they must not, each found out and survived."""

import json
import os
from importlib.util import find_spec

import pytest
import torch

from models.xlstm import probe, probe_child, slstm_kernels
from models.xlstm.probe import Case, verdict

SOURCE = "kernel_standins:make"
SMALL = Case((16,), chunk=16)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setenv(probe.ENVIRONMENT, "{}")


@pytest.mark.parametrize(
    ("name", "timeout", "said"),
    [
        ("aborts", 120, "its probe was killed by SIGABRT"),
        ("hangs", 3.5, "its probe did not end within 3.5 s"),
    ],
)
def test_what_ends_a_process_ends_the_childs(name, timeout, said):
    assert verdict(name, SMALL, source=SOURCE, timeout=timeout).startswith(said)
    assert probe._ended(3) == "ended with exit code 3"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong", "its numbers are wrong: the gradient of q is off by 0.0"),
        ("wrong_gradient", "its numbers are wrong: the gradient of f is off by 1 of its size (0.005 is allowed)"),
        ("forgets", "its numbers are wrong: h is off by nan"),
        ("behind", "it writes outside of its tensors: behind a float32 tensor of [1, 2, 25, 16]"),
        ("before", "it writes outside of its tensors: before a float32 tensor of [1, 2, 25, 16]"),
        ("input", "it writes outside of its tensors: behind a float32 tensor of [1, 2, 25, 16]"),
        ("raises", "it raises NotImplementedError: Block pointers have been removed"),
        ("sound", ""),
    ],
)
def test_what_a_process_survives_is_told(name, said, tmp_path):
    """What the child does, without the child."""
    request = {"name": name, "sources": [SOURCE, probe.SLSTM, ""], "case": vars(SMALL)}
    probe_child.main(json.dumps(request), tmp_path / "answer")
    found = (tmp_path / "answer").read_text()
    assert found.startswith(said) if said else found == ""
    if said.startswith(("its numbers", "it writes")):
        assert "at head width 16" in found
    assert torch.empty.__module__ is None or "fence" not in torch.empty.__module__


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_bounds_let_the_rounding_of_each_dtype_pass(dtype):
    case = Case((16, 44), chunk=32, dtype=dtype, slstm=(8, 12))
    for problem in probe_child.problems("sound", (SOURCE, probe.SLSTM, ""), case):
        assert probe_child.examine(problem, probe_child.BOUNDS[dtype]) == ""


def test_an_slstm_that_is_wrong_is_told():
    case = Case((), slstm=(8,))
    (problem,) = probe_child.slstm_problems(lambda width: lambda x, R, b: slstm_kernels.native(x, R, b.detach() + 0 * b), case)
    assert probe_child.examine(problem, 0.005).startswith("its numbers are wrong: the gradient of b is off by 1 of its size")


@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton on this platform")
def test_the_interpreter_is_a_working_candidate_and_is_asked_once(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    asked, start = [], probe.subprocess.Popen
    monkeypatch.setattr(probe.subprocess, "Popen", lambda *args, **given: asked.append(args) or start(*args, **given))
    both = Case((16,), chunk=16, slstm=(8,))
    assert verdict("triton", both) is None
    assert verdict("triton", both) is None
    assert len(asked) == 1


def test_what_is_known_travels_to_child_processes_but_not_to_other_machines(monkeypatch):
    def never(*args):
        raise AssertionError("probed again")

    monkeypatch.setattr(probe, "_tried", lambda *args: "its probe was killed by SIGABRT")
    assert verdict("x", SMALL) == "its probe was killed by SIGABRT"
    monkeypatch.setattr(probe, "_tried", never)
    assert verdict("x", SMALL) == "its probe was killed by SIGABRT"
    assert "SIGABRT" in os.environ[probe.ENVIRONMENT]  # which ranks inherit
    monkeypatch.setattr(probe.platform, "node", lambda: "elsewhere")
    with pytest.raises(AssertionError, match="probed again"):
        verdict("x", SMALL)
