"""What a rank holds of its own of the metadata of several packed sets, whose columns are joined and so no longer mapped."""

import tracemalloc
from typing import Any

import pytest

from benchmarks.data_memory import SOURCES, simulate
from dataloaders.contracts import Split
from dataloaders.sources import phase_pick

BOUND = 0.5e9 / 5e6
"""Bytes a trace: five million traces in half a gigabyte a rank."""
TRACES = 400_000


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("packed")
    return [str(simulate(root / name, TRACES // 2)) for name in ("one", "other")]


@pytest.mark.parametrize(("kind", "stays", "most"), [("contrastive", 55, 80), ("picking", 70, 95)])
def test_joined_sets_stay_below_the_bound(
    sets: list[str], monkeypatch: pytest.MonkeyPatch, kind: str, stays: float, most: float
) -> None:
    monkeypatch.setattr(phase_pick, "AT_ONCE", phase_pick.AT_ONCE * TRACES // 5_000_000)  # the share it has of five million
    source: Any
    source, config = SOURCES[kind]
    tracemalloc.start()
    try:
        opened = source(config(dataset_name=sets), seed=0)
        parts = [opened.part(split) for split in (Split.train, Split.dev)]
        held, peak = (size / TRACES for size in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert sum(map(len, parts)) > TRACES / 2
    assert held < stays < BOUND
    assert peak < most < BOUND
