"""Fixtures for all rooms."""

import os
from pathlib import Path

import pytest
import torch
from seisbench_sets import Quirk, write_published, write_set

torch.set_num_threads(1)  # tiny tensors: a second thread only waits for the first


@pytest.fixture(scope="session")
def _published_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("seisbench")
    (root / "config.json").write_text('{"dimension_order": "NCW", "component_order": "ZNE"}')
    return write_published(root)


@pytest.fixture
def published_sets(_published_sets: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SeisBench cache with small sets under the eight published names, set as SEISBENCH_CACHE_ROOT for this test."""
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(_published_sets))
    return _published_sets


@pytest.fixture
def small_set(tmp_path: Path) -> Path:
    """The folder of a plain set of twenty traces, to be damaged at will."""
    return write_set(tmp_path / "small", Quirk())


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a reconstruction and a contrastive run of one epoch, by objective."""
    from finetuning import CONTRASTIVE, RECONSTRUCTION, run

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("pretrained"))
        return {"reconstruction": run(*RECONSTRUCTION), "contrastive": run(*CONTRASTIVE)}


@pytest.fixture(scope="session")
def real_set() -> Path:
    """The folder of the regional set of real records; skips where it is not to be found."""
    root = os.environ.get("WAVEXLSTM_REAL_DATA")
    if not root:
        pytest.skip("real seismograms: set WAVEXLSTM_REAL_DATA to the folder that holds regional/")
    folder = Path(root) / "regional"
    if not folder.is_dir():
        pytest.skip(f"real seismograms: WAVEXLSTM_REAL_DATA={root} holds no folder regional/")
    return folder
