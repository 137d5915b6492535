"""The child process of a probe: one backend, forward and backward, against the float64 recurrence, between guard zones.

``python -m models.xlstm.probe_child '{"name": …, "sources": ["module:function", …], "case": {…}}' ANSWER`` writes what is wrong
to the file ANSWER, nothing where all is well. Whatever else ends it is the answer too: see :mod:`probe`.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.xlstm import slstm_kernels
from models.xlstm.block import MLSTMBlock
from models.xlstm.fence import Fence
from models.xlstm.mlstm import Form, mlstm
from models.xlstm.probe import Case
from models.xlstm.settings import BlockType
from models.xlstm.stack import Stage

BOUNDS = {"float32": 5e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""Relative error of h and of each gradient, after the head norm. Rounding stays below a third of it (TF32 products included);
code that is wrong is off by its own size. How exact kernels are is for tests to say."""
HEADS = 2
Cell = Callable[..., Tensor]


@dataclass(frozen=True)
class Problem:
    """Something to compute.

    Attributes:
        what: in words, of the answer.
        cell: under test.
        reference: the same, slowly, for float64.
        inputs: of both, on the device and in the dtypes of the run.
        names: of the inputs.
    """

    what: str
    cell: Cell
    reference: Cell
    inputs: Sequence[Tensor]
    names: str


def examine(problem: Problem, bound: float) -> str:
    """What is wrong with a cell, in words; the empty string where nothing is."""
    fence = Fence()
    x = [fence.around(a).requires_grad_() for a in problem.inputs]
    with fence.up():
        got = _answers(problem.cell, x)
    if x[0].is_cuda:
        torch.cuda.synchronize()
    torn = fence.broken()
    if torn:
        return f"it writes outside of its tensors: {torn}, {problem.what}"
    expected = _answers(problem.reference, [a.detach().double().cpu().requires_grad_() for a in problem.inputs])
    names = ["h", *(f"the gradient of {name}" for name in problem.names.split())]
    worst, name = max(zip(_errors(got, expected), names, strict=True), key=lambda pair: (pair[0] != pair[0], pair[0]))
    if worst <= bound:
        return ""
    return f"its numbers are wrong: {name} is off by {worst:.2g} of its size ({bound:g} is allowed), {problem.what}"


def mlstm_problems(cell: Cell, case: Case) -> Iterator[Problem]:
    """Every head width, with a chunk and a ragged one behind it, and with less than a chunk; forget gates mostly open."""
    reference = partial(mlstm, form=Form.recurrent, soft_cap=case.soft_cap, eps=case.eps)
    for width in case.widths:
        for tokens in (case.chunk + case.chunk // 2 + 1, 7):
            gen = torch.Generator().manual_seed(0)
            qkv = [_random(gen, case, 1, HEADS, tokens, width).to(getattr(torch, case.dtype)) for _ in range(3)]
            gates = [2 * _random(gen, case, 1, HEADS, tokens) + shift for shift in (0.0, 3.0)]
            what = f"at head width {width} and {tokens} tokens in {case.dtype}"
            yield Problem(what, cell, reference, [*qkv, *gates], "q k v i f")


def slstm_problems(make: Callable[[int], Cell], case: Case) -> Iterator[Problem]:
    """Every head width of the sLSTM, two directions' weights."""
    for width in case.slstm:
        gen = torch.Generator().manual_seed(0)
        x = _random(gen, case, 2, HEADS, 1, 9, 4, width).to(getattr(torch, case.dtype))
        recurrent = 0.3 * width**-0.5 * _random(gen, case, 2, HEADS, width, 4, width)
        bias = _random(gen, case, 2, HEADS, 4, width)
        what = f"at sLSTM head width {width} in {case.dtype}"
        yield Problem(what, make(width), slstm_kernels.native, [x, recurrent, bias], "x R b")


def block_problems(make: Callable[[int], tuple[MLSTMBlock, MLSTMBlock]], case: Case) -> Iterator[Problem]:
    """Whole blocks of every head width, two directions, and their layers, where a backend computes more of them than the cell."""
    for width in case.widths:
        fast, plain = make(width)
        x = _random(torch.Generator().manual_seed(0), case, 2, 2, case.chunk + 3, fast.cfg.width)
        if fast.turns(x):
            what = f"in a block with heads of {width} features in {case.dtype}"
            run = partial(_branch, fast.to(x.device), dtype=getattr(torch, case.dtype))
            yield Problem(what, run, partial(_flipped_branch, plain.double()), [x], "x")
            layer, other = _layer(fast), _layer(plain)
            other.load_state_dict(layer.state_dict())
            run = partial(_run, layer.to(x.device), dtype=getattr(torch, case.dtype))
            yield Problem(f"{what}, norm and fusion behind it", run, other.double(), [x[0]], "x")


def _layer(block: MLSTMBlock) -> Stage:
    """A block with its norm and the fusion of its directions."""
    layer = Stage([BlockType.mlstm], block.cfg, fuse_per_block=True, residual=False, checkpointing=False)
    layer.blocks[0] = block
    return layer.eval()


def _run(layer: Stage, x: Tensor, dtype: torch.dtype) -> Tensor:
    """A layer as a run calls it."""
    with torch.autocast(x.device.type, dtype, enabled=dtype is not torch.float32):
        return layer(x)


def _branch(block: MLSTMBlock, x: Tensor, dtype: torch.dtype) -> Tensor:
    """What a block adds to its input; the second direction from the end."""
    with torch.autocast(x.device.type, dtype, enabled=dtype is not torch.float32):
        return block(x, turn=True) - x


def _flipped_branch(block: MLSTMBlock, x: Tensor) -> Tensor:
    """The same of a block that has to be given the second direction flipped."""
    x = torch.stack([x[0], x[1].flip(1)])
    y = block(x) - x
    return torch.stack([y[0], y[1].flip(1)])


def _random(gen: torch.Generator, case: Case, *shape: int) -> Tensor:
    """Normal numbers on the case's device, the first of its kind or that of this rank."""
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if case.device == "cuda" else case.device
    return torch.randn(shape, generator=gen).to(device)


def _answers(cell: Cell, x: Sequence[Tensor]) -> list[Tensor]:
    """h after the head norm, and the gradients of its product with fixed random numbers."""
    h = cell(*x)
    normed = F.layer_norm(h.to(torch.promote_types(h.dtype, torch.float32)), h.shape[-1:], eps=1e-6)
    pull = torch.randn(normed.shape, generator=torch.Generator().manual_seed(1)).to(normed)
    return [normed, *torch.autograd.grad(normed, list(x), pull)]


def _errors(got: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Relative, to 1 % of the largest gradient at least: behind the head norm one can be nothing but rounding."""
    sizes = [b.norm().item() for b in expected]
    least = 0.01 * max(sizes[1:])
    return [(a.double().cpu() - b).norm().item() / max(size, least) for a, b, size in zip(got, expected, sizes, strict=True)]


def main(request: str, answer: Path) -> None:
    """Examine, and write the answer."""
    torch.set_num_threads(1)
    asked = json.loads(request)
    values: dict[str, Any] = asked["case"]
    case = Case(**{**values, "widths": tuple(values["widths"]), "slstm": tuple(values["slstm"])})
    name, bound = asked["name"], BOUNDS[case.dtype]
    try:
        found = [examine(problem, bound) for problem in problems(name, asked["sources"], case)]
        wrong = next((text for text in found if text), "")
    except Exception as error:  # noqa: BLE001 - whatever a foreign kernel raises is the answer
        text = " ".join(str(error).split())
        wrong = f"it raises {type(error).__name__}: {text[:300]}"
    answer.write_text(wrong)


def problems(name: str, sources: Sequence[str], case: Case) -> Iterator[Problem]:
    """All of a case, with the cells that the sources give."""
    if case.widths:
        yield from mlstm_problems(_named(sources[0])(name, case.chunk, case.soft_cap, case.eps), case)
        if sources[2]:
            yield from block_problems(partial(_named(sources[2]), name), case)
    if case.slstm:
        yield from slstm_problems(partial(_named(sources[1]), name), case)


def _named(source: str) -> Callable[..., Any]:
    """The function that ``module:function`` names."""
    module, _, function = source.partition(":")
    return getattr(import_module(module), function)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
