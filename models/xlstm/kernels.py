"""Which code computes the mLSTM: the names, what speaks against one, the choice, and one line that says what was chosen and why.

Three moments. A config is refused for what no machine could do (:func:`mistakes`). A run asks, before data is touched, whether
what it names can work where it will run (:func:`settle`), which probes code that is compiled in a child process. Blocks then
take their cell (:func:`kernel`); a network that is built outside of a run, say for evaluation, is not probed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from models.xlstm import peers
from models.xlstm.mlstm import QUADRATIC_UP_TO, Form, mlstm
from models.xlstm.probe import Case, verdict
from models.xlstm.triton.available import interpreted, why_not
from utils.errors import ConfigError, did_you_mean

AUTO = "triton"
"""What ``auto`` wants on a CUDA device: taken where the probe passes, and native code with the reason where it does not."""

Cell = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""q, k, v ``B H T D`` and gate pre-activations i, f ``B H T`` to h ``B H T D``."""


def nowhere(x: Tensor) -> bool:
    """See :attr:`Kernel.whole`."""
    return False


@dataclass(frozen=True)
class Kernel:
    """A backend, ready to be called.

    Attributes:
        name: what was asked for.
        cell: computes a sequence.
        chosen: one line: what runs, and why.
        native: it is ours in PyTorch, of which there is a form that goes from a state to a state.
        whole: whether blocks of tokens like these are computed by our Triton kernels from one projection to the other, where
            their sizes allow (:func:`available.takes_whole_blocks`).
    """

    name: str
    cell: Cell
    chosen: str
    native: bool
    whole: Callable[[Tensor], bool] = nowhere


@dataclass(frozen=True)
class Choice:
    """What a run settled on.

    Attributes:
        backend: ``native``, ``triton`` or another name.
        why: in words.
    """

    backend: str
    why: str

    @property
    def line(self) -> str:
        """``native: no CUDA device``."""
        return f"{self.backend}: {self.why}"


Maker = Callable[[int, float | None, float], Kernel]
"""(chunk, soft_cap, eps) to a kernel; raises ConfigError where it cannot work on this machine."""
Verdict = Callable[[str, Case], str | None]
"""(name, case) to what is wrong with a backend that compiles code; None where it works. See :func:`probe.verdict`."""

UNSETTLED = Choice("native", "runs everywhere")
_settled: dict[str, Choice] = {}
"""What the last run of this process settled on, by the name it asked for."""


def _native(name: str, form: Form, why: str) -> Maker:
    def make(chunk: int, soft_cap: float | None, eps: float) -> Kernel:
        cell = partial(mlstm, form=form, chunk=chunk, soft_cap=soft_cap, eps=eps)
        return Kernel(name, cell, f"{name}: {why.format(chunk=chunk, short=QUADRATIC_UP_TO)}", native=True)

    return make


def _triton(chunk: int, soft_cap: float | None, eps: float) -> Kernel:
    reason = why_not()
    if reason is not None:
        raise ConfigError([f"kernels = 'triton': {reason}"])
    from models.xlstm.triton.op import mlstm_triton  # only where there is Triton

    cell = partial(mlstm_triton, soft_cap=soft_cap, eps=eps)
    chosen = "triton: our Triton kernels, as asked; chunks of up to 64"
    return Kernel("triton", cell, chosen, native=False, whole=lambda x: x.is_cuda or interpreted())


def _auto(chunk: int, soft_cap: float | None, eps: float) -> Kernel:
    """What was settled on; on a CPU always native, whatever a GPU beside it can do."""
    choice = _settled.get("auto", UNSETTLED)
    native = partial(mlstm, chunk=chunk, soft_cap=soft_cap, eps=eps)
    if choice.backend == "native":
        return Kernel("auto", native, choice.line, native=True)
    fast = KERNELS[choice.backend](chunk, soft_cap, eps)

    def by_device(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
        return (fast.cell if q.is_cuda else native)(q, k, v, i, f)

    return Kernel("auto", by_device, choice.line, native=False, whole=lambda x: x.is_cuda and fast.whole(x))


KERNELS: dict[str, Maker] = {
    "auto": _auto,
    "native": _native(
        "native", Form.auto, "as asked; quadratic up to {short} tokens, chunks of {chunk} beyond (narrow heads: shorter)"
    ),
    "parallel": _native("parallel", Form.quadratic, "native quadratic form at every length, as asked; cost grows with T²"),
    "chunkwise": _native("chunkwise", Form.chunkwise, "native chunkwise form, chunks of {chunk}, as asked"),
    "triton": _triton,
    "recurrent": _native("recurrent", Form.recurrent, "native recurrence token by token, as asked; slow, for checking"),
}
"""Our backends by the name a person types; those of ``mlstm_kernels`` are in :mod:`peers`."""


def mistakes(name: str, widths: Sequence[int], chunk: int) -> list[str]:
    """What no machine could do: an unknown name, sizes a backend cannot take. One text each, or none.

    Args:
        name: as typed.
        widths: of the heads of all mLSTM blocks.
        chunk: longest chunk.
    """
    if name in KERNELS:
        return []
    peer = peers.named(name)
    if peer is None:
        known = f"{', '.join(KERNELS)}, {peers.PREFIX}<name> with {', '.join(peers.PEERS)}"
        return [f"kernels = '{name}': no such backend.{did_you_mean(name, [*KERNELS, *peers.PEERS])} Known: {known}"]
    return [f"kernels = '{name}': {text}" for text in peers.cannot(peer, widths, chunk)]


def kernel(name: str, *, chunk: int, soft_cap: float | None, eps: float) -> Kernel:
    """The backend called ``name``, not probed.

    Raises:
        ConfigError: no such backend, or what it needs is not on this machine.
    """
    if name in KERNELS:
        return KERNELS[name](chunk, soft_cap, eps)
    wrong = mistakes(name, (), chunk)
    peer = peers.named(name)
    reason = None if peer is None else peers.why_not(peer)
    if peer is None or wrong or reason:
        raise ConfigError(wrong or [f"kernels = '{name}': {reason}"])
    return Kernel(name, peers.cell(peer, chunk, soft_cap, eps), f"{name}: {peers.line(peer)}", native=False)


def cell(name: str, chunk: int, soft_cap: float | None, eps: float) -> Cell:
    """The cell alone: what a probe calls in its child process."""
    return kernel(name, chunk=chunk, soft_cap=soft_cap, eps=eps).cell


def settle(name: str, case: Case, ask: Verdict = verdict) -> Choice:
    """Find out what computes the mLSTM of a run. Blocks built later in this process go by it.

    Args:
        name: of a backend, as typed.
        case: sizes, device and dtype of the run.
        ask: probes a backend that compiles code.

    Raises:
        ConfigError: a backend was named that cannot work in this run.
    """
    if name == "auto":
        choice = _preferred(case, ask)
    else:
        reason = obstacle(name, case, ask)
        if reason is not None:
            raise ConfigError([f"kernels = '{name}': {reason}"])
        choice = Choice(name, "as asked")
    _settled[name] = choice
    return choice


def _preferred(case: Case, ask: Verdict) -> Choice:
    if case.device != "cuda":
        return Choice("native", f"the run is on device '{case.device}'" if torch.cuda.is_available() else "no CUDA device")
    reason = obstacle(AUTO, case, ask)
    return Choice(AUTO, "the probe passed") if reason is None else Choice("native", f"{AUTO} cannot be used: {reason}")


def obstacle(name: str, case: Case, ask: Verdict = verdict) -> str | None:
    """Why a known backend other than ``auto`` cannot compute the mLSTM of a run; None where it can."""
    peer = peers.named(name)
    if name != "triton" and peer is None:
        return None
    reason = why_not() if peer is None else peers.why_not(peer)
    compiles = peer is None or peer.compiles
    if reason is None and compiles and case.device != "cuda" and not interpreted():
        reason = f"the run is on device '{case.device}' and these kernels need CUDA: trainer.accelerator, or kernels=native"
    if reason is not None or not compiles:
        return reason
    found = ask(name, case)
    if found is None:
        return None
    return f"{found}; {peers.remedy(found) if peer is not None else 'kernels=native runs everywhere'}"
