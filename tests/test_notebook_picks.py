"""The notebook on continuous records runs from beginning to end, with a picker that was never trained."""

from pathlib import Path

import nbclient
import nbformat
import pytest
import torch
from composing import composed

from dataloaders.batch import PICK_CLASSES, DataSpec, Target
from tasks import build
from utils import checkpoint

ROOT = Path(__file__).resolve().parent.parent


# ipykernel's own, about this machine's way to talk to a kernel; and of asynchronous clients that end with it
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
def test_picking_a_continuous_record(tmp_path, monkeypatch):
    torch.manual_seed(0)
    config = composed("experiment=quickstart_finetune")
    module = build.build_module(config, DataSpec(samples=2048, target=Target.picks, classes=PICK_CLASSES)).eval()
    torch.save(
        {"state_dict": module.state_dict(), checkpoint.KEY: checkpoint.record(config, module.spec)}, tmp_path / "last.ckpt"
    )
    monkeypatch.setenv("WAVEXLSTM_CHECKPOINT", str(tmp_path))
    monkeypatch.delenv("WAVEXLSTM_REAL_DATA", raising=False)
    notebook = nbformat.read(ROOT / "notebooks" / "pick_a_continuous_record.ipynb", 4)
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "windows of 20.48 s, components ZNE" in said
    assert "SY.NTH..WaveXLSTMPicker_S" in said
    assert "onsets found" in said
    assert [output for output in outputs if "image/png" in output.get("data", {})]
