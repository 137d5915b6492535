"""Where the time of a training step goes, kernel by kernel: python -m benchmarks.profile [arm=triton-compiled] [batch=64]

The step, the data and the arms are those of ``benchmarks.step_gpu``. On a GPU the rows are kernels, with the time the GPU spent
in each (PyTorch's profiler; kernels of one stream do not overlap); ``idle`` is what is left of the step as measured without the
profiler, which is the host's doing: launches that come too late. On a CPU the rows are operators with the time of each itself.

First a table by kind, then the costliest kernels. A kernel is of the first kind whose pattern its name has.
"""

import json
import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.step_arms import ARMS, Objective, Request, Step, built
from benchmarks.step_gpu import timed
from utils import cli
from utils.errors import demand

KINDS = (
    ("mLSTM cell", r"(forward|state)_scan|chunk_gradients|gates_(for|back)ward|mlstm_chunkwise|^_Attention"),
    ("sLSTM cell", r"slstm"),
    ("attention", r"flash|fmha|attention"),
    ("optimizer, clipping", r"multi_tensor|FusedAdam|_fused_adam|foreach|lpnorm"),
    ("convolution", r"conv|wgrad|dgrad|implicit|cudnn"),
    ("matrix products", r"gemm|cutlass|wgmma|nvjet|xmma|cublas|bmm|addmm|linear|::mm|matmul|einsum"),
    ("compiled elementwise", r"^triton_(poi|per|red|for|tem)"),
    ("copies, fills", r"memcpy|memset|copy|fill|cat|contiguous|clone"),
    ("gather, scatter, sort", r"index|gather|scatter|sort|topk|embedding"),
    ("reductions", r"reduce|sum|mean|norm|softmax|amax|amin|cumsum|scan"),
    ("elementwise", r"elementwise|vectorized|aten::"),
)
"""(kind, pattern), asked in this order."""
OTHER = "other"
RANGES = ("Optimizer.", "ProfilerStep")
"""Names of what the profiler adds around kernels: counted, they would be there twice."""


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    arm: str = "triton-compiled"
    """Which of ``benchmarks.step_gpu``'s."""
    batch: int = 64
    """Windows a step."""
    experiment: str = "contrastive/xlstm_unet_seisbench"
    """Whose model and objective."""
    objective: Objective = Objective.own
    """The experiment's, or masked reconstruction."""
    samples: int = 4096
    """Length of windows."""
    steps: int = 5
    """Steps in the profile."""
    warm: int = 5
    """Steps before that."""
    repeats: int = 20
    """Steps that are timed without the profiler."""
    top: int = 25
    """Kernels to list."""
    overrides: list[str] = field(default_factory=list)
    """More settings."""
    device: str = "cuda"
    """cuda or cpu."""
    json: str = ""
    """File for all kernels; "" for none."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.arm in ARMS, f"arm = '{self.arm}': must be one of {', '.join(ARMS)}"),
            (self.batch >= 2, f"batch = {self.batch}: must be at least 2"),
            (min(self.steps, self.repeats, self.top) >= 1, "steps, repeats, top: must be at least 1"),
            (self.device in ("cuda", "cpu"), f"device = {self.device}: must be cuda or cpu"),
        )


@dataclass(frozen=True)
class Kernel:
    """What a step spends in one kernel.

    Attributes:
        name: of the kernel, or of the operator on a CPU.
        calls: a step.
        ms: milliseconds a step, all calls together.
    """

    name: str
    calls: float
    ms: float

    @property
    def kind(self) -> str:
        """The first of :data:`KINDS` whose pattern the name has."""
        return next((kind for kind, pattern in KINDS if re.search(pattern, self.name, re.IGNORECASE)), OTHER)


def profiled(step: Step, steps: int, device: str) -> list[Kernel]:
    """Kernels of a step, the costliest first."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as seen:
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
    kernels = []
    for event in seen.key_averages():
        on_gpu = event.device_type.name == "CUDA"
        spent = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        if spent > 0 and on_gpu == (device == "cuda") and not event.key.startswith(RANGES):
            kernels.append(Kernel(event.key, event.count / steps, spent / steps / 1e3))
    return sorted(kernels, key=lambda kernel: -kernel.ms)


def by_kind(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Kernels of a kind added up, the costliest kind first."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for kernel in kernels:
        sums[kernel.kind][0] += kernel.calls
        sums[kernel.kind][1] += kernel.ms
    return sorted((Kernel(kind, *both) for kind, both in sums.items()), key=lambda kernel: -kernel.ms)


def table(kernels: Sequence[Kernel], whole: float, top: int, device: str) -> str:
    """Both tables; ``whole`` is a step without the profiler, in milliseconds."""
    busy = sum(kernel.ms for kernel in kernels)
    head = f"{'':26}{'calls':>8}{'ms':>10}{'share':>8}"
    rows = [head, *(_row(kind.name, kind, whole) for kind in by_kind(kernels))]
    if device == "cuda":
        rows.append(_row("idle", Kernel("idle", 0, max(0.0, whole - busy)), whole))
    rows += [_row("a step", Kernel("", sum(kernel.calls for kernel in kernels), whole), whole), "", head]
    return "\n".join([*rows, *(f"{_row('', kernel, whole)}  {kernel.name[:120]}" for kernel in kernels[:top])])


def _row(name: str, kernel: Kernel, whole: float) -> str:
    return f"{name:26}{kernel.calls:8.0f}{kernel.ms:10.3f}{kernel.ms / whole:8.1%}"


def main(args: Arguments) -> None:
    """Profile one arm, and print the tables last."""
    torch.manual_seed(0)
    request = Request(args.experiment, args.objective, tuple(args.overrides), args.samples, args.device)
    step, _ = built(request, ARMS[args.arm], args.batch)
    whole = statistics.median(timed(step, args.repeats, args.warm, args.device))
    kernels = profiled(step, args.steps, args.device)
    if args.json:
        content = [{"name": kernel.name, "kind": kernel.kind, "calls": kernel.calls, "ms": kernel.ms} for kernel in kernels]
        Path(args.json).write_text(json.dumps({"step_ms": whole, "kernels": content}))
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"{args.experiment}, arm {args.arm}, batch {args.batch} of {args.samples}; torch {torch.__version__}, {device}")
    print(table(kernels, whole, args.top, args.device))


if __name__ == "__main__":
    cli.run(main, Arguments, where="benchmarks.profile")
