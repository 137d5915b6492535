"""A U-Net of transformer layers as one would write it from PyTorch's parts: a peer of ``benchmarks.step_gpu``."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.contracts import Backbone


class TransformerUNet(Backbone):
    """Stages of pre-norm layers (``nn.TransformerEncoderLayer``, scaled_dot_product_attention) with pools and skips.

    Args:
        d_model: D of the first stage; each way down doubles it.
        layers: a stage.
        pool: tokens folded into one at each way down.
        heads: of every stage; must divide D.
    """

    causal = False

    def __init__(self, d_model: int, layers: int, pool: Sequence[int], heads: int) -> None:
        super().__init__()
        self.d_in = self.d_out = d_model
        self.pool = list(pool)
        widths = [d_model * 2**j for j in range(len(pool) + 1)]

        def stage(width: int) -> nn.Sequential:
            own = {"dim_feedforward": 4 * width, "dropout": 0.1, "activation": "gelu", "batch_first": True, "norm_first": True}
            return nn.Sequential(*(nn.TransformerEncoderLayer(width, heads, **own) for _ in range(layers)))

        self.down = nn.ModuleList(stage(width) for width in widths[:-1])
        self.fold = nn.ModuleList(nn.Linear(p * w, 2 * w) for p, w in zip(pool, widths, strict=False))
        self.centre = stage(widths[-1])
        self.unfold = nn.ModuleList(nn.Linear(2 * w, p * w) for p, w in zip(pool, widths, strict=False))
        self.up = nn.ModuleList(stage(width) for width in widths[:-1])
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``B T D`` to context ``B T D``."""
        T = tokens.shape[1]
        x, skips = F.pad(tokens, (0, 0, 0, -T % math.prod(self.pool))), []
        for p, stage, fold in zip(self.pool, self.down, self.fold, strict=True):
            x = stage(x)
            skips.append(x)
            x = fold(x.reshape(x.shape[0], -1, p * x.shape[2]))
        x = self.centre(x)
        for stage, unfold, skip in zip(reversed(self.up), reversed(self.unfold), reversed(skips), strict=True):
            x = stage(unfold(x).reshape(skip.shape) + skip)
        return self.norm(x)[:, :T]
