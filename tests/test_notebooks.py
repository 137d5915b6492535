"""The notebooks run from beginning to end, on a model that was trained for a moment."""

from pathlib import Path

import nbclient
import nbformat
import pytest
from composing import composed

from train import train

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOMENT = [
    "dataset.samples=2048",
    "dataset.traces=16",
    "dataset.traces_dev=4",
    "loader.batch_size=4",
    "loader.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.num_sanity_val_steps=0",
    "pictures.enabled=false",
    "logger.tensorboard=false",
]


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A run folder of the quickstart, two steps long."""
    monkeypatch.chdir(tmp_path)
    train(composed("experiment=quickstart", *MOMENT, "run_id=moment"), MOMENT)
    return tmp_path / "runs" / "quickstart" / "moment"


# ipykernel's own, about this machine's way to talk to a kernel; and of asynchronous clients that end with it
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
def test_tokens_of_a_pretrained_model(checkpoint, monkeypatch):
    monkeypatch.setenv("WAVEXLSTM_CHECKPOINT", str(checkpoint))
    monkeypatch.setenv("WAVEXLSTM_TRACES", "24")
    notebook = nbformat.read(ROOT / "notebooks" / "tokens_of_a_pretrained_model.ipynb", 4)
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(ROOT)}}).execute()
    said = [output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"]
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    assert "windows with P and S" in "".join(said) and "read off a token" in "".join(said)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
