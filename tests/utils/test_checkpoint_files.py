"""Checkpoint files: whole after every kill, damage, and full disk."""

import errno
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pytest
import torch
from killed_writers import content

from utils import checkpoint, checkpoint_files, runlog
from utils.checkpoint_files import LAST, PREDECESSOR, digest, refusal, sum_file, sums, sweep, write
from utils.checkpoint_io import WholeCheckpoints
from utils.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]


def save(folder, step, name=LAST):
    WholeCheckpoints().save_checkpoint(content(step), folder / name, folder / PREDECESSOR if name == LAST else None)
    return folder / name


def step_of(path):
    return checkpoint.read_raw(path)["global_step"]


@pytest.mark.parametrize(("kills", "seed"), [(20, 1), pytest.param(100, 2, marks=pytest.mark.slow)])
def test_no_kill_loses_a_checkpoint(tmp_path, kills, seed):
    """Every saved step is there after SIGKILL, nothing is refused, and a temporary folder elsewhere stays empty."""
    elsewhere = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path  # another file system, where there is one
    with tempfile.TemporaryDirectory(dir=elsewhere) as temporary:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("killed_writers.py")), str(tmp_path / "run"), str(kills), str(seed)],
            env={**os.environ, "TMPDIR": temporary, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not list(Path(temporary).iterdir())
    told = json.loads(done.stdout)
    assert told["lost"] == []
    assert told["kills"] == kills
    assert told["steps"] >= kills
    assert told["within_a_write"] >= kills // 4, "the kills came between writes: they prove nothing"
    assert not [name for name in told["files"] if name.endswith(".tmp")]


class Killed(BaseException):
    """Not an Exception: nothing may tidy up after it, as after a kill."""


def killed_at(line, action):
    """Whether the action came to its nth line in the module under test, and ended there."""
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if frame.f_code.co_filename != checkpoint_files.__file__:
            return None
        seen += event == "line"
        if event == "line" and seen == line:
            raise Killed
        return trace

    before = sys.gettrace()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a file that was open
        sys.settrace(trace)
        try:
            action()
        except Killed:
            return True
        finally:
            sys.settrace(before)
    return False


def test_a_kill_at_any_line_leaves_two_whole_files(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # thousands of them
    last, before = tmp_path / LAST, tmp_path / PREDECESSOR
    for text in (b"older", b"old"):
        write(last, text, before)
    line, stopped, seen = 0, True, set()
    while stopped:
        line += 1
        old = {last.read_bytes(): "old", before.read_bytes(): "older", b"new %d" % line: "new"}
        stopped = killed_at(line, lambda line=line: write(last, b"new %d" % line, before))
        state = (last.read_bytes(), before.read_bytes())
        seen.add(tuple(old[text] for text in state))
        assert refusal(last) is None, (line, state)
        assert refusal(before) is None, (line, state)
        assert checkpoint.find(tmp_path) == last
        write(last, b"next %d" % line, before)  # the next run goes on, whatever was left
        sweep(tmp_path)
        assert (last.read_bytes(), before.read_bytes()) == (b"next %d" % line, state[0])
        assert sorted(tmp_path.iterdir()) == sorted([last, before, sum_file(last), sum_file(before)])
    assert line > 100
    assert seen == {("old", "older"), ("new", "older"), ("new", "old")}


def test_the_same_for_files_of_earlier_versions_without_sums(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    last, before = tmp_path / LAST, tmp_path / PREDECESSOR
    line, stopped = 0, True
    while stopped:
        line += 1
        for file in tmp_path.iterdir():
            file.unlink()
        last.write_bytes(b"1")
        stopped = killed_at(line, lambda: write(last, b"2", before))
        assert refusal(last) is None
        assert not before.is_file() or (before.read_bytes(), refusal(before)) == (b"1", None)
        assert last.read_bytes() in (b"1", b"2")
    assert (last.read_bytes(), before.read_bytes()) == (b"2", b"1")


def test_a_name_is_given_only_to_what_is_on_the_disk_and_then_the_folder_is(tmp_path, monkeypatch):
    """Against power cuts, which no test can make: content, rename, folder, in this order."""
    done, sync, rename = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_ino), sync(handle)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append((self.stat().st_ino, to.name)), rename(self, to)))
    for step in (b"1", b"2"):
        write(tmp_path / LAST, step, tmp_path / PREDECESSOR)
    renames = [place for place, item in enumerate(done) if isinstance(item, tuple)]
    assert [done[place][1] for place in renames[-6:]] == [
        f"{LAST}.sha256",
        LAST,
        f"{LAST}.sha256",
        f"{PREDECESSOR}.sha256",
        PREDECESSOR,
        f"{PREDECESSOR}.sha256",
    ]
    for place in renames:
        assert done[place][0] in done[:place]
        assert done[place + 1] == tmp_path.stat().st_ino


def test_sums_are_those_of_sha256sum(tmp_path):
    write(tmp_path / "a.ckpt", b"abc")
    assert sum_file(tmp_path / "a.ckpt").read_text() == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a.ckpt\n"  # FIPS 180-2, appendix B.1
    )
    write(tmp_path / "a.ckpt", b"")
    assert sums(tmp_path / "a.ckpt") == (digest(tmp_path / "a.ckpt"),)


def test_where_there_are_no_hard_links_the_predecessor_is_a_copy(tmp_path, monkeypatch):
    def no_links(*names):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    for step in (1, 2):
        save(tmp_path, step)
    assert [step_of(tmp_path / name) for name in (LAST, PREDECESSOR)] == [2, 1]


def test_a_damaged_file_takes_no_predecessors_place(tmp_path):
    for step in (1, 2):
        save(tmp_path, step)
    damage(tmp_path / LAST, 1000)
    save(tmp_path, 3)
    assert [step_of(tmp_path / name) for name in (LAST, PREDECESSOR)] == [3, 1]


def damage(file, bit):
    damaged = bytearray(file.read_bytes())
    damaged[bit // 8] ^= 1 << bit % 8
    file.write_bytes(damaged)


def refused(folder, name=LAST, instead=PREDECESSOR):
    """Named, it is refused and the text says what to use; of its folder, the previous one is used, with a warning."""
    with pytest.raises(CheckpointError, match=rf"{name}: refused, .*{instead} beside it is whole: use that one"):
        checkpoint.read_raw(folder / name)
    with pytest.warns(UserWarning, match=rf"{name}: refused, .*Used instead: .*{instead}"):
        assert step_of(folder) == 1


def test_200_flipped_bits_are_found_and_the_previous_one_is_used(tmp_path):
    for step in (1, 2):
        save(tmp_path, step)
    whole, chance = (tmp_path / LAST).read_bytes(), random.Random(0)
    for _ in range(200):
        damage(tmp_path / LAST, chance.randrange(8 * len(whole)))
        refused(tmp_path)
        (tmp_path / LAST).write_bytes(whole)
    assert step_of(tmp_path) == 2


@pytest.mark.parametrize(
    "cut",
    [slice(0), slice(1), slice(30), slice(200_000), slice(-22), slice(-1)],
    ids=["empty", "byte", "header", "half", "directory", "end"],
)
def test_truncated_files_are_found_and_the_previous_one_is_used(tmp_path, cut):
    for step in (1, 2):
        save(tmp_path, step)
    whole = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(whole[cut])
    refused(tmp_path)
    (tmp_path / LAST).write_bytes(whole + b"\0")
    refused(tmp_path)


def test_several_damaged_ones_are_all_named_and_none_whole_is_an_error(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    save(tmp_path, 3, "step_3.ckpt")
    for name in (LAST, "step_3.ckpt"):
        damage(tmp_path / name, 5000)
    with pytest.warns(UserWarning) as caught:
        assert step_of(tmp_path) == 2
    assert all(f"{name}: refused" in str(caught[0].message) for name in (LAST, "step_3.ckpt"))
    damage(tmp_path / PREDECESSOR, 5000)
    with pytest.raises(CheckpointError, match=r"No other one in .* is whole"):
        checkpoint.find(tmp_path)
    with pytest.raises(CheckpointError, match="No other one beside it is whole"):
        checkpoint.find(tmp_path / LAST)


def test_a_copy_whose_times_are_anew_still_means_the_last(tmp_path):
    for step in (1, 2):
        save(tmp_path, step)
    os.utime(tmp_path / PREDECESSOR, (time.time() + 100, time.time() + 100))
    assert step_of(tmp_path) == 2
    for name in (LAST, f"{LAST}.sha256", f"{PREDECESSOR}.sha256"):
        (tmp_path / name).unlink()
    assert step_of(tmp_path) == 1


def test_removing_and_sweeping_leave_nothing_behind(tmp_path):
    disk = WholeCheckpoints()
    kept = save(tmp_path, 1)
    disk.remove_checkpoint(save(tmp_path, 2, "step_2.ckpt"))
    disk.remove_checkpoint(tmp_path / "never.ckpt")
    for name in (f".{LAST}.tmp", f".{LAST}.sha256.tmp", "gone.ckpt.sha256"):
        (tmp_path / name).write_text("left by a kill")
    assert sweep(tmp_path) == 3
    assert sorted(tmp_path.iterdir()) == [kept, sum_file(kept)]
    assert sweep(tmp_path / "not there") == 0


class Malicious:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


def test_code_in_a_checkpoint_or_beside_it_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary, disk = tmp_path / "ran", WholeCheckpoints()
    disk.save_checkpoint({**content(1), "more": Malicious(canary)}, tmp_path / "bad.ckpt")
    for trust in (True, False, None):
        with pytest.raises(CheckpointError, match="safe loader"):
            disk.load_checkpoint(tmp_path / "bad.ckpt", weights_only=trust)
    save(tmp_path, 1, "good.ckpt")
    torch.save(Malicious(canary), sum_file(tmp_path / "good.ckpt"))
    with pytest.raises(CheckpointError, match=r"good\.ckpt\.sha256 is damaged"):
        checkpoint.read_raw(tmp_path / "good.ckpt")
    assert not canary.exists()
    sum_file(tmp_path / "good.ckpt").unlink()
    assert step_of(tmp_path / "good.ckpt") == 1


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 4 MB, which root may mount."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"no small file system: {error}")
    if mounted.returncode:
        pytest.skip(f"no small file system: {mounted.stderr.decode().strip()}")
    yield place
    os.chdir(ROOT)
    subprocess.run(["umount", str(place)], check=True)


def fill(disk, leave):
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "others").write_bytes(bytes(free - leave))


@pytest.mark.parametrize("checked", [True, False], ids=["told_before", "found_while_writing"])
def test_a_full_disk_leaves_what_was_there(small_disk, monkeypatch, checked):
    if not checked:
        monkeypatch.setattr(checkpoint_files, "_demand_space", lambda folder, size: None)
    for step in (1, 2):
        save(small_disk, step)
    fill(small_disk, leave=300_000)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"errno 28, No space left on device .*0\.3 MB are free.* make room"):
            save(small_disk, 3)
    assert not list(small_disk.glob(".*"))
    assert [step_of(small_disk / name) for name in (LAST, PREDECESSOR)] == [2, 1]
    (small_disk / "others").unlink()
    save(small_disk, 3)
    assert [step_of(small_disk / name) for name in (LAST, PREDECESSOR)] == [3, 2]


def test_an_error_of_the_disk_at_any_moment_leaves_whole_files_only(tmp_path, monkeypatch):
    """The same without a mount: the nth fsync fails as it does on a network file system that is full."""
    sync = os.fsync
    for failing in range(1, 14):
        folder, calls = tmp_path / str(failing), iter(range(1, 100))
        for step in (b"1", b"2"):
            write(folder / LAST, step, folder / PREDECESSOR)

        def fails(handle, failing=failing, calls=calls):
            if next(calls) == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails)
            if failing < 12:
                with pytest.raises(CheckpointError, match="errno 28"):
                    write(folder / LAST, b"3", folder / PREDECESSOR)
            else:
                write(folder / LAST, b"3", folder / PREDECESSOR)
        assert refusal(folder / LAST) is None
        assert refusal(folder / PREDECESSOR) is None
        assert len(list(folder.iterdir())) == 4


def test_a_run_on_a_full_disk_ends_with_the_reason_and_its_last_checkpoint(make, small_disk, monkeypatch):
    monkeypatch.chdir(small_disk)
    run = make(max_epochs=4)
    run.config["pictures"]["enabled"] = False
    write_it, saved = WholeCheckpoints.save_checkpoint, []

    def save_checkpoint(self, contents, path, storage_options=None):
        if len(saved) == 3:
            fill(small_disk, leave=100_000)
        write_it(self, contents, path, storage_options)
        saved.append(Path(path))

    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", save_checkpoint)
    with pytest.raises(CheckpointError, match="errno 28"):
        runlog.trainer(run.config, run.module).fit(run.module, run.data)
    assert len(saved) == 3
    assert all(refusal(file) is None for file in set(saved))
    assert not list(saved[0].parent.glob(".*"))


def test_a_disk_too_small_for_the_checkpoints_to_come_is_told_before_the_first_step(make, small_disk, monkeypatch):
    monkeypatch.chdir(small_disk)
    fill(small_disk, leave=1_200_000)
    run = make()
    with pytest.raises(CheckpointError, match=r"up to 5 of 0\.\d MB .* takes 2 MB, and 1 MB are free.*checkpoint\.save_top_k"):
        runlog.trainer(run.config, run.module).fit(run.module, run.data)
    assert not list(small_disk.rglob("*.ckpt"))


def test_a_run_resumed_from_the_predecessor_ends_as_if_nothing_had_been(make, place):
    """The last checkpoint is damaged: the folder means the one before, and the run's end is bit-identical."""

    def fit(resume=None):
        run = make(max_epochs=3)
        run.config["pictures"]["enabled"] = False
        run.config["checkpoint"]["save_top_k"] = 0
        torch.manual_seed(4)
        trainer = runlog.trainer(run.config, run.module)
        trainer.fit(run.module, run.data, ckpt_path=runlog.resumable(resume), weights_only=True)
        return torch.cat([parameter.detach().flatten() for parameter in run.module.parameters()])

    undisturbed, folder = fit(), place / "checkpoints"
    (folder / f".{LAST}.tmp").write_text("of a killed run")
    damage(folder / LAST, 12345)
    with pytest.warns(UserWarning, match="Used instead"):
        resumed = fit(str(place))
    assert torch.equal(resumed, undisturbed)
    assert [step_of(folder / name) for name in (LAST, PREDECESSOR)] == [18, 12]
    assert len(list(folder.iterdir())) == 4
