"""Stopwatch, progress, metrics.csv, curves, loggers: each by itself."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from composing import composed
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from utils import runlog
from utils.console import count, duration
from utils.curves import draw, save, smooth
from utils.loggers import loggers, sync_command, wandb_offline
from utils.metrics_file import MetricsFile, read
from utils.pace import Pace, Throughput
from utils.progress import RunProgress


class Clock:
    """Seconds that pass only when told."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now, self.tick = 100.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


class TestPace:
    @given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 10.0), st.integers(1, 500)), min_size=1, max_size=20))
    @settings(deadline=None, max_examples=50)
    def test_pauses_do_not_count(self, events: list[tuple[bool, float, int]]) -> None:
        clock = Clock()
        pace, running, samples = Pace(clock), 0.0, 0
        pace.resume()
        for paused, seconds, batch in events:
            pace.pause() if paused else pace.resume()
            clock.now += seconds
            if not paused:
                pace.add(batch)
                running, samples = running + seconds, samples + batch
        assert pace.seconds == pytest.approx(running)
        assert pace.rate == pytest.approx(samples / running if running else 0.0)
        assert pace.elapsed == pytest.approx(sum(seconds for _, seconds, _ in events))

    def test_a_lap_is_since_the_last(self) -> None:
        clock = Clock()
        pace = Pace(clock)
        pace.add(1_000_000)  # warm-up
        pace.resume()
        for samples, expected in ((10, 5.0), (40, 20.0)):
            pace.add(samples)
            clock.now += 2.0
            assert pace.lap() == pytest.approx(expected)

    def test_throughput_of_a_run(self, make: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Batches of 4 windows of 64 samples, one second each, validation an hour: 4 samples and 64 tokens a second."""
        clock = Clock()
        throughput = Throughput(clock)
        monkeypatch.setattr(runlog, "Throughput", lambda: throughput)
        run = make()
        run.config["pictures"]["enabled"] = False
        train, validate = run.module.training_step, run.module.validation_step
        monkeypatch.setattr(
            run.module,
            "training_step",
            lambda batch, batch_idx: (clock.__setattr__("now", clock.now + 1), train(batch, batch_idx))[1],
        )
        monkeypatch.setattr(
            run.module,
            "validation_step",
            lambda batch, batch_idx: (clock.__setattr__("now", clock.now + 3600), validate(batch, batch_idx))[1],
        )
        runlog.trainer(run.config, run.module).fit(run.module, run.data)
        curves = read(place / "metrics.csv")
        assert curves["samples_per_s"][1] == pytest.approx([4.0] * 6)
        assert curves["tokens_per_s"][1] == pytest.approx([64.0] * 6)
        assert curves["learning_rate"][1] == pytest.approx([0.05] * 6)


class TestProgress:
    def follow(self, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, out: Console, tick: float) -> None:
        run = make()
        run.config["pictures"]["enabled"] = False
        clock = Clock(tick)
        monkeypatch.setattr(runlog, "RunProgress", lambda throughput, monitor: RunProgress(throughput, monitor, out, clock))
        runlog.trainer(run.config, run.module).fit(run.module, run.data)

    def test_plain_lines_in_a_log(self, make: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = io.StringIO()
        self.follow(make, monkeypatch, Console(file=text, width=120), tick=20.0)
        lines = text.getvalue().splitlines()
        assert "\x1b" not in text.getvalue()
        steps = [int(line.split()[1].split("/")[0]) for line in lines]
        assert steps == sorted(steps)
        assert steps[-1] == 12
        assert all("loss" in line for line in lines)
        assert all("left" in line for line in lines if 2 < int(line.split()[1].split("/")[0]) < 12)
        assert "val/accuracy" in lines[-1]

    def test_few_lines_where_steps_are_quick(
        self, make: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = io.StringIO()
        self.follow(make, monkeypatch, Console(file=text, width=120), tick=0.001)
        assert len(text.getvalue().splitlines()) <= 4  # one at each of two validations, one at the end

    def test_one_bar_for_the_run_in_a_terminal(
        self, make: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = io.StringIO()
        self.follow(make, monkeypatch, Console(file=text, width=100, force_terminal=True), tick=1.0)
        assert "12/12" in text.getvalue()
        assert "6/6" not in text.getvalue()
        assert "v_num" not in text.getvalue()

    def test_time_left(self) -> None:
        clock = Clock()
        progress = RunProgress(Throughput(), "val/loss", Console(file=io.StringIO()), clock)
        progress._total, progress._first, progress._began = 110, 10, clock.now
        assert progress.left(11) is None
        clock.now += 30.0
        assert progress.left(31) == pytest.approx(1.5 * 79)


class TestMetricsFile:
    @given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.floats(-1e6, 1e6), min_size=1), min_size=1, max_size=12))
    @settings(deadline=None, max_examples=30)
    def test_gives_back_what_was_logged(self, tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, float]]) -> None:
        path = tmp_path_factory.mktemp("metrics") / "metrics.csv"
        log = MetricsFile(path)
        for step, row in enumerate(rows):
            log.log_metrics(row, step)
        curves = read(path)
        for name in {name for row in rows for name in row}:
            expected = [(step + 1, row[name]) for step, row in enumerate(rows) if name in row]
            assert curves[name][0] == [step for step, _ in expected]
            assert curves[name][1] == pytest.approx([value for _, value in expected], rel=1e-6)

    def test_a_resumed_run_appends_and_replaces_what_it_repeats(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.csv"
        first = MetricsFile(path)
        for step in range(6):
            first.log_metrics({"loss": float(step), "old": 1.0}, step)
        second = MetricsFile(path)
        second.log_metrics({"loss": 40.0, "new": 2.0}, 3)
        assert read(path) == {"loss": ([1, 2, 3, 4], [0.0, 1.0, 2.0, 40.0]), "old": ([1, 2, 3], [1.0] * 3), "new": ([4], [2.0])}

    def test_columns_start_with_step_and_epoch(self, tmp_path: Path) -> None:
        log = MetricsFile(tmp_path / "metrics.csv")
        log.log_metrics({"z": 1.0, "epoch": 0}, 0)
        log.log_metrics({"a": 1.0, "epoch": 0}, 1)
        with (tmp_path / "metrics.csv").open(newline="") as file:
            assert next(csv.reader(file)) == ["step", "epoch", "z", "a"]

    def test_damage_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "metrics.csv").write_text("step,loss\n1,0.5\n2,nan\n3,oops\n4\n,7\n5,0.25\n")
        assert read(tmp_path / "metrics.csv") == {"loss": ([1, 5], [0.5, 0.25])}
        assert read(tmp_path / "absent.csv") == {}


class TestCurves:
    EVERY = ("train/loss", "val/loss", "train/accuracy", "val/accuracy", "learning_rate", "val/perplexity", "val/mae")

    @pytest.mark.parametrize("missing", [(), ("val/loss", "val/accuracy"), ("train/accuracy", "val/accuracy"), EVERY[1:], EVERY])
    def test_draws_what_there_is(self, tmp_path: Path, missing: tuple[str, ...]) -> None:
        curves = {name: ([1, 2, 3], [0.3, 0.2, 0.1]) for name in self.EVERY if name not in missing}
        figure = draw(curves)
        titles = {axis.get_title(loc="left") for axis in figure.axes if axis.lines}
        assert ("loss" in titles) == ("train/loss" in curves or "val/loss" in curves)
        assert ("mae" in titles) == ("val/mae" in curves)
        assert "temperature" not in titles
        save(figure, tmp_path / "pictures" / "curves.png")
        assert [file.name for file in (tmp_path / "pictures").iterdir()] == ["curves.png"]

    @given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.floats(0.01, 0.6))
    @settings(deadline=None, max_examples=40)
    def test_smoothing_is_a_centred_mean(self, values: list[float], share: float) -> None:
        half = max(1, int(len(values) * share))
        expected = [np.mean(values[max(0, n - half) : n + half + 1]) for n in range(len(values))]
        assert smooth(values, share) == pytest.approx(np.array(expected), abs=1e-6)


class TestLoggers:
    @pytest.fixture(autouse=True)
    def _no_key(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def test_wandb_is_offline_without_a_key(self) -> None:
        assert wandb_offline()

    def test_wandb_is_online_with_a_key(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
        assert not wandb_offline()
        (tmp_path / "netrc").unlink()
        monkeypatch.setenv("WANDB_API_KEY", "secret")
        assert not wandb_offline()
        monkeypatch.setenv("WANDB_MODE", "offline")
        assert wandb_offline()

    def test_wandb_writes_into_the_run_folder(self, make: Callable[..., Any], place: Path) -> None:
        run = make()
        run.config["logger"]["wandb"] = True
        found = loggers(run.config, place)[-1]
        assert found._offline  # type: ignore[attr-defined]
        assert found.save_dir == str(place)
        assert found.version == "group-tiny-one"
        assert sync_command(place) is None
        (place / "wandb" / "offline-run-1-x").mkdir(parents=True)
        assert sync_command(place) == f"wandb sync {place}/wandb/offline-run-1-x"


class TestTexts:
    @pytest.mark.parametrize(
        ("seconds", "text"), [(0.2, "0 s"), (59, "59 s"), (185, "3:05 min"), (7440, "2:04 h"), (273_600, "3 d 4 h")]
    )
    def test_durations(self, seconds: float, text: str) -> None:
        assert duration(seconds) == text

    @pytest.mark.parametrize(("number", "text"), [(950, "950"), (16_520, "16.5 k"), (19_884_528, "19.88 M"), (2e9, "2.00 G")])
    def test_counts(self, number: float, text: str) -> None:
        assert count(number) == text


def test_reading_the_bar_moves_no_generator(make: Callable[..., Any], place: Path) -> None:
    """With and without the bar a run computes the same."""
    results = []
    for shown in (True, False):
        run = make(enable_progress_bar=shown)
        run.config["pictures"]["enabled"] = False
        torch.manual_seed(4)
        runlog.trainer(run.config, run.module).fit(run.module, run.data)
        results.append(torch.cat([parameter.detach().flatten() for parameter in run.module.parameters()]))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("asked", "device", "batches", "how"),
    [
        (True, "cuda", 10, (True, True)),
        (True, "cpu", 10, (False, True)),
        (False, "cuda", 10**6, None),
        ("auto", "cuda", runlog.WORTH, (True, False)),
        ("auto", "cuda", runlog.WORTH - 1, None),
        ("auto", "cpu", 10**6, None),
    ],
)
def test_what_is_compiled_and_how(
    asked: Any, device: str, batches: int, how: tuple[bool, bool] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Auto: long runs on a GPU, of networks that are one graph, if the compiler can. A GPU replays graphs."""
    monkeypatch.setattr(runlog, "_accelerator", lambda name: device)
    config = composed(f"trainer.compile={asked}", "trainer.max_steps=-1", "trainer.max_epochs=2", "loader.batch_size=8")
    trainer = SimpleNamespace(world_size=2)
    for one_graph in (True, False):
        found: list[tuple[bool, bool]] = []
        network = SimpleNamespace(backbone=SimpleNamespace(one_graph=one_graph))
        module = SimpleNamespace(compile_step=lambda graphs, must, found=found: found.append((graphs, must)), network=network)
        runlog.compile_step(config, module, windows=batches // 2 * 16 + 15, trainer=trainer)  # type: ignore[arg-type]
        assert found == ([how] if how and (one_graph or asked is True) else [])


@pytest.mark.parametrize(("accumulate", "graphs"), [(1, True), (2, False)])
def test_no_graphs_are_replayed_over_gradients_that_accumulate(
    accumulate: int, graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay would overwrite them."""
    monkeypatch.setattr(runlog, "_accelerator", lambda name: "cuda")
    config = composed("trainer.compile=true", f"trainer.accumulate_grad_batches={accumulate}")
    found: list[bool] = []
    module = SimpleNamespace(compile_step=lambda graphs, must: found.append(graphs))
    runlog.compile_step(config, module, windows=1000, trainer=SimpleNamespace(world_size=1))  # type: ignore[arg-type]
    assert found == [graphs]
