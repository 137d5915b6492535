"""litdata as a peer of ``benchmarks/data_cpu.py``: traces as they are in its chunks, read one by one, cut by whoever reads.

Not a dependency: ``pip install litdata`` beside the project, and the benchmark measures it as well.
"""

import os
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataloaders.contracts import Split
from dataloaders.sources.seisbench import SeisBench, SeisBenchConfig

CHUNK = "64MB"
"""What litdata's documentation takes."""


def installed() -> bool:
    """Whether litdata is there."""
    return find_spec("litdata") is not None


@cache
def _reader(folder: str) -> Any:
    return SeisBench(SeisBenchConfig(dataset_name=[folder]), seed=0).part(Split.test).reader


def _trace(folder: str, length: int, number: int) -> dict[str, Any]:
    """One trace, ``3 L`` float32, as litdata's writer asks for it."""
    wave = _reader(folder).read(np.array([number]), np.zeros(1, np.int64), np.array([length]), length)[0]
    return {"index": number, "wave": np.ascontiguousarray(wave[0].T)}


class Litdata:
    """litdata over a copy of a set in its own format.

    Args:
        original: the set.
        folder: of the copy, which is made here.
        traces, length: how many, and samples of each.
        start, samples: of the crop.
        batch: of a loader.
    """

    def __init__(self, original: Path, folder: Path, *, traces: int, length: int, start: int, samples: int, batch: int) -> None:
        os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(folder.parent / "litdata-cache")
        import litdata

        made = partial(_trace, str(original), length)
        litdata.optimize(made, list(range(traces)), str(folder), chunk_bytes=CHUNK, num_workers=1, verbose=False)
        self.folder, self.batch = folder, batch
        self.crop = slice(start, start + samples)
        self.dataset = litdata.StreamingDataset(str(folder), shuffle=True, transform=self._cut)

    def _cut(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {"index": sample["index"], "wave": sample["wave"][:, self.crop]}

    def window(self, traces: np.ndarray) -> dict[str, Any]:
        """A batch of crops."""
        return torch.utils.data.default_collate([self.dataset[int(trace)] for trace in traces])

    def read(self, traces: np.ndarray) -> np.ndarray:
        """Crops ``B L 3``, as our reader gives them."""
        return np.stack([self.dataset[int(trace)]["wave"].T for trace in traces])

    def loader(self, workers: int) -> Any:
        """Of shuffled epochs."""
        import litdata

        kept = workers > 0
        return litdata.StreamingDataLoader(
            self.dataset, batch_size=self.batch, num_workers=workers, drop_last=True, persistent_workers=kept
        )
