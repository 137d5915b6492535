"""Loader workers outlive SIGTERM, but not their run."""

import subprocess
import sys

PROGRAM = """
import os, signal
from torch.utils.data import DataLoader
from utils.workers import outlive_signals
loader = DataLoader(range(8), batch_size=2, num_workers=1, persistent_workers=True, worker_init_fn=outlive_signals)
batches = iter(loader)
next(batches)
os.kill(batches._workers[0].pid, signal.SIGTERM)
print(len(list(batches)))
"""


def test_a_worker_goes_on_after_sigterm_and_ends_with_its_run():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "3"
