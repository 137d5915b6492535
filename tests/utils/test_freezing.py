"""Frozen parts in a trainer: weights, statistics and moments keep still, no dropout, gradients through recurrent layers."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from utils.freezing import Freezing

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # torch to Lightning, not to us
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


class Net(pl.LightningModule):
    """Convolution and batch norm, LSTM, head; steps an optimizer with momentum and weight decay."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.rnn = nn.LSTM(4, 4, 2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(4, 1)
        self.seen: list[tuple[bool, bool, float]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append((self.body.training, self.rnn.training, self.rnn.dropout))
        return self.head(self.rnn(self.body(batch).transpose(1, 2))[0]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=0.01, weight_decay=0.5)


def trained(thaw_epoch: int | None, epochs: int) -> tuple[dict[str, Tensor], Net]:
    """Weights before, and the module after."""
    torch.manual_seed(0)
    net = Net()
    if thaw_epoch is None:
        net.body.requires_grad_(False)
        net.rnn.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Freezing([net.body, net.rnn], thaw_epoch)],
        log_every_n_steps=1,
    )
    trainer.fit(net, DataLoader(torch.randn(6, 1, 16), batch_size=2))  # type: ignore[arg-type]
    return before, net


def still(before: dict[str, Tensor], net: Net) -> set[str]:
    return {name.partition(".")[0] for name, value in net.state_dict().items() if torch.equal(before[name], value)}


def test_parts_that_never_thaw_keep_weights_and_statistics() -> None:
    before, net = trained(None, 2)
    assert still(before, net) == {"body", "rnn"}
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items() if not name.startswith("head"))
    assert set(net.seen) == {(False, True, 0.0)}  # recurrent layers as cuDNN wants them, without their dropout


def test_parts_that_thaw_are_as_still_until_then_and_then_train() -> None:
    before, net = trained(2, 2)
    _, never = trained(None, 2)
    for name, value in net.state_dict().items():
        assert torch.equal(value, never.state_dict()[name]), name
    assert still(before, net) == {"body", "rnn"}
    before, net = trained(2, 3)
    assert net.seen == [(False, True, 0.0)] * 6 + [(True, True, 0.5)] * 3
    assert not still(before, net)
