"""Whole jobs on a real SLURM of two nodes: a turn ends, one is cancelled, preempted, killed, loses a node; a sweep is an array.

The cluster is started by ``scripts/slurm_cluster.sh`` from Debian's packages, as root: ``python -m pytest -m slurm
tests/test_slurm.py``, some twelve minutes on two cores; one and a half with ``-m "slurm and not slow"``.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
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
        patch.setenv("PYTHONPATH", str(ROOT))  # as an editable install does
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


def submit(*words: str, nodes: int = 2, slurm: tuple[str, ...] = ("--time=30",)) -> str:
    """Start a job as a user does; its number."""
    said = ask("sbatch", f"--nodes={nodes}", *slurm, str(ROOT / "scripts" / "train.sbatch"), *TINY, *words)
    return said.split()[-1]


def field(job: str, name: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", ask("scontrol", "show", "job", job))
    return found[1] if found else ""


def reach(job: str, state: str, within: float = PATIENCE_S) -> None:
    until = time.monotonic() + within
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


def same_result(whole: str, job: str) -> None:
    """Two jobs ended with the same bits and the same curves."""
    assert last(job)["global_step"] == last(whole)["global_step"]
    for name, value in last(whole)["state_dict"].items():
        assert torch.equal(value, last(job)["state_dict"][name]), name
    curves = [read(RUNS / name / "metrics.csv") for name in (whole, job)]
    for column in ("train/loss", "val/loss"):
        assert curves[0][column] == curves[1][column], column


def test_jobs_that_are_signalled_cancelled_or_mistaken() -> None:
    mistaken = submit("model.d_modle=3", nodes=1)
    cancelled, whole, job = (submit(nodes=1) for _ in range(3))
    until_step(job, 20)
    ask("scancel", "--signal=USR1", job)  # as --signal does before the time limit
    until_step(cancelled, 5)
    ask("scancel", cancelled)
    reach(mistaken, "FAILED")
    assert field(mistaken, "Restarts") == "0"
    assert "Did you mean 'd_model'" in Path(f"slurm-{mistaken}.out").read_text()
    reach(cancelled, "CANCELLED")
    reach(whole, "COMPLETED")
    reach(job, "COMPLETED")
    assert field(job, "Restarts") == "1"
    same_result(whole, job)
    # longer ago than a requeued job waits
    assert (field(cancelled, "JobState"), field(cancelled, "Restarts")) == ("CANCELLED", "0")
    assert last(cancelled)["global_step"] >= 5


@pytest.mark.slow
def test_turns_preemptions_and_kills_leave_no_trace_in_the_result() -> None:
    whole = submit()
    reach(whole, "COMPLETED")

    job = submit()
    until_step(job, 20)
    ask("scancel", "--signal=USR1", job)
    until_step(job, 55)
    ask("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")  # SIGTERM, and requeued
    until_step(job, 90)
    ask("scancel", "--signal=KILL", f"{job}.0")  # as where memory ends
    reach(job, "COMPLETED")
    assert field(job, "Restarts") == "3"

    assert [path.name for path in RUNS.iterdir()] in ([whole, job], [job, whole])
    same_result(whole, job)


@pytest.mark.slow
def test_a_time_limit_ends_a_turn_and_not_the_run() -> None:
    job = submit("trainer.max_steps=3000", "trainer.val_check_interval=1000", nodes=1, slurm=("--time=2", "--signal=USR1@15"))
    reach(job, "COMPLETED", 600)  # SLURM sends the signal up to a minute earlier
    assert int(field(job, "Restarts")) >= 1
    assert last(job)["global_step"] == 3000
    assert "Requeued" in Path(f"slurm-{job}.out").read_text()


@pytest.mark.slow
def test_kills_are_followed_by_so_many_restarts_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVEXLSTM_CRASH_RESTARTS", "1")
    job = submit("checkpoint.every_n_train_steps=5", "trainer.max_steps=4000", nodes=1)
    for step in (20, 100):
        until_step(job, step)
        ask("scancel", "--signal=KILL", f"{job}.0")
    reach(job, "FAILED")
    assert field(job, "Restarts") == "1"
    assert field(job, "ExitCode") == "137:0"
    assert "requeueing, restart 1 of 1" in Path(f"slurm-{job}.out").read_text()
    assert last(job)["global_step"] >= 95


def lose(node: str) -> None:
    """Kill all that runs in the name of a node: SLURM's processes first, so that nobody is left to tell of the others."""
    daemon = int((Path(os.environ["SLURM_CONF"]).parent / f"slurmd.{node}.pid").read_text())
    tasks, steps = [], set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = (place / "environ").read_text(errors="replace")
            parent = Path("/proc") / (place / "stat").read_text().rpartition(")")[2].split()[1]
            if f"SLURMD_NODENAME={node}\0" in environment and f"SLURM_CONF={os.environ['SLURM_CONF']}\0" in environment:
                tasks.append(int(place.name))
                if (parent / "comm").read_text().startswith("slurmstepd"):
                    steps.add(int(parent.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    for process in (daemon, *steps, *tasks):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.mark.slow
def test_a_lost_node_costs_what_is_since_the_last_checkpoint() -> None:
    job = submit("checkpoint.every_n_train_steps=5")
    until_step(job, 30)
    node = field(job, "BatchHost")
    lose(node)
    until = time.monotonic() + PATIENCE_S
    while field(job, "Restarts") != "1" and time.monotonic() < until:
        time.sleep(0.5)
    subprocess.run(["slurmd", "-c", "-N", node, "-f", os.environ["SLURM_CONF"]], check=True, timeout=30)
    reach(job, "COMPLETED")
    assert field(job, "Restarts") == "1"
    whole = submit("checkpoint.every_n_train_steps=5")
    reach(whole, "COMPLETED")
    same_result(whole, job)


@pytest.mark.slow
def test_a_sweep_is_an_array_with_a_table_of_results() -> None:
    words = [*TINY, "trainer.max_steps=20", "trainer.val_check_interval=10", "seed=1,2,-1,3"]
    slurm = ["hydra/launcher=slurm", "cluster=slurm", "hydra.launcher.array_parallelism=3", "hydra.launcher.timeout_min=30"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words, *slurm]
    sweep = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + PATIENCE_S
    array = ""
    while not array and time.monotonic() < until:
        time.sleep(0.2)
        array = ask("squeue", "--noheader", "--states=running", "--format=%F").split("\n")[0].strip()
    ask("scancel", f"{array}_3")  # three run at a time: it is still waiting
    said, _ = sweep.communicate(timeout=PATIENCE_S)
    assert sweep.returncode == 1, said
    assert "Sweep: 2 of 4 runs finished" in said
    (results,) = Path("runs/sweeps").glob("*/results.csv")
    table = pd.read_csv(results)
    assert table["settings"].tolist() == ["seed=1", "seed=2", "seed=-1", "seed=3"]
    assert table["state"].tolist() == ["finished", "finished", "failed", "cancelled"]
    assert "seed = -1: must be 0" in table["why"][2]
    assert table["best"].notna().tolist() == [True, True, False, False]
    for folder, value in zip(table["folder"][:2], table["best"][:2], strict=True):
        assert min(read(Path(folder) / "metrics.csv")["val/loss"][1]) == value
