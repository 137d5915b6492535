"""The child process of a probe: one backend, forward and backward, against the float64 recurrence, between guard zones.

``python -m models.xlstm.probe_child '{"name": …, "source": "module:function", "case": {…}}' ANSWER`` writes what is wrong to the
file ANSWER, nothing where all is well. Whatever else ends it is the answer too: see :mod:`probe`.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from models.xlstm.fence import Fence
from models.xlstm.mlstm import Form, mlstm
from models.xlstm.probe import Case

BOUNDS = {"float32": 5e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""Relative error of h and of each gradient, after the head norm. Rounding stays below a third of it (TF32 products included);
code that is wrong is off by its own size. How exact kernels are is for tests to say."""
HEADS = 2
Cell = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
NAMES = ("h", "the gradient of q", "the gradient of k", "the gradient of v", "the gradient of i", "the gradient of f")


def examine(cell: Cell, case: Case) -> str:
    """What is wrong with a cell, in words; the empty string where nothing is."""
    for width in case.widths:
        for tokens in (case.chunk + case.chunk // 2 + 1, 7):  # a chunk and a ragged one behind it; less than a chunk
            wrong = _examine(cell, case, width, tokens)
            if wrong:
                return f"{wrong}, at head width {width} and {tokens} tokens in {case.dtype}"
    return ""


def _examine(cell: Cell, case: Case, width: int, tokens: int) -> str:
    given = _inputs(case, width, tokens)
    fence = Fence()
    x = [fence.around(a).requires_grad_() for a in given]
    with fence.up():
        got = _answers(cell, x)
    if case.device == "cuda":
        torch.cuda.synchronize()
    torn = fence.broken()
    if torn:
        return f"it writes outside of its tensors: {torn}"
    exact = [a.double().cpu().requires_grad_() for a in given]
    expected = _answers(lambda *a: mlstm(*a, form=Form.recurrent, soft_cap=case.soft_cap, eps=case.eps), exact)
    worst, name = max(zip(_errors(got, expected), NAMES, strict=True), key=lambda pair: (pair[0] != pair[0], pair[0]))
    if worst <= BOUNDS[case.dtype]:
        return ""
    return f"its numbers are wrong: {name} is off by {worst:.2g} of its size ({BOUNDS[case.dtype]:g} is allowed)"


def _inputs(case: Case, width: int, tokens: int) -> list[Tensor]:
    """q, k, v ``1 H T D``, gates ``1 H T`` with forget gates mostly open."""
    gen = torch.Generator().manual_seed(0)
    qkv = [torch.randn(1, HEADS, tokens, width, generator=gen).to(getattr(torch, case.dtype)) for _ in range(3)]
    gates = [torch.randn(1, HEADS, tokens, generator=gen) * 2 + shift for shift in (0.0, 3.0)]
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if case.device == "cuda" else case.device
    return [a.to(device) for a in (*qkv, *gates)]


def _answers(cell: Cell, x: list[Tensor]) -> list[Tensor]:
    """h after the head norm, and the gradients of its product with fixed random numbers."""
    h = cell(*x)
    normed = F.layer_norm(h.to(torch.promote_types(h.dtype, torch.float32)), h.shape[-1:], eps=1e-6)
    pull = torch.randn(normed.shape, generator=torch.Generator().manual_seed(1)).to(normed)
    return [normed, *torch.autograd.grad(normed, x, pull)]


def _errors(got: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Relative, to 1 % of the largest gradient at least: behind the head norm one can be nothing but rounding."""
    sizes = [b.norm().item() for b in expected]
    least = 0.01 * max(sizes[1:])
    return [(a.double().cpu() - b).norm().item() / max(size, least) for a, b, size in zip(got, expected, sizes, strict=True)]


def main(request: str, answer: Path) -> None:
    """Examine, and write the answer."""
    torch.set_num_threads(1)
    asked = json.loads(request)
    case = Case(**{**asked["case"], "widths": tuple(asked["case"]["widths"])})
    module, _, function = asked["source"].partition(":")
    try:
        cell = getattr(import_module(module), function)(asked["name"], case.chunk, case.soft_cap, case.eps)
        wrong = examine(cell, case)
    except Exception as error:  # noqa: BLE001 - whatever a foreign kernel raises is the answer
        text = " ".join(str(error).split())
        wrong = f"it raises {type(error).__name__}: {text[:300]}"
    answer.write_text(wrong)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
