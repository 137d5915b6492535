"""Trainings killed at random and resumed: ``python tests/killed_runs.py KILLS SEED``, in the folder it is to write to.

A process of its own: it loads torch and Lightning once and forks each turn of a training, which is cheap and safe while it has
one thread. A turn is the whole of ``train.train``, as SLURM starts it again after a kill: it goes on from the newest checkpoint
in its run folder, if there is one. Each is killed at a moment drawn evenly from the time an undisturbed training takes, from its
start on. Another is killed three times between a checkpoint and the validation that is due at its step, a third one where the
best checkpoint is written that takes another's place, and that one not yet removed. Prints what became of them as JSON.
"""

import json
import os
import random
import signal
import sys
import time
import warnings
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402 - after the path
from composing import composed  # noqa: E402

import tasks.build  # noqa: E402 - loaded before the turns are forked
import tasks.pictures  # noqa: E402, F401
import utils.runlog  # noqa: E402, F401
from train import train  # noqa: E402
from utils.checkpoint import read_raw  # noqa: E402
from utils.checkpoint_io import WholeCheckpoints  # noqa: E402
from utils.keep import LastCheckpoint  # noqa: E402
from utils.metrics_file import read  # noqa: E402

WORDS = [
    "experiment=contrastive/small",
    "dataset.samples=64",
    "dataset.trace_samples=2000",
    "dataset.traces=24",
    "dataset.traces_dev=4",
    "encoder.width=16",
    "model.d_model=8",
    "model.pool=[2]",
    "model.dropout=0.1",
    "model.mlstm_num_heads=2",
    "quantizer.codes=16",
    "loss.count=5",
    "loader.batch_size=2",
    "trainer.accelerator=cpu",
    "trainer.accumulate_grad_batches=2",
    "trainer.val_check_interval=4",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "trainer.enable_progress_bar=false",
    "checkpoint.every_n_train_steps=3",
    "checkpoint.save_top_k=1",
    "pictures.enabled=false",
    "logger.tensorboard=false",
    "guard.requeue=true",
]
"""Twelve batches an epoch, two a step, validation within the epoch and at its end, dropout and Gumbel noise. The validation of
step 4 is better than that of step 2."""
CURVES = ("train/loss", "val/loss", "learning_rate")


def fall_at(step):
    """Have this process kill itself where the validation of a step starts, its checkpoint being written."""

    def fall(callback, trainer, module):
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    LastCheckpoint.on_validation_start = fall


def fall_between_two_bests():
    """Have this process kill itself before it removes a best checkpoint."""
    WholeCheckpoints.remove_checkpoint = lambda plugin, path: os.kill(os.getpid(), signal.SIGKILL)


def turn(name, workers, fault=None):
    """Fork a turn of a training, which may be prepared to kill itself; its process id."""
    child = os.fork()
    if child:
        return child
    quiet = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    words = [*WORDS, f"loader.num_workers={workers}", f"run_id={name}"]
    code = 1
    try:
        if fault:
            fault()
        with warnings.catch_warnings():
            train(composed(*words), words)
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)


def ended(child, within):
    """Exit code of a turn; None where it had to be killed after so many seconds."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def result(name):
    """All that a training leaves: weights, optimizer, generators, position; its curves, a value by step each; its checkpoints."""
    folder = Path("runs/contrastive/small") / name
    curves = read(folder / "metrics.csv")
    values = {column: dict(zip(*curves[column], strict=True)) for column in CURVES}
    return read_raw(folder / "checkpoints"), values, {file.name for file in (folder / "checkpoints").glob("*.ckpt")}


def bests(name):
    """Steps of the best checkpoints in a training's folder."""
    return {file.name.split("-")[0] for file in (Path("runs/contrastive/small") / name / "checkpoints").glob("step_*.ckpt")}


def differences(one, other, path=""):
    """Names of leaves in which two checkpoints differ, bit for bit."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [path]
        return [name for key in one for name in differences(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, (list, tuple)):
        return [name for at, pair in enumerate(zip(one, other, strict=True)) for name in differences(*pair, f"{path}/{at}")]
    return [] if one == other else [path]


COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "generators", "global_step", "WaveData")


def different(one, other):
    """In what two trainings differ: the newest checkpoint in anything, a validation, a curve in a value that both have, files."""
    (saved, curves, files), (theirs, others, kept) = one, other
    found = [name for key in COMPARED for name in differences(saved[key], theirs[key], key)]
    found += [*(files ^ kept), *(["val/loss"] if curves["val/loss"] != others["val/loss"] else [])]
    return found + [column for column in CURVES if any(curves[column].get(at) != value for at, value in others[column].items())]


def lost(one, other):
    """Lines of one's training that the other has not: a kill between a checkpoint and the line of its step costs one."""
    return len(one[1][CURVES[0]]) - len(other[1][CURVES[0]])


def main(kills, seed):
    chance, done, trainings, wrong, rows = random.Random(seed), 0, 0, [], 0
    whole, took = {}, {}
    for workers in (0, 1):
        began = time.monotonic()
        code = ended(turn(f"whole_{workers}", workers), 300)
        assert code == 0, Path("log.txt").read_text()[-3000:]
        whole[workers], took[workers] = result(f"whole_{workers}"), time.monotonic() - began
    for step in (6, 12, 18):
        assert ended(turn("due", 0, partial(fall_at, step)), 300) == -signal.SIGKILL, step
    assert ended(turn("two", 0, fall_between_two_bests), 300) == -signal.SIGKILL
    assert bests("two") == {"step_000002", "step_000004"}, bests("two")
    faults = {}
    for name in ("due", "two"):
        code = ended(turn(name, 0), 300)
        faults[name] = ["failed"] if code else different(whole[0], result(name))
    faults["due"] += ["a line"] * lost(whole[0], result("due"))
    while done < kills:
        name, workers, code = f"killed_{trainings}", trainings % 2, None
        while code is None:
            # the last turn of the last training is left in peace
            code = ended(turn(name, workers), chance.uniform(0, took[workers]) if done < kills else 300)
            done += code is None
        if code or (found := different(whole[workers], result(name))):
            wrong.append((name, code, [] if code else found))
        else:
            rows += lost(whole[workers], result(name))
        trainings += 1
    times = [round(took[workers], 2) for workers in took]
    return {"kills": done, "trainings": trainings, "wrong": wrong, "rows_lost": rows, **faults, "seconds": times}


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
