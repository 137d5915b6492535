"""A run whose checkpoints the disk cannot hold is refused before it starts."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from utils import room, runlog
from utils.errors import CheckpointError


def test_sizes_are_what_files_take(make: Callable[..., Any], place: Path) -> None:
    run = make(max_epochs=1)
    run.config["optimizer"] = {"_name_": "adamw", "lr": 0.01}
    run.config["pictures"]["enabled"] = False
    runlog.trainer(run.config, run.module).fit(run.module, run.data)
    taken = (place / "checkpoints" / "last.ckpt").stat().st_size
    assert taken <= room.size(run.module) <= taken + room.REST


def test_too_little_room_is_told_before_the_run(make: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=1_000_000))
    monkeypatch.setattr(room, "shutil", usage)
    run = make()
    with pytest.raises(CheckpointError, match=r"up to 5 of 0\.\d MB .* takes 2 MB, and 1 MB are free.*checkpoint\.save_top_k"):
        runlog.trainer(run.config, run.module).fit(run.module, run.data)
    assert not (place / "checkpoints").exists()
