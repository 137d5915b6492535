"""What the benchmarks on a GPU share: time by events, CUDA graphs, and arms in processes of their own."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

Work = Callable[[], object]


def milliseconds(work: Sequence[Work], repeats: int, warm: int = 3) -> list[float]:
    """Each repetition by events, the variants of the work in turns, after rounds of all of them to warm up."""
    for _ in range(warm):
        for one in work:
            one()
    times = []
    for j in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work[j % len(work)]()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return times


@contextmanager
def turn(path: str, *, alone: bool) -> Iterator[None]:
    """A stretch of work that all processes which name the same file may do at the same time, or that only one does, ``alone``.

    So arms may be compiled side by side, and be timed while nobody compiles or is timed. "" asks nobody.
    """
    if not path:
        yield
        return
    with open(path, "a") as file:  # noqa: PTH123 - its descriptor is what is locked
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a compiler's process, forked meanwhile, has the descriptor too


def captured(work: Work) -> Work:
    """The work as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def asked(
    module: str, words: Sequence[str], about: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a benchmark says in a process of its own, its last line of JSON: a compiler that aborts takes nothing else with it.

    Args:
        module: of the benchmark.
        words: its command line.
        about: which arm it is; returned with ``died`` (exit code), ``why`` and ``said`` (its last line and its last lines) where
            the process gave no answer.
        environment: variables the process gets besides ours.
    """
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing said"]
    answer = json.loads(lines[-1]) if lines else {**about, "died": done.returncode, "why": said[-1], "said": said[-60:]}
    end = "measured" if lines else f"died ({done.returncode}): {said[-1][:150]}"
    print(f"{' '.join(str(value) for value in about.values())}: {end}", flush=True)
    return answer
