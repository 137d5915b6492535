"""Damaged and crafted waveform files, each read in a child process of its own: ``python hdf5_inputs.py FOLDER N``.

Prints one JSON line an input: its name, how its child ended, and what it said. Forking is cheap once torch is imported, and a
child that a file kills takes nobody with it.
"""

import json
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

PATIENCE_S = 5
"""Seconds of a processor after which reading an input counts as hanging."""
OPENING_S = 2
"""The same for opening one, in place of the patience of runs."""
SIGNATURES = (b"\x89HDF", b"TREE", b"HEAP", b"SNOD", b"OHDR", b"OCHK", b"FRHP", b"BTHD", b"BTLF", b"GCOL")
"""Where HDF5 keeps its own structures; sizes and addresses stand behind them."""
NASTY = (b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", (1 << 32).to_bytes(8, "little"), (8).to_bytes(8, "little"))


def mutated(data: bytes, number: int) -> tuple[str, bytes]:
    """A damaged copy of a file: (what was done, bytes); a function of the number.

    Args:
        data: of a sound file.
        number: of the input.
    """
    rng = np.random.default_rng([7, number])
    out, kind = bytearray(data), ("flip", "overwrite", "truncate", "splice", "zero")[number % 5]
    if kind == "truncate":
        return kind, bytes(out[: int(rng.integers(0, len(out)))])
    for _ in range(int(rng.integers(1, 6))):
        place = _place(data, rng)
        if kind == "flip":
            out[place] ^= 1 << int(rng.integers(8))
        elif kind == "overwrite":
            value = NASTY[int(rng.integers(len(NASTY)))][: int(rng.integers(1, 9))]
            out[place : place + len(value)] = value
        elif kind == "splice":
            length, source = int(rng.integers(1, 64)), _place(data, rng)
            out[place : place + length] = data[source : source + length]
        else:
            length = int(rng.integers(1, 512))
            out[place : place + length] = bytes(len(out[place : place + length]))
    return kind, bytes(out)


def _place(data: bytes, rng: np.random.Generator) -> int:
    """Mostly within HDF5's structures: damaged samples are just samples."""
    if rng.random() < 0.15:
        return int(rng.integers(len(data)))
    found = []
    for signature in SIGNATURES:
        at = data.find(signature)
        while at >= 0:
            found.append(at)
            at = data.find(signature, at + 1)
    # object headers of the first version carry no signature: the first bytes of the file hold some of them
    found += [0, 96, 512, 800]
    return min(len(data) - 1, int(rng.choice(found)) + int(rng.integers(0, 200)))


def crafted(path: Path) -> Iterator[str]:
    """Rewrite the waveforms at ``path`` once for each trick of a well-formed file; yields its name when the file is there."""
    whole = path.read_bytes()
    with h5py.File(path) as file:
        block = file["data/bucket0"][()]
    secret = path.parent / "secret.bin"
    secret.write_bytes(block.tobytes())
    fifo = path.parent / "fifo"
    if not fifo.exists():
        os.mkfifo(fifo)

    def vlen(group: h5py.Group) -> None:
        made = group.create_dataset("bucket0", block.shape[:2], dtype=h5py.vlen_dtype(np.float32))
        made[0, 0] = np.ones(3, np.float32)

    def other_file(group: h5py.Group) -> None:
        with h5py.File(path.parent / "other.hdf5", "w") as other:
            other["data/bucket0"] = block
        group["bucket0"] = h5py.ExternalLink("other.hdf5", "/data/bucket0")

    def virtual(group: h5py.Group) -> None:
        layout = h5py.VirtualLayout(block.shape, block.dtype)
        layout[...] = h5py.VirtualSource(str(path.parent / "other.hdf5"), "data/bucket0", block.shape)
        group.create_virtual_dataset("bucket0", layout)

    def cycle(group: h5py.Group) -> None:
        group["bucket0"] = h5py.SoftLink("/data/bucket0")

    tricks = {
        "huge": lambda g: g.create_dataset("bucket0", (20, 3, 1 << 40), "f4", chunks=(1, 1, 1 << 16)),
        "huge rows": lambda g: g.create_dataset("bucket0", (1 << 40, 3, 4096), "f4", chunks=(1, 1, 4096)),
        "bomb": lambda g: g.create_dataset(
            "bucket0", (20, 3, 1 << 24), "f4", chunks=(1, 1, 1 << 24), compression="gzip", fillvalue=1
        ),
        "strings": lambda g: g.create_dataset("bucket0", data=np.full(block.shape, b"x")),
        "complex": lambda g: g.create_dataset("bucket0", data=block.astype(np.complex64)),
        "records": lambda g: g.create_dataset("bucket0", data=block.astype([("a", "f4")])),
        "references": lambda g: g.create_dataset("bucket0", block.shape, dtype=h5py.ref_dtype),
        "lists": vlen,
        "a group": lambda g: g.create_group("bucket0"),
        "four axes": lambda g: g.create_dataset("bucket0", data=block[None]),
        "scalar": lambda g: g.create_dataset("bucket0", data=1.0),
        "empty": lambda g: g.create_dataset("bucket0", data=h5py.Empty("f4")),
        "link to itself": cycle,
        "link to another file": other_file,
        "view of another file": virtual,
        "bytes of another file": lambda g: g.create_dataset(
            "bucket0", block.shape, block.dtype, external=[(str(secret), 0, block.nbytes)]
        ),
        "bytes of a pipe": lambda g: g.create_dataset(
            "bucket0", block.shape, block.dtype, external=[(str(fifo), 0, block.nbytes)]
        ),
    }
    for name, make in tricks.items():
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            del file["data/bucket0"]
            make(file["data"])
        yield f"crafted: {name}"


def read_whole(folder: Path, workers: int, opened: Callable[[], None]) -> dict[str, object]:
    """Read every training trace as a run does: what was skipped, or why the set was refused.

    Args:
        folder: of the set.
        workers: processes that read; 0 reads in this one.
        opened: called when the set is indexed, before its samples are read.
    """
    from dataloaders.contracts import Split
    from dataloaders.datamodule import WaveData
    from dataloaders.sources.seisbench import SeisBench, SeisBenchConfig
    from utils.config import LoaderConfig
    from utils.errors import DataError

    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        try:
            source = SeisBench(SeisBenchConfig(dataset_name=[str(folder)], samples=512, max_damaged_fraction=1.0), seed=0)
            data = WaveData(source, LoaderConfig(batch_size=4, num_workers=workers), seed=0)
            opened()
            for _ in data.train_dataloader():
                pass
        except DataError as error:
            return {"how": "refused", "said": str(error)}
    skipped = len(data.parts[Split.train].reader.damaged)
    return {"how": "skipped" if skipped else "read", "skipped": skipped, "said": " ".join(str(note.message) for note in noted)}


def ended(folder: Path, workers: int = 0) -> dict[str, object]:
    """Read the set in a child of this process; how it ended. A child that was killed says whether the set was open already."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.close(receive)
        resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE_S, PATIENCE_S + 1))
        signal.alarm(12 * PATIENCE_S)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            told = read_whole(folder, workers, lambda: os.write(send, b"opened\n") and None)
        except BaseException:  # noqa: BLE001 - whatever it is, the parent tells it
            told = {"how": "raised", "said": traceback.format_exc()}
        os.write(send, json.dumps(told).encode()[:60_000])
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        *opened, text = pipe.read().split(b"\n")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"how": "killed", "said": signal.Signals(os.WTERMSIG(status)).name, "opened": bool(opened)}
    return json.loads(text)


def main(folder: Path, count: int) -> None:
    """Read ``count`` damaged copies of the set's waveforms, then every crafted one."""
    import dataloaders.datamodule
    import dataloaders.sources.seisbench  # noqa: F401 - so that children need not
    from dataloaders.sets import apart

    apart.PATIENCE_S = OPENING_S
    path = folder / "waveforms.hdf5"
    whole = path.read_bytes()
    for number in range(count):
        kind, data = mutated(whole, number)
        path.write_bytes(data)
        told = ended(folder)
        if told.get("opened"):  # a run reads in workers: what becomes of one whose worker dies so?
            told["run"] = ended(folder, workers=1)
        tell(f"{number}: {kind}", told)
    path.write_bytes(whole)
    for name in crafted(path):
        tell(name, ended(folder))


def tell(name: str, told: dict[str, object]) -> None:
    """One line for the test."""
    sys.stdout.write(json.dumps({"name": name, **told}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main(Path(sys.argv[1]), int(sys.argv[2]))
