"""Try a backend that compiles code before a run relies on it: once, on a tiny problem, in a child process.

A compiler that aborts, a launch that never ends, numbers that are wrong, writes beyond a buffer: each ends the child, never the
run. The child is :mod:`probe_child`. Results are kept in this process's environment, by machine, so that a probe is not repeated
by later builds in this process, nor by the ranks that Lightning starts from it. Ranks that a scheduler starts (SLURM, torchrun)
probe each for itself: there is no process group yet, and their machines may differ.
"""

import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from utils.checkpoint import versions

ENVIRONMENT = "WAVEXLSTM_PROBED"
"""Variable that holds what is known: JSON of key to reason, the empty string for a backend that works."""
SOURCE = "models.xlstm.kernels:cell"
"""``module:function`` of (name, chunk, soft_cap, eps) to an mLSTM cell."""
SLSTM = "models.xlstm.slstm_kernels:slstm_cell"
"""The same of (name, width) to an sLSTM cell."""
BLOCK = "models.xlstm.block:examples"
"""The same of (name, width of its heads) to a block, and one to compare it with."""
TIMEOUT = 600.0
"""Seconds. Some fifteen kernels a head width are compiled, tens of seconds on a busy machine; one that hangs never ends."""


@dataclass(frozen=True)
class Case:
    """What a run would ask of a backend.

    Attributes:
        widths: of the mLSTM's heads, in features.
        chunk: longest chunk, in tokens.
        soft_cap: bound of both gate pre-activations; None for none.
        eps: added to the normaliser.
        device: ``cpu``, ``cuda`` or ``mps``.
        dtype: of q, k, v: ``float32``, ``bfloat16`` or ``float16``.
        slstm: widths of the sLSTM's heads, where the backend computes that as well.
    """

    widths: tuple[int, ...]
    chunk: int = 64
    soft_cap: float | None = 15.0
    eps: float = 1e-6
    device: str = "cpu"
    dtype: str = "float32"
    slstm: tuple[int, ...] = ()


def verdict(name: str, case: Case, *, source: str = SOURCE, slstm: str = SLSTM, timeout: float = TIMEOUT) -> str | None:
    """What is wrong with a backend, in words; None where it computes this case.

    Args:
        name: of the backend, handed to both sources.
        case: sizes, device and dtype.
        source, slstm: see :data:`SOURCE` and :data:`SLSTM`. Whole blocks are tried with cells of :data:`SOURCE`, which they take.
        timeout: seconds after which the child is ended.
    """
    known: dict[str, str] = json.loads(os.environ.get(ENVIRONMENT, "{}"))
    key = json.dumps([name, source, slstm, *dataclasses.asdict(case).values(), *_machine(case)])
    if key not in known:
        known[key] = _tried(name, case, (source, slstm, BLOCK if source == SOURCE else ""), timeout)
        os.environ[ENVIRONMENT] = json.dumps(known)
    return known[key] or None


def _machine(case: Case) -> list[str]:
    """What an answer holds for, as an environment can travel to another machine."""
    installed = versions()
    gpu = torch.cuda.get_device_name() if case.device == "cuda" else ""
    ways = [os.environ.get(name, "") for name in ("TRITON_INTERPRET", "DISABLE_LLVM_OPT")]
    return [platform.node(), gpu, *ways, *(installed[package] for package in ("torch", "triton", "mlstm_kernels"))]


def _tried(name: str, case: Case, sources: tuple[str, str, str], timeout: float) -> str:
    """Ask a child process; its output goes to files, as a compiler it leaves behind would hold a pipe open for ever."""
    request = {"name": name, "sources": sources, "case": dataclasses.asdict(case)}
    with tempfile.TemporaryDirectory() as folder:
        answer, said = Path(folder) / "answer", Path(folder) / "said"
        with said.open("w") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "models.xlstm.probe_child", json.dumps(request), str(answer)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
                start_new_session=True,
            )
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"its probe did not end within {timeout:g} s"
        finally:  # Ctrl-C included, which a session of its own does not hear
            _end(child)
        if answer.is_file():
            return answer.read_text()
        return f"its probe {_ended(code)}{_last_line(said)}"


def _end(child: "subprocess.Popen[bytes]") -> None:
    """The child where it still runs, with the compilers it started where there are process groups."""
    if child.poll() is not None:
        return
    if os.name == "posix":
        os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()
    child.wait()


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"


def _last_line(said: Path) -> str:
    """What the child complained about, shortened."""
    lines = [line.strip() for line in said.read_text(errors="replace").splitlines() if line.strip()]
    return f" ({lines[-1][:200]})" if lines else ""
