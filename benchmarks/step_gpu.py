"""A whole training step on a GPU, ours and its peers side by side: python -m benchmarks.step_gpu [json=FILE]

An arm is one model at one batch in a process of its own: preparation of the batch, forward, loss, backward, clipping, AdamW, in
bfloat16 autocast, on random waves that lie on the GPU and change from step to step. The objective is the published contrastive
one, or with ``objective=reconstruction`` masked reconstruction by the same encoder and backbone; ``experiment=`` names another
model. Arms: our model with every choice of kernels, eager, compiled, and compiled with CUDA graphs; the same model from the
``xlstm`` package with the cell of ``mlstm_kernels``; transformers and an LSTM of about as many parameters behind our encoder,
objective and optimizer. Arms take turns by batch; one that dies loses its own line.

Times are CUDA events around a step, medians and tenths after a warm-up. Memory is the peak that PyTorch allocated. Two ceilings
are measured in the same run: bytes of a large copy and products of a large bfloat16 matrix; ``floor`` is what counted bytes and
products of a sample need at these ceilings, MFU the counted products over the second.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils import cli
from utils.errors import demand

COUNTED = {
    "contrastive/xlstm_unet_seisbench": (37e9, 0.635e9),
    "xlstm_large/pure_mlstm_sequential_12m_foundation": (122e9, 2.4e9),
}
"""Products and fewest bytes of a sample of 4,096, forward and backward, by experiment."""


class Objective(str, Enum):
    """What is learnt."""

    own = "own"
    """What the experiment says."""
    reconstruction = "reconstruction"
    """Masked reconstruction."""


@dataclass(frozen=True)
class Arm:
    """A model.

    Attributes:
        overrides: of the experiment.
        compiled: mode of ``torch.compile``; empty for eager.
        peer: another backbone or model, by its name in :func:`swapped` or ``xlstm``.
        environment: variables its process gets.
    """

    overrides: tuple[str, ...] = ()
    compiled: str = ""
    peer: str = ""
    environment: tuple[tuple[str, str], ...] = ()


LLVM = (("DISABLE_LLVM_OPT", "1"),)
"""On Triton 3.6 the compiler aborts on kernels of ``mlstm_kernels`` without it."""
COMPILED, GRAPHS = "default", "reduce-overhead"
ARMS = {
    "native": Arm(("model.kernels=native",)),
    "native-compiled": Arm(("model.kernels=native",), COMPILED),
    "native-graphs": Arm(("model.kernels=native",), GRAPHS),
    "triton": Arm(("model.kernels=triton",)),
    "triton-compiled": Arm(("model.kernels=triton",), COMPILED),
    "triton-graphs": Arm(("model.kernels=triton",), GRAPHS),
    "mlstm_kernels": Arm(("model.kernels=mlstm_kernels:chunkwise--triton_xl_chunk",), environment=LLVM),
    "xlstm": Arm(peer="xlstm", environment=LLVM),
    "transformer-unet": Arm(peer="transformer-unet"),
    "transformer-unet-compiled": Arm((), COMPILED, "transformer-unet"),
    "transformer": Arm(peer="transformer"),
    "transformer-compiled": Arm((), COMPILED, "transformer"),
    "lstm": Arm(peer="lstm"),
}
Step = Callable[[], object]


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
    child: str = ""
    """Measure this one arm, at the first batch, and print a line of JSON: what the command itself starts."""

    def __post_init__(self) -> None:
        """State the ranges."""
        unknown = [name for name in (*self.arms, *([self.child] if self.child else [])) if name not in ARMS]
        demand(
            (not unknown, f"arms = {unknown}: must be among {', '.join(ARMS)}"),
            (bool(self.batches) and min(self.batches) >= 2, f"batches = {self.batches}: must name numbers of at least 2"),
            (self.repeats >= 1, f"repeats = {self.repeats}: must be at least 1"),
            (self.device in ("cuda", "cpu"), f"device = {self.device}: must be cuda or cpu"),
        )


def composed(args: Arguments, arm: Arm) -> dict[str, Any]:
    """The arm's config, plain builtins."""
    from hydra import compose, initialize_config_dir

    from utils.config import CONFIGS, plain
    from utils.overrides import lenient

    masked = ["task=regression", "quantizer=none", "loss=masked_mse", "decoder=upsampling-decoder"]
    words = [f"experiment={args.experiment}", *(masked if args.objective is Objective.reconstruction else [])]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return plain(compose("config", lenient([*words, *args.overrides, *arm.overrides])))


def swapped(config: dict[str, Any], peer: str) -> dict[str, Any]:
    """The config with a peer's backbone of about 20 M parameters; a transformer U-Net is put in later, see :func:`built`."""
    nodes = {
        "transformer": {"_name_": "transformer", "d_model": 384, "n_layers": 11, "num_heads": 6, "checkpoint_path": None},
        "transformer-unet": {"_name_": "identity", "d_model": 128, "checkpoint_path": None},
        "lstm": {"_name_": "lstm", "d_model": 512, "n_layers": 3, "checkpoint_path": None},
    }
    return {**config, "model": nodes[peer]}


def built(args: Arguments, arm: Arm, batch: int) -> tuple[Step, int]:
    """(a training step on the next batch, number of parameters)."""
    config = composed(args, arm)
    if arm.peer == "xlstm":
        return from_package(args, config, batch)
    from dataloaders.batch import Batch, DataSpec
    from dataloaders.normalise import prepare
    from tasks.build import build_module
    from utils.optim import OPTIMIZERS

    module = build_module(swapped(config, arm.peer) if arm.peer else config, DataSpec(samples=args.samples))
    if arm.peer == "transformer-unet":
        from benchmarks.peer_transformer import TransformerUNet

        module.network.backbone = TransformerUNet(128, 3, [4, 4], 4)
    module.to(args.device).train()
    index = torch.arange(batch, device=args.device)
    valid, live = torch.ones(batch, args.samples, dtype=torch.bool), torch.ones(batch, 3, dtype=torch.bool)
    waves = waving(args, batch)

    def objective(wave: Tensor, epoch: Tensor) -> Tensor:
        raw = Batch(wave, valid.to(wave.device), live.to(wave.device), index, epoch)
        ready, _ = prepare(raw, module.prepare_cfg)
        output = module.task.step(module.network, ready, module.draw(ready, evaluating=False))
        return output.loss + output.penalty

    valid, live = valid.to(args.device), live.to(args.device)
    run = torch.compile(objective, mode=arm.compiled) if arm.compiled else objective
    optimizer = OPTIMIZERS.build(config["optimizer"], modules=[module.network, module.task])
    parameters, count = list(module.parameters()), iter(range(sys.maxsize))
    epochs = [torch.full_like(index, number) for number in range(64)]
    work = lambda: run(next(waves), epochs[next(count) % len(epochs)])  # noqa: E731
    return stepping(args, work, parameters, optimizer), sum(p.numel() for p in parameters)


def waving(args: Arguments, batch: int) -> Iterator[Tensor]:
    """Random waves ``B L 3`` in turns, together more than a GPU's cache holds."""
    sets = [torch.randn(batch, args.samples, 3, device=args.device) for _ in range(max(2, 2**26 // (batch * args.samples * 3)))]
    while True:
        yield from sets


def from_package(args: Arguments, config: dict[str, Any], batch: int) -> tuple[Step, int]:
    """The same for the model from the ``xlstm`` package, with the cell of ``mlstm_kernels`` in place of the quadratic one."""
    demand((args.objective is Objective.own, "objective = reconstruction: the peer 'xlstm' has the contrastive objective only"))
    import numpy as np
    from mlstm_kernels.torch import get_mlstm_kernel
    from xlstm.blocks.mlstm.cell import mLSTMCell

    from benchmarks.peer_xlstm import Peer, PeerConfig, draw_mask, draw_negatives

    cfg = PeerConfig.of(config, args.samples)
    peer = Peer(cfg).to(args.device).train()
    kernel = get_mlstm_kernel("chunkwise--triton_xl_chunk" if args.device == "cuda" else "chunkwise--native_autograd")

    def cell(queries: Tensor, keys: Tensor, values: Tensor, igate_preact: Tensor, fgate_preact: Tensor, **_: Tensor) -> Tensor:
        gates = {"i": igate_preact.squeeze(-1).float(), "f": fgate_preact.squeeze(-1).float()}
        return kernel(q=queries, k=keys, v=values, **gates, chunk_size=64)

    for part in peer.modules():
        if isinstance(part, mLSTMCell):
            part.backend_fn = cell  # pyright: ignore[reportAttributeAccessIssue] - typed as what it is by default
    rng, waves = np.random.default_rng(0), waving(args, batch)
    drawn = []
    for _ in range(8):  # on the host, trace by trace, as the public code does; not timed here, which flatters it
        hidden = draw_mask(batch, cfg.tokens, cfg.task["mask"], rng)
        negatives = draw_negatives(hidden, cfg.loss["count"], rng)
        drawn.append([torch.from_numpy(x).to(args.device) for x in (hidden, negatives)])
    count, parameters = iter(range(sys.maxsize)), list(peer.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=args.device == "cuda")
    work = lambda: peer(next(waves), *drawn[next(count) % len(drawn)])  # noqa: E731
    return stepping(args, work, parameters, optimizer), sum(p.numel() for p in parameters)


def stepping(
    args: Arguments, loss: Callable[[], Tensor], parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> Step:
    """A step around a loss: autocast, backward, clip, update."""

    def step() -> None:
        with torch.autocast(args.device, torch.bfloat16, enabled=args.device == "cuda"):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed(args: Arguments, step: Step) -> list[float]:
    """Milliseconds of each repeat, after the warm-up."""
    for _ in range(args.warm):
        step()
    times = []
    for _ in range(args.repeats):
        if args.device == "cpu":
            begin = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - begin))
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        times.append((start, end))
    if args.device == "cpu":
        return times
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in times]


def measure(args: Arguments) -> dict[str, Any]:
    """One arm at the first batch."""
    torch.manual_seed(0)
    batch = args.batches[0]
    step, parameters = built(args, ARMS[args.child], batch)
    found = {"arm": args.child, "batch": batch, "parameters": parameters, "times": timed(args, step)}
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
        times = []
        for _ in range(13):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return min(times[3:])

    return 2 * 2**30 / best(lambda: target.copy_(source)), 2 * 8192**3 / best(lambda: a @ b)


def in_a_child(args: Arguments, name: str, batch: int) -> dict[str, Any]:
    """An arm at a batch in a process of its own."""
    given = {**asdict(args), "objective": args.objective.value, "child": name, "batches": [batch], "arms": [name], "json": ""}
    words = [f"{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in given.items() if value != ""]
    command = [sys.executable, "-m", "benchmarks.step_gpu", *words]
    environment = {**os.environ, **dict(ARMS[name].environment)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        return json.loads(lines[-1])
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing said"]
    return {"arm": name, "batch": batch, "died": done.returncode, "why": said[-1]}


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
    out = sys.stdout
    if args.child:
        out.write(json.dumps(measure(args)) + "\n")
        return
    copy, products = ceilings(args.device)
    found = []
    for batch in args.batches:
        for name in args.arms:
            found.append(in_a_child(args, name, batch))
            out.write(f"{batch} {name}: {'died' if 'died' in found[-1] else 'measured'}\n")
            out.flush()
    if args.json:
        Path(args.json).write_text(json.dumps({"copy": copy, "products": products, "arms": found}))
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    out.write(
        f"\n{args.experiment}, objective {args.objective.value}, windows of {args.samples}; torch {torch.__version__}, {device}\n"
    )
    out.write(
        f"copy {copy / 1e12:.2f} TB/s, bfloat16 products {products / 1e12:.0f} TFLOP/s; {args.repeats} steps after {args.warm}\n"
    )
    columns = f"{'M':>7}{'windows/s':>10}{'slow 10%':>9}{'fast 10%':>9}{'GiB':>8}{'floor':>8}{'MFU':>7}"
    out.write(f"{'batch':>5}  {'arm':<26}{columns}\n" + "\n".join(line(one, args, copy, products) for one in found) + "\n")


if __name__ == "__main__":
    cli.run(main, Arguments, where="benchmarks.step_gpu")
