"""One training step on tensors without numbers: its products and its memory at the run's own batch, on any machine.

The step is the one that training takes, from the raw batch to the optimizer, run by torch's fake tensors: shapes, dtypes and
lifetimes are real, nothing is computed. Nothing is fitted or scaled up from a smaller batch.

*Products*: a product of matrices ``m × k`` and ``k × n`` is 2·m·k·n FLOP, convolutions and attention accordingly
(``torch.utils.flop_counter``, and products added in place). The counter sees every operation that reaches the device, so those
that the mLSTM and sLSTM cells call inside their own autograd functions, forward and backward, are in it; elementwise work is in
no count of products. For the mLSTM that is, a head of width D and a chunk of L tokens among N of them, forward: 4·L²·D within the
chunk, 4·L·D² to write and read the memory and 2·N·D² to carry it on, and 2·D·(L + N) for the normaliser; for the sLSTM 8·D² a
token and head.

*Memory*: what tensors are alive, operation by operation, in eager mode. Neither the allocator's fragments nor what libraries
take for themselves are in it (a CUDA context, what cuDNN's LSTM keeps), and torch.compile needs less.
"""

import math
import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # torch's own tools of this kind stand on it, too
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dataloaders.batch import Batch, DataSpec, Target
from tasks.build import build_module
from tasks.module import WaveModule
from tasks.parts import lr_factors, parts_of
from utils.initial import InitConfig
from utils.optim import OPTIMIZERS
from utils.registry import typed


@dataclass(frozen=True)
class PartSize:
    """A part of the network or the task.

    Attributes:
        part: encoder, backbone, decoder or task.
        parameters: how many numbers.
        trained: how many of them get a gradient.
    """

    part: str
    parameters: int
    trained: int


@dataclass(frozen=True)
class StepSize:
    """What one training step of one device takes.

    Attributes:
        parts: parameters by part.
        forward: FLOP of products a window, from the raw batch to the loss.
        training: the same with the backward pass.
        weights: bytes of parameters and buffers.
        gradients: bytes.
        optimizer: bytes of its state.
        activations: most bytes alive beside these three at any time of the step: what is kept for the backward pass, and what
            lives for a moment.
    """

    parts: tuple[PartSize, ...]
    forward: float
    training: float
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def memory(self) -> int:
        """Bytes of a device."""
        return self.weights + self.gradients + self.optimizer + self.activations


def product_counter() -> FlopCounterMode:
    """Counts the FLOP of products while it is entered; torch's own counter does not know those that are added in place."""

    def added(base: Any, left: Any, right: Any, *, out_shape: Any = None, **_: Any) -> int:
        del base, out_shape
        return 2 * math.prod(left) * right[-1]

    in_place = {torch.ops.aten.baddbmm_: added, torch.ops.aten.addmm_: added}
    return FlopCounterMode(display=False, custom_mapping=in_place)


@final
class Alive(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, for as long as they are referred to.

    Attributes:
        now: bytes alive.
        peak: most of them so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def know(self, tensors: Any) -> None:
        """Leave the storages of these tensors out of the count."""
        for tensor in tensors:
            self._seen[id(tensor.untyped_storage())] = weakref.ref(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key = id(storage)
        known = self._seen.get(key)
        if known is not None and known() is storage:
            return
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone(_: Any) -> None:
            self.now -= size
            self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, gone)


def measure(config: Mapping[str, Any], spec: DataSpec, *, precision: str) -> StepSize:
    """Size of the training step of a checked config, with native kernels.

    Args:
        config: plain builtins.
        spec: of its data.
        precision: ``bf16-mixed``, ``16-mixed`` or ``32-true``.
    """
    samples = min(SCAN_SAMPLES, spec.samples) if scans(config) else spec.samples
    model = config["model"]
    config = {**config, "model": {**model, "kernels": "native"} if "kernels" in model else model}
    with FakeTensorMode(allow_non_fake_inputs=True):
        module = _frozen(build_module(config, spec).train(), config)
        step = _step(module, int(config["loader"]["batch_size"]), replace(spec, samples=samples), precision)
        state = _state(module, config)
        parts = tuple(_part(str(name.value), part) for name, part in parts_of(module.network, module.task).items())
        weights = sum(map(_bytes, [*module.parameters(), *module.buffers()]))
    longer = spec.samples / samples
    return StepSize(
        parts, step.forward * longer, step.training * longer, weights, step.gradients, state, round(step.activations * longer)
    )


SCAN_SAMPLES = 256
"""Length of the windows that :func:`scans` are measured on."""


def scans(config: Mapping[str, Any]) -> bool:
    """Whether sLSTM cells walk through the tokens one by one: minutes of shapes for whole windows.

    Such networks are measured on windows of :data:`SCAN_SAMPLES` samples and scaled by length, in which they are linear.
    """
    return config["model"].get("block_type", "mlstm") != "mlstm"


class _Step(NamedTuple):
    """FLOP a window, and bytes."""

    forward: float
    training: float
    gradients: int
    activations: int


def _step(module: WaveModule, windows: int, spec: DataSpec, precision: str) -> _Step:
    """Forward and backward pass of a batch."""
    batch, alive, counter = _raw(windows, spec), Alive(), product_counter()
    alive.know([*module.parameters(), *module.buffers()])
    with alive, counter:
        loss = _loss(module, batch, precision)
        forward = counter.get_total_flops()
        loss.backward()
    gradients = sum(_bytes(p.grad) for p in module.parameters() if p.grad is not None)
    return _Step(forward / windows, counter.get_total_flops() / windows, gradients, max(0, alive.peak - gradients))


def _part(name: str, part: nn.Module) -> PartSize:
    sizes = [(p.numel(), p.numel() * p.requires_grad) for p in part.parameters()]
    return PartSize(name, sum(size for size, _ in sizes), sum(trained for _, trained in sizes))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _frozen(module: WaveModule, config: Mapping[str, Any]) -> WaveModule:
    """The module with no gradient where ``init.freeze`` never gives one."""
    init = typed(InitConfig, config.get("init", {}))
    if init.thaw_epoch is None:
        for name in init.freeze:
            parts_of(module.network, module.task)[name].requires_grad_(False)
    return module


def _raw(windows: int, spec: DataSpec) -> Batch:
    """A batch as a source of this kind hands it over."""
    picks, classes = spec.target is Target.picks, spec.target is Target.event_class
    number = torch.zeros(windows, dtype=torch.int64)
    return Batch(
        wave=torch.zeros(windows, spec.samples, 3),
        valid=torch.ones(windows, spec.samples, dtype=torch.bool),
        live=torch.ones(windows, 3, dtype=torch.bool),
        index=number,
        epoch=number,
        onsets=torch.zeros(windows, 2, dtype=torch.int64) if picks else None,
        phases=torch.zeros(windows, 2, dtype=torch.int64) if picks else None,
        known=torch.ones(windows, 2, dtype=torch.bool) if picks else None,
        label=number if classes else None,
    )


def _loss(module: WaveModule, batch: Batch, precision: str) -> Tensor:
    """What a training step minimises, with its graph."""
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    with nullcontext() if dtype is None else torch.autocast("cpu", dtype):
        output, _ = module._local(batch, evaluating=False)
        return output.loss + output.penalty


def _state(module: WaveModule, config: Mapping[str, Any]) -> int:
    """Bytes of the optimizer's state after a step."""
    factors = lr_factors(module.network, module.task, typed(InitConfig, config.get("init", {})))
    scaled = config["trainer"]["precision"] == "16-mixed"
    optimizer = OPTIMIZERS.build(config["optimizer"], modules=[module.network, module.task], scaled=scaled, factors=factors)
    optimizer.step()
    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(_bytes(value) for value in values if isinstance(value, Tensor))
