"""The arms of ``benchmarks.step_gpu``: which models there are, and a training step of each."""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from utils.errors import demand


class Objective(str, Enum):
    """What is learnt."""

    own = "own"
    """What the experiment says."""
    reconstruction = "reconstruction"
    """Masked reconstruction."""


@dataclass(frozen=True)
class Request:
    """What all arms of a comparison share.

    Attributes:
        experiment: whose model and objective.
        objective: that one, or masked reconstruction.
        overrides: more settings, of all arms that are ours.
        samples: length of windows.
        device: ``cuda`` or ``cpu``.
    """

    experiment: str
    objective: Objective
    overrides: tuple[str, ...]
    samples: int
    device: str


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
    "gla": Arm(("model.kernels=native",), peer="gla"),
    "transformer-unet": Arm(peer="transformer-unet"),
    "transformer-unet-compiled": Arm((), COMPILED, "transformer-unet"),
    "transformer": Arm(peer="transformer"),
    "transformer-compiled": Arm((), COMPILED, "transformer"),
    "lstm": Arm(peer="lstm"),
}
Step = Callable[[], object]


def composed(request: Request, arm: Arm) -> dict[str, Any]:
    """The arm's config, plain builtins."""
    from hydra import compose, initialize_config_dir

    from utils.config import CONFIGS, plain
    from utils.overrides import lenient

    masked = ["task=regression", "quantizer=none", "loss=masked_mse", "decoder=upsampling-decoder"]
    words = [f"experiment={request.experiment}", *(masked if request.objective is Objective.reconstruction else [])]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return plain(compose("config", lenient([*words, *request.overrides, *arm.overrides])))


def swapped(config: dict[str, Any], peer: str) -> dict[str, Any]:
    """The config with a peer's backbone of about 20 M parameters; a transformer U-Net, and gated linear attention in place of our
    cells, are put in later, see :func:`built`."""
    nodes = {
        "transformer": {"_name_": "transformer", "d_model": 384, "n_layers": 11, "num_heads": 6, "checkpoint_path": None},
        "transformer-unet": {"_name_": "identity", "d_model": 128, "checkpoint_path": None},
        "lstm": {"_name_": "lstm", "d_model": 512, "n_layers": 3, "checkpoint_path": None},
        "gla": config["model"],
    }
    return {**config, "model": nodes[peer]}


def built(request: Request, arm: Arm, batch: int) -> tuple[Step, int]:
    """(a training step on the next batch, number of parameters)."""
    config = composed(request, arm)
    if arm.peer == "xlstm":
        return from_package(request, config, batch)
    from dataloaders.batch import Batch, DataSpec
    from dataloaders.normalise import prepare
    from tasks.build import build_module
    from utils.optim import OPTIMIZERS

    module = build_module(swapped(config, arm.peer) if arm.peer else config, DataSpec(samples=request.samples))
    if arm.peer == "transformer-unet":
        from benchmarks.peer_transformer import TransformerUNet

        module.network.backbone = TransformerUNet(128, 3, [4, 4], 4)
    elif arm.peer == "gla":
        from benchmarks.peer_gla import with_attention

        with_attention(module.network)
    module.to(request.device).train()
    index = torch.arange(batch, device=request.device)
    valid, live = (torch.ones(batch, n, dtype=torch.bool, device=request.device) for n in (request.samples, 3))
    waves = waving(request, batch)

    def objective(wave: Tensor, epoch: Tensor) -> Tensor:
        ready, _ = prepare(Batch(wave, valid, live, index, epoch), module.prepare_cfg)
        output = module.task.step(module.network, ready, module.draw(ready, evaluating=False))
        return output.loss + output.penalty

    run = torch.compile(objective, mode=arm.compiled) if arm.compiled else objective
    optimizer = OPTIMIZERS.build(config["optimizer"], modules=[module.network, module.task])
    parameters, count = list(module.parameters()), iter(range(sys.maxsize))
    epochs = [torch.full_like(index, number) for number in range(64)]
    work = lambda: run(next(waves), epochs[next(count) % len(epochs)])  # noqa: E731
    return stepping(request, work, parameters, optimizer), sum(p.numel() for p in parameters)


def waving(request: Request, batch: int) -> Iterator[Tensor]:
    """Random waves ``B L 3`` in turns, together more than a GPU's cache holds."""
    shape = (batch, request.samples, 3)
    sets = [torch.randn(shape, device=request.device) for _ in range(max(2, 2**26 // math.prod(shape)))]
    while True:
        yield from sets


def from_package(request: Request, config: dict[str, Any], batch: int) -> tuple[Step, int]:
    """The same for the model from the ``xlstm`` package, with the cell of ``mlstm_kernels`` in place of the quadratic one."""
    demand((request.objective is Objective.own, "objective = reconstruction: arm 'xlstm' has the contrastive one only"))
    import numpy as np
    from mlstm_kernels.torch import get_mlstm_kernel
    from xlstm.blocks.mlstm.cell import mLSTMCell

    from benchmarks.peer_xlstm import Peer, PeerConfig, draw_mask, draw_negatives

    cfg = PeerConfig.of(config, request.samples)
    peer = Peer(cfg).to(request.device).train()
    kernel = get_mlstm_kernel("chunkwise--triton_xl_chunk" if request.device == "cuda" else "chunkwise--native_autograd")

    def cell(queries: Tensor, keys: Tensor, values: Tensor, igate_preact: Tensor, fgate_preact: Tensor, **_: Tensor) -> Tensor:
        gates = {"i": igate_preact.squeeze(-1).float(), "f": fgate_preact.squeeze(-1).float()}
        return kernel(q=queries, k=keys, v=values, **gates, chunk_size=64)

    for part in peer.modules():
        if isinstance(part, mLSTMCell):
            part.backend_fn = cell  # pyright: ignore[reportAttributeAccessIssue] - typed as what it is by default
    rng, waves = np.random.default_rng(0), waving(request, batch)
    drawn = []
    for _ in range(8):  # on the host, trace by trace, as the public code does; not timed here, which flatters it
        hidden = draw_mask(batch, cfg.tokens, cfg.task["mask"], rng)
        negatives = draw_negatives(hidden, cfg.loss["count"], rng)
        drawn.append([torch.from_numpy(x).to(request.device) for x in (hidden, negatives)])
    count, parameters = iter(range(sys.maxsize)), list(peer.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=request.device == "cuda")
    work = lambda: peer(next(waves), *drawn[next(count) % len(drawn)])  # noqa: E731
    return stepping(request, work, parameters, optimizer), sum(p.numel() for p in parameters)


def stepping(
    request: Request, loss: Callable[[], Tensor], parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> Step:
    """A step around a loss: autocast, backward, clip, update."""

    def step() -> None:
        with torch.autocast(request.device, torch.bfloat16, enabled=request.device == "cuda"):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step
