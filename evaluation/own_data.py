"""Simulated data as a SeisBench set, so that there is one way to evaluate: written once, kept, and named synthetic."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import numpy as np

from dataloaders.contracts import Split
from dataloaders.simulator import Simulator, SimulatorConfig
from dataloaders.sources.synthetic import FIRST_NUMBER
from dataloaders.synthesise import write_set

NAME = "synthetic"


def cache() -> Path:
    """Where simulated sets are kept: ``XDG_CACHE_HOME``, else ``~/.cache``; below it ``wavexlstm/``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wavexlstm"


def simulated_set(settings: SimulatorConfig, seed: int, traces: int, advance: Callable[[int], None]) -> Path:
    """A simulated set of these settings, from the cache or written now.

    Its dev and test traces are the first of those of ``dataset=synthetic`` with the same ``simulation_seed``.

    Args:
        settings: of the simulator.
        seed: of the simulation.
        traces: of all splits: 60 % train, 10 % dev, 30 % test.
        advance: called with the number of traces written since the last call.

    Raises:
        DataError: it cannot be written.
    """
    # a set that an earlier version of the simulator wrote is another one: a trace of its test split tells them apart
    probe = Simulator(settings, seed)(np.array([FIRST_NUMBER[Split.test]])).wave
    words = json.dumps({**asdict(settings), "seed": seed, "traces": traces}, sort_keys=True, default=str)
    digest = blake2b(words.encode() + np.ascontiguousarray(probe).tobytes(), digest_size=6).hexdigest()
    folder = cache() / digest / NAME
    if not all((folder / name).is_file() for name in ("metadata.csv", "waveforms.hdf5")):
        write_set(folder, traces, seed=seed, overwrite=True, settings=settings, advance=advance)
    return folder
