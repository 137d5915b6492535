"""A whole training step on a GPU, ours and its peers side by side: python -m benchmarks.step_gpu [json=FILE]

An arm is one model at one batch in a process of its own: preparation of the batch, forward, loss, backward, clipping, AdamW, in
bfloat16 autocast, on random waves that lie on the GPU and change from step to step. The objective is the published contrastive
one, or with ``objective=reconstruction`` masked reconstruction by the same encoder and backbone; ``experiment=`` names another
model. Arms: our model with every choice of kernels, eager, compiled, and compiled with CUDA graphs; the same model from the
``xlstm`` package with the cell of ``mlstm_kernels``; transformers and an LSTM of about as many parameters behind our encoder,
objective and optimizer. Arms are measured batch by batch; one that dies loses its own line. With ``together=8`` eight processes
are built and compiled side by side (they must fit the memory together), and timed one at a time, while nothing compiles.

Times are CUDA events around a step, medians and tenths after a warm-up. Memory is the peak that PyTorch allocated. Two ceilings
are measured in the same run: bytes of a large copy and products of a large bfloat16 matrix; ``floor`` is what counted bytes and
products of a sample need at these ceilings, MFU the counted products over the second.
"""

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.on_gpu import asked, milliseconds, turn
from benchmarks.step_arms import ARMS, Objective, Request, Step, built
from utils import cli
from utils.errors import demand

COUNTED = {
    "contrastive/xlstm_unet_seisbench": (37e9, 0.635e9),
    "xlstm_large/pure_mlstm_sequential_12m_foundation": (122e9, 2.4e9),
}
"""Products and fewest bytes of a sample of 4,096, forward and backward, by experiment."""


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    arms: list[str] = field(default_factory=lambda: list(ARMS))
    """Which arms."""
    batches: list[int] = field(default_factory=lambda: [64, 128, 256])
    """Windows a step."""
    experiment: str = "contrastive/xlstm_unet_seisbench"
    """Whose model and objective."""
    objective: Objective = Objective.own
    """The experiment's, or masked reconstruction."""
    samples: int = 4096
    """Length of windows."""
    repeats: int = 30
    """Steps that are timed."""
    warm: int = 5
    """Steps before that."""
    overrides: list[str] = field(default_factory=list)
    """More settings, of all arms that are ours."""
    device: str = "cuda"
    """``cpu`` tries the benchmark itself: float32, one round is enough."""
    json: str = ""
    """File for all times; "" for none."""
    together: int = 1
    """Arms that are built and compiled side by side."""
    turns: str = ""
    """File by which they agree who is timed; commands that name the same one agree too. "": one of the command's own."""
    child: str = ""
    """Measure this one arm, at the first batch, and print a line of JSON: what the command itself starts."""

    def __post_init__(self) -> None:
        """State the ranges."""
        unknown = [name for name in (*self.arms, *([self.child] if self.child else [])) if name not in ARMS]
        demand(
            (not unknown, f"arms = {unknown}: must be among {', '.join(ARMS)}"),
            (bool(self.batches) and min(self.batches) >= 2, f"batches = {self.batches}: must name numbers of at least 2"),
            (self.together >= 1, f"together = {self.together}: must be at least 1"),
            (self.repeats >= 1, f"repeats = {self.repeats}: must be at least 1"),
            (self.device in ("cuda", "cpu"), f"device = {self.device}: must be cuda or cpu"),
        )

    def request(self) -> Request:
        """What all arms share."""
        return Request(self.experiment, self.objective, tuple(self.overrides), self.samples, self.device)


def timed(step: Step, repeats: int, warm: int, device: str) -> list[float]:
    """Milliseconds of each repeat, after the warm-up."""
    if device == "cuda":
        return milliseconds([step], repeats, warm)
    for _ in range(warm):
        step()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def measure(args: Arguments) -> dict[str, Any]:
    """One arm at the first batch."""
    torch.manual_seed(0)
    batch = args.batches[0]
    with turn(args.turns, alone=False):
        step, parameters = built(args.request(), ARMS[args.child], batch)
        timed(step, 1, args.warm, args.device)
    with turn(args.turns, alone=True):
        times = timed(step, args.repeats, args.warm, args.device)
    found = {"arm": args.child, "batch": batch, "parameters": parameters, "times": times}
    if args.device == "cuda":
        found["gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def ceilings(device: str) -> tuple[float, float]:
    """(bytes a second of a copy, products a second of a bfloat16 matrix), the best of ten; zeros on a CPU."""
    if device == "cpu":
        return 0.0, 0.0
    source, target = (torch.empty(2**30, dtype=torch.uint8, device="cuda").random_() for _ in range(2))
    a, b = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))

    def best(work: Step) -> float:
        return min(milliseconds([work], 10)) / 1e3

    return 2 * 2**30 / best(lambda: target.copy_(source)), 2 * 8192**3 / best(lambda: a @ b)


def in_a_child(args: Arguments, name: str, batch: int) -> dict[str, Any]:
    """An arm at a batch in a process of its own."""
    given = {**asdict(args), "objective": args.objective.value, "child": name, "batches": [batch], "arms": [name], "json": ""}
    words = [f"{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in given.items() if value != ""]
    return asked("benchmarks.step_gpu", words, {"batch": batch, "arm": name}, dict(ARMS[name].environment))


def line(found: dict[str, Any], args: Arguments, copy: float, products: float) -> str:
    """A row of the table."""
    head = f"{found['batch']:>5}  {found['arm']:<26}"
    if "died" in found:
        return f"{head}died ({found['died']}): {found['why'][:110]}"
    times, batch = sorted(found["times"]), found["batch"]
    rate = 1e3 * batch / statistics.median(times)
    slow, fast = (1e3 * batch / times[round(q * (len(times) - 1))] for q in (0.9, 0.1))
    row = f"{head}{found['parameters'] / 1e6:>7.1f}{rate:>10,.0f}{slow:>9,.0f}{fast:>9,.0f}{found.get('gib', float('nan')):>8.1f}"
    if args.experiment in COUNTED and copy and not ARMS[found["arm"]].peer:
        flop, moved = (value * args.samples / 4096 for value in COUNTED[args.experiment])
        row += f"{rate * max(moved / copy, flop / products):>8.0%}{rate * flop / products:>7.0%}"
    return row


def main(args: Arguments) -> None:
    """Measure, and print one table last."""
    if args.child:
        print(json.dumps(measure(args)))
        return
    copy, products = ceilings(args.device)
    found: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder, ThreadPoolExecutor(args.together) as pool:
        agreed = replace(args, turns=args.turns or str(Path(folder) / "turns"))
        asked_for = [(name, batch) for batch in args.batches for name in args.arms]
        for done in as_completed([pool.submit(in_a_child, agreed, *one) for one in asked_for]):
            found.append(done.result())
            if args.json:  # again after every arm: a run cut short keeps what it measured
                Path(args.json).write_text(json.dumps({"copy": copy, "products": products, "arms": found}))
    found.sort(key=lambda one: asked_for.index((one["arm"], one["batch"])))
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    model = f"{args.experiment}, objective {args.objective.value}, windows of {args.samples}"
    print(f"\n{model}; torch {torch.__version__}, {device}")
    rates = f"copy {copy / 1e12:.2f} TB/s, bfloat16 products {products / 1e12:.0f} TFLOP/s"
    print(f"{rates}; {args.repeats} steps after {args.warm}")
    columns = f"{'M':>7}{'windows/s':>10}{'slow 10%':>9}{'fast 10%':>9}{'GiB':>8}{'floor':>8}{'MFU':>7}"
    print(f"{'batch':>5}  {'arm':<26}{columns}")
    print("\n".join(line(one, args, copy, products) for one in found))


if __name__ == "__main__":
    cli.run(main, Arguments, where="benchmarks.step_gpu")
