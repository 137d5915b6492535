"""Checkpoints: found, read by the safe loader only, loaded strictly."""

import os

import pytest
import torch

from utils import checkpoint
from utils.errors import CheckpointError


def write(path, **extra):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"state_dict": {"network.encoder.weight": torch.ones(2, 3)}, "global_step": 7}
    content[checkpoint.KEY] = checkpoint.record({"seed": 1, "model": {"pool": [4, 4]}}, {"channels": 3})
    torch.save({**content, **extra}, path)
    return path


def test_a_folder_means_its_newest(tmp_path):
    old, new = write(tmp_path / "b" / "z.ckpt"), write(tmp_path / "a" / "y.ckpt")
    os.utime(old, (1, 1))
    assert checkpoint.find(tmp_path) == new
    found = checkpoint.read(tmp_path)
    assert (found.step, found.config["model"]) == (7, {"pool": [4, 4]})
    assert list(found.weights("network.encoder")) == ["weight"]
    assert found.weights("network.enc") == {}


class Malicious:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (self.canary,))


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path):
    canary = tmp_path / "ran"
    path = write(tmp_path / "bad.ckpt", extra=Malicious(str(canary)))
    with pytest.raises(CheckpointError, match="safe loader"):
        checkpoint.read(path)
    assert not canary.exists()


@pytest.mark.parametrize("keep", [0, 10, 500, -20])
def test_truncated_files_are_told(tmp_path, keep):
    path = write(tmp_path / "cut.ckpt")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"cut\.ckpt"):
        checkpoint.read(path)


def test_missing_foreign_and_other_schemas_are_told(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoint.read(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match=r"holds no \*\.ckpt"):
        checkpoint.read(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="no record of a WaveXLSTM run"):
        checkpoint.read(tmp_path / "foreign.ckpt")
    (tmp_path / "text.ckpt").write_text("hello world")
    with pytest.raises(CheckpointError, match=r"text\.ckpt"):
        checkpoint.read(tmp_path / "text.ckpt")
    with pytest.raises(CheckpointError, match="no record of a WaveXLSTM run"):
        checkpoint.read(write(tmp_path / "other.ckpt", **{checkpoint.KEY: "a string"}))
    record = {**checkpoint.record({}, {}), "schema": 99}
    with pytest.raises(CheckpointError, match="schema 99"):
        checkpoint.read(write(tmp_path / "future.ckpt", **{checkpoint.KEY: record}))


def test_weights_load_strictly_or_not_at_all():
    module = torch.nn.Linear(3, 2)
    before = module.weight.clone()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_part(module, {"weight": torch.ones(2, 4), "bais": torch.ones(2)}, what="encoder from x.ckpt")
    assert "encoder from x.ckpt" in str(caught.value)
    assert "1 missing: bias; 1 unexpected: bais; 1 of another shape: weight (2, 4) for (2, 3)" in str(caught.value)
    assert torch.equal(module.weight, before)
    checkpoint.load_part(module, {"weight": torch.ones(2, 3), "bias": torch.ones(2)}, what="encoder")
    assert module.weight.eq(1).all()
