"""Writers of checkpoints, killed at random: ``python killed_writers.py FOLDER KILLS SEED``; prints what became of them as JSON.

A process of its own: it loads torch once and forks each writer, which is cheap and safe while it has one thread. A writer renews
``last.ckpt`` as fast as it can, and writes and removes numbered checkpoints between, as the best of a run are; it reports each
step that is saved through a pipe, so that what was promised is known after its death.
"""

import json
import os
import random
import select
import signal
import sys
import time
import warnings
from pathlib import Path

import torch

from utils import checkpoint
from utils.checkpoint_files import LAST, PREDECESSOR, refusal, remove, sweep

LONGEST_S = 0.06
"""A writer lives at most this long after its first report: some renewals."""


def content(step):
    weights = torch.full((100_000,), float(step))
    return {"state_dict": {"w": weights}, "global_step": step, checkpoint.KEY: {"schema": 1, "config": {}, "data_spec": {}}}


def write_forever(folder, step, report):
    while True:
        step += 1
        checkpoint.write(content(step), folder / LAST, folder / PREDECESSOR)
        os.write(report, step.to_bytes(8, "little"))
        if step % 3 == 0:
            checkpoint.write(content(step), folder / f"step_{step}.ckpt")
            remove(folder / f"step_{step - 3}.ckpt")


def kill_one(folder, step, chance):
    """Start a writer after ``step``, kill it; returns the last step that it reported as saved."""
    receive, report = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        write_forever(folder, step, report)
    os.close(report)
    assert select.select([receive], [], [], 30)[0], "the writer wrote nothing in 30 s"
    time.sleep(chance.uniform(0, LONGEST_S))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(receive, "rb") as reported:
        return int.from_bytes(reported.read()[-8:], "little")


def main(folder, kills, seed):
    chance, step, lost, within, had = random.Random(seed), 0, [], 0, 0
    for _ in range(kills):
        promised = kill_one(folder, step, chance)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # after a kill nothing may be refused, so there is nothing to warn of
            found = checkpoint.read_raw(folder)
        step = int(found["global_step"])
        both = {checkpoint.read_raw(file)["global_step"] for file in (folder / LAST, folder / PREDECESSOR) if file.is_file()}
        whole = all(refusal(file) is None for file in folder.glob("*.ckpt"))
        right = bool(found["state_dict"]["w"].eq(step).all())
        if step < promised or not whole or not right or len(both) < had:
            lost.append((promised, step, sorted(both)))
        had = len(both)
        within += sweep(folder) > 0
    names = sorted(file.name for file in folder.iterdir())
    return {"kills": kills, "lost": lost, "within_a_write": within, "steps": step, "files": names}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
