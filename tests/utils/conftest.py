"""A whole run in a second: the real module, loaders and trainer around a network of a few weights."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dataloaders.batch import Batch, DataSpec
from dataloaders.contracts import Outlook, Part, Source, Split
from dataloaders.datamodule import WaveData
from dataloaders.normalise import PrepareConfig
from models.contracts import Backbone, Decoder, Encoder
from models.network import Network
from tasks.contracts import Scores, StepOutput, Task
from tasks.module import WaveModule
from tasks.start import start
from utils.config import CheckpointConfig, LoaderConfig, LoggerConfig, PicturesConfig, TrainConfig, TrainerConfig
from utils.freezing import Freezing
from utils.rng import Draw
from utils.start_table import PartStart

SPEC = DataSpec(channels=3, samples=64)


@final
class TinyEncoder(Encoder):
    stride, d_features, d_out, causal = 4, 12, 5, True

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 5)

    def features(self, wave: Tensor) -> Tensor:
        return wave.unflatten(1, (-1, 4)).flatten(2)

    def project(self, features: Tensor) -> Tensor:
        return self.linear(features)


@final
class TinyBackbone(Backbone):
    d_in, d_out, causal = 5, 5, True

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(5, 5), nn.Dropout(0.2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.linear(tokens))

    def describe(self) -> str:
        return "kernels=native, since this is a test"


@final
class TinyDecoder(Decoder):
    d_out, causal = 3, True

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 12)

    def forward(self, context: Tensor, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.linear(context).unflatten(2, (4, 3)).flatten(1, 2)


@final
class TinyTask(Task):
    """Repeat the wave; ``draw_figures`` may be replaced."""

    scores: ClassVar[Scores] = Scores.samples
    monitor: ClassVar[tuple[str, str]] = ("val/accuracy", "max")

    def __init__(self) -> None:
        super().__init__()
        self.draw_figures: Callable[[], dict[str, Figure]] = lambda: {"example": Figure()}
        self.modes: list[bool] = []

    def step(self, net: Network, batch: Batch, draw: Draw) -> StepOutput:
        error = (net(batch.wave) - batch.wave).square().mean()
        return StepOutput(error, torch.tensor(float(batch.valid.numel())), {"accuracy": (-error).exp().detach()})

    def figures(self, net: Network, batch: Batch, draw: Draw) -> dict[str, Figure]:
        self.modes.append(net.training)
        torch.rand(7)  # a picture that uses the generators
        return self.draw_figures()


@final
class TinyPart(Part):
    spec = SPEC

    def __init__(self, traces: int) -> None:
        self.traces = traces

    def __len__(self) -> int:
        return self.traces

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        index = torch.tensor([position for _, position in keys])
        time = torch.arange(SPEC.samples)[None, :, None] * (1 + torch.arange(3))
        wave = torch.sin(time * (0.1 + 0.01 * index[:, None, None]))
        everything = torch.ones(wave.shape[:2], dtype=torch.bool)
        epoch = torch.tensor([epoch for epoch, _ in keys])
        return Batch(wave, everything, torch.ones(len(keys), 3, dtype=torch.bool), index, epoch)


@final
class TinySource(Source):
    spec = SPEC

    @classmethod
    def outlook(cls, cfg: Any) -> Outlook:
        return Outlook(SPEC, 24, "sines", stored=False)

    def part(self, split: Split) -> Part:
        return TinyPart(24 if split is Split.train else 8)

    def describe(self) -> str:
        return "sines [24 of them]"


@dataclasses.dataclass
class Tiny:
    """The pieces of a run of 6 steps an epoch."""

    config: dict[str, Any]
    module: WaveModule
    data: WaveData

    @property
    def starts(self) -> list[PartStart]:
        """Fresh weights, everything trains."""
        return start(self.module, self.config, resumes=False)[0]

    @property
    def freezing(self) -> Freezing:
        """Nothing is frozen."""
        return Freezing([], None)


def tiny(**trainer: Any) -> Tiny:
    """A fresh run; the same weights each time."""
    settings = {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 2, **trainer}
    sections = {
        "train": TrainConfig(),
        "loader": LoaderConfig(batch_size=4, num_workers=0),
        "trainer": TrainerConfig(**settings),
        "logger": LoggerConfig(tensorboard=False),
        "checkpoint": CheckpointConfig(save_top_k=2),
        "pictures": PicturesConfig(traces=2),
    }
    config: dict[str, Any] = {"experiment_name": "group/tiny", "run_id": "one", "seed": 1, "eval_mask_seed": 2}
    config |= {name: dataclasses.asdict(section) for name, section in sections.items()}
    names = {"encoder": "linear", "model": "identity", "decoder": "linear", "task": "contrastive", "scheduler": "constant"}
    config |= {name: {"_name_": value} for name, value in names.items()}
    config["model"]["checkpoint_path"] = None
    config |= {"optimizer": {"_name_": "sgd", "lr": 0.05}, "loss": {"_name_": "info_nce", "count": 100}}
    config |= {"quantizer": {"_name_": "none"}, "dataset": {"_name_": "synthetic"}}
    torch.manual_seed(3)
    network = Network(TinyEncoder(), TinyBackbone(), TinyDecoder())
    module = WaveModule(network, TinyTask(), config=config, spec={}, prepare_cfg=PrepareConfig())
    return Tiny(config, module, WaveData(TinySource(), LoaderConfig(batch_size=4, num_workers=0), seed=1))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of a run; Lightning changes warning filters and Ctrl-C, which are given back."""
    import signal
    import warnings

    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job, as CI may be, starts with it ignored
    with warnings.catch_warnings():
        yield tmp_path / "runs" / "group" / "tiny" / "one"
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def make() -> Callable[..., Tiny]:
    """See :func:`tiny`."""
    return tiny
