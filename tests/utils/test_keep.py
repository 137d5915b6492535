"""A run that is killed while one best checkpoint takes another's place ends with the files of one that was not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from killed_runs import differences
from pytorch_lightning.callbacks import ModelCheckpoint

from utils import checkpoint, runlog
from utils.checkpoint_io import WholeCheckpoints
from utils.keep import LastCheckpoint
from utils.metrics_file import read

REAL = WholeCheckpoints.remove_checkpoint


class KilledError(Exception):
    """Stands for a kill: nothing is saved on the way out. ``tests/killed_runs.py`` has the real one."""


def trained(make: Callable[..., Any], name: str, top: int, every: int | None, resume: str = "", **settings: Any) -> Any:
    """A run in its folder, which goes on from the newest checkpoint there, or from the one that is named; its trainer."""
    run = make(log_every_n_steps=1, **settings)
    run.config |= {"run_id": name}
    run.config["pictures"]["enabled"] = False
    run.config["checkpoint"] |= {"every_n_train_steps": every, "save_top_k": top}
    folder = runlog.folder(run.config) / "checkpoints"
    trainer = runlog.trainer(run.config, run.module)
    start = str(checkpoint.find(folder / resume)) if folder.exists() or resume else None
    trainer.fit(run.module, run.data, ckpt_path=start, weights_only=True)
    return trainer


def killed(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, removal: int, *words: Any, **settings: Any) -> bool:
    """Train until a best checkpoint is about to be removed for the so-manieth time; False where it never is."""
    countdown = iter(range(removal - 1, -1, -1))

    def fall(self: WholeCheckpoints, path: str | Path) -> None:
        if next(countdown) == 0:
            raise KilledError
        REAL(self, path)

    monkeypatch.setattr(WholeCheckpoints, "remove_checkpoint", fall)
    try:
        trained(make, *words, **settings)
    except KilledError:
        return True
    finally:
        monkeypatch.setattr(WholeCheckpoints, "remove_checkpoint", REAL)
    return False


def left(place: Path, trainer: Any) -> dict[str, Any]:
    """What a run leaves: its files by name, its weights and optimizer, validations, the best."""
    folder = place / "checkpoints"
    keeper = next(each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint))
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    curves = read(place / "metrics.csv")
    return {
        "files": " ".join(sorted(path.name for path in folder.iterdir())),
        "best": " ".join(f"{Path(path).name} {float(score)}" for path, score in sorted(keeper.best_k_models.items())),
        "validations": str({name: curve for name, curve in curves.items() if name.startswith("val/")}),
        **{name: saved[name] for name in ("state_dict", "optimizer_states", "generators", "global_step", "epoch")},
    }


@pytest.mark.parametrize(
    ("top", "every", "settings", "replaced"),
    [
        pytest.param(1, 3, {"max_epochs": 2, "val_check_interval": 3}, 3, id="the last one saved before"),
        pytest.param(2, None, {"max_epochs": 2, "val_check_interval": 3}, 2, id="the last one saved after"),
        pytest.param(1, None, {"max_epochs": -1, "max_steps": 12, "val_check_interval": 3}, 3, id="max_steps"),
    ],
)
def test_of_two_bests_that_a_kill_leaves_the_resumed_run_keeps_one(
    make: Callable[..., Any],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    top: int,
    every: int | None,
    settings: dict[str, Any],
    replaced: int,
) -> None:
    whole = left(place.with_name("whole"), trained(make, "whole", top, every, **settings))
    removal = 1
    while killed(make, monkeypatch, removal, name := f"killed_{removal}", top, every, **settings):
        folder = place.with_name(name) / "checkpoints"
        assert len(list(folder.glob("step_*.ckpt"))) == top + 1
        again = left(place.with_name(name), trained(make, name, top, every, **settings))
        assert differences(whole, again) == [], removal
        removal += 1
    assert removal == replaced + 1


def test_what_lies_ahead_of_a_resumed_run_stays_until_it_is_there_and_for_good_if_it_is_better(
    make: Callable[..., Any], place: Path
) -> None:
    trained(make, "one", 1, 3, max_epochs=1, val_check_interval=2)
    folder = place / "checkpoints"
    worse, better = (folder / f"step_000007-val_accuracy_{value}.ckpt" for value in ("0.000", "0.999"))
    (best,) = folder.glob("step_*.ckpt")
    own = folder / best.name.replace(".ckpt", "-figure-3.ckpt")
    for file in (worse, better, own):
        file.write_bytes((folder / "last.ckpt").read_bytes())
    trained(make, "one", 1, 3, "last.ckpt", max_epochs=1, val_check_interval=2)
    assert worse.exists()
    trained(make, "one", 1, 3, "last.ckpt", max_epochs=2, val_check_interval=2)
    assert not worse.exists()
    assert better.exists()
    assert own.exists()  # no name of ours


def test_who_goes_back_to_an_older_best_finds_the_last_as_it_was(make: Callable[..., Any], place: Path) -> None:
    trained(make, "one", 3, 2, max_epochs=2, val_check_interval=2)
    folder = place / "checkpoints"
    last = (folder / "last.ckpt").read_bytes()
    older = min(folder.glob("step_*.ckpt"))
    begin = SimpleNamespace(is_global_zero=True, ckpt_path=str(older))
    LastCheckpoint(place, 2).on_fit_start(begin, None)  # type: ignore[arg-type]
    assert (folder / "last.ckpt").read_bytes() == last
    (folder / "last.ckpt").unlink()  # a run that was killed before it wrote one
    LastCheckpoint(place, 2).on_fit_start(begin, None)  # type: ignore[arg-type]
    assert (folder / "last.ckpt").read_bytes() == older.read_bytes()


def test_a_run_goes_on_from_a_copy_where_its_folder_is_gone(make: Callable[..., Any], place: Path, tmp_path: Path) -> None:
    trained(make, "one", 1, 3, max_epochs=1, val_check_interval=2)
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes((place / "checkpoints" / "last.ckpt").read_bytes())
    shutil.rmtree(place)
    trained(make, "one", 1, 3, str(copy), max_epochs=2, val_check_interval=2)
    assert (place / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_in_a_folder_that_was_moved_no_best_is_removed(make: Callable[..., Any], place: Path) -> None:
    trained(make, "one", 2, 3, max_epochs=1, val_check_interval=2)
    before = {file.name for file in (place / "checkpoints").glob("step_*.ckpt")}
    moved = place.rename(place.with_name("moved")) / "checkpoints"
    trained(make, "moved", 2, 3, max_epochs=2, val_check_interval=2)
    assert before <= {file.name for file in moved.glob("step_*.ckpt")}


def test_the_bests_are_saved_under_lightning_s_own_name_as_earlier_versions_did(make: Callable[..., Any], place: Path) -> None:
    trained(make, "one", 1, 3, max_epochs=1)
    names = torch.load(place / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    assert any(name.startswith("ModelCheckpoint{") for name in names)
