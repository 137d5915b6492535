"""SLURM as far as a run needs it: what its environment says, and two questions to ``scontrol``."""

import os
import re
import subprocess
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from utils.errors import ConfigError

PATIENCE_S = 60
"""Seconds that scontrol may take; a busy controller answers late."""


def run_id(now: datetime) -> str:
    """Name of a run that has none: the SLURM job, which restarts keep, or the time of start.

    Runs that share a job have names of their own: a second ``srun`` adds its step, and what is typed into an interactive
    allocation is named by the time.
    """
    if tasked():
        job, step = os.environ["SLURM_JOB_ID"], os.environ["SLURM_STEP_ID"]
        return job if step == "0" else f"{job}.{step}"
    batch = allocated() and os.environ.get("ENVIRONMENT") == "BATCH"
    return os.environ["SLURM_JOB_ID"] if batch else now.strftime("%Y-%m-%d_%H-%M-%S")


def allocated() -> bool:
    """Whether this process runs in a SLURM job."""
    return "SLURM_JOB_ID" in os.environ


def tasked() -> bool:
    """Whether ``srun`` started this process as a task, alone or beside others; not so what is typed into a shell it started."""
    typed = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return not typed and {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID"} <= set(os.environ)


def restarts() -> int:
    """How often SLURM has started this job again; 0 in its first turn."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def demand_tasks(settings: Mapping[str, Any]) -> None:
    """That as many ranks train as ``srun`` started processes: others would be runs of their own in the same folder.

    Args:
        settings: section ``trainer``.

    Raises:
        ConfigError: they are not as many.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) if tasked() else 1
    devices = settings["devices"]
    number = len(devices) if isinstance(devices, list) else devices
    if tasks > 1 and number != "auto" and number * settings["num_nodes"] != tasks:
        raise ConfigError(
            [
                f"trainer.devices = {devices} on trainer.num_nodes = {settings['num_nodes']}: srun started {tasks} processes. "
                "Add cluster=slurm, and --ntasks-per-node as many as GPUs on a node, as scripts/train.sbatch does"
            ]
        )


def requeue() -> str:
    """Ask for another turn of this job, which ends it.

    Returns:
        why not; empty where SLURM agreed.
    """
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return _scontrol("requeue", f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"])[1]


def preempted() -> bool:
    """Whether a job that was told to end is being preempted: then SLURM itself requeues it, when its grace is over.

    Cancelled jobs, and those beyond their time limit, are no longer running in SLURM's eyes.
    """
    said, _ = _scontrol("show", "job", os.environ["SLURM_JOB_ID"])
    found = dict(re.findall(r"\b(JobState|PreemptTime)=(\S+)", said))
    return found.get("JobState") == "RUNNING" and found.get("PreemptTime", "None") != "None"


def show(job: str) -> str | None:
    """What the controller says of a job or an array, a line a job: nothing where it has forgotten it; None where it is busy."""
    said, complaint = _scontrol("--oneliner", "show", "job", job)
    return None if complaint and "Invalid job id" not in complaint else said


def _scontrol(*words: str) -> tuple[str, str]:
    """What it said, and its complaint: empty where all went well."""
    try:
        done = subprocess.run(["scontrol", *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"scontrol {' '.join(words)}: {error}"
    complaint = done.stderr.strip() or f"scontrol {' '.join(words)} failed with {done.returncode}"
    return done.stdout, complaint if done.returncode else ""
