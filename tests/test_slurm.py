"""The whole job on a real SLURM of two nodes: its turn ends, it is cancelled, preempted, a rank is killed.

The cluster is started by ``scripts/slurm_cluster.sh`` from Debian's packages: ``pytest -m slurm tests/test_slurm.py``, as root.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from utils.metrics_file import read

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path("runs/reconstruction/small")
TINY = [
    "experiment=reconstruction/small",
    "dataset.samples=256",
    "dataset.traces=400",
    "dataset.traces_dev=16",
    "encoder.width=16",
    "model.d_model=16",
    "model.pool=[2]",
    "model.dropout=0.1",
    "loader.batch_size=4",
    "loader.num_workers=1",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=-1",
    "trainer.max_steps=120",
    "trainer.val_check_interval=50",
    "trainer.log_every_n_steps=1",
    "pictures.enabled=false",
    "logger.tensorboard=false",
]
PATIENCE_S = 280

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two logical nodes, for all tests here."""
    missing = [tool for tool in ("slurmctld", "slurmd", "srun", "munged") if not shutil.which(tool, path=PATHS)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and Debian's slurmctld, slurmd, slurm-client, munge; missing: {', '.join(missing) or 'root'}")
    folder = tmp_path_factory.mktemp("slurm")
    script = str(ROOT / "scripts" / "slurm_cluster.sh")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SLURM_")]:
            patch.delenv(name)
        patch.setenv("PATH", PATHS)
        subprocess.run([script, "up", str(folder)], check=True, timeout=60)
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("MASTER_ADDR", "127.0.0.1")  # the nodes' names are known to SLURM only
        patch.setenv("WAVEXLSTM_ROOT", str(ROOT))
        patch.setenv("WAVEXLSTM_PYTHON", sys.executable)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
        subprocess.run([script, "down", str(folder)], check=True, timeout=120)


PATHS = f"{os.environ['PATH']}:/usr/sbin:/sbin"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are written into the test's own folder."""
    monkeypatch.chdir(tmp_path)


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def submit(*words: str, nodes: int = 2) -> str:
    """Start a job as a user does; its number."""
    said = ask("sbatch", f"--nodes={nodes}", "--time=30", str(ROOT / "scripts" / "train.sbatch"), *TINY, *words)
    return said.split()[-1]


def field(job: str, name: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", ask("scontrol", "show", "job", job))
    return found[1] if found else ""


def reach(job: str, state: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while field(job, "JobState") != state and time.monotonic() < until:
        time.sleep(0.2)
    log = Path(f"slurm-{job}.out")
    assert field(job, "JobState") == state, log.read_text()[-5000:] if log.exists() else "no log"


def until_step(job: str, step: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if max(read(RUNS / job / "metrics.csv").get("train/loss", ([0], []))[0], default=0) >= step:
            return
        time.sleep(0.1)
    pytest.fail(f"job {job} did not come to step {step}: {Path(f'slurm-{job}.out').read_text()[-5000:]}")


def last(job: str) -> dict:
    return torch.load(RUNS / job / "checkpoints" / "last.ckpt", weights_only=True)


def test_turns_preemptions_and_kills_leave_no_trace_in_the_result() -> None:
    whole = submit()
    reach(whole, "COMPLETED")

    job = submit()
    until_step(job, 20)
    ask("scancel", "--signal=USR1", job)  # as --signal does before the time limit
    until_step(job, 55)
    ask("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")  # SIGTERM, and requeued
    until_step(job, 90)
    ask("scancel", "--signal=KILL", f"{job}.0")  # as where memory ends
    reach(job, "COMPLETED")
    assert field(job, "Restarts") == "3"

    assert [path.name for path in RUNS.iterdir()] in ([whole, job], [job, whole])
    assert last(job)["global_step"] == 120
    for name, value in last(whole)["state_dict"].items():
        assert torch.equal(value, last(job)["state_dict"][name]), name
    curves = [read(RUNS / name / "metrics.csv") for name in (whole, job)]
    for column in ("train/loss", "val/loss"):
        assert curves[0][column] == curves[1][column], column


def test_a_cancelled_job_stays_cancelled_and_keeps_its_checkpoint() -> None:
    job = submit(nodes=1)
    until_step(job, 5)
    ask("scancel", job)
    reach(job, "CANCELLED")
    time.sleep(8)  # longer than a requeued job waits
    assert field(job, "JobState") == "CANCELLED"
    assert field(job, "Restarts") == "0"
    assert last(job)["global_step"] >= 5


def test_a_mistake_is_not_tried_again() -> None:
    job = submit("model.d_modle=3", nodes=1)
    reach(job, "FAILED")
    assert field(job, "Restarts") == "0"
    assert "Did you mean 'd_model'" in Path(f"slurm-{job}.out").read_text()
