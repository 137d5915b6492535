"""A run's folder, its checkpoints, its pictures, its end."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf

import train
from tasks.pictures import Pictures
from utils import runlog
from utils.errors import CheckpointError, ConfigError
from utils.metrics_file import read
from utils.preemption import Stopped

PNG = b"\x89PNG"


def fit(run: Any, *callbacks: pl.Callback, resume: str | None = None, pictures: bool = True) -> pl.Trainer:
    torch.manual_seed(4)
    run.config["pictures"]["enabled"] = pictures
    more = [Pictures(run.config)] if pictures else []
    trainer = runlog.trainer(run.config, run.module, [*more, *callbacks])
    runlog.greet(run.config, run.module, run.data, trainer, run.starts)
    trainer.fit(run.module, run.data, ckpt_path=runlog.resumable(resume), weights_only=True)
    return trainer


def weights(run: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in run.module.parameters()])


class Press(pl.Callback):
    """Presses Ctrl-C in the middle of a step."""

    def __init__(self, step: int, times: int = 1) -> None:
        self.step, self.times = step, times

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        if trainer.global_step + 1 == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


class TestFolder:
    def test_holds_config_curves_checkpoints_and_pictures(self, make: Callable[..., Any], place: Path) -> None:
        run = make(max_epochs=4)
        run.config["logger"]["tensorboard"] = True
        fit(run)
        assert OmegaConf.to_container(OmegaConf.load(place / "config.yaml")) == run.config
        assert (place / "config.yaml").read_text().startswith("# kernels  kernels=native, since this is a test\n")
        curves = read(place / "metrics.csv")
        assert curves["train/loss"][0] == list(range(2, 25, 2))
        assert curves["val/accuracy"][0] == [6, 12, 18, 24]
        assert {"learning_rate", "samples_per_s", "tokens_per_s", "train/gradient_norm"} <= set(curves)
        assert sorted(file.name for file in place.iterdir()) == [
            "checkpoints",
            "config.yaml",
            "metrics.csv",
            "pictures",
            "tensorboard",
        ]
        assert any(file.stat().st_size > 500 for file in (place / "tensorboard").glob("events*"))
        for name in ("curves", "example"):
            assert (place / "pictures" / f"{name}.png").read_bytes().startswith(PNG)

    def test_keeps_the_best_by_the_tasks_metric_and_the_last(self, make: Callable[..., Any], place: Path) -> None:
        fit(make(max_epochs=4))
        steps, values = read(place / "metrics.csv")["val/accuracy"]
        ranked = sorted(zip(values, steps, strict=True), reverse=True)[:2]
        expected = {f"step_{step:06d}-val_accuracy_{value:.3f}.ckpt" for value, step in ranked}
        expected |= {"last.ckpt", "last-1.ckpt"}
        assert {file.name for file in (place / "checkpoints").iterdir()} == expected | {f"{name}.sha256" for name in expected}
        steps = [
            torch.load(place / "checkpoints" / name, weights_only=True)["global_step"] for name in ("last.ckpt", "last-1.ckpt")
        ]
        assert steps == [24, 18]

    def test_last_is_renewed_by_steps_where_asked(self, make: Callable[..., Any], place: Path) -> None:
        seen: list[int] = []

        class Look(pl.Callback):
            def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
                file = place / "checkpoints" / "last.ckpt"
                seen.append(torch.load(file, weights_only=True)["global_step"] if file.is_file() else 0)

        run = make(max_epochs=1)
        run.config["checkpoint"]["every_n_train_steps"] = 4
        fit(run, Look(), pictures=False)
        assert seen == [0, 0, 0, 0, 4, 4]
        assert torch.load(place / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6

    def test_a_trial_run_writes_nothing(self, make: Callable[..., Any], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = make(fast_dev_run=True)
        run.config["logger"]["tensorboard"] = True
        trainer = fit(run)
        runlog.farewell(run.config, run.module, trainer)
        assert not list(place.parent.parent.parent.rglob("*.*"))
        assert "Nothing was written" in capsys.readouterr().out

    def test_the_first_bound_ends_the_run(self, make: Callable[..., Any], place: Path) -> None:
        assert fit(make(max_steps=8, max_epochs=1), pictures=False).global_step == 6

    def test_steps_alone_may_bound_a_run(self, make: Callable[..., Any], place: Path) -> None:
        trainer = fit(make(max_steps=8, max_epochs=-1, val_check_interval=4), pictures=False)
        assert trainer.global_step == 8
        assert read(place / "metrics.csv")["val/loss"][0] == [4, 8]


class TestResume:
    @pytest.mark.parametrize(("stop", "accumulate"), [(3, 1), (6, 1), (8, 1), (2, 2)])
    def test_interrupted_and_resumed_equals_undisturbed(
        self, make: Callable[..., Any], place: Path, stop: int, accumulate: int
    ) -> None:
        whole = make(accumulate_grad_batches=accumulate)
        fit(whole, pictures=False)
        undisturbed = read(place / "metrics.csv")
        (place / "metrics.csv").unlink()
        with pytest.raises(Stopped):
            fit(make(accumulate_grad_batches=accumulate), Press(stop), pictures=False)
        assert torch.load(place / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == stop
        resumed = make(accumulate_grad_batches=accumulate)
        trainer = fit(resumed, resume=str(place / "checkpoints" / "last.ckpt"), pictures=False)
        assert trainer.global_step == 12 // accumulate
        assert torch.equal(weights(whole), weights(resumed))
        again = read(place / "metrics.csv")
        assert again["val/loss"] == undisturbed["val/loss"]
        assert again["train/loss"] == undisturbed["train/loss"]

    def test_a_finished_run_can_be_trained_longer(self, make: Callable[..., Any], place: Path) -> None:
        long = make(max_epochs=4)
        fit(long, pictures=False)
        fit(make(), pictures=False)
        longer = make(max_epochs=4)
        fit(longer, resume=str(place / "checkpoints" / "last.ckpt"), pictures=False)
        assert torch.equal(weights(long), weights(longer))

    def test_nothing_to_resume(self, place: Path) -> None:
        assert runlog.resumable(None) is None
        with pytest.raises(CheckpointError, match="no such file"):
            runlog.resumable("nowhere")


class TestInterrupt:
    def test_finishes_the_step_saves_and_says_how_to_go_on(
        self, make: Callable[..., Any], place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["train.py", "++loader.batch_size=4", "experiment=group/tiny"])
        run, press = make(), Press(5)
        with pytest.raises(Stopped):
            fit(run, press)
        last = place / "checkpoints" / "last.ckpt"
        saved = torch.load(last, weights_only=True)
        assert saved["global_step"] == 5
        assert torch.equal(saved["state_dict"]["network.encoder.linear.weight"], run.module.network.encoder.linear.weight)
        trainer = run.module.trainer
        runlog.farewell(run.config, run.module, trainer)
        out, err = capfd.readouterr()
        assert "Stopping after this step" in err
        assert "Stopped early" in out
        relative = last.relative_to(Path.cwd())
        assert f"python train.py loader.batch_size=4 experiment=group/tiny train.ckpt_path={relative}\n" in out
        assert "never validated" in out

    def test_the_command_exits_with_130(
        self, make: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = make()
        press = Press(5)
        monkeypatch.setattr(
            run.module,
            "on_before_optimizer_step",
            lambda opt: press.on_before_optimizer_step(run.module.trainer, run.module, opt),
        )
        monkeypatch.setattr("tasks.build.check", lambda config: None)
        monkeypatch.setattr("tasks.build.adopt_architecture", lambda config, stated: config)
        monkeypatch.setattr("tasks.build.build", lambda config, resumes: run)
        with pytest.raises(SystemExit) as end:
            train.train(run.config, [])
        assert end.value.code == 130
        assert "Stopped early" in capsys.readouterr().out

    def test_twice_stops_at_once(self, make: Callable[..., Any], place: Path) -> None:
        run = make()
        with pytest.raises(SystemExit) as end:
            fit(run, Press(5, times=2))
        assert runlog.interrupted(end.value)
        assert not (place / "checkpoints" / "last.ckpt").exists()

    def test_other_exits_are_no_interrupts(self) -> None:
        assert not runlog.interrupted(SystemExit(1))

    def test_ctrl_c_is_given_back(self, make: Callable[..., Any], place: Path) -> None:
        before = signal.getsignal(signal.SIGINT)
        fit(make(max_epochs=1), pictures=False)
        assert signal.getsignal(signal.SIGINT) is before


class TestPictures:
    def test_leave_training_as_it_was(self, make: Callable[..., Any], place: Path) -> None:
        with_pictures, without = make(), make()
        fit(with_pictures)
        fit(without, pictures=False)
        assert torch.equal(weights(with_pictures), weights(without))
        assert with_pictures.module.task.modes
        assert not any(with_pictures.module.task.modes)

    def test_one_that_fails_is_told_and_training_goes_on(self, make: Callable[..., Any], place: Path) -> None:
        def fail() -> dict[str, Figure]:
            raise ValueError("nothing hidden in this trace")

        run = make()
        run.module.task.draw_figures = fail
        with pytest.warns(UserWarning, match="nothing hidden in this trace"):
            trainer = fit(run)
        assert trainer.global_step == 12
        assert [file.name for file in (place / "pictures").iterdir()] == ["curves.png"]


class TestTrainer:
    def test_refuses_devices_that_are_not_there(self, make: Callable[..., Any], place: Path) -> None:
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        run = make(accelerator="gpu")
        with pytest.raises(ConfigError, match="no CUDA device"):
            runlog.trainer(run.config, run.module)

    @pytest.mark.parametrize(("asked", "got"), [("auto", "32-true"), ("bf16-mixed", "bf16-mixed"), ("32-true", "32-true")])
    def test_precision_by_name(self, make: Callable[..., Any], place: Path, asked: str, got: str) -> None:
        run = make(precision=asked)
        assert runlog.trainer(run.config, run.module).precision == got

    def test_several_processes_mean_plain_ddp(self, make: Callable[..., Any], place: Path) -> None:
        run = make(devices=2)
        trainer = runlog.trainer(run.config, run.module)
        assert isinstance(trainer.strategy, pl.strategies.DDPStrategy)
        assert "find_unused_parameters" not in trainer.strategy._ddp_kwargs
        assert trainer.world_size == 2


class TestWords:
    def test_greeting_names_what_will_run(
        self, make: Callable[..., Any], place: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = make()
        runlog.greet(run.config, run.module, run.data, runlog.trainer(run.config, run.module), run.starts)
        out = capsys.readouterr().out
        for text in (
            "group/tiny",
            "sines [24 of them]",
            "24 traces",
            "8 to validate",
            "12 steps (2 epochs of 6)",
            "since this is a test",
        ):
            assert text in out

    def test_farewell_says_what_was_learnt(
        self, make: Callable[..., Any], place: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = make()
        trainer = fit(run)
        capsys.readouterr()
        runlog.farewell(run.config, run.module, trainer)
        out = capsys.readouterr().out
        _, values = read(place / "metrics.csv")["val/accuracy"]
        assert f"among 100 wrong ones {max(values):.1%} of the time (guessing: 1.0%)" in out
        for text in ("Finished", "metrics.csv", "last.ckpt", "pictures/", "model.checkpoint_path=", "trainer.max_epochs=4"):
            assert text in out
