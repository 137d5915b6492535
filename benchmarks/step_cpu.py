"""A contrastive training step on one CPU thread against the same model assembled from the ``xlstm`` package.

    python -m benchmarks.step_cpu [--batch 2] [--samples 4096] [--rounds 5] [--warm 1] [--parts step network head]
                                  [--override model.n_layers=1 …]

Model and settings are those of ``experiment=contrastive/xlstm_unet_seisbench``; the opponent is ``benchmarks.peer_xlstm``.
First both are given the same weights, waves, masks and negatives and must return the same loss. Then each side of each part
gets a process of its own: new random data each time, forward, loss, backward and, for ``step``, clipping and AdamW. The
processes take turns (who goes first alternates), so that whatever else the machine does meets both. Float32, random waves.
CPU seconds and wall seconds: medians; ratios are taken round by round. Memory is the process's peak resident set.
"""

import argparse
import logging
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

# The measuring processes import torch, this one does not: on Linux a child's peak resident set starts at its parent's.

Work = Callable[[], None]
SIDES = ("ours", "xlstm")
PARTS = ("step", "network", "head")
MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """What a measuring process is told."""

    batch: int
    samples: int
    warm: int
    overrides: tuple[str, ...]


class Cost(NamedTuple):
    """Of one repetition, in seconds."""

    cpu: float
    wall: float


class Opened(NamedTuple):
    """What a process says when it is ready: number of parameters, and peak MiB before its first repetition."""

    parameters: int
    built: float


def peak() -> float:
    """This process's peak resident set so far, MiB (macOS counts bytes, Linux KiB)."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """The experiment's config, plain builtins."""
    from hydra import compose, initialize_config_dir

    from utils.config import CONFIGS, plain
    from utils.overrides import lenient

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return plain(compose("config", lenient(["experiment=contrastive/xlstm_unet_seisbench", *overrides])))


def prepared() -> None:
    """One thread, fixed seed, no advice from the libraries."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def our_module(config: dict[str, Any], samples: int):
    """Network and task of a config, as a run builds them."""
    from dataloaders.batch import DataSpec
    from tasks import build

    build.check(config)
    return build.build_module(config, DataSpec(samples=samples))


def our_batch(settings: Settings, number: int):
    """Random waves, already normalised; every sample valid."""
    import torch

    from dataloaders.batch import Batch

    B, L = settings.batch, settings.samples
    index = torch.arange(B) + number * B
    valid, live = torch.ones(B, L, dtype=torch.bool), torch.ones(B, 3, dtype=torch.bool)
    return Batch(torch.randn(B, L, 3), valid, live, index, torch.zeros_like(index))


def updated(work: Work, parameters: list, optimizer) -> Work:
    """``work``, which leaves gradients, between zeroing them and clip and update."""
    import torch

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        work()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def fresh(work: Work, parameters: list) -> Work:
    """``work`` without gradients of the time before."""

    def run() -> None:
        for parameter in parameters:
            parameter.grad = None
        work()

    return run


def ours(config: dict[str, Any], settings: Settings, part: str) -> tuple[Work, int]:
    """Our side of a part, and the number of parameters of the whole model."""
    import torch

    from models.network import Network
    from utils.optim import OPTIMIZERS

    module = our_module(config, settings.samples).train()
    parameters = list(module.parameters())
    numbers = iter(range(sys.maxsize))
    network = module.network
    if part == "head":
        network = Network(*given(network, settings))

    def objective() -> None:
        batch = our_batch(settings, next(numbers))
        output = module.task.step(network, batch, module.draw(batch, evaluating=False))
        (output.loss + output.penalty).backward()

    def context() -> None:
        context = network.backbone(network.encoder(our_batch(settings, next(numbers)).wave))
        context.backward(torch.randn_like(context))

    if part == "step":
        optimizer = OPTIMIZERS.build(config["optimizer"], modules=[module.network, module.task])
        work = updated(objective, parameters, optimizer)
    else:
        work = fresh(context if part == "network" else objective, parameters)
    return work, sum(p.numel() for p in parameters)


def given(network, settings: Settings) -> tuple:
    """Encoder, backbone, decoder that give random features and context at once, so that the head is all there is to do."""
    import torch
    from torch import Tensor

    from models.backbones.identity import IdentityBackbone, IdentityConfig
    from models.contracts import Encoder

    class Given(Encoder):
        stride, d_features, d_out, causal = network.encoder.stride, network.encoder.d_features, network.encoder.d_out, True

        def features(self, wave: Tensor) -> Tensor:
            return torch.randn(settings.batch, wave.shape[1] // self.stride, self.d_features, requires_grad=True)

        def project(self, features: Tensor) -> Tensor:
            return torch.randn(*features.shape[:2], self.d_out, requires_grad=True)

    return Given(), IdentityBackbone(IdentityConfig(d_model=network.encoder.d_out)), network.decoder


def xlstm(config: dict[str, Any], settings: Settings, part: str) -> tuple[Work, int]:
    """The peer's side of a part, and the number of parameters of the whole model."""
    import numpy as np
    import torch

    from benchmarks.peer_xlstm import Peer, PeerConfig, draw_mask, draw_negatives

    cfg = PeerConfig.of(config, settings.samples)
    peer = Peer(cfg).train()
    parameters = list(peer.parameters())
    rng = np.random.default_rng(0)
    B, T = settings.batch, cfg.tokens

    def drawn():
        hidden = draw_mask(B, T, cfg.task["mask"], rng)
        return torch.from_numpy(hidden), torch.from_numpy(draw_negatives(hidden, cfg.loss["count"], rng))

    def objective() -> None:
        peer(torch.randn(B, settings.samples, 3), *drawn()).backward()

    def context() -> None:
        wave = torch.randn(B, settings.samples, 3)
        context = peer.unet(peer.encoder.projection(peer.encoder(wave)))
        context.backward(torch.randn_like(context))

    def head() -> None:
        features = torch.randn(B, T, cfg.encoder["width"], requires_grad=True)
        tokens = torch.randn(B, T, cfg.model["d_model"], requires_grad=True)
        peer.head(features, tokens, *drawn()).backward()

    if part == "step":
        chosen = config["optimizer"]
        optimizer = torch.optim.AdamW(
            parameters, lr=chosen["lr"], betas=tuple(chosen["betas"]), eps=chosen["eps"], weight_decay=chosen["weight_decay"]
        )
        work = updated(objective, parameters, optimizer)
    else:
        work = fresh(context if part == "network" else head, parameters)
    return work, sum(p.numel() for p in parameters)


def measure(line: Connection, side: str, part: str, settings: Settings) -> None:
    """A measuring process: a repetition for every True that comes in, the peak MiB at the first False."""
    prepared()
    config = composed(settings.overrides)
    work, parameters = (ours if side == "ours" else xlstm)(config, settings, part)
    built = peak()
    for _ in range(settings.warm):
        work()
    line.send(Opened(parameters, built))
    while line.recv():
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        line.send(Cost(time.process_time() - cpu, time.perf_counter() - wall))
    line.send(peak())


def same(line: Connection, settings: Settings) -> None:
    """A process that sends both losses, see :func:`benchmarks.peer_weights.losses`."""
    from benchmarks.peer_weights import losses

    prepared()
    config = composed((*settings.overrides, "model.gate_soft_cap=null", "model.norm_eps=1e-5"))
    line.send(losses(our_module(config, settings.samples), our_batch(settings, 0)))


def opened(target: Callable[..., None], *args: Any) -> tuple[Any, Connection]:
    """A fresh process and the line to it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(there, *args), daemon=True)  # none outlives a failure here
    process.start()
    there.close()
    return process, here


def demand_same(settings: Settings) -> tuple[float, float]:
    """Both losses. Raises AssertionError where the two models compute different things."""
    process, line = opened(same, settings)
    mine, theirs = line.recv()
    process.join()
    if not abs(mine - theirs) < 1e-3 * abs(theirs):
        raise AssertionError(f"the models differ: loss {mine:.6f}, peer's {theirs:.6f}; nothing to compare")
    return mine, theirs


def compare(part: str, settings: Settings, rounds: int) -> tuple[str, int]:
    """Measure both sides of a part in turns; its rows of the table and the number of parameters."""
    running = {side: opened(measure, side, part, settings) for side in SIDES}
    ready: dict[str, Opened] = {side: line.recv() for side, (_, line) in running.items()}
    mine, theirs = (ready[side].parameters for side in SIDES)
    if abs(mine - theirs) > 0.01 * theirs:
        raise AssertionError(f"the models differ: {mine:,} parameters, peer's {theirs:,}")
    costs: dict[str, list[Cost]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            running[side][1].send(True)
            costs[side].append(running[side][1].recv())
    peaks: dict[str, float] = {}
    for side, (process, line) in running.items():
        line.send(False)
        peaks[side] = line.recv()
        process.join()
    return "\n".join(rows(part, costs, peaks, {side: ready[side].built for side in SIDES})), mine


def rows(part: str, costs: dict[str, list[Cost]], peaks: dict[str, float], built: dict[str, float]) -> list[str]:
    """CPU time, wall time, peak memory, and what the repetitions added to the memory of the built model."""
    lines = []
    for name, of in (("CPU s", lambda cost: cost.cpu), ("wall s", lambda cost: cost.wall)):
        mine, theirs = ([of(cost) for cost in costs[side]] for side in SIDES)
        ratios = sorted(b / a for a, b in zip(mine, theirs, strict=True))
        spread = f"({ratios[0]:.1f} – {ratios[-1]:.1f})"
        middle = (statistics.median(values) for values in (mine, theirs, ratios))
        lines.append("{:<9}{:<13}{:>10.2f}{:>10.2f}{:>8.1f} ×  {}".format(part, name, *middle, spread))
    added = {side: peaks[side] - built[side] for side in SIDES}
    for name, values in (("peak MiB", peaks), ("added MiB", added)):
        mine, theirs = (values[side] for side in SIDES)
        lines.append(f"{part:<9}{name:<13}{mine:>10.0f}{theirs:>10.0f}{theirs / mine:>8.1f} ×")
    return lines


def main() -> None:
    """Prove that both compute the same, measure, and print the table last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm", type=int, default=1)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--override", nargs="+", default=[], help="settings of the model, for both sides")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before the children start their libraries
    settings = Settings(args.batch, args.samples, args.warm, tuple(args.override))
    mine, theirs = demand_same(settings)
    load = os.getloadavg()[0]
    results = [compare(part, settings, args.rounds) for part in args.parts]
    print(f"same weights, waves, masks, negatives: loss {mine:.5f}, peer's {theirs:.5f}")
    print(f"{results[0][1]:,} parameters on both sides, batch {args.batch} of 3 × {args.samples}, float32, one thread,")
    print(f"{args.rounds} rounds after {args.warm} to warm up; load {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    print(f"{'':<22}{'ours':>10}{'xlstm':>10}{'ratio':>10}  (least – most)")
    print("\n".join(text for text, _ in results))


if __name__ == "__main__":
    main()
