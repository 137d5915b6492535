"""A sweep as a SLURM array, seen from where it was started: what became of its jobs. Needs the extra ``slurm``."""

import re
import sys
import time
from pathlib import Path
from typing import final

import submitit
from submitit.slurm.slurm import SlurmInfoWatcher

from utils import slurm
from utils.sweep import FAILED, FINISHED, Row, rows_of

PAUSE_S = 5
"""Seconds between two questions to SLURM."""
OVER = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"})
"""States that a job does not leave by itself."""


@final
class Controller(SlurmInfoWatcher):
    """Tells submitit of its jobs what the controller says.

    Its own way asks ``sacct``: where a cluster keeps no accounts it would wait for ever for a job that was killed.
    """

    def _make_command(self) -> list[str] | None:
        arrays = sorted({job.split("_")[0] for job in self._registered - self._finished})
        # one array a call: the controller forgets jobs that ended minutes ago, and then knows nothing of the others either
        return ["sh", "-c", "; ".join(f"scontrol --oneliner show job {array}" for array in arrays)] if arrays else None

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """State by job, ``12_3``, or ``12`` outside of arrays."""
        text = string if isinstance(string, str) else string.decode()
        return {job: {"State": state} for job, state in states(text).items()}


def states(said: str) -> dict[str, str]:
    """The states in what ``scontrol --oneliner show job`` says, by job: ``{"12_0": "RUNNING", …}``."""
    found = {}
    for line in said.splitlines():
        fields = dict(re.findall(r"\b(JobId|ArrayJobId|ArrayTaskId|JobState)=(\S+)", line))
        if "JobState" in fields:
            for name in _names(fields):
                found[name] = fields["JobState"]
    return found


def _names(fields: dict[str, str]) -> list[str]:
    """A pending array is one line for several tasks: ``ArrayTaskId=2-5,7%16``."""
    if "ArrayJobId" not in fields:
        return [fields["JobId"]]
    names = []
    for part in fields.get("ArrayTaskId", "").partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            names += [f"{fields['ArrayJobId']}_{task}" for task in range(int(first), int(last or first) + 1)]
    return names


def watch() -> None:
    """Have submitit ask the controller; before anything is submitted."""
    submitit.SlurmJob.watcher = Controller(delay_s=PAUSE_S)


def told_by_slurm(folder: Path) -> dict[int, Row]:
    """The runs of a sweep with what SLURM says of those that could not say it themselves; waits until all are over.

    Submitit stops waiting at the first run that fails. Ctrl-C ends the waiting, not the jobs.

    Args:
        folder: where submitit keeps its jobs.
    """
    jobs = {file.name.removesuffix("_submitted.pkl"): file for file in folder.glob("*_submitted.pkl")}
    try:
        ended = _wait(list(jobs))
    except KeyboardInterrupt:
        arrays = " ".join(sorted({job.split("_")[0] for job in jobs}))
        sys.stderr.write(f"\nThe jobs go on; to end them:  scancel {arrays}\n")
        ended = {}
    rows = rows_of(folder.parent)
    for job in jobs:
        words, _, number, *_ = submitit.SlurmJob(folder=folder, job_id=job).submission().args
        row = rows.get(number, Row(number, tuple(words), ended.get(job, "unknown").lower()))
        if row.state not in (FINISHED, FAILED):
            row = row._replace(state=ended.get(job, row.state).lower())
        if row.state != FINISHED:
            row = row._replace(why=f"{row.why} Log: {folder / f'{job}_0_log.err'}".strip())
        rows[number] = row
    return rows


def _wait(jobs: list[str]) -> dict[str, str]:
    """The last state of each job, once none is waiting or running any more."""
    watcher = submitit.SlurmJob.watcher
    ended = {job: watcher.get_info(job, mode="cache").get("State", "unknown") for job in jobs}
    while True:
        said = [slurm.show(array) for array in sorted({job.split("_")[0] for job in jobs})]
        now = states("".join(text or "" for text in said))
        ended |= {job: state for job, state in now.items() if job in ended}
        if None not in said and all(now.get(job, "COMPLETED") in OVER for job in jobs):
            return ended
        time.sleep(PAUSE_S)
