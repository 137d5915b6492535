"""eqtransformer: EQTransformer (Mousavi et al. 2020) as SeisBench has it, for comparison in the same harness."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from models.baselines.seisbench import networks
from models.contracts import BACKBONES, Backbone, BackboneConfig
from utils.errors import demand


@dataclass(kw_only=True)
class EQTransformerConfig(BackboneConfig):
    """Settings of :class:`EQTransformer`."""

    channels: int = 3
    """C, components of the wave it reads: 3 for ZNE, 1 for Z."""
    lstm_blocks: int = 3
    """Bidirectional LSTM blocks; 3 is the published network's size in SeisBench."""
    dropout: float = 0.1
    """In residual, LSTM and transformer blocks."""
    detection: bool = True
    """Train the detection head, which loss=eqtransformer reads; false freezes it, for losses of P, S and noise alone."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.channels in (1, 3), f"channels = {self.channels}: must be 3 (ZNE) or 1 (Z)"),
            (self.lstm_blocks >= 1, f"lstm_blocks = {self.lstm_blocks}: must be at least 1"),
            (0 <= self.dropout < 1, f"dropout = {self.dropout}: must be in [0, 1)"),
        )


@BACKBONES.register("eqtransformer", EQTransformerConfig)
@final
class EQTransformer(Backbone):
    """The wave itself (``encoder=identity``) to class scores P, S, N (``decoder=identity``); 376,935 parameters.

    Its three heads are logits d, p, s of independent events: an earthquake lasts, P arrives, S arrives. As scores it gives
    ``(p + d, s + d, d)``. Their softmax is that of ``(p, s, 0)``, which are the heads' own probabilities given that P and S do
    not arrive at once: σ(p)(1 − σ(s)) : σ(s)(1 − σ(p)) : (1 − σ(p))(1 − σ(s)). Where the other phase is improbable, as it is
    anywhere but at an onset, P is σ(p). Nothing is lost: d is the third score, and ``loss=eqtransformer`` takes the heads
    apart again and trains them as published. Evaluation reads P, S and noise, as of every picker; d trains the trunk.

    Windows of any length: paddings and crops are those that SeisBench would choose for a network of that length. Computed in
    float32 under autocast too: its normalisation adds 1e-14 to variances. Batch normalisation has no mask: it sees padding and
    gaps as zeros.

    Args:
        cfg: components, depth, dropout, detection.

    Attributes:
        net: SeisBench's ``EQTransformer``.
    """

    causal = False

    def __init__(self, cfg: EQTransformerConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.d_in, self.d_out = cfg.channels, 3
        self.net = networks().EQTransformer(in_channels=cfg.channels, lstm_blocks=cfg.lstm_blocks, drop_rate=cfg.dropout)
        for attention in (self.net.transformer_d0.attention, self.net.transformer_d.attention, *self.net.pick_attentions):
            attention.ba.requires_grad_(False)  # added to all scores before a softmax: without any effect
        if not cfg.detection:
            self.net.decoder_d.requires_grad_(False)
            self.net.conv_d.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Wave ``B L C`` to scores ``B L 3`` float32 (see the class)."""
        self._fit(tokens.shape[1])
        with torch.autocast(tokens.device.type, enabled=False):
            detection, p, s = self.net(tokens.transpose(1, 2).float(), logits=True)
        if not self.cfg.detection:
            detection = torch.zeros_like(p)
        return torch.stack([p + detection, s + detection, detection], -1)

    def _fit(self, samples: int) -> None:
        """Give the layers the paddings and crops of a network for windows of ``samples``; weights do not depend on it."""
        if samples == self.net.in_samples:
            return
        with torch.device("meta"):
            other = networks().EQTransformer(in_channels=self.cfg.channels, in_samples=samples, lstm_blocks=1)
        self.net.in_samples = samples
        self.net.pred_sample = (0, samples)
        self.net.encoder.paddings = other.encoder.paddings
        for decoder in (self.net.decoder_d, *self.net.pick_decoders):
            decoder.crops = other.decoder_d.crops
